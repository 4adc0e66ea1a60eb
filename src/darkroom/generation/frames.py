"""A picture brought to another size: stretched, cut or continued."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darkroom.generation.parts import LATENT
from darkroom.pixels import Pixels

# What of a side is left out before it is continued (painters leave a rim), and what beside it is drawn out, in heights
# of the picture.
_RIM = 0.04
# Within how much of the picture's height a continuation loses its detail, and how much.
_FADING, _BLUR = 1 / 16, 1 / 40


Picture = TypeVar("Picture", bound=Any)
"""Pixels (h, w, 3), or a tensor (1, C, h, w)."""


def near(side: float, unit: int) -> int:
    """The multiple of `unit` nearest to a side, at least one."""
    return max(round(side / unit), 1) * unit


def around(side: float, unit: int) -> int:
    """The least multiple of `unit` in which a side has room."""
    return math.ceil(side / unit) * unit


_LANCZOS = Image.Resampling.LANCZOS
FILTERS = {"lanczos": _LANCZOS, "nearest": Image.Resampling.NEAREST}
"""The ways in which pictures are made larger without a network."""


def by_network(upscaler: str | None) -> bool:
    """Whether the setting of that name asks for a network, not for a filter and not for the latent's own way."""
    return upscaler is not None and upscaler not in FILTERS and upscaler not in LATENT


def filter_of(upscaler: str | None) -> Image.Resampling:
    """The filter that it asks for, Lanczos where it asks for something else."""
    return FILTERS.get(str(upscaler), _LANCZOS)


class Resized(Protocol):
    """Brings a picture (h, w, 3) uint8 to (height, width, 3); `by`: what is between pixels."""

    def __call__(
        self, pixels: Pixels, width: int, height: int, by: Image.Resampling = _LANCZOS
    ) -> Pixels: ...


def stretched(pixels: Pixels, width: int, height: int, by: Image.Resampling = _LANCZOS) -> Pixels:
    """A picture (h, w, 3) uint8 as (height, width, 3), whatever becomes of its proportions."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), by))


def fitted(pixels: Pixels, width: int, height: int, by: Image.Resampling = _LANCZOS) -> Pixels:
    """A picture as (height, width, 3) in its own proportions: what is too much is cut off on both sides alike."""
    h, w = pixels.shape[:2]
    if (w, h) == (width, height):
        return pixels
    shown = min(w, h * width / height), min(h, w * height / width)
    left, top = (w - shown[0]) / 2, (h - shown[1]) / 2
    box = left, top, left + shown[0], top + shown[1]
    return np.asarray(Image.fromarray(pixels).resize((width, height), by, box=box))


def padded(pixels: Pixels, width: int, height: int, by: Image.Resampling = _LANCZOS) -> Pixels:
    """A picture as the middle of one of (height, width, 3), as large as fits there, its outermost pixels going on."""
    h, w = pixels.shape[:2]
    scale = min(width / w, height / h)
    inner = stretched(pixels, min(max(round(w * scale), 1), width), min(max(round(h * scale), 1), height), by)
    wide, high = width - inner.shape[1], height - inner.shape[0]
    return np.pad(inner, ((high // 2, high - high // 2), (wide // 2, wide - wide // 2), (0, 0)), "edge")


def continued(pixels: Pixels, width: int, height: int) -> Pixels:
    """A picture as the middle of one of (height, width, 3), as large as fits there, its edges drawn out to both sides.

    What is at an edge goes on as lines that soon lose their detail: sky, water and ground as a first idea, for a model
    to draw upon.
    """
    h, w = pixels.shape[:2]
    if w * height > width * h:  # What is missing is above and below.
        turned = continued(pixels.transpose(1, 0, 2), height, width)
        return np.ascontiguousarray(turned.transpose(1, 0, 2))
    middle = stretched(pixels, round(w * height / h), height).astype(np.float32)
    missing = width - middle.shape[1]
    rim = round(height * _RIM) if missing else 0
    if not rim:
        return stretched(pixels, width, height)
    before = missing // 2
    left = _drawn_out(middle[:, rim : 2 * rim + 1], before + rim)[:, ::-1]
    right = _drawn_out(middle[:, -2 * rim - 1 : -rim], missing - before + rim)
    whole = np.concatenate([left, middle[:, rim:-rim], right], axis=1)
    return whole.round().clip(0, 255).astype(np.uint8)


# How far a picture whose edges meet is laid on around it before it is made larger: as far as filters and upscalers see.
_REACH = 16


@dataclass(frozen=True)
class Rim:
    """What is laid around a picture of `inner` = (height, width) along axes where its edges meet, to make it one of
    `outer` with what is then around that: so much above and below, and so much left and right, for `before` and
    `after`."""

    inner: tuple[int, int]
    outer: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @classmethod
    def around(cls, inner: Sequence[int], outer: Sequence[int], axes: str) -> Rim:
        """That of a picture that is seamless along those axes; without any there is none."""
        rims = [
            _rim(*sides) if axis in axes else (0, 0) for axis, *sides in zip("yx", inner, outer, strict=True)
        ]
        (above, higher), (left, wider) = rims
        return cls((inner[0], inner[1]), (outer[0], outer[1]), (above, left), (higher, wider))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is made with it around."""
        return self.outer[0] + 2 * self.after[0], self.outer[1] + 2 * self.after[1]

    def laid(self, picture: Picture) -> Picture:
        """A picture, (h, w, 3) uint8 or (1, C, h, w), with it around."""
        if not any(self.before):
            return picture
        rows, columns = (
            np.arange(-rim, side + rim) % side for side, rim in zip(self.inner, self.before, strict=True)
        )
        return _part(picture, rows[:, None], columns)

    def taken_off(self, picture: Picture) -> Picture:
        """What was made, without it."""
        ys, xs = (slice(rim, rim + side) for side, rim in zip(self.outer, self.after, strict=True))
        return _part(picture, ys, xs)


def _part(picture: Picture, rows: Any, columns: Any) -> Picture:
    own = picture[rows, columns] if isinstance(picture, np.ndarray) else picture[..., rows, columns]
    return cast(Picture, own)


def _rim(inner: int, outer: int) -> tuple[int, int]:
    """The least that reaches far enough and is a whole number of pixels before and after."""
    step = inner // math.gcd(inner, outer)
    before = math.ceil(_REACH / step) * step
    return before, before * outer // inner


def without_edges(
    resized: Callable[[Pixels, int, int], Pixels], axes: str
) -> Callable[[Pixels, int, int], Pixels]:
    """A way to bring pictures to another size, for those whose edges meet along some axes."""
    if not axes:
        return resized

    def brought(pixels: Pixels, width: int, height: int) -> Pixels:
        rim = Rim.around(pixels.shape[:2], (height, width), axes)
        high, wide = rim.size
        return rim.taken_off(resized(rim.laid(pixels), wide, high))

    return brought


def _drawn_out(edge: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """The mean colours of an edge (h, n, 3) going on for some columns away from it: (h, columns, 3)."""
    height = len(edge)
    near = edge.mean(axis=1)
    far = _softened(near, height * _BLUR)
    share = np.minimum(np.arange(columns, dtype=np.float32) / (height * _FADING), 1)[:, None]
    drawn: NDArray[np.float32] = near[:, None] * (1 - share) + far[:, None] * share
    return drawn


def _softened(colours: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Colours (h, 3) with a Gaussian drawn over them."""
    reach = int(3 * sigma) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(colours, ((reach, reach), (0, 0)), mode="edge")
    rows = [np.convolve(channel, weights / weights.sum(), "valid") for channel in padded.T]
    return np.stack(rows, axis=1).astype(np.float32)
