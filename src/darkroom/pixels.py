"""Pictures as arrays, as tensors and side by side on a sheet.

*Pixels* are uint8 RGB with channels last, (H, W, 3) or (N, H, W, 3); *images* what networks see and make,
(N, 3, H, W) in [-1, 1]. Importing this does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = NDArray[np.uint8]


def to_images(pixels: Tensor | NDArray[Any]) -> Tensor:
    """Pixels (N, H, W, 3) as images in float32, on the device of a tensor; channels stay last in memory."""
    if isinstance(pixels, np.ndarray):
        import torch

        # Copied: torch warns of arrays that may not be written to.
        pixels = torch.from_numpy(np.array(pixels))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> Pixels:
    """Images as pixels (N, H, W, 3): rounded to even, and cut to the range of a byte."""
    levels = (images.detach().float() * 127.5 + 127.5).round().clamp(0, 255).byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def over_white(image: Image.Image) -> Image.Image:
    """A picture as RGB, what is transparent laid over white."""
    if image.mode == "RGB":
        return image
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def filled_in(values: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (height, width, n) where they are `known`, each weighing that much, and elsewhere what goes on from there
    smoothly: pulled up a pyramid of means and pushed down again (Gortler et al. 1996, "The Lumigraph", section 3.2)."""
    height, width = known.shape
    if height == width == 1:
        return values
    even = [(0, height % 2), (0, width % 2)]
    weighed = np.pad(values * known[..., None], [*even, (0, 0)])
    weights = np.pad(known, even)
    sums, total = _halved(weighed), _halved(weights[..., None])[..., 0]
    coarse = np.divide(sums, total[..., None], out=np.zeros_like(sums), where=total[..., None] > 0)
    pushed = _doubled(filled_in(coarse, np.minimum(total, 1)))[:height, :width]
    share = known[..., None]
    return np.asarray(values * share + pushed * (1 - share), np.float32)


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sums of squares of four."""
    h, w, n = values.shape
    return np.asarray(values.reshape(h // 2, 2, w // 2, 2, n).sum(axis=(1, 3)))


def _doubled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice as high and wide, linear between the middles of pixels."""
    for axis in (0, 1):
        size = values.shape[axis]
        before = np.take(values, np.maximum(np.arange(size) - 1, 0), axis)
        after = np.take(values, np.minimum(np.arange(size) + 1, size - 1), axis)
        pair = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis + 1)
        shape = [*values.shape]
        shape[axis] *= 2
        values = pair.reshape(shape)
    return values


def sheet(
    pictures: Sequence[Image.Image | Pixels], columns: int | None = None, gap: int = 4, ground: Any = "white"
) -> Image.Image:
    """Pictures side by side on one sheet, `gap` pixels apart and from the edge; those of several sizes are resized, so
    that each row is as wide as the others.

    columns: how many stand in a row; as nearly as many as there are rows where it is left out.
    """
    tiles = [Image.fromarray(each) if isinstance(each, np.ndarray) else each for each in pictures]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    rows = [tiles[at : at + columns] for at in range(0, len(tiles), columns)]
    width = gap + columns * (tiles[0].width + gap)
    if len({tile.size for tile in tiles}) > 1:
        rows = _justified(rows, gap)
        width = gap + max(sum(tile.width + gap for tile in row) for row in rows)
    whole = Image.new("RGB", (width, gap + sum(row[0].height + gap for row in rows)), ground)
    top = gap
    for row in rows:
        left = gap
        for tile in row:
            whole.paste(tile, (left, top))
            left += tile.width + gap
        top += row[0].height + gap
    return whole


def _justified(rows: Sequence[Sequence[Image.Image]], gap: int) -> list[list[Image.Image]]:
    """Rows of pictures of one height each, all as wide as the widest; the last, if it has fewer, no higher than the one
    before."""
    highest = [max(tile.height for tile in row) for row in rows]
    width = max(
        sum(tile.width * high / tile.height + gap for tile in row)
        for row, high in zip(rows, highest, strict=True)
    )
    found: list[list[Image.Image]] = []
    for row in rows:
        height = (width - gap * len(row)) / sum(tile.width / tile.height for tile in row)
        if found and len(row) < len(rows[0]):
            height = min(height, found[-1][0].height)
        edges = [0.0]  # Rounded as a whole, so that no row is a pixel short.
        for tile in row:
            edges.append(edges[-1] + tile.width * height / tile.height)
        sizes = [(round(end) - round(start), round(height)) for start, end in pairwise(edges)]
        found.append(
            [
                tile.resize((max(wide, 1), max(high, 1)), Image.Resampling.LANCZOS)
                for tile, (wide, high) in zip(row, sizes, strict=True)
            ]
        )
    return found
