"""A scene as numbers: what a network that understands a caption or a picture must be able to say. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from darkroom.train.feed import Arrays
from darkroom.world import CLOUDS, COLOURS, KINDS, MAX_THINGS, PLACES, STYLES, TIMES, WEATHERS, Scene, layout

UNKNOWN = -1
ROLES = ("none", "left of", "right of", "above", "below", "on", "under")
COUNTS = MAX_THINGS + 1
SETTING = {"place": PLACES, "time": TIMES, "weather": WEATHERS, "style": STYLES, "clouds": CLOUDS}

_OTHER = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "on": "under"}


def roles(scene: Scene) -> tuple[str, ...]:
    """How each group stands to the other."""
    if scene.relation is None:
        return ("none",) * len(scene.groups)
    return scene.relation, _OTHER[scene.relation]


def labels(scene: Scene) -> Arrays:
    """{"kinds": (18, 3): how many things are of a kind, their colour, their role; "colours": (11, 3): the same of a
    colour, with the kind of its things; "setting": (5,)}. UNKNOWN where there are none or it is not one answer."""
    settings = [names.index(getattr(scene, name)) for name, names in SETTING.items()]
    if scene.weather != "cloudy":
        settings[-1] = UNKNOWN
    by_kind = [_facts(scene, "kind", name, "colour", COLOURS) for name in KINDS]
    by_colour = [_facts(scene, "colour", name, "kind", KINDS) for name in COLOURS]
    return {
        "kinds": np.array(by_kind, np.int8),
        "colours": np.array(by_colour, np.int8),
        "setting": np.array(settings, np.int8),
    }


def _facts(scene: Scene, by: str, name: str, other: str, names: Sequence[str]) -> tuple[int, int, int]:
    found = [
        (group, role)
        for group, role in zip(scene.groups, roles(scene), strict=True)
        if getattr(group, by) == name
    ]
    count = sum(group.count for group, _ in found)
    if len(found) != 1:
        return count, UNKNOWN, UNKNOWN
    group, role = found[0]
    return count, names.index(getattr(group, other)), ROLES.index(role)


def stacked(scenes: Sequence[Scene]) -> Arrays:
    """The labels of many scenes, one row each."""
    rows = [labels(scene) for scene in scenes]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def cells(scene: Scene, side: int) -> NDArray[np.int8]:
    """(2, side, side): the kind and the colour of the thing on each cell of the picture, 0 where there is none and
    1 + their number otherwise."""
    grid = np.zeros((2, side, side), np.int8)
    middle = (np.arange(side) + 0.5) / side
    for box in layout(scene):
        rows = (middle > box.y0) & (middle < box.y1)
        columns = (middle > box.x0) & (middle < box.x1)
        inside = rows[:, None] & columns[None, :]
        grid[0][inside] = 1 + KINDS.index(box.kind)
        grid[1][inside] = 1 + COLOURS.index(box.colour)
    return grid
