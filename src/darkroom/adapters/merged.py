"""Adapters written into a model's weights, for speed, and taken out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from darkroom.adapters.adapter import deltas, unmerged
from darkroom.adapters.dose import Dose
from darkroom.errors import InvalidRequest
from darkroom.networks.roles import Role


class Merged:
    """Adapters in the weights of some networks, by their roles, until `undo`.

    The sum is computed in float32 and rounded once. The tensors that were there are kept aside and put back as they
    were: afterwards the networks are what they were before, to the bit. Raises InvalidRequest, with nothing changed,
    where weights come and go and can hold nothing.
    """

    def __init__(self, networks: Mapping[Role, nn.Module], doses: Mapping[Role, Sequence[Dose]]) -> None:
        self._kept: list[tuple[nn.Module, str, Tensor]] = []
        try:
            for role, network in networks.items():
                self._merge(role, network, doses.get(role, ()))
        except BaseException:
            self.undo()
            raise

    def _merge(self, role: Role, network: nn.Module, doses: Sequence[Dose]) -> None:
        sums: dict[tuple[str, str], Tensor] = {}
        for dose in doses:
            for place, layered in dose.adapter.patches.get(role, {}).items():
                for leaf, patch in zip(("weight", "bias"), layered, strict=True):
                    factor = dose.factor(place)
                    if patch is None or not factor:
                        continue
                    if any(getattr(network.get_submodule(layer), leaf).is_meta for layer in place.layers):
                        raise InvalidRequest(
                            'adapters are merged into weights that stay in memory: give more of it (`memory="full"`), '
                            "or leave them apart"
                        )
                    for layer, delta in zip(place.layers, deltas(patch, place, network, leaf), strict=True):
                        added = delta * factor
                        sums[layer, leaf] = sums[layer, leaf] + added if (layer, leaf) in sums else added
        for (layer, leaf), added in sums.items():
            module = network.get_submodule(layer)
            own = module._parameters[leaf]
            assert own is not None
            changed = torch.empty_like(own)  # Laid out in memory as the weight is.
            changed.copy_(own.float() + added)
            self._kept.append((module, leaf, own))
            merged = nn.Parameter(changed, requires_grad=False)
            merged.unmerged = unmerged(own)  # type: ignore[attr-defined]
            module._parameters[leaf] = merged

    def undo(self) -> None:
        """Put everything back."""
        while self._kept:
            module, leaf, own = self._kept.pop()
            module._parameters[leaf] = own  # type: ignore[assignment]
