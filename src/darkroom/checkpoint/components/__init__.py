"""The sorts of networks that models are made of: a record each, in a module of its own, and what finds one.

Another sort is another module with its record, listed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from darkroom.checkpoint.components.clip import CLIP_TEXT, CLIP_VISION, NORMALIZER
from darkroom.checkpoint.components.component import HUGGING_FACE, ORIGINAL, Component
from darkroom.checkpoint.components.mmdit import MMDIT
from darkroom.checkpoint.components.t5 import T5
from darkroom.checkpoint.components.tiny import TINY
from darkroom.checkpoint.components.unet import UNET
from darkroom.checkpoint.components.vae import AUTOENCODER
from darkroom.networks.roles import Role

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "AUTOENCODER",
    "CLIP_TEXT",
    "CLIP_VISION",
    "COMPONENTS",
    "HUGGING_FACE",
    "MMDIT",
    "NORMALIZER",
    "ORIGINAL",
    "T5",
    "TINY",
    "UNET",
    "Component",
    "component_for",
    "component_of",
]

COMPONENTS = (UNET, MMDIT, AUTOENCODER, TINY, CLIP_TEXT, CLIP_VISION, NORMALIZER, T5)


def component_for(role: Role, class_name: str = "") -> Component:
    """What a folder's component of some role is, by the class that model_index.json gives it; the usual one of the role
    where that is none of ours."""
    of_role = [each for each in COMPONENTS if role in each.roles]
    return next((each for each in of_role if each.class_name == class_name), of_role[0])


def component_of(network: type[nn.Module]) -> Component:
    """The component whose networks are of a class, or of one that it is derived from."""
    by_name = {each.network: each for each in COMPONENTS}
    for kind in network.__mro__:
        if found := by_name.get(f"{kind.__module__}:{kind.__qualname__}"):
            return found
    raise AssertionError(f"no component's networks are of class {network.__qualname__}")
