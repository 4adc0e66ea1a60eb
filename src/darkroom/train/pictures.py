"""Pictures as tensors, tensors as sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def to_tensor(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_arrays(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [-1, 1] to (N, H, W, 3) uint8."""
    pixels = (images.detach().float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture (N,), both in [-1, 1] and first clamped to it."""
    error = (images.float().clamp(-1, 1) - truth.float()).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def sheet(rows: Sequence[NDArray[np.uint8]], gap: int = 2) -> Image.Image:
    """Rows of pictures (N, H, W, 3), one under the other."""
    lines = [
        np.concatenate([np.pad(p, ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in r], 1)
        for r in rows
    ]
    return Image.fromarray(np.concatenate(lines))
