"""diffusers' schedulers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darkroom.compat.diffusers.schedulers import chain, exploding, flow, multistep
from darkroom.compat.diffusers.schedulers.base import Scheduler
from darkroom.errors import ModelError, nearest

CLASSES: Mapping[str, type[Scheduler]] = {
    name: kind
    for module in (chain, exploding, flow, multistep)
    for name, kind in vars(module).items()
    if name.endswith("Scheduler") and kind is not Scheduler
}


def scheduler_of(config: Mapping[str, Any]) -> Scheduler:
    """The scheduler that a scheduler_config.json describes. Raises ModelError for one of an unknown class."""
    name = str(config.get("_class_name"))
    if name not in CLASSES:
        raise ModelError(f"unknown scheduler {name!r}: {nearest(name, CLASSES)}")
    return CLASSES[name].from_config(config)
