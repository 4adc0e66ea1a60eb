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
    seamless: str = "",
) -> Tensor:
    """What a network that shrinks by `down` and grows by `up` makes of x (B, C, H, W), tile by tile: (B, channels,
    up * H / down, up * W / down) on the device of x.

    Sizes count after shrinking. Of what two tiles make of where they overlap, the outermost `halo` of each is left out,
    where a network misses what is beyond; in between one passes into the other. seamless: as of
    `darkroom.networks.seamless`; along an axis of one tile, that is for the network to see to.
    """
    height, width = (size // down for size in x.shape[-2:])
    high, wide = (tile, tile) if isinstance(tile, int) else tile
    high, wide = min(high, height), min(wide, width)
    out = torch.zeros(len(x), channels, up * height, up * width, device=x.device)
    for ys, row in _windows(height, high, overlap, up, halo, "y" in seamless):
        for xs, column in _windows(width, wide, overlap, up, halo, "x" in seamless):
            part = network(x[..., places(ys, high, height, down)[:, None], places(xs, wide, width, down)])
            own = part * torch.outer(row, column).to(out.device)
            out[..., places(ys, high, height, up)[:, None], places(xs, wide, width, up)] += own
    return out.to(part.dtype)


def places(start: int, tile: int, size: int, factor: int = 1) -> Tensor:
    """The indices of what is in a tile that begins at `start` and may go on at the other edge, of a side that is
    `factor` times as long as `size`."""
    return torch.arange(factor * start, factor * (start + tile)) % (factor * size)


def starts(size: int, tile: int, overlap: int, wraps: bool = False) -> list[int]:
    """Where tiles begin that cover `size`, evenly spread and overlapping by `overlap` at least. wraps: the last ones go
    on at the beginning."""
    if wraps and size > tile:
        count = math.ceil(size / max(tile - overlap, 1))
        return [i * size // count for i in range(count)]
    count = _count(size, tile, overlap)
    return [i * (size - tile) // max(count - 1, 1) for i in range(count)]


def snug(size: int, tile: int, overlap: int, wraps: bool = False) -> int:
    """The smallest tile by which as few cover `size` as by one of that size: what overlaps more than it must is work
    done twice."""
    if wraps and size > tile:
        return math.ceil(size / len(starts(size, tile, overlap, wraps))) + overlap
    count = _count(size, tile, overlap)
    return math.ceil((size + (count - 1) * overlap) / count)


def tile_count(height: int, width: int, tile: int, overlap: int) -> int:
    """How many tiles there are of a picture."""
    return _count(height, tile, overlap) * _count(width, tile, overlap)


def _count(size: int, tile: int, overlap: int) -> int:
    return 1 + math.ceil(max(size - tile, 0) / max(tile - overlap, 1))


def _windows(
    size: int, tile: int, overlap: int, scale: int, halo: int = 0, wraps: bool = False
) -> list[tuple[int, Tensor]]:
    """Where tiles begin that cover `size`, with weights (scale * tile,) that sum to one everywhere. Where it `wraps`
    they may go on at the beginning."""
    begins, wraps = starts(size, tile, overlap, wraps), wraps and size > tile
    ramp, most = torch.arange(1.0, scale * tile + 1) - scale * halo, float(scale * (overlap - 2 * halo) + 1)
    weights = []
    for start in begins:
        # What is at an edge of the picture is not blended with anything.
        before = ramp if start or wraps else torch.full_like(ramp, most)
        after = ramp.flip(0) if start + tile < size or wraps else torch.full_like(ramp, most)
        weights.append(torch.minimum(before, after).clamp(0, most))
    at = [places(start, tile, size, scale) for start in begins]
    total = torch.zeros(scale * size)
    for own, weight in zip(at, weights, strict=True):
        total[own] += weight
    return [(start, weight / total[own]) for start, own, weight in zip(begins, at, weights, strict=True)]
