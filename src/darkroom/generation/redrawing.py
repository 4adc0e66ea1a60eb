"""The things of a finished picture that are drawn over by themselves: what each is asked for as, and what stays."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from darkroom.checkpoint.family import Family
from darkroom.generation.details import Detail, Texts, parse_detail
from darkroom.generation.edits import (
    Subject,
    brought_share,
    subject_of,
    taken_over,
)
from darkroom.generation.frames import near
from darkroom.generation.masks import Box, Found, Share, around_mask, nothing
from darkroom.generation.parts import next_seed
from darkroom.generation.request import PARTS, Request, within
from darkroom.generation.saved import Saved
from darkroom.generation.sizing import STRENGTH_OF_DETAILS, begun
from darkroom.generation.wording import Extras
from darkroom.generation.work import Work
from darkroom.pixels import Pixels

# How much around a thing a model sees that composes natively, of the thing's larger side. Measured with pocket
# (`benchmarks/details.py`), whose world's things take 0.36 to 0.47 of a side.
_AROUND = 0.75
_OF_THE_WHOLE = {
    name: each.default
    for part in ("tiling", "second", "detail")
    for name, each in within(PARTS[part]).items()
}
"""What is said of a picture as a whole, as it is where it is not said."""


def wordings(request: Request) -> Iterator[Request]:
    """The request as each prompt of its details words it."""
    for number in range(len(request.detail.details)):
        for text in _texts(request, number).all():
            yield request.replace(**_told(request, text))


def _texts(request: Request, number: int) -> Texts:
    """What the things of a detail are told. A model that composes natively would draw the whole picture again."""
    natively = request.canvas.compose == "native"
    return request.detail.texts(number, request.prompt, request.negative, natively)


def _told(request: Request, text: tuple[str, str]) -> Any:
    """The prompts of a thing as settings: where they are not the picture's own, all encoders read them, and they go
    nowhere."""
    told: dict[str, Any] = {"prompt": text[0], "negative": text[1]}
    if text[0] != request.prompt:
        told |= {"prompt_2": None, "prompt_3": None, "towards": None, "towards_strength": 0.0}
    if text[1] != request.negative:
        told |= {"negative_2": None, "negative_3": None}
    return told


def drawn_over(
    request: Request,
    family: Family,
    pixels: Pixels,
    share: Share,
    detail: Detail,
    text: tuple[str, str],
    number: int,
) -> tuple[Request, Subject]:
    """A settled request as one that draws over that share of its finished picture, which is `pixels`, as a detail for
    the model says, and what it begins with. number: which of a detail's things it is, counted from 0."""
    natively = request.canvas.compose == "native"
    padding = _padding(share, family, natively) if detail.padding is None else detail.padding
    mask = (share * 255).round().astype(np.uint8)
    own: dict[str, Any] = {
        **_told(request, text),
        "seed": next_seed(request.seed or 0, number),
        "variation_seed": request.noise.variation_seed,
        "variation_strength": request.noise.variation_strength,
        "image": pixels,
        "mask": mask,
        "only_masked": True,
        "mask_padding": padding,
        "strength": _strength(request, detail),
        "steps": detail.steps or request.sampling.steps,
        "guidance": request.guidance.scale if detail.guidance is None else detail.guidance,
    }
    asked = Request(**{**taken_over(request), **_OF_THE_WHOLE, **own})
    asked, subject = subject_of(asked)
    assert subject is not None and detail.size
    if natively:  # Such a model draws at no other size well.
        box = around_mask(share, padding)
        scale = detail.size / math.sqrt(box.width * box.height)
        width, height = (near(scale * side, family.unit) for side in (box.width, box.height))
        asked = asked.replace(width=width, height=height)
    usual = begun(asked, subject, replace(family, native=detail.size))
    usual |= {
        name: value
        for name, value in request.flat().items()
        if name in ("compose", "upscaler", "second_strength")
    }
    return asked.settled(**usual), subject


def _strength(request: Request, detail: Detail) -> float:
    """How much of a thing is drawn anew. A picture that is not drawn over itself has a strength for its details."""
    if detail.strength is not None:
        return detail.strength
    edit = request.edit
    return edit.strength if edit.loops == 0 and edit.strength is not None else STRENGTH_OF_DETAILS


def _padding(share: Share, family: Family, natively: bool) -> int:
    """How many pixels around a thing are seen. A model that composes at its native size knows whole pictures alone, in
    which a thing takes less than half of a side."""
    box = around_mask(share, 0)
    return round(_AROUND * max(box.width, box.height)) if natively else family.native // 16


def may_change(request: Request, subject: Subject | None, height: int, width: int) -> Share | None:
    """The share of each pixel of a finished picture that may be drawn over, where a mask leaves the rest as it is."""
    if subject is None or subject.share is None:
        return None
    found = subject.share if subject.share.shape == (height, width) else brought_share(request, subject)
    return (found[:height, :width] > 0).astype(np.float32)


@dataclass(frozen=True)
class Underway:
    """Where the details of a picture have come to: which of them, of what it found, None where it has not looked yet,
    the thing `at`, the picture that this is in, and what was found so far, in words."""

    detail: int
    found: Sequence[Found] | None
    at: int
    picture: Pixels
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with arrays of torch's (see `darkroom.generation.saved`)."""
        return {
            "detail": self.detail,
            "found": None if self.found is None else [_as_data(each) for each in self.found],
            "at": self.at,
            "picture": torch.from_numpy(self.picture.copy()),
            "notes": [*self.notes],
        }

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Underway:
        """The inverse of `to_dict`."""
        found = None if said["found"] is None else [_from_data(each) for each in said["found"]]
        return cls(said["detail"], found, said["at"], said["picture"].numpy(), said["notes"])


def _as_data(found: Found) -> dict[str, Any]:
    share = None if found.share is None else torch.from_numpy(found.share.copy())
    return {**found._asdict(), "box": [*found.box], "share": share}


def _from_data(said: Mapping[str, Any]) -> Found:
    share = None if said["share"] is None else said["share"].numpy()
    return Found(said["label"], said["confidence"], Box(*said["box"]), share)


class Thing(Protocol):
    """The job of a thing that is drawn over (`darkroom.generation.job.Job`)."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def denoised(self) -> Tensor | None: ...

    def snapshot(self) -> Saved | None: ...

    def develop(self) -> Generator[Work, Any, Pixels]: ...


class Detailing:
    """The details of a settled request's picture: what each finds is drawn over, one thing after the other, each in the
    picture that the last one left.

    job: makes the job of a thing, of its request, of what that begins with, and of where it can go on. `done` of
    `total` network calls are behind it, as far as it is seen how many there are; `thing` is what is being drawn over,
    and `underway` where that is.
    """

    def __init__(
        self,
        request: Request,
        family: Family,
        extras: Extras,
        job: Callable[[Request, Subject, Saved | None], Thing],
    ) -> None:
        self._request, self._family, self._extras, self._job = request, family, extras, job
        self.behind = 0
        """How many calls things took that are drawn over."""
        self.thing: Thing | None = None
        self.underway: Underway | None = None
        self.notes: list[str] = []
        """What was found, in words."""

    @property
    def done(self) -> int:
        return self.behind + (0 if self.thing is None else self.thing.done)

    @property
    def total(self) -> int:
        return self.behind + (0 if self.thing is None else self.thing.total)

    @property
    def saved(self) -> Saved | None:
        """Where the thing that is being drawn over can go on."""
        return None if self.thing is None else self.thing.snapshot()

    def begin(self, pixels: Pixels) -> Generator[Work, Any, Pixels]:
        """The finished picture, (height, width, 3) uint8, with all things drawn over."""
        return (yield from self._from(0, pixels))

    def go_on(self, details: Mapping[str, Any], thing: Saved | None) -> Generator[Work, Any, Pixels]:
        """The same, from where it was lost: `underway` as plain data, and `saved`."""
        begun = Underway.from_dict(details)
        self.notes = [*begun.notes]
        if begun.found is None:
            return (yield from self._from(begun.detail, begun.picture))
        detail = parse_detail(self._request.detail.details[begun.detail]).for_model(self._family.native)
        pixels = yield from self._over(begun, detail, thing)
        return (yield from self._from(begun.detail + 1, pixels))

    def _from(self, first: int, pixels: Pixels) -> Generator[Work, Any, Pixels]:
        height, width = pixels.shape[:2]
        for number, named in [*enumerate(self._request.detail.details)][first:]:
            detail = parse_detail(named).for_model(self._family.native)
            self.underway = Underway(number, None, 0, pixels, [*self.notes])
            found = yield from self._extras.seekers[named].seek(pixels, self._request)
            found = detail.among(found, width * height)
            labels = ", ".join(each.label for each in found)
            self.notes.append(f"{named}: found {labels or 'nothing'}")
            pixels = yield from self._over(Underway(number, found, 0, pixels, [*self.notes]), detail)
        return pixels

    def _over(
        self, begun: Underway, detail: Detail, saved: Saved | None = None
    ) -> Generator[Work, Any, Pixels]:
        """What a detail found drawn over, from the thing on that is underway."""
        request, pixels = self._request, begun.picture
        height, width = pixels.shape[:2]
        texts = _texts(request, begun.detail)
        free = may_change(request, self._extras.subject, height, width)
        for at, thing in [*enumerate(begun.found or ())][begun.at :]:
            text, share = texts.of(at, thing.label), detail.share(thing, height, width)
            share = share if free is None else share * free
            if text is None or nothing(share):
                continue
            asked, subject = drawn_over(request, self._family, pixels, share, detail, text, at)
            self.underway = replace(begun, at=at, picture=pixels)
            self.thing, saved = self._job(asked, subject, saved), None
            pixels = yield from self.thing.develop()
            self.behind += self.thing.done
            self.thing = None
        return pixels
