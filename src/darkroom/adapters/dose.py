"""How much of an adapter a row of a network call, or a model as a whole, gets."""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.adapters.adapter import Adapter
from darkroom.adapters.names import Place
from darkroom.checkpoint.blocks import block_weights
from darkroom.errors import InvalidRequest
from darkroom.language.tags import Tag


@dataclass(frozen=True)
class Dose:
    """An adapter at a strength; `blocks` weigh parts of the network besides, 1 where they say nothing."""

    adapter: Adapter
    strength: float = 1.0
    blocks: tuple[tuple[str, float], ...] = ()

    def factor(self, place: Place) -> float:
        """How much of what the adapter does to a layer is done."""
        return self.strength * dict(self.blocks).get(place.block, 1.0)


def doses_by_role(tag: Tag, adapter: Adapter, denoiser: str) -> dict[str, Dose]:
    """What a tag wants of an adapter in a model's weights, by network; `denoiser` is the one that denoises.

    Raises InvalidRequest for what weights cannot hold.
    """
    if (tag.start, tag.stop) != (0, 1):
        raise InvalidRequest(f"{tag} is for some steps: give it with the request, not into the weights")
    if adapter.hypernetwork:
        raise InvalidRequest(f"{tag} is a hypernetwork: it changes no weights, give it with the request")
    blocks = block_weights(tag.blocks)
    text = tag.strength if tag.text_strength is None else tag.text_strength
    return {
        role: Dose(adapter, tag.strength if role == denoiser else text, blocks) for role in adapter.patches
    }
