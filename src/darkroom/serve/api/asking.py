"""What interfaces share that answer with the pictures themselves: whoever asks waits, or goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from darkroom.serve.api.service import Service
from darkroom.serve.jobs import Found
from darkroom.serve.problems import Problem

Item = TypeVar("Item")

_LOOK = 1.0
"""Seconds between two looks at whether who asked is still there."""
_STATUS = {"invalid_request": 422, "model_error": 422, "blocked": 400}
_LONG = 1 << 16
"""Bytes of JSON that are taken apart beside the event loop."""


async def json_of(request: Request) -> Any:
    """The JSON of a request's body. Raises Problem for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "unsupported_media_type", f"the content type is {kind!r}: send application/json")
    body = await request.body()
    try:
        return await asyncio.to_thread(parsed, body) if len(body) > _LONG else parsed(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "invalid_json", f"the body is no JSON: {error}") from None


def parsed(body: bytes) -> Any:
    """JSON as its standard has it. Raises ValueError, or RecursionError, for what is none."""
    return json.loads(body, parse_constant=_no_number)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON's")


async def over(service: Service, owner: str, found: Found, request: Request | None) -> Found:
    """A job once it is over. It is cancelled where whoever asked for it by the request goes away meanwhile; raises
    Problem then."""
    job = str(found.row.id)
    waiting = asyncio.ensure_future(service.finished(owner, job, None))
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOOK))[0]:
            if request is not None and await request.is_disconnected():
                await service.cancel(owner, job)
                raise Problem(499, "gone", f"whoever asked for {job} has gone: it is cancelled")
        return waiting.result()
    finally:
        waiting.cancel()


def check(found: Found) -> None:
    """Raises Problem for a job that has not become what was asked for."""
    row = found.row
    if row.state == "succeeded":
        return
    if not found.over:
        raise Problem(
            503, "draining", f"the service is ending; {row.id} is kept and goes on later", retry_after=30
        )
    if row.state == "cancelled":
        raise Problem(409, "cancelled", f"{row.id} was cancelled")
    code = row.code or row.state
    raise Problem(_STATUS.get(code, 500), code, row.error or f"{row.id} is {row.state}")


async def files(service: Service, found: Found) -> list[bytes]:
    """The files of the pictures of a job, in order."""
    return [await service.content(each.sha256) for each in found.pictures]


async def unless_silent(items: AsyncIterator[Item], seconds: float) -> AsyncIterator[Item | None]:
    """The items as they come, and None whenever none has for so long."""
    due: asyncio.Future[Item] | None = None
    try:
        while True:
            due = due or asyncio.ensure_future(anext(items))
            if not (await asyncio.wait({due}, timeout=seconds))[0]:
                yield None
                continue
            item, due = due, None
            with suppress(StopAsyncIteration):
                yield item.result()
                continue
            return
    finally:
        if due is not None:
            due.cancel()
