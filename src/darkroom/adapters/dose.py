"""How much of an adapter a row of a network call, or a model as a whole, gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from darkroom.adapters.adapter import Adapter
from darkroom.adapters.names import Place
from darkroom.checkpoint.blocks import block_weights
from darkroom.errors import InvalidRequest
from darkroom.language.tags import Tag
from darkroom.networks.roles import Role


@dataclass(frozen=True)
class Dose:
    """An adapter at a strength; `blocks` weigh parts of the network besides, 1 where they say nothing."""

    adapter: Adapter
    strength: float = 1.0
    blocks: tuple[tuple[str, float], ...] = ()

    def factor(self, place: Place) -> float:
        """How much of what the adapter does to a layer is done."""
        return self.strength * self._by_block.get(place.block, 1.0)

    @cached_property
    def _by_block(self) -> dict[str, float]:
        return dict(self.blocks)


def doses_by_role(adapters: Iterable[tuple[Tag, Adapter]]) -> dict[Role, list[Dose]]:
    """What tags want of adapters in a model's weights, by network.

    Raises InvalidRequest for what weights cannot hold.
    """
    doses: dict[Role, list[Dose]] = {}
    for tag, adapter in adapters:
        if (tag.start, tag.stop) != (0, 1):
            raise InvalidRequest(f"{tag} is for some steps: give it with the request, not into the weights")
        if adapter.hypernetwork:
            raise InvalidRequest(f"{tag} is a hypernetwork: it changes no weights, give it with the request")
        for role in adapter.patches:
            dose = Dose(adapter, tag.strength_in(role.reads_text), block_weights(tag.blocks))
            doses.setdefault(role, []).append(dose)
    return doses
