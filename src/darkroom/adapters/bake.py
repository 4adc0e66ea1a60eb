"""A model with adapters in its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from darkroom.adapters.collection import Collection
from darkroom.adapters.dose import Dose, doses_by_role
from darkroom.adapters.names import Place
from darkroom.adapters.patches import Patch
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.named import Named
from darkroom.checkpoint.source import Part, Source
from darkroom.language.tags import parse_tag
from darkroom.networks.roles import Role
from darkroom.weights.writing import Progress


def bake(
    source: Source,
    loras: Sequence[str],
    out: Path,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write a model with LoRAs, named as in `Request.adapters`, in its weights, as `darkroom.checkpoint.export.convert`
    writes models; what no network needs is left out. Gives what of the LoRAs was not used, in words. Raises as that
    does, and ModelError where a LoRA does not fit."""
    collection = Collection(source.build(), str(source.path))
    adapters = [(tag, collection.adapter(tag)) for tag in map(parse_tag, loras)]
    convert(baked(source, doses_by_role(adapters)), out, dtype, prune=True, progress=progress)
    notes = [note for _, adapter in adapters for note in adapter.notes]
    for _, adapter in adapters:
        if words := ", ".join(adapter.embeddings):
            notes.append(
                f"{adapter.name}: the embeddings that came with it ({words}) are not in a model's weights"
            )
    return notes


def baked(source: Source, doses: Mapping[Role, Sequence[Dose]]) -> Source:
    """A model with adapters in its weights, by network: read like any other, each tensor changed as it is read."""
    parts = {
        role: dataclasses.replace(part, change=_Bake(part, doses[role]).change) if doses.get(role) else part
        for role, part in source.parts.items()
    }
    return dataclasses.replace(source, parts=parts)


class _Bake:
    def __init__(self, part: Part, doses: Sequence[Dose]) -> None:
        self._reader = Named(part)
        self._terms: dict[str, list[tuple[Patch, Place, int, str, float]]] = {}
        for dose in doses:
            for place, layered in dose.adapter.patches.get(part.role, {}).items():
                for leaf, patch in zip(("weight", "bias"), layered, strict=True):
                    if patch is not None and (factor := dose.factor(place)):
                        for number, layer in enumerate(place.layers):
                            row = patch, place, number, leaf, factor
                            self._terms.setdefault(f"{layer}.{leaf}", []).append(row)

    def change(self, name: str, tensor: Tensor) -> Tensor:
        own = tensor.float()
        for patch, place, number, leaf, factor in self._terms.get(name, ()):
            whole = place.change.write([self._weight(f"{layer}.{leaf}") for layer in place.layers])
            added = place.change.read(patch.delta(whole), number) * factor
            own = own + added.reshape(own.shape)
        return own if name in self._terms else tensor

    def _weight(self, name: str) -> Tensor:
        found = self._reader.get(name)
        assert found is not None
        return found
