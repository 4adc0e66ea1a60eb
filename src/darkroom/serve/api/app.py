"""The API as an application (ASGI): its doors, and how it tells what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.errors import DarkroomError
from darkroom.serve.api import native, openai
from darkroom.serve.api.a1111 import routes as a1111
from darkroom.serve.api.answers import answer, as_problem
from darkroom.serve.api.service import Service
from darkroom.serve.api.views import ProblemView
from darkroom.serve.problems import Problem
from darkroom.version import __version__

MOST_BYTES = 64 << 20
"""Of a request's body."""
_ABOUT = """\
Pictures from prompts. Ask for some with POST /v1/jobs, follow them by their events, fetch them from /v1/images; see
docs/service.md.
"""


def make_app(service: Service) -> FastAPI:
    """The application of a service, which it starts and ends with itself."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    problems = {"4XX": {"model": ProblemView}, "5XX": {"model": ProblemView}}
    app = FastAPI(
        title="Darkroom",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # Its page would fetch its scripts from elsewhere.
        redoc_url=None,
        responses={code: {**each, "description": "a problem (RFC 9457)"} for code, each in problems.items()},
    )
    app.state.service = service
    app.include_router(native.router)
    app.include_router(openai.router)
    app.include_router(a1111.router)
    _add_health(app)
    _add_problems(app)
    app.add_middleware(Guard, most_bytes=MOST_BYTES)
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/livez", tags=["service"])
    async def livez() -> dict[str, str]:
        """That the API answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"])
    async def readyz(request: Request) -> Response:
        """Whether pictures can be asked for: 503 while no model is loaded, and once the service is ending."""
        service: Service = request.app.state.service
        ready, facts = await service.ready()
        return JSONResponse(facts, 200 if ready else 503)


def _add_problems(app: FastAPI) -> None:
    async def told(request: Request, error: Exception) -> Response:
        return answer(as_problem(error))

    for kind in (Exception, DarkroomError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, told)


_LOOPBACK = {"localhost"}


class Guard:
    """Lets pass what comes from this machine, means it, and is no larger than it may be.

    No page of the web that a browser here has open may ask for anything, by its own name (an Origin) or by one that it
    has had resolved to this machine (a Host).
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if (problem := self._problem(headers)) is not None:
            await answer(problem)(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _problem(self, headers: Headers) -> Problem | None:
        for name in ("host", "origin"):
            value = headers.get(name)
            if value is not None and not _is_here(value.rpartition("//")[2]):
                return Problem(
                    403, "forbidden", f"the {name} is {value!r}: this service is for this machine alone"
                )
        length = headers.get("content-length", "0")
        return self._too_large() if length.isdecimal() and int(length) > self._most else None

    def _too_large(self) -> Problem:
        return Problem(
            413, "too_large", f"the body is larger than {self._most >> 20} MiB: send less at a time"
        )


def _is_here(address: str) -> bool:
    host = address.rpartition("]")[0].lstrip("[") if address.startswith("[") else address.partition(":")[0]
    if host.lower() in _LOOPBACK:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
