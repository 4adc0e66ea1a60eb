"""OpenAI's interface of images, as its own clients speak it: /v1/images/generations and /v1/images/edits.

Its words are https://platform.openai.com/docs/api-reference/images; beside them all settings of Darkroom's go by their
own names (`extra_body` in OpenAI's client). What there is nothing for here is refused by its name.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image
from sqlalchemy import Row
from starlette.datastructures import FormData, UploadFile

from darkroom.errors import InvalidRequest
from darkroom.generation.masks import ALPHA
from darkroom.generation.picture import FORMATS
from darkroom.generation.request import SETTINGS
from darkroom.library.locate import available
from darkroom.photos import Photo
from darkroom.prompt import Tokenizer
from darkroom.serve.api import asking
from darkroom.serve.api.answers import as_problem, telling
from darkroom.serve.api.asking import unless_silent
from darkroom.serve.api.native import Here, Owner
from darkroom.serve.api.schemas import OPENAI, openai_body
from darkroom.serve.api.service import Service
from darkroom.serve.events import Event
from darkroom.serve.intake import OPTIONS, Intake, picture_of
from darkroom.serve.jobs import Found
from darkroom.serve.problems import Problem
from darkroom.serve.schema import TERMINAL

_OF_OPENAI = ("gpt-image", "chatgpt-image", "dall-e")
"""How the names of its own models begin: clients that know no others get the service's usual one."""
_CALLED = {
    "n": "count",
    "negative_prompt": "negative",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "output_format": "format",
}
"""Its words, and those that vLLM-Omni and others have beside them, for settings that there are here."""
_EFFORTS = {"low": 0.5, "medium": 1, "auto": 1, "standard": 1, "high": 1.5, "hd": 1.5, "xhigh": 2, "max": 3}
"""By how much more or fewer steps than the model's own it is made, for each word of `quality`."""
_STYLES = {"vivid": 1.0, "natural": 0.7}
"""How much of the model's own guidance each of its styles is given: the less, the plainer."""
_FIDELITY = {"low": None, "high": 0.45}
"""`strength` for how closely an edit is to keep to the picture."""
_MOST, _MOST_PARTIAL = 10, 3
_PATCH = 16
"""Pixels of a side of what counts as a token of a picture."""
_PING = 15.0
_IGNORED = ("user", "moderation")
"""What decides nothing about a picture here."""


def _told(problem: Problem) -> tuple[int, Any]:
    """An error as OpenAI's clients read it."""
    status, code = problem.status, problem.code
    if code == "model_error" and "no model" in problem.detail:
        status, code = 404, "model_not_found"
    status = {422: 400, 409: 400}.get(status, status)
    kind = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}.get(status)
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    said = re.match(r"(\w+) is ", problem.detail)
    name = said[1] if said else ""
    own = {setting: word for word, setting in _CALLED.items()}.get(name, name)
    param = own if own in OPENAI or name in SETTINGS else None
    return status, {"error": {"message": problem.detail, "type": kind, "param": param, "code": code}}


router = APIRouter(prefix="/v1/images", route_class=telling(_told), tags=["openai"])


@dataclass(frozen=True)
class _Wish:
    """What is asked of the answer, beside the picture."""

    urls: bool
    stream: bool
    partial: int
    said: Mapping[str, Any]


@router.post("/generations", openapi_extra=openai_body("generations"), response_model=None)
async def generations(request: Request, service: Here, owner: Owner) -> Response:
    """Pictures of a prompt, as OpenAI's clients ask for them."""
    return await _answered(await asking.json_of(request), request, service, owner, "image_generation")


@router.post("/edits", openapi_extra=openai_body("edits"), response_model=None)
async def edits(request: Request, service: Here, owner: Owner) -> Response:
    """A picture made another, in whole or where a mask is transparent, as OpenAI's clients ask for it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=32, max_fields=200) as form:
            said = await _fields(form)
    else:
        said = await asking.json_of(request)
    if isinstance(said, Mapping):
        said = await service.beside(partial(_edited, dict(said), service.intake))
    return await _answered(said, request, service, owner, "image_edit")


async def _answered(said: Any, request: Request, service: Service, owner: str, kind: str) -> Response:
    """Have made what is asked for, and answer with it."""
    if not isinstance(said, Mapping):
        raise InvalidRequest('the body is no object: give one such as {"prompt": "a boat"}')
    body, wish = await service.beside(partial(_taken, dict(said), service))
    key = request.headers.get("idempotency-key")
    found = await service.submit(owner, body, key, door="openai")
    if wish.stream:
        told = _Stream(service, owner, found, wish, kind)
        return StreamingResponse(told.events(), media_type="text/event-stream")
    found = await asking.over(service, owner, found, request)
    try:
        asking.check(found)
    except Problem as problem:
        status, content = _told(problem)
        # It would come to the same.
        return JSONResponse(content, status, {"x-should-retry": "false"})
    pictures = zip(found.pictures, await asking.files(service, found), strict=True)
    base = str(request.base_url).rstrip("/")
    return JSONResponse(
        {
            "created": int(found.row.finished_at),
            "data": [_item(row, content, base if wish.urls else None) for row, content in pictures],
            **_facts(found, wish),
            "usage": await service.beside(partial(_usage, found)),
        }
    )


def _item(row: Row[Any], content: bytes, base: str | None) -> dict[str, Any]:
    if base is not None:
        return {"url": f"{base}/v1/images/{row.id}/file", "id": row.id, "seed": row.seed}
    return {"b64_json": base64.b64encode(content).decode(), "id": row.id, "seed": row.seed}


def _facts(found: Found, wish: _Wish) -> dict[str, Any]:
    width, height = _size(found)
    who = wish.said.get("safety_identifier") or wish.said.get("user")
    return {
        "background": "opaque",
        "output_format": found.row.format,
        "quality": wish.said.get("quality") or "auto",
        "size": f"{width}x{height}",
        **({"safety_identifier": who} if who else {}),
    }


def _size(found: Found) -> tuple[int, int]:
    if found.pictures:
        return found.pictures[0].width, found.pictures[0].height
    canvas = found.row.request.get("canvas", {})
    return canvas.get("width") or 0, canvas.get("height") or 0


def _usage(found: Found) -> dict[str, Any]:
    """Tokens: of texts those of CLIP, of pictures patches of 16 x 16 pixels."""
    request = found.row.request
    texts = (request.get("prompt", ""), request.get("negative") or "")
    words = sum(len(Tokenizer.clip().encode(text)) for text in texts)
    width, height = _size(found)
    patches = -(-width // _PATCH) * -(-height // _PATCH)
    given = patches if "image" in request.get("edit", {}) else 0
    made = patches * max(len(found.pictures), 1)
    return {
        "input_tokens": words + given,
        "input_tokens_details": {"text_tokens": words, "image_tokens": given},
        "output_tokens": made,
        "total_tokens": words + given + made,
    }


# What is asked for.


def _taken(said: dict[str, Any], service: Service) -> tuple[dict[str, Any], _Wish]:
    """The body of a job of Darkroom's own, and what is asked of the answer. Raises InvalidRequest for what there is
    nothing for here, ModelError where there is no such model."""
    whole = dict(said)
    said = {name: value for name, value in said.items() if value is not None and name not in _IGNORED}
    said.pop("safety_identifier", None)
    named = said.pop("model", None)
    usual = str(named).startswith(_OF_OPENAI) and named not in available()
    body: dict[str, Any] = {} if named is None or usual else {"model": named}
    defaults = service.catalogue.about(service.catalogue.named(body.get("model"))).get("defaults", {})
    quality = _word(said, "quality", _EFFORTS)
    style = _word(said, "style", _STYLES)
    if "steps" not in said and "num_inference_steps" not in said and quality not in (None, 1):
        body["steps"] = max(round(defaults.get("steps", 20) * quality), 1)
    if "guidance" not in said and "guidance_scale" not in said and style not in (None, 1):
        body["guidance"] = round(defaults.get("guidance", 7.0) * style, 2)
    _word(
        said, "background", {"auto": None, "opaque": None}, "pictures with nothing behind are not made here"
    )
    wanted = said.pop("response_format", "url" if str(named).startswith("dall-e") else "b64_json")
    if wanted not in ("url", "b64_json"):
        raise InvalidRequest(f"response_format is {wanted!r}: choose url or b64_json")
    size = said.pop("size", "auto")
    if size != "auto":
        sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(size))
        if sides is None:
            raise InvalidRequest(f"size is {size!r}: give WIDTHxHEIGHT, such as 512x512, or auto")
        body |= {"width": int(sides[1]), "height": int(sides[2])}
    stream = _truth(said, "stream")
    shown = _whole(said, "partial_images", 0, _MOST_PARTIAL) or 0
    if (count := said.get("n")) is not None:
        _whole({"n": count}, "n", 1, _MOST)
    if (compression := _whole(said, "output_compression", 0, 100)) is not None:
        format = said.get("output_format", "png")
        if format in ("jpeg", "webp", "jpg"):
            body["quality"] = max(compression, 1)
        elif compression != 100:
            raise InvalidRequest(
                f"output_compression is {compression}, of jpeg and webp alone: {format} loses nothing"
            )
    if "format" in said or (said.get("output_format") or "png") not in (*FORMATS, "jpg"):
        raise InvalidRequest(
            f"output_format is {said.get('output_format') or said['format']!r}: choose png, jpeg or webp"
        )
    for name, value in said.items():
        if (own := _CALLED.get(name, name)) in body:
            raise InvalidRequest(f"{name} is said twice: leave {own} out")
        body[own] = value
    return body, _Wish(wanted == "url", stream, shown, whole)


def _word(said: dict[str, Any], name: str, words: Mapping[str, Any], why: str = "") -> Any:
    """What one of the words comes to; None where nothing is said."""
    if (value := said.pop(name, None)) is None:
        return None
    if value not in words:
        raise InvalidRequest(f"{name} is {value!r}: {why or 'choose of ' + ', '.join(words)}")
    return words[value]


def _whole(said: dict[str, Any], name: str, least: int, most: int) -> int | None:
    if (value := said.pop(name, None)) is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest(f"{name} is {value!r}: give a whole number, {least} to {most}")
    return value


def _truth(said: dict[str, Any], name: str) -> bool:
    value = said.pop(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} is {value!r}: give true or false")
    return value


async def _fields(form: FormData) -> dict[str, Any]:
    """The fields of a form: files as they are, numbers and truths as what they say."""
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        plain = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            content = base64.b64encode(await value.read()).decode()
            found[plain] = [*found.get(plain, []), content] if plain == "image" else content
        elif plain in found:
            raise InvalidRequest(f"{plain} is said twice: leave one of them out")
        else:
            found[plain] = value if _is_text(plain) else _said(value)
    return found


def _is_text(name: str) -> bool:
    own = {**SETTINGS, **OPTIONS}.get(_CALLED.get(name, name))
    if own is not None:
        return "str" in str(own.type).split(" | ")
    return OPENAI.get(name, {}).get("type") == "string"


def _said(value: str) -> Any:
    with suppress(ValueError):
        return json.loads(value)
    return value


def _edited(said: dict[str, Any], intake: Intake) -> dict[str, Any]:
    """What is asked of an edit, in Darkroom's words as far as these differ."""
    images = said.pop("image", None)
    images = images if isinstance(images, list) else [images] if images is not None else []
    if len(images) != 1:
        raise InvalidRequest(f"image holds {len(images)} pictures: give the one that is to be edited")
    fidelity = _word(said, "input_fidelity", _FIDELITY)
    if fidelity is not None:
        said.setdefault("strength", fidelity)
    said["image"] = images[0]
    if isinstance(mask := said.get("mask"), str):
        said["mask"] = _painted(intake.look(picture_of("mask", mask), "mask"))
    elif (
        mask is None
        and isinstance(images[0], str)
        and intake.look(picture_of("image", images[0]), "image").alpha is not None
    ):
        # As with its first models: what is transparent in the picture itself is painted.
        said["mask"] = ALPHA
    return said


def _painted(mask: Photo) -> str:
    """A mask of OpenAI's, transparent where it is to be painted, as one of Darkroom's, white there."""
    if mask.alpha is None:
        raise InvalidRequest(
            "mask is transparent nowhere: give a PNG that is where the picture is to be edited"
        )
    file = io.BytesIO()
    Image.fromarray(255 - mask.alpha).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


# What is told meanwhile.


class _Stream:
    """The answer to one who wants to see pictures come."""

    def __init__(self, service: Service, owner: str, found: Found, wish: _Wish, kind: str) -> None:
        self._service, self._owner, self._found, self._wish, self._kind = service, owner, found, wish, kind
        self._made = 0
        self._shown = 0

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events; the job is cancelled where nobody hears them any more."""
        job, ended = str(self._found.row.id), False
        try:
            async with aclosing(self._service.follow(self._owner, job, since=0)) as heard:  # type: ignore[type-var]
                async for event in unless_silent(heard, _PING):
                    if event is None:
                        yield b": still at it\n\n"
                        continue
                    ended = event.kind in TERMINAL
                    async for said in self._about(event):
                        yield said
        except Exception as error:
            yield _sent("error", _told(as_problem(error))[1])
        finally:
            if not ended:
                self._service.let_go(self._owner, job)

    async def _about(self, event: Event) -> AsyncIterator[bytes]:
        if event.kind == "progress" and (said := await self._partial(event.data)) is not None:
            yield said
        elif event.kind == "picture":
            yield await self._completed(event.data["id"])
        elif event.kind in TERMINAL and event.kind != "succeeded":
            found = await self._service.job(self._owner, event.job)
            try:
                asking.check(found)
            except Problem as problem:
                yield _sent("error", _told(problem)[1])

    async def _partial(self, told: Mapping[str, Any]) -> bytes | None:
        """The picture that is being made, where one is to be shown again."""
        count = self._found.count
        share = told["done"] / max(told["total"], 1) * count - self._made
        if self._shown >= self._wish.partial or share < (self._shown + 1) / (self._wish.partial + 1):
            return None
        try:
            jpeg = await self._service.preview(self._owner, str(self._found.row.id), self._made)
        except Problem:  # There is none yet.
            return None
        draw: Callable[[], bytes] = partial(_drawn, jpeg, _size(self._found), self._found.row.format)
        content = await self._service.beside(draw)
        self._shown += 1
        return self._event("partial_image", content, partial_image_index=self._shown - 1)

    async def _completed(self, picture: str) -> bytes:
        self._made, self._shown = self._made + 1, 0
        row = await self._service.picture(self._owner, picture)
        found = Found(self._found.row, [row])
        usage = await self._service.beside(partial(_usage, found))
        content = await self._service.content(row.sha256)
        return self._event("completed", content, usage=usage, id=row.id, seed=row.seed)

    def _event(self, kind: str, content: bytes, **more: Any) -> bytes:
        name = f"{self._kind}.{kind}"
        facts = {"created_at": int(self._found.row.created_at), **_facts(self._found, self._wish)}
        said = {"type": name, "b64_json": base64.b64encode(content).decode(), **facts, **more}
        return _sent(name, said)


def _sent(name: str, said: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(said)}\n\n".encode()


def _drawn(jpeg: bytes, size: tuple[int, int], format: str) -> bytes:
    """A preview as a picture of its job's size and format."""
    with Image.open(io.BytesIO(jpeg)) as image:
        drawn = image.resize(size, Image.Resampling.BICUBIC) if all(size) else image
        file = io.BytesIO()
        drawn.convert("RGB").save(file, FORMATS[format])
    return file.getvalue()
