"""Patterns that styles lay over pictures: smooth noise, paper, hatching. Made once per size and kept."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]


@lru_cache(maxsize=64)
def noise(side: int, cells: int, seed: int) -> Field:
    """Smooth noise about 0 with deviations of about 1, (side, side); `cells` blots fit along an edge."""
    grid = np.random.default_rng((seed, cells)).standard_normal((cells + 2, cells + 2)).astype(np.float32)
    image = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


@lru_cache(maxsize=32)
def warp(side: int, seed: int, reach: float) -> NDArray[np.intp]:
    """Flat indices that shift every pixel by a smooth amount of up to about `reach` (of the picture)."""
    shift = side * reach / 2
    rows, columns = np.indices((side, side))
    dy = noise(side, 14, seed) * shift + noise(side, 40, seed + 1) * shift * 0.5
    dx = noise(side, 14, seed + 2) * shift + noise(side, 40, seed + 3) * shift * 0.5
    y = np.clip(np.rint(rows + dy), 0, side - 1).astype(np.intp)
    x = np.clip(np.rint(columns + dx), 0, side - 1).astype(np.intp)
    return y * side + x


@lru_cache(maxsize=8)
def paper(side: int) -> Field:
    """The grain of watercolour paper, about 0 with deviations of about 1."""
    return (0.7 * noise(side, 64, 90) + 0.5 * noise(side, 24, 91)).astype(np.float32)


@lru_cache(maxsize=16)
def border(side: int, seed: int) -> Field:
    """1 inside the picture, falling to 0 along an uneven edge as broad brushes leave it."""
    ramp = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / side
    edge = np.minimum(ramp[:, None], ramp[None, :]).astype(np.float32)
    mask: Field = np.clip((edge - 0.012 + 0.006 * noise(side, 18, seed)) / 0.012, 0, 1)
    return mask


@lru_cache(maxsize=16)
def hatching(side: int, spacing: float, width: float, falling: bool) -> NDArray[np.bool_]:
    """Parallel diagonal lines; spacing and width in fractions of the picture. True on a line."""
    rows, columns = np.indices((side, side)) / side
    along = (columns - rows if falling else columns + rows) + 0.002 * noise(side, 20, 7)
    lines: NDArray[np.bool_] = np.mod(along, spacing) < width
    return lines


@lru_cache(maxsize=8)
def bayer(side: int) -> Field:
    """Ordered-dither thresholds from -0.5 to 0.5, (side, side, 1)."""
    cell = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], dtype=np.float32)
    tiled: Field = np.tile((cell + 0.5) / 16 - 0.5, (side // 4 + 1, side // 4 + 1)).astype(np.float32)
    return tiled[:side, :side, None]
