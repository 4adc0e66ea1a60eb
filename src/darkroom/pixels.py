"""Pictures as arrays, as tensors and side by side on a sheet.

*Pixels* are uint8 RGB with channels last, (H, W, 3) or (N, H, W, 3); *images* what networks see and make,
(N, 3, H, W) in [-1, 1]. Importing this does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def sheet(
    pictures: Sequence[Image.Image | Pixels], columns: int | None = None, gap: int = 4, ground: Any = "white"
) -> Image.Image:
    """Pictures side by side on one sheet, in cells as large as the largest, `gap` pixels apart and from the edge.

    columns: how many stand in a row; as nearly as many as there are rows where it is left out.
    """
    tiles = [Image.fromarray(each) if isinstance(each, np.ndarray) else each for each in pictures]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    width = max(tile.width for tile in tiles) + gap
    height = max(tile.height for tile in tiles) + gap
    whole = Image.new("RGB", (columns * width + gap, -(-len(tiles) // columns) * height + gap), ground)
    for i, tile in enumerate(tiles):
        whole.paste(tile, (gap + i % columns * width, gap + i // columns * height))
    return whole
