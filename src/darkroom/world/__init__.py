"""The drawn world: pictures rendered from scenes, with captions that are true of them."""

from darkroom.world.captions import caption
from darkroom.world.layout import Box, holds, layout
from darkroom.world.render import render, sheet, silhouette
from darkroom.world.sampling import MIX, sample_scene, variants
from darkroom.world.scene import (
    CLOUDS,
    COLOURS,
    KINDS,
    MAX_THINGS,
    PLACES,
    RELATIONS,
    STYLES,
    TIMES,
    WEATHERS,
    Group,
    Scene,
    is_core,
    is_held_out,
)

__all__ = [
    "CLOUDS",
    "COLOURS",
    "KINDS",
    "MAX_THINGS",
    "MIX",
    "PLACES",
    "RELATIONS",
    "STYLES",
    "TIMES",
    "WEATHERS",
    "Box",
    "Group",
    "Scene",
    "caption",
    "holds",
    "is_core",
    "is_held_out",
    "layout",
    "render",
    "sample_scene",
    "sheet",
    "silhouette",
    "variants",
]
