"""Which networks a file of weights holds, and their dimensions: from names and shapes alone.

No configuration file is needed and no number is read. What shapes do not say (how many heads share a width, which
activation, how latents are scaled) is a property of the model's family: see `darkroom.checkpoint.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from darkroom.checkpoint.components import COMPONENTS, Component
from darkroom.checkpoint.components.component import Names, Shape


@dataclass(frozen=True)
class Found:
    """A network in a file: what it is, where its names begin, whose names they are, and its tensors."""

    component: Component
    prefix: str
    layout: str
    names: Names

    @cached_property
    def config(self) -> Any:
        """Its dimensions. Raises ModelError where a tensor that tells them is missing, or they fit no network."""
        return self.component.dimensions(self.names, self.layout)


_OTHERS = (
    "control_model.",
    "controlnet_",
    "depth_model.",
    "model_ema.",
    "visual.",
    "text_model.",
    "vision_model.",
)
"""Beginnings of what looks like one of ours and is not, or is a part of one."""


def networks_in(shapes: Mapping[str, Shape]) -> list[Found]:
    """Every network found among the tensors of a file, in the order of the components."""
    found: dict[str, Found] = {}
    for component in COMPONENTS:
        for layout, mark in component.marks:
            for name in shapes:
                if not name.endswith(mark):
                    continue
                prefix = name.removesuffix(mark)
                elsewhere = component.place is None or prefix != component.place.prefix
                if (prefix and not prefix.endswith(".")) or prefix in found:
                    continue
                if elsewhere and _another(prefix, shapes):
                    continue
                names = Names(within(shapes, prefix))
                if component.certain(names):
                    turned = component.turned(layout, prefix, names)
                    found[prefix] = Found(component, prefix, turned, names)
    return list(found.values())


def within(shapes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What begins with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in shapes.items() if name.startswith(prefix)}


_CONTROL = (
    "input_hint_block.0.weight",
    "zero_convs.0.0.weight",
    "controlnet_cond_embedding.conv_in.weight",
    "controlnet_down_blocks.0.weight",
)


def _another(prefix: str, shapes: Mapping[str, Shape]) -> bool:
    return any(mark in prefix for mark in _OTHERS) or any(f"{prefix}{mark}" in shapes for mark in _CONTROL)
