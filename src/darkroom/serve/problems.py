"""What goes wrong, as clients are told it: RFC 9457's problems, each with a code that stays the same."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from darkroom.errors import (
    DarkroomError,
    GenerationError,
    InvalidRequest,
    ModelError,
    NotANumber,
    OutOfMemory,
)
from darkroom.serve.database import Unavailable
from darkroom.serve.objects import Unstored


class Problem(DarkroomError):
    """Something that a client is told: an HTTP status, a code, and in words what to do. `retry_after`: seconds; `more`:
    what else there is to say of that kind of problem."""

    def __init__(
        self, status: int, code: str, detail: str, retry_after: float | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after
        self.more = more

    def to_dict(self) -> dict[str, Any]:
        """As `application/problem+json` has it."""
        title = HTTPStatus(self.status).phrase
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.more,
        }


_CODES: dict[type[Exception], str] = {
    OutOfMemory: "out_of_memory",
    NotANumber: "numerics",
    GenerationError: "generation_failed",
}
_NOW = 5
"""Seconds after which to try again what the machine cannot do now."""


def problem_of(error: Exception) -> Problem:
    """An error as a problem. Nothing of one that nobody foresaw is told: it is in the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidRequest):
        return Problem(422, "invalid_request", str(error))
    if isinstance(error, ModelError):
        return Problem(422, "model_error", str(error))
    if isinstance(error, Unavailable | Unstored):
        # Where its files lie is nothing for clients: it is in the log.
        what = "database" if isinstance(error, Unavailable) else "storage"
        if error.full:
            return Problem(503, "storage_full", f"the disk of the {what} is full: try again later", _NOW)
        return Problem(
            503, f"{what}_unavailable", f"the {what} does not answer: try again in some seconds", _NOW
        )
    return Problem(500, "internal", "something went wrong here, which the service's log says more of")


def code_of(error: BaseException) -> tuple[str, str]:
    """The code of a job that failed, and why in words."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code, str(error)
    if isinstance(error, Exception):
        found = problem_of(error)
        return found.code, found.detail
    return "internal", "the engine ended"
