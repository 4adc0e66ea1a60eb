"""Convolution networks on pictures too large for them: tile by tile, blended where tiles overlap."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def in_tiles(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int | tuple[int, int],
    overlap: int,
    channels: int,
    down: int = 1,
    up: int = 1,
    halo: int = 0,
) -> Tensor:
    """What a network that shrinks by `down` and grows by `up` makes of x (B, C, H, W), tile by tile: (B, channels,
    up * H / down, up * W / down) on the device of x.

    Sizes count after shrinking. Of what two tiles make of where they overlap, the outermost `halo` of each is left out,
    where a network misses what is beyond; in between one passes into the other.
    """
    height, width = (size // down for size in x.shape[-2:])
    high, wide = (tile, tile) if isinstance(tile, int) else tile
    out = torch.zeros(len(x), channels, up * height, up * width, device=x.device)
    for ys, row in _windows(height, high, overlap, up, halo):
        for xs, column in _windows(width, wide, overlap, up, halo):
            part = network(x[..., _times(down, ys), _times(down, xs)])
            out[..., _times(up, ys), _times(up, xs)] += part * torch.outer(row, column).to(out.device)
    return out.to(part.dtype)


def snug(size: int, tile: int, overlap: int) -> int:
    """The smallest tile by which as few cover `size` as by one of that size: what overlaps more than it must is work
    done twice."""
    count = _count(size, tile, overlap)
    return math.ceil((size + (count - 1) * overlap) / count)


def tile_count(height: int, width: int, tile: int, overlap: int) -> int:
    """How many tiles there are of a picture."""
    return _count(height, tile, overlap) * _count(width, tile, overlap)


def _count(size: int, tile: int, overlap: int) -> int:
    return 1 + math.ceil(max(size - tile, 0) / max(tile - overlap, 1))


def _windows(size: int, tile: int, overlap: int, scale: int, halo: int = 0) -> list[tuple[slice, Tensor]]:
    """Evenly spread tiles that cover `size`, with weights (scale * tile,) that sum to one everywhere."""
    count, tile = _count(size, tile, overlap), min(tile, size)
    starts = [round(i * (size - tile) / max(count - 1, 1)) for i in range(count)]
    ramp, most = torch.arange(1.0, scale * tile + 1) - scale * halo, float(scale * (overlap - 2 * halo) + 1)
    weights = []
    for start in starts:
        # What is at an edge of the picture is not blended with anything.
        before = ramp if start else torch.full_like(ramp, most)
        after = ramp.flip(0) if start + tile < size else torch.full_like(ramp, most)
        weights.append(torch.minimum(before, after).clamp(0, most))
    total = torch.zeros(scale * size)
    for start, weight in zip(starts, weights, strict=True):
        total[scale * start : scale * (start + tile)] += weight
    return [
        (slice(a, a + tile), weight / total[scale * a : scale * (a + tile)])
        for a, weight in zip(starts, weights, strict=True)
    ]


def _times(factor: int, span: slice) -> slice:
    return slice(factor * span.start, factor * span.stop)
