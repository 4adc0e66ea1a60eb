"""Pictures made of pictures: at which size, how the one is brought to the other's, and what is done at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from darkroom.errors import InvalidRequest
from darkroom.generation.colors import matched
from darkroom.generation.frames import Resized, filter_of, fitted, padded, stretched
from darkroom.generation.masks import Box, Share, Thing, around_mask, fill_by, put_in, share_of
from darkroom.generation.request import PARTS, Request, within
from darkroom.generation.sources import Source, a_source
from darkroom.generation.starting import FILLS, Edit, Extend, Inpaint, Seen
from darkroom.photos import Photo
from darkroom.pixels import Pixels

_OUTLINE = 4
_GREY = 127.5
"""The middle of what a byte may be: 0 to a network."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The picture that a request begins with, the share of each of its pixels that is painted anew, (height, width) in
    [0, 1], None where that is all of it, and its depth, (height, width, 3) uint8, where it is given."""

    photo: Photo
    share: Share | None = None
    depth: Pixels | None = None


Find: TypeAlias = Callable[[Source, Photo, str, Request], Source]
"""Gives a mask of a thing in a picture that a request begins with."""


def subject_of(request: Request, find: Find | None = None) -> tuple[Request, Subject | None]:
    """The request with its pictures as they are found, and what it begins with, if that is a picture. Raises
    InvalidRequest where they are not there, or do not go together.

    find: what finds things that are to be painted anew; where nobody does, all of the picture stands for them.
    """
    edit, inpaint, depth = request.edit, request.inpaint, request.seen.depth
    if edit.image is None:
        if request.in_part:
            what = "a mask" if inpaint.masked else "an edge to go on from"
            raise InvalidRequest(f"there is {what}, but no picture: give the one that it is of as `image=`")
        return request, None
    source, photo = edit.image.found("image", edit.frame)
    mask = inpaint.mask.found("mask")[0] if isinstance(inpaint.mask, Source) else inpaint.mask
    depth = None if depth is None else depth.found("depth")[0]
    request = request.replace(image=source, mask=mask, depth=depth)
    inpaint = request.inpaint
    if isinstance(inpaint.mask, Thing):
        everywhere = np.full((photo.size[1], photo.size[0]), 255, np.uint8)
        thing = inpaint.mask.thing
        where = a_source("mask", everywhere) if find is None else find(source, photo, thing, request)
        inpaint = replace(inpaint, mask=where, grow=growth(inpaint))
    return request, _subject(source, edit.frame, inpaint, request.extend, request.seen)


def growth(inpaint: Inpaint) -> int:
    """By how many pixels a mask is made larger: that of a thing that is named so that its outline goes with it, or
    stays with it where the rest is painted."""
    if inpaint.grow is not None or not isinstance(inpaint.mask, Thing):
        return inpaint.grow or 0
    return -_OUTLINE if inpaint.invert else _OUTLINE


@lru_cache(maxsize=2)
def _subject(source: Source, frame: int | None, inpaint: Inpaint, extend: Extend, seen: Seen) -> Subject:
    photo = source.found("image", frame)[1]
    share = _share(photo, inpaint) if inpaint.masked else None
    # Whoever measures depth does so at a size of its own.
    depth = None if seen.depth is None else stretched(seen.depth.found("depth")[1].over(0), *photo.size)
    subject = Subject(photo, share, depth)
    return _extended(subject, extend, inpaint.fill == "mirror") if extend.asked else subject


def _extended(subject: Subject, extend: Extend, mirrored: bool) -> Subject:
    """A picture that goes on beyond its edges, which are drawn out or as in a mirror; all of that is painted anew."""
    photo, share = subject.photo, subject.share
    by = (extend.top, extend.bottom), (extend.left, extend.right)

    def goes_on(values: Pixels) -> Pixels:
        around = by if values.ndim == 2 else (*by, (0, 0))
        return np.pad(values, around, "symmetric") if mirrored else np.pad(values, around, "edge")

    alpha = None if photo.alpha is None else goes_on(photo.alpha)
    share = np.zeros(photo.pixels.shape[:2], np.float32) if share is None else share
    depth = None if subject.depth is None else goes_on(subject.depth)
    return Subject(
        Photo(goes_on(photo.pixels), alpha, photo.notes), np.pad(share, by, constant_values=1), depth
    )


def _share(photo: Photo, inpaint: Inpaint) -> Share:
    mask: Photo | str | None = None
    if isinstance(inpaint.mask, Source):
        _, mask = inpaint.mask.found("mask")
        if mask.size != photo.size:
            mask = _of_the_size(mask, photo, bool(inpaint.resize))
    elif isinstance(inpaint.mask, str):
        mask = inpaint.mask
    box = None if inpaint.box is None else Box(*map(int, inpaint.box.split(",")))
    return share_of(photo, mask, box, bool(inpaint.invert), inpaint.grow or 0, inpaint.blur or 0)


def _of_the_size(mask: Photo, photo: Photo, resize: bool) -> Photo:
    if not resize:
        was, wanted = ("x".join(map(str, each.size)) for each in (mask, photo))
        raise InvalidRequest(
            f"the mask is of {was}, the picture of {wanted}: give one of that size, or `mask_resize=True`"
        )
    return Photo(stretched(mask.over(0), *photo.size, by=Image.Resampling.BILINEAR))


_OF_ITSELF = {
    *("seed", "count", "variation_seed", "variation_strength", "seed_resize_width", "seed_resize_height"),
    "latents",
    *(
        name
        for part in ("canvas", "edit", "seen", "inpaint", "extend", "detail")
        for name in within(PARTS[part])
    ),
}
"""The settings of a picture that mean nothing to one that is made of it."""


def taken_over(request: Request) -> dict[str, Any]:
    """What an edit of a picture starts from of the request that made it: all but its seed and noise, its size, what it
    began with itself, and its details."""
    return {name: value for name, value in request.flat().items() if name not in _OF_ITSELF}


def strengths(edit: Edit) -> list[float]:
    """How much each loop draws anew, of a settled request that begins with a picture."""
    assert edit.strength is not None and edit.loops is not None
    if edit.loops < 2 or edit.last_strength is None:
        return [edit.strength] * edit.loops
    return [float(each) for each in np.linspace(edit.strength, edit.last_strength, edit.loops)]


def enlarged_size(request: Request, subject: Subject | None) -> tuple[int, int] | None:
    """Width and height that an upscaler is to bring the picture to before it comes to its canvas; None where that asks
    for no more pixels than there are, and of what is around a mask alone."""
    if subject is None or request.edit.fit == "own" or _box(request, subject) is not None:
        return None
    (w, h), (width, height) = subject.photo.size, (request.canvas.width or 0, request.canvas.height or 0)
    scale = (min if request.edit.fit == "pad" else max)(width / w, height / h)
    return (round(w * scale), round(h * scale)) if scale > 1 else None


def enlarged(subject: Subject, pixels: Pixels) -> Subject:
    """A subject whose picture an upscaler has made larger: `pixels`."""
    height, width = pixels.shape[:2]
    share, depth = subject.share, subject.depth
    if share is not None:
        share = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    depth = None if depth is None else stretched(depth, width, height)
    return Subject(Photo(pixels, notes=subject.photo.notes), share, depth)


def brought(request: Request, subject: Subject | None, smaller: int = 1) -> Pixels:
    """The picture that a settled request begins with, at the size of its canvas, or so many times `smaller`: (height,
    width, 3). None stands for one that is not there, as where work is foretold."""
    if subject is None:
        width, height = request.canvas.width or 0, request.canvas.height or 0
        return np.zeros((height // smaller, width // smaller, 3), np.uint8)
    larger = enlarged_size(request, subject) is not None
    by = filter_of(request.canvas.upscaler if larger else None)
    return _on_canvas(subject.photo.over(), request, subject, by, smaller)


def brought_depth(request: Request, subject: Subject | None) -> Pixels:
    """The depth of that picture, likewise."""
    if subject is None or subject.depth is None:
        return brought(request, None)
    return _on_canvas(subject.depth, request, subject)


def brought_share(request: Request, subject: Subject | None) -> Share:
    """The share of each pixel of its canvas that a settled request paints anew, (height, width) in [0, 1]."""
    if subject is None or subject.share is None:
        return np.ones((request.canvas.height or 0, request.canvas.width or 0), np.float32)
    grey = np.repeat((subject.share * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    found = _on_canvas(grey, request, subject, by=Image.Resampling.BILINEAR)[..., 0]
    return np.asarray(found.astype(np.float32) / 255)


def _on_canvas(
    pixels: Pixels,
    request: Request,
    subject: Subject,
    by: Image.Resampling = Image.Resampling.LANCZOS,
    smaller: int = 1,
) -> Pixels:
    width, height = (request.canvas.width or 0) // smaller, (request.canvas.height or 0) // smaller
    if (box := _box(request, subject)) is not None:
        return stretched(pixels[box.slices], width, height, by)
    if request.edit.fit == "own":
        beyond = height - len(pixels), width - pixels.shape[1]
        return np.pad(pixels, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "symmetric")
    ways: dict[str, Resized] = {"stretch": stretched, "pad": padded}
    return ways.get(str(request.edit.fit), fitted)(pixels, width, height, by)


def put_in_larger(request: Request, subject: Subject | None) -> tuple[int, int] | None:
    """Width and height of what of a picture is drawn alone, if it is drawn no larger than it is; None where that is not
    so, and where all of the picture is drawn."""
    box, canvas = None if subject is None else _box(request, subject), request.canvas
    if box is None or box.width < (canvas.width or 0) or box.height < (canvas.height or 0):
        return None
    return box.width, box.height


def _box(request: Request, subject: Subject) -> Box | None:
    """What of the picture is drawn, where that is what is around the mask alone."""
    if not request.inpaint.only_masked or subject.share is None:
        return None
    canvas, padding = request.canvas, request.inpaint.padding
    assert canvas.width and canvas.height and padding is not None
    return around_mask(subject.share, padding, canvas.width / canvas.height)


def filled(request: Request, subject: Subject | None) -> Pixels:
    """What is drawn over: the picture with what its mask is to be filled with."""
    pixels, fill = brought(request, subject), request.inpaint.fill
    if fill is None or not request.in_part or (fill in FILLS and fill != "neighbors"):
        return pixels
    color = None if fill == "neighbors" else bytes.fromhex(fill[1:])
    return fill_by(pixels, brought_share(request, subject), color)


def left_by_mask(request: Request, subject: Subject | None, width: int, height: int) -> tuple[Any, Share]:
    """What inpainting models are shown: the picture on a canvas of that size, (height, width, 3) float32 in bytes'
    range, mid-grey where it is painted anew, and where that is, (height, width) of 0 and 1; all of it where there is no
    mask."""
    size = request.canvas.width, request.canvas.height
    if not request.in_part or (width, height) != size:
        return np.full((height, width, 3), _GREY, np.float32), np.ones((height, width), np.float32)
    painted = brought_share(request, subject) >= 0.5
    left = np.where(painted[..., None], _GREY, brought(request, subject)).astype(np.float32)
    return left, painted.astype(np.float32)


def recolored(pixels: Pixels, request: Request, subject: Subject | None) -> Pixels:
    """What a loop has drawn, in the colours that are asked for."""
    if subject is None or not request.edit.match_colors:
        return pixels
    return matched(pixels, brought(request, subject))


def finished(pixels: Pixels, request: Request, subject: Subject | None) -> Pixels:
    """What comes out of the last canvas as the picture."""
    if subject is None:
        return pixels
    pixels = recolored(pixels, request, subject)
    if (box := _box(request, subject)) is not None:
        whole, share = subject.photo.over(), subject.share
        assert share is not None
        drawn = stretched(pixels, box.width, box.height)
        whole = whole.copy()
        whole[box.slices] = put_in(drawn, whole[box.slices], share[box.slices])
        return whole
    if subject.share is not None:
        pixels = put_in(pixels, brought(request, subject), brought_share(request, subject))
    if request.edit.fit == "own":
        width, height = subject.photo.size
        return np.ascontiguousarray(pixels[:height, :width])
    return pixels


def detailed(pixels: Pixels, subject: Subject | None) -> Pixels:
    """A picture that is given, of which nothing but details is drawn, with what of it is transparent, (height, width, 3
    or 4): as it was where nothing is drawn."""
    alpha = None if subject is None else subject.photo.alpha
    if subject is None or alpha is None:
        return pixels
    same = (pixels == subject.photo.over()).all(axis=2, keepdims=True)
    return np.dstack([np.where(same, subject.photo.pixels, pixels), alpha])


def notes_of(request: Request, subject: Subject) -> list[str]:
    """What was done with a picture to begin with, in words."""
    photo, mask, share = subject.photo, request.inpaint.mask, subject.share
    found = [*photo.notes, *_unused(request)]
    if photo.alpha is not None:
        found.append("the picture is transparent in places: white is seen there")
    if isinstance(mask, Thing) and share is not None:
        found.append(
            f"{mask.thing!r} is taken to be in {share.mean():.0%} of the picture, where the model reads it"
        )
    return found


def _unused(request: Request) -> list[str]:
    """What is said of a mask where there is none, in words."""
    if request.in_part:
        return []
    said = [name for name, each in within(request.inpaint).items() if getattr(request.inpaint, each.name)]
    return [f"{', '.join(said)}: not used, there is no mask"] if said else []
