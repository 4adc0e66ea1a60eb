"""The colours of one picture given to another: A1111's colour correction (`modules/processing.py`).

Repeated drawing drifts in colour. The histogram of each channel of CIELAB is brought to that of a picture to keep to,
and the light and shade stay as they were drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from darkroom.pixels import Pixels

# sRGB's primaries in CIE XYZ, of its white point D65 (IEC 61966-2-1).
_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = _XYZ.sum(axis=1)
_LIGHT = np.array([0.3, 0.59, 0.11])
"""How bright each colour is, as the blend modes of the W3C have it
(https://www.w3.org/TR/compositing-1/#blendingnonseparable)."""

_Numbers = NDArray[np.float64]


def matched(pixels: Pixels, like: Pixels) -> Pixels:
    """A picture (h, w, 3) uint8 in the range of colours of another, (H, W, 3), and in its own light and shade."""
    ours, theirs = _lab(pixels), _lab(like)
    for channel in range(3):
        ours[..., channel] = _histogram_matched(ours[..., channel], theirs[..., channel])
    lit = _in_light_of(_rgb(ours), pixels / 255)
    return (lit * 255).round().clip(0, 255).astype(np.uint8)


def _histogram_matched(values: Pixels, like: Pixels) -> Pixels:
    """Bytes of any shape, distributed as others are: each goes where as many are below it there."""
    counts, wanted = (np.bincount(each.ravel(), minlength=256) for each in (values, like))
    present = wanted.nonzero()[0]
    below, below_there = counts.cumsum() / values.size, wanted[present].cumsum() / like.size
    table = np.interp(below, below_there, present)
    return table.round().astype(np.uint8)[values]


def _in_light_of(colors: _Numbers, lit: _Numbers) -> _Numbers:
    """Colours in [0, 1] as bright as others, drawn towards their grey where they would leave that range."""
    shifted = colors + ((lit - colors) @ _LIGHT)[..., None]
    grey = (shifted @ _LIGHT)[..., None]
    lowest, highest = shifted.min(axis=-1, keepdims=True), shifted.max(axis=-1, keepdims=True)
    share = np.ones_like(grey)
    np.divide(grey, grey - lowest, out=share, where=lowest < 0)
    drawn = grey + (shifted - grey) * share
    share = np.ones_like(grey)
    np.divide(1 - grey, highest - grey, out=share, where=highest > 1)
    return np.asarray(grey + (drawn - grey) * share)


def _lab(pixels: Pixels) -> Pixels:
    """CIELAB in bytes, as OpenCV has it: L in 255ths of its range, a and b from 128 on."""
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    scaled = linear[pixels] @ _XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116), -1, 0)
    lab = np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], axis=-1)
    return lab.round().clip(0, 255).astype(np.uint8)


def _rgb(lab: Pixels) -> _Numbers:
    """The inverse, (h, w, 3) in [0, 1]."""
    lightness, a, b = np.moveaxis(lab.astype(np.float64), -1, 0)
    y = (lightness / 2.55 + 16) / 116
    roots = np.stack([y + (a - 128) / 500, y, y - (b - 128) / 200], axis=-1)
    scaled = np.where(roots > 0.206893, roots**3, (roots - 16 / 116) / 7.787)
    linear = (scaled * _WHITE) @ np.linalg.inv(_XYZ).T
    linear = linear.clip(0, 1)
    return np.asarray(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))
