"""Latents drawn in tiles: each is denoised by itself, and where they overlap what the networks say is joined.

So a network that draws well at its own size draws pictures of any, in the memory of that size. All tiles make each step
together: what one knows of a neighbour it knows by what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from darkroom.checkpoint.family import Family
from darkroom.generation.parts import Tiling
from darkroom.generation.work import Row
from darkroom.networks.tiles import places, starts

# Of Mixture of Diffusers: how wide the bell of a tile is, as the variance of one that is 1 long.
_VARIANCE = 0.01


@dataclass(frozen=True)
class Tiles:
    """Tiles of `tile` = (height, width) that begin at `tops` and `lefts` of a latent of `size`; what of them is beyond
    an edge is at the other one.

    blend: "average" joins them by their mean (MultiDiffusion: Bar-Tal et al. 2023, https://arxiv.org/abs/2302.08113,
    equation 5), "gaussian" by one in which the middle of each counts most (Mixture of Diffusers: Barbero Jimenez 2023,
    https://arxiv.org/abs/2302.02412, section 3.1).
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    blend: str

    def cut(self, row: Row) -> list[Row]:
        """A row of a network call, tile by tile."""
        # Along an axis of several tiles their edges are none of the picture's.
        whole = [axis for axis, side, own in zip("yx", self.size, self.tile, strict=True) if side == own]
        seamless = "".join(axis for axis in row.seamless if axis in whole)
        return [replace(row, x=row.x[..., ys[:, None], xs], seamless=seamless) for ys, xs in self._places()]

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        """What the network says of the whole latent (1, C, h, w), given what it says of each tile."""
        weight = self._weight()
        made = torch.zeros(*outputs[0].shape[:-2], *self.size)
        total = torch.zeros(self.size)
        for (ys, xs), output in zip(self._places(), outputs, strict=True):
            made[..., ys[:, None], xs] += output * weight
            total[ys[:, None], xs] += weight
        return made / total

    def _places(self) -> list[tuple[Tensor, Tensor]]:
        (high, wide), (tall, broad) = self.size, self.tile
        return [
            (places(top, tall, high), places(left, broad, wide)) for top in self.tops for left in self.lefts
        ]

    def _weight(self) -> Tensor:
        """How much each place of a tile counts, (height, width)."""
        if self.blend == "average":
            return torch.ones(self.tile)
        return torch.outer(*(_bell(side) for side in self.tile))


def _bell(side: int) -> Tensor:
    apart = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / side
    return torch.exp(-apart.square() / (2 * _VARIANCE)).float()


def tiles_of(tiling: Tiling, width: int, height: int, family: Family) -> Tiles | None:
    """Those in which a picture is drawn, as settled settings say; None where it is no larger than one."""
    if tiling.tile is None or tiling.tile >= max(width, height):
        return None
    assert tiling.overlap is not None
    axes, tile, overlap = tiling.seamless or "", tiling.tile // family.factor, tiling.overlap // family.factor
    high, wide = size = height // family.factor, width // family.factor
    tall, broad = min(tile, high), min(tile, wide)
    tops, lefts = starts(high, tall, overlap, "y" in axes), starts(wide, broad, overlap, "x" in axes)
    return Tiles(size, (tall, broad), tuple(tops), tuple(lefts), tiling.blend)
