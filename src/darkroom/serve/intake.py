"""From what a client sends to a job: everything is checked and settled here, before anything is kept.

No path comes in: pictures are their bytes, or name an upload by its SHA-256; models, adapters and all else that lies in
files are called by their names in the library (`darkroom.library.locate.names_only`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from darkroom.diffusion import Within
from darkroom.errors import InvalidRequest, nearest
from darkroom.generation.checks import a_number, a_whole, checked, one_of, setting
from darkroom.generation.details import DETECTORS, parse_detail
from darkroom.generation.frames import FILTERS, by_network
from darkroom.generation.masks import ALPHA
from darkroom.generation.picture import canonical_format, edit_of
from darkroom.generation.request import SETTINGS, Request, flattened
from darkroom.generation.sources import Source
from darkroom.generation.templates import PROMPTS, completed, pictures
from darkroom.language.tags import OF_LIBRARY, TAG, Tag, parse_tag
from darkroom.library.locate import locate
from darkroom.photos import LONGEST_SIDE, Photo, facts_of, read_photo
from darkroom.serve.catalogue import Catalogue
from darkroom.serve.jobs import Submission
from darkroom.serve.schema import PRIORITIES

PICTURES = ("image", "mask", "depth")
"""The settings of a request that are pictures."""
_MOST_CHECKED = 100
_MOST_PIXELS = 64 << 20
"""Of a picture that comes in."""
_MOST_DECODING = 2
"""Requests whose pictures are unpacked at a time: each takes some hundred megabytes for that at most."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_A_PICTURE = 'give its bytes in base64, or {"sha256": "..."} of an upload'


def _a_name(name: str, given: object) -> str:
    if not isinstance(given, str) or not given.strip():
        raise InvalidRequest(f"{name} is {given!r}: give a name")
    return given


@dataclass(frozen=True)
class Options:
    """What is said of a job beside what its picture is to be. `kind`: pictures of a prompt and all else that a request
    says; of a picture, by its own recipe where Darkroom made it; or a picture made larger."""

    kind: str = one_of("generate", ("generate", "edit", "upscale"), "what is to be done")
    model: str | None = setting(None, _a_name, "a model by its name (default: the service's own)")
    priority: str = one_of("interactive", PRIORITIES, "whose turn comes more often")
    format: str = setting(
        "png", lambda name, given: canonical_format(_a_name(name, given)), "png, jpeg or webp"
    )
    quality: int | None = setting(None, a_whole(1, 100), "of jpeg and webp, 1 to 100 (default: 95)")


@dataclass(frozen=True)
class Upscaling:
    """What there is to say of a picture that is to be made larger (`darkroom.upscaling`)."""

    upscaler: str = setting("lanczos", _a_name, "lanczos, nearest, or a network by its name")
    by: float | None = setting(None, a_number(Within(1, 16)), "how many times larger")
    width: int | None = setting(None, a_whole(1, LONGEST_SIDE), "its width in pixels, in place of by")
    height: int | None = setting(None, a_whole(1, LONGEST_SIDE), "its height in pixels, in place of by")


OPTIONS = Options.__dataclass_fields__
UPSCALING = Upscaling.__dataclass_fields__

Upload = Callable[[str], bytes]
"""Gives the bytes of an upload of whoever asks, by its SHA-256; raises InvalidRequest where there is none."""
Keep = Callable[[bytes], object]
"""Keeps the bytes of a picture that came with a request, under their SHA-256."""


class Intake:
    """Makes jobs of what clients send. May be used from any thread."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._decoding = threading.Semaphore(_MOST_DECODING)

    def look(self, content: bytes, called: str = "upload") -> Photo:
        """The picture that bytes hold. Raises InvalidRequest where it is none, or one that is too large."""
        _check_size(called, content)
        with self._decoding:
            return read_photo(content, f"the {called}", 1)

    def job(self, owner: str, body: Any, upload: Upload, keep: Keep) -> Submission:
        """A job of an owner's of an object of options and settings, side by side. Raises InvalidRequest or ModelError
        for what cannot be done."""
        if not isinstance(body, Mapping):
            raise InvalidRequest('the body is no object: give one of settings, such as {"prompt": "a boat"}')
        said = {name: value for name, value in body.items() if value is not None}
        options = Options(**{name: said.pop(name) for name in OPTIONS if name in said})
        options = Options(**checked(options))
        given = _Pictures(upload, keep)
        settings = given.taken(said)
        make = self._upscaling if options.kind == "upscale" else self._generation
        with self._decoding if given.any else nullcontext():
            return make(owner, options, settings, given)

    def _generation(
        self, owner: str, options: Options, settings: dict[str, Any], given: _Pictures
    ) -> Submission:
        name = self._catalogue.named(options.model)
        opened = self._catalogue.opened(name)
        if options.kind == "edit":
            asked = _edit(settings, opened.refiner is not None)
        else:
            asked = Request.from_dict(settings).checked()
        _check_names(asked)
        settled = completed(opened.settle(asked))
        # What is drawn by lot is looked at as it will be.
        drawn = 0 if settled.text.dynamic == "off" else _MOST_CHECKED
        for single in itertools.islice(pictures(settled), drawn):
            _check_names(single)
        given.keep()
        work = _work(settled, opened.source.family.native)
        return Submission(
            owner,
            options.kind,
            name,
            settled.to_dict(),
            asked.to_dict(),
            settled.count,
            options.format,
            options.quality,
            work,
            options.priority,
        )

    def _upscaling(
        self, owner: str, options: Options, settings: dict[str, Any], given: _Pictures
    ) -> Submission:
        source = settings.pop("image", None)
        if not isinstance(source, Source):
            raise InvalidRequest(f"no 'image' to make larger: {_A_PICTURE}")
        if unknown := [name for name in settings if name not in UPSCALING]:
            raise InvalidRequest(
                f"unknown setting {unknown[0]!r} of an upscaling: {nearest(unknown[0], UPSCALING)}"
            )
        asked = checked(Upscaling(**settings))
        if asked["by"] and (asked["width"] or asked["height"]):
            raise InvalidRequest("by does not go with width or height: leave one of the two out")
        source.found("image")
        if asked["upscaler"] not in FILTERS:
            locate(asked["upscaler"], kind="upscaler")
        given.keep()
        request = {**asked, "image": source.to_dict()}
        return Submission(
            owner,
            options.kind,
            None,
            request,
            request,
            format=options.format,
            quality=options.quality,
            priority=options.priority,
        )


def _edit(settings: Mapping[str, Any], refined: bool) -> Request:
    """What an edit is to be, by the recipe of its picture and by what is said beside."""
    said = flattened(settings)
    image = said.get("image")
    if not isinstance(image, Source):
        raise InvalidRequest(f"no 'image' to edit: {_A_PICTURE}")
    content = image.content
    return edit_of(content, said.get("prompt"), content, refined).replace(**said).checked()


class _Pictures:
    """The pictures that come with a request."""

    def __init__(self, upload: Upload, keep: Keep) -> None:
        self._upload, self._keep = upload, keep
        self._new: list[bytes] = []
        self.any = False

    def taken(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with their pictures read, those within parts too."""
        found = {}
        for name, value in settings.items():
            if name in PICTURES:
                found[name] = self._setting(name, value)
            elif isinstance(value, Mapping):
                found[name] = self.taken(value)
            else:
                found[name] = value
        return found

    def _setting(self, name: str, value: Any) -> Any:
        """A mask may also be a thing by its name, or what is transparent."""
        if name == "mask" and isinstance(value, Mapping) and value.keys() == {"thing"}:
            return value
        if name == "mask" and isinstance(value, str) and not _is_base64(value):
            return value if value == ALPHA else {"thing": value}  # Never the name of a file.
        return self.of(name, value)

    def of(self, name: str, value: Any) -> Source:
        """A picture: base64, with or without "data:...;base64," before it, or an upload."""
        if isinstance(value, Mapping):
            sha256 = value.get("sha256")
            if value.keys() != {"sha256"} or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
                raise InvalidRequest(f"{name} is no picture: {_A_PICTURE}")
            content = self._upload(sha256)
        elif isinstance(value, str):
            content = picture_of(name, value)
            self._new.append(content)
        else:
            raise InvalidRequest(f"{name} is no picture: {_A_PICTURE}")
        _check_size(name, content)
        self.any = True
        return Source(None, hashlib.sha256(content).hexdigest(), content)

    def keep(self) -> None:
        """Have those kept that were not there yet."""
        for content in self._new:
            self._keep(content)


def picture_of(name: str, text: str) -> bytes:
    """What a text is in base64, with or without "data:...;base64," before it. Raises InvalidRequest for another."""
    text = text.strip()
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise InvalidRequest(f"{name} is a data: address without base64: {_A_PICTURE}")
    try:
        return base64.b64decode(re.sub(r"\s+", "", text), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{name} is not base64: {_A_PICTURE}") from None


def _check_size(name: str, content: bytes) -> None:
    """Raises InvalidRequest for what is no picture, or larger than the service takes; nothing is unpacked for that."""
    _, width, height = facts_of(content, f"the {name}")
    if width * height > _MOST_PIXELS:
        raise InvalidRequest(
            f"the {name} is of {width}x{height}: {_MOST_PIXELS >> 20} million pixels are the most that are taken here"
        )


_SHORTEST = 64
"""Characters of base64 that may be a picture: what is shorter is a word."""


def _is_base64(text: str) -> bool:
    plain = text.strip()
    return plain.startswith("data:") or (
        len(plain) >= _SHORTEST and re.fullmatch(r"[A-Za-z0-9+/\s]+=*\s*", plain) is not None
    )


def _check_names(request: Request) -> None:
    """Raises ModelError for what a request names beside the model and that is not there."""
    flat = request.flat()
    if by_network(upscaler := request.canvas.upscaler):
        locate(str(upscaler), kind="upscaler")
    for each in request.text.embeddings:
        locate(each.rpartition("=")[2], kind="embedding")
    for detail in request.detail.details:
        if (name := parse_detail(detail).name).lower().endswith(DETECTORS):
            locate(name, kind="detector")
    texts = [text for name in PROMPTS if isinstance(text := flat[name], str)]
    tags = [_tag(f"{match[1]}:{match[2]}") for text in texts for match in TAG.finditer(text)]
    for tag in [*map(parse_tag, request.adapters), *filter(None, tags)]:
        locate(tag.name, kind=OF_LIBRARY[tag.kind])


def _tag(text: str) -> Tag | None:
    """A tag in a prompt; None of one that is drawn by lot, which is looked at once it is."""
    return None if "{" in text or "|" in text or "__" in text else parse_tag(text)


def _work(settled: Request, native: int) -> float:
    """How many evaluations of a model's network a settled request takes, as many pixels large as the model's own."""
    width, height = settled.canvas.width or native, settled.canvas.height or native
    rows = 2 if (settled.guidance.scale or 1) != 1 else 1
    return settled.count * (settled.sampling.steps or 1) * rows * width * height / native**2


def digest(body: Any) -> str:
    """What tells a request's body from others: the SHA-256 of its JSON in one canonical form."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


assert not {*OPTIONS} & {*SETTINGS}, "an option of a job is called like a setting of a request"
