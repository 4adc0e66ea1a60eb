"""What generators do to pictures, done to drawn ones: softness, noise, compression, tints, slight bending.

Everything here is mild: a person would name the same things in the same colours before and after.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(count,): true for about a share of the pictures."""
    return _uniform((count,), generator) < share


def degraded(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1], each picture with some of the artefacts; about one in five stays as it is."""
    x, touched = images.clone(), chosen(len(images), 0.8, generator)
    for artefact, share in (
        (tinted, 0.5),
        (haunted, 0.15),
        (softened, 0.35),
        (compressed, 0.35),
        (noisy, 0.4),
    ):
        rows = (touched & chosen(len(x), share, generator)).nonzero()[:, 0]
        if len(rows):
            x[rows] = artefact(x[rows], generator)
    return x.clamp(-1, 1)


def moved(images: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half the pictures mirrored, some shifted and scaled, some bent a little, with their boxes (B, K, 4)
    in fractions of the picture. Boxes may then reach beyond the frame."""
    count, device = len(images), images.device
    # Not too many: a picture drawn anew between its pixels does not show any more that it was pixel art.
    some = chosen(count, 0.35, generator)[:, None].float()
    scale = (some * 0.16 * _spread((count, 1), generator)).exp()
    shift = some * 0.08 * _spread((count, 2), generator)
    flip = 1 - 2 * chosen(count, 0.5, generator)[:, None].float()
    zoom = torch.cat([scale * flip, scale], 1)  # (B, 2): x and y
    side = images.shape[-1]
    line = (torch.arange(side, device=device) + 0.5) / side - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([x, y], -1) * zoom[:, None, None] + shift[:, None, None]
    bend = F.interpolate(
        _spread((count, 2, 5, 5), generator), (side, side), mode="bicubic", align_corners=False
    )
    strength = 0.025 * _uniform((count, 1), generator) * chosen(count, 0.3, generator)[:, None]
    grid = grid + bend.permute(0, 2, 3, 1) * strength[:, None, None]
    result = F.grid_sample(images, 2 * grid, mode="bilinear", padding_mode="border", align_corners=False)
    corners = boxes.reshape(count, -1, 2, 2)
    corners = (corners - 0.5 - shift[:, None, None]) / zoom[:, None, None] + 0.5
    return result, torch.cat([corners.amin(2), corners.amax(2)], -1)


def tinted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and the balance of the channels off by a little."""
    count = len(x)
    contrast = 1 + 0.12 * _spread((count, 1, 1, 1), generator)
    balance = 1 + 0.04 * _spread((count, 3, 1, 1), generator)
    return x * contrast * balance + 0.07 * _spread((count, 1, 1, 1), generator)


def haunted(x: Tensor, generator: torch.Generator) -> Tensor:
    """A faint trace of the next picture of the batch."""
    return torch.lerp(x, x.roll(1, 0), 0.12 * _uniform((len(x), 1, 1, 1), generator))


def softened(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blurred by a Gaussian of up to 0.8 pixels, each picture by its own."""
    sigma = 0.3 + 0.5 * _uniform((len(x), 1), generator)
    offsets = torch.arange(-2, 3, device=x.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)
    flat = F.pad(x, (2, 2, 2, 2), mode="reflect").flatten(0, 1)[None]
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=flat.shape[1])
    return F.conv2d(flat, kernel[:, None, None, :], groups=flat.shape[1]).view_as(x)


def compressed(x: Tensor, generator: torch.Generator) -> Tensor:
    """The cosine transform of each 8x8 block rounded, high frequencies the most, as JPEG does."""
    count, channels, height, width = x.shape
    basis = _cosines(8, x.device)
    blocks = x.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    order = torch.arange(8, device=x.device)
    step = (1 + order[:, None] + order) * (0.01 + 0.05 * _uniform((count, 1, 1, 1, 1, 1), generator))
    coefficients = ((basis @ blocks @ basis.T) / step).round() * step
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(x.shape)


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Grain, fine or coarse."""
    count, channels, height, width = x.shape
    fine = torch.randn(x.shape, generator=generator, device=x.device)
    coarse = torch.randn((count, channels, height // 4, width // 4), generator=generator, device=x.device)
    grain = torch.lerp(
        fine, F.interpolate(coarse, (height, width), mode="bilinear"), _uniform((count, 1, 1, 1), generator)
    )
    return x + 0.09 * _uniform((count, 1, 1, 1), generator) * grain


def _cosines(size: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix."""
    k = torch.arange(size, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _spread(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform in [-1, 1]."""
    return 2 * _uniform(shape, generator) - 1
