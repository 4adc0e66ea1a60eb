"""How the API tells what goes wrong: each interface in its own words, all by the same problems."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from darkroom.serve.problems import Problem, problem_of

log = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
Told = Callable[[Problem], tuple[int, Any]]
"""How an interface tells a problem: the status, and what the answer holds."""


def as_problem(error: Exception) -> Problem:
    """Whatever goes wrong with a request, as a problem; one that nobody foresaw is in the log."""
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _CODES.get(error.status_code, "refused"), str(error.detail))
    if isinstance(error, RequestValidationError):
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return Problem(422, "invalid_request", said)
    found = problem_of(error)
    if found.status == 500 and found is not error:
        log.error("a request failed", exc_info=error)
    return found


def answer(problem: Problem) -> Response:
    """A problem as RFC 9457 has it."""
    return JSONResponse(
        problem.to_dict(), problem.status, _headers(problem), media_type="application/problem+json"
    )


def _headers(problem: Problem) -> dict[str, str]:
    return {} if problem.retry_after is None else {"Retry-After": str(int(problem.retry_after))}


def telling(told: Told) -> type[APIRoute]:
    """The routes of an interface that tells its problems so."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(request)
                except Exception as error:
                    problem = as_problem(error)
                    status, content = told(problem)
                    return JSONResponse(content, status, _headers(problem))

            return handled

    return Route
