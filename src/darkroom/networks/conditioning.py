"""What a denoising network is told besides the noisy latent and its time: one object, whatever the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.errors import ModelError
from darkroom.networks.layers import Attend, attend
from darkroom.networks.watched import Watcher

_NUMBERS = ("sizes", "labels", "guidance")
_PLAIN = ("context", "pooled", *_NUMBERS)
_NO_ARC = 1e-3


class Residuals(NamedTuple):
    """What a ControlNet adds to a network's own states.

    blocks: U-Net: one for every skip connection, in the order they are made, (B, C, h, w) each; MMDiT: any number,
    spread evenly over its blocks and added after every one but the last, (B, N, width) each. mid: U-Net: to its middle.
    """

    blocks: tuple[Tensor, ...]
    mid: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What B rows are told; each network takes what it was made for, and lets the rest be.

    context: what cross-attention sees, (B, tokens, width). pooled: what the whole text comes to, (B, P).
    sizes: sizes, crops or scores, (B, N): SDXL. labels: class numbers or noise levels (B,), or an image embedding
    (B, E): upscaler, unCLIP. guidance: the guidance scale less one, (B,): networks distilled to take it (LCM).
    residuals: a ControlNet's. attention: takes the place of the attention of every layer.
    """

    context: Tensor
    pooled: Tensor | None = None
    sizes: Tensor | None = None
    labels: Tensor | None = None
    guidance: Tensor | None = None
    residuals: Residuals | None = None
    attention: Attend | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal where conditionings can go `together`: which parts there are, and of what shape in a row."""
        return tuple((name, tuple(part.shape[1:])) for name, part in self._tensors().items())

    @property
    def finite(self) -> bool:
        """Whether all that text encoders made of it is numbers."""
        return all(bool(each.isfinite().all()) for each in (self.context, self.pooled) if each is not None)

    def needed(self, name: str) -> Tensor:
        """A part that the network cannot do without. Raises ModelError where it is not there."""
        part: Tensor | None = getattr(self, name)
        if part is None:
            raise ModelError(f"this network is conditioned on more than text: it needs Conditioning.{name}")
        return part

    def towards(self, other: Conditioning, share: float) -> Conditioning:
        """What is told on the way from this to another of the same `key`, told of text alone: each token's vector, and
        that of the whole text, along the arc between the two."""
        pooled = self.pooled
        if pooled is not None:
            pooled = slerp(pooled, other.needed("pooled"), share)
        return Conditioning(slerp(self.context, other.context, share), pooled)

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditioning:
        """The same on a device; numbers (sizes, labels, guidance) in their own precision, the rest in `dtype`."""
        moved = {
            name: part.to(device) if name in _NUMBERS else part.to(device, dtype)
            for name, part in self._tensors().items()
        }
        return _conditioning(moved, self.attention)

    def _tensors(self) -> dict[str, Tensor]:
        """All its tensors by name, residuals by their numbers."""
        found: dict[str, Tensor | None] = {name: getattr(self, name) for name in _PLAIN}
        if self.residuals is not None:
            found |= {str(number): block for number, block in enumerate(self.residuals.blocks)}
            found["mid"] = self.residuals.mid
        return {name: part for name, part in found.items() if part is not None}


def together(rows: Sequence[Conditioning]) -> Conditioning:
    """The conditionings of some rows, of one `key`, as one of all of them."""
    each = [row._tensors() for row in rows]
    joined = {name: torch.cat([own[name] for own in each]) for name in each[0]}
    return _conditioning(joined, each_its_own([row.attention for row in rows]))


def _conditioning(tensors: Mapping[str, Tensor], attention: Attend | None) -> Conditioning:
    """The inverse of `_tensors`."""
    blocks = tuple(part for name, part in tensors.items() if name.isdigit())
    residuals = Residuals(blocks, tensors.get("mid")) if blocks else None
    plain = {name: tensors[name] for name in _PLAIN if name in tensors}
    return Conditioning(**plain, residuals=residuals, attention=attention)


def each_its_own(attentions: Sequence[Attend | None]) -> Attend | None:
    """The attention of a call of which each row has its own. All of them see all rows, and each row is given what its
    own gathers, so that it does not depend on the rows beside it. Those that only watch see their rows alone."""
    different = list(dict.fromkeys(attentions))
    if len(different) == 1:
        return different[0]

    def attention(q: Tensor, k: Tensor, v: Tensor, name: str) -> Tensor:
        gathered = attend(q, k, v)
        for own in filter(None, different):
            if isinstance(own, Watcher):
                own.see(q, k, name, [row for row, each in enumerate(attentions) if each is own])
                continue
            rows = torch.tensor([each is own for each in attentions])
            gathered = torch.where(beside(rows, gathered), own(q, k, v, name), gathered)
        return gathered

    return attention


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Vectors (..., N) on the way from those of `a` to those of `b`: their directions along the arc between the two
    (Shoemake 1985), their lengths along the line."""
    dtype, a, b = a.dtype, a.float(), b.float()
    lengths = [each.norm(dim=-1, keepdim=True) for each in (a, b)]
    tiny = torch.finfo(torch.float32).tiny
    first, second = (each / length.clamp(min=tiny) for each, length in zip((a, b), lengths, strict=True))
    angle = torch.acos((first * second).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    along = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / sine.clamp(
        min=tiny
    )
    # Of vectors that lie along one line there is no arc, and of one without length no direction.
    straight = (sine < _NO_ARC) | (lengths[0] <= tiny) | (lengths[1] <= tiny)
    length = (1 - share) * lengths[0] + share * lengths[1]
    return torch.where(straight, (1 - share) * a + share * b, along * length).to(dtype)


def beside(rows: Tensor, x: Tensor) -> Tensor:
    """Something of each row (B,), in a shape that goes with x (B, ...)."""
    return rows.to(x.device).view(-1, *(1,) * (x.ndim - 1))
