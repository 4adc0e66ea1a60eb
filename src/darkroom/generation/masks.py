"""What of a picture is painted anew: masks, and how what was painted is put into its place.

A mask is a share for each pixel, from 0, where the picture stays as it is to the byte, to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from darkroom.errors import InvalidRequest
from darkroom.photos import Photo
from darkroom.pixels import Pixels, filled_in

ALPHA = "alpha"
"""As a mask: what is transparent in the picture itself."""

Share: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Thing:
    """As a mask: where a thing of that name is in the picture."""

    thing: str

    def to_dict(self) -> dict[str, str]:
        """Plain data, as JSON has it."""
        return {"thing": self.thing}


_OPAQUE = 4.0
_WHOLE = 254 / 255
"""From which share on a pixel is painted wholly."""
# How many levels what is drawn may differ from what was there beside it for that to be called one surface.
_ALIKE = 24.0
# How far into what was drawn what is left of a step across its border goes, and by which distance it has fallen to
# 1/e, in pixels: measured, no farther than is needed for no seam to be left (`benchmarks/seams.py`).
_REACH, _FADE = 6, 2.0


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Found(NamedTuple):
    """A thing in a picture: what it is, how sure that is, 0 to 1, its box, and, where that is known better, the share
    of each of the box's pixels, (height, width) in [0, 1], that is it."""

    label: str
    confidence: float
    box: Box
    share: Share | None = None


def share_of(
    photo: Photo, mask: Photo | str | None, box: Box | None, invert: bool, grow: int, blur: float
) -> Share:
    """The share of each pixel of a picture that is painted anew, (height, width) in [0, 1].

    mask: white is what is painted, grey what is painted at less strength, transparent is black; `ALPHA` is where the
    picture itself is transparent. A box is painted, too. Raises InvalidRequest where that is nothing.
    """
    width, height = photo.size
    share: Share = np.zeros((height, width), np.float32)
    if mask == ALPHA:
        if photo.alpha is None:
            raise InvalidRequest(
                "mask is alpha, but nothing of the picture is transparent: give a mask, or a box"
            )
        share = np.asarray(1 - photo.alpha / 255, np.float32)
    elif isinstance(mask, Photo):
        if mask.pixels.max() == 1:
            raise InvalidRequest(
                "the mask is black all over, of 0 and 1 where white is 255: give it as bool, or 255 times as bright"
            )
        share = np.asarray(mask.over(0).mean(axis=2) / 255, np.float32)
    if box is not None:
        if box.left >= width or box.top >= height:
            raise InvalidRequest(
                f"mask_box is {','.join(map(str, box))}, but the picture is of {width}x{height}"
            )
        share[box.slices] = 1
    share = 1 - share if invert else share
    share = softened(share, grow, blur)
    if nothing(share):
        raise InvalidRequest(
            "the mask covers nothing: white in it is what is painted anew, see `mask_invert=True`"
        )
    return share


def softened(share: Share, grow: int, blur: float) -> Share:
    """What is painted, larger by so many pixels, its edges then softened."""
    return _blurred(_grown(share, grow), blur)


def nothing(share: Share) -> bool:
    """Whether it is nothing that a byte would show."""
    return bool(share.max() < 1 / 255)


def _grown(share: Share, by: int) -> Share:
    """What is painted, larger by so many pixels on each side; smaller where it is below 0."""
    if by < 0:
        return 1 - _grown(1 - share, -by)
    for axis in (0, 1):
        left = by
        while left:
            # Twice as far as it has come is one more step.
            far = min(left, max(by - left, 0) * 2 + 1)
            share = np.maximum(np.maximum(_shifted(share, far, axis), _shifted(share, -far, axis)), share)
            left -= far
    return share


def _shifted(values: Share, by: int, axis: int) -> Share:
    """Values moved along an axis, 0 coming in."""
    found = np.zeros_like(values)
    size = values.shape[axis]
    if abs(by) < size:
        there, here = [slice(None)] * 2, [slice(None)] * 2
        there[axis], here[axis] = slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0))
        found[tuple(there)] = values[tuple(here)]
    return found


def _blurred(share: Share, sigma: float) -> Share:
    """A Gaussian drawn over it, cut off where A1111 does (2.5 sigma); at its edges it goes on."""
    reach = int(2.5 * sigma + 0.5)
    if not reach:
        return share
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(reach, reach) if each == axis else (0, 0) for each in (0, 1)]
        padded, size = np.pad(share, padding, "edge"), share.shape[axis]
        share = np.zeros_like(share)
        for at, weight in enumerate(weights):
            share += weight * np.take(padded, np.arange(at, at + size), axis)
    return share


def around_mask(share: Share, padding: int, proportions: float | None = None) -> Box:
    """The part of a picture that its mask and so many pixels around it take; in these `proportions` of width to height
    as far as the picture has room for that."""
    height, width = share.shape
    rows, columns = (np.flatnonzero((share > 0).any(axis=axis)) for axis in (1, 0))
    top, bottom = max(int(rows[0]) - padding, 0), min(int(rows[-1]) + 1 + padding, height)
    left, right = max(int(columns[0]) - padding, 0), min(int(columns[-1]) + 1 + padding, width)
    if proportions is not None:
        wanted = round((bottom - top) * proportions), round((right - left) / proportions)
        left, right = _widened(left, right, wanted[0], width)
        top, bottom = _widened(top, bottom, wanted[1], height)
    return Box(left, top, right - left, bottom - top)


def _widened(start: int, end: int, wanted: int, whole: int) -> tuple[int, int]:
    """A stretch of at least that length, on both sides alike where there is room."""
    length = min(max(wanted, end - start), whole)
    start = min(max(start - (length - (end - start)) // 2, 0), whole - length)
    return start, start + length


def by_latents(share: Share, factor: int) -> Share:
    """The share of each latent pixel of a canvas. On the border of a mask it is less than all, so that what is drawn
    there begins with what is there: measured, that leaves less of a seam than all or nothing
    (`benchmarks/seams.py`)."""
    found = _blocks(share, factor).mean(axis=(1, 3))
    return np.asarray(np.where(thin(share, factor), 1, found), np.float32)


def thin(share: Share, factor: int) -> NDArray[np.bool_]:
    """Which latent pixels of a canvas hold some of a line or a spot: of what is painted wholly, but fills no latent
    pixel there or beside. By their shares these would be drawn anew in part at most."""
    whole = _blocks(share >= _WHOLE, factor)
    filled = np.pad(whole.all(axis=(1, 3)), 1)
    height, width = whole.shape[0], whole.shape[2]
    beside = [filled[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(whole.any(axis=(1, 3)) & ~np.any(beside, axis=0))


def _blocks(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """The pixels (height, width) of each latent pixel: (h, factor, w, factor)."""
    height, width = values.shape
    return values.reshape(height // factor, factor, width // factor, factor)


def put_in(drawn: Pixels, picture: Pixels, share: Share) -> Pixels:
    """What was drawn, in a picture of its size where the mask is, and there as bright as what surrounds it.

    An autoencoder shifts colours a little, by what can be seen where the picture is known; that is taken away where it
    is not, smoothly from the edges on. What the two still differ by on the border, since an autoencoder blurs and what
    is drawn does not always go on from what is there, is laid over the pixels beside it.
    """
    shift = picture.astype(np.float32) - drawn
    known = (share == 0) * np.exp(-((np.abs(shift).max(axis=2) / _ALIKE) ** 2))
    evened = drawn + filled_in(shift, known.astype(np.float32))
    evened += _carried(picture - evened, share == 0)
    seen = np.minimum(share * _OPAQUE, 1)[..., None]
    mixed = (picture * (1 - seen) + evened * seen).round().clip(0, 255).astype(np.uint8)
    return np.where(share[..., None] == 0, picture, mixed)


def _carried(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values (height, width, n) where they are known, and beside that what they come to, ring by ring of pixels: the
    mean of the neighbours that are nearer, and the less of it the farther away."""
    found = np.where(known[..., None], values, 0).astype(np.float32)
    share = known.astype(np.float32)
    for ring in range(_REACH):
        there = (share > 0).astype(np.float32)
        count, sums = _of_neighbours(there), _of_neighbours(found)
        fresh = (there == 0) & (count > 0)
        found[fresh] = sums[fresh] / count[fresh][:, None]
        share[fresh] = np.exp(-ring / _FADE)
    return found * share[..., None]


def _of_neighbours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of each pixel's four neighbours."""
    moved = [_shifted(values, by, axis) for axis in (0, 1) for by in (1, -1)]
    return np.asarray(np.sum(moved, axis=0))


def fill_by(pixels: Pixels, share: Share, color: Sequence[int] | None) -> Pixels:
    """A picture with something else where the mask is: a colour, or what goes on from around it."""
    known = (share == 0).astype(np.float32)
    put = filled_in(pixels.astype(np.float32), known) if color is None else np.array([*color], np.float32)
    seen = share[..., None]
    return (pixels * (1 - seen) + put * seen).round().clip(0, 255).astype(np.uint8)
