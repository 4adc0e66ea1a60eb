"""Models made of several: weighted sums, differences carried over, spherical interpolation, block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.checkpoint.blocks import BASE, blocks_of
from darkroom.checkpoint.named import Named
from darkroom.checkpoint.source import Part, Source
from darkroom.errors import InvalidRequest, ModelError, nearest

METHODS: Mapping[str, str] = {
    "sum": "the model plus WEIGHT times what each other model has that it has not",
    "difference": "the model plus WEIGHT times what the second has that the third has not",
    "slerp": "between the model and the second along the arc between their weights, WEIGHT of the way",
}
"""How models are merged, and in words."""

_PARALLEL = 0.9995
"""Tensors whose directions' cosine is larger are interpolated along the line between them."""


@dataclass(frozen=True)
class Recipe:
    """How models are merged: a method, the weight of each other model, and by how much that is multiplied in the blocks
    of the denoising network (`darkroom.checkpoint.blocks`). `text`: text encoders as well."""

    method: str = "sum"
    weights: tuple[float, ...] = (0.5,)
    blocks: tuple[tuple[str, float], ...] = ()
    text: bool = True

    def checked(self, others: int) -> Recipe:
        """Raises InvalidRequest for a method that is not known or that so many other models do not suit."""
        if self.method not in METHODS:
            raise InvalidRequest(f"unknown way of merging {self.method!r}: {nearest(self.method, METHODS)}")
        wanted = {"difference": 2, "slerp": 1}.get(self.method)
        if others != wanted if wanted is not None else others < 1:
            few = f"{wanted or 'at least one'} other model{'s' * (wanted == 2)}"
            raise InvalidRequest(f"{self.method} is of a model and {few}, not {others}")
        return self


def blended(base: Source, others: Sequence[Source], recipe: Recipe) -> Source:
    """A model of several: read like any other, each tensor computed from theirs as it is read. Everything but weights,
    and the autoencoder, is the first one's.

    Raises ModelError where their networks have other shapes or predict something else, InvalidRequest where the recipe
    does not suit them.
    """
    recipe.checked(len(others))
    for other in others:
        if other.family.process.name != base.family.process.name:
            raise ModelError(
                f"{other.path} predicts {other.family.process.name}, {base.path} predicts {base.family.process.name}: "
                "what lies between them predicts neither, give models that predict alike"
            )
    parts, notes = dict(base.parts), [*base.notes]
    if base.denoiser.role not in (common := set(base.parts).intersection(*(other.parts for other in others))):
        raise ModelError(
            f"{base.path} has a {base.denoiser.role}, the others have none: give models of one family"
        )
    for role, part in base.parts.items():
        if role != base.denoiser.role and not (recipe.text and role.reads_text):
            continue
        if role not in common:
            lacking = ", ".join(other.path.name for other in others if role not in other.parts)
            notes.append(f"its {role} is that of {base.path.name} as it is: {lacking} has none")
            continue
        theirs = [other.parts[role] for other in others]
        parts[role] = dataclasses.replace(part, change=_Blend(part, theirs, recipe).change)
    return dataclasses.replace(base, parts=parts, notes=notes)


class _Blend:
    def __init__(self, part: Part, others: Sequence[Part], recipe: Recipe) -> None:
        self._recipe = recipe
        self._others = [Named(other) for other in others]
        self._factors = dict(recipe.blocks)
        self._blocks = blocks_of(part.build())
        own = Named(part)
        for other in self._others:
            if own.shapes != other.shapes:
                differs = sorted(set(own.shapes.items()) ^ set(other.shapes.items()))[0][0]
                raise ModelError(
                    f"{other.part.weights.path} has another shape than {part.weights.path} at {differs}: give models "
                    "of one family"
                )

    def change(self, name: str, tensor: Tensor) -> Tensor:
        found = [each.get(name) for each in self._others]
        if not tensor.is_floating_point() or any(each is None for each in found):
            return tensor  # A table that a file may lack.
        own = tensor.double()
        others = [each.double().reshape(own.shape) for each in found if each is not None]
        factor = self._factors.get(self._blocks.get(name.rpartition(".")[0], BASE), 1.0)
        weights = [weight * factor for weight in self._recipe.weights]
        match self._recipe.method:
            case "difference":
                return own + weights[0] * (others[0] - others[1])
            case "slerp":
                return slerp(own, others[0], weights[0])
        return own + sum(
            (weight * (other - own) for weight, other in zip(weights, others, strict=True)), torch.zeros(())
        )


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """From `a` (0) to `b` (1) along the arc between their directions (Shoemake 1985), and along the line where these
    are nearly parallel or opposite, or one has none."""
    lengths = a.norm() * b.norm()
    cosine = float((a * b).sum() / lengths) if float(lengths) else 1.0
    if abs(cosine) > _PARALLEL:
        return a + share * (b - a)
    angle = torch.acos(torch.tensor(cosine, dtype=a.dtype))
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
