"""What a judge saw in a picture, what a prompt asks for, and whether the one satisfies the other.

The rules are those of GenEval (Ghosh et al. 2023, https://arxiv.org/abs/2310.11513, section 3.2).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.world.layout import Box, layout
from darkroom.world.places import window
from darkroom.world.scene import Scene

SETTING = ("place", "time", "weather", "style")
ATTRIBUTES = ("kind", "count", "colour", "position", *SETTING)


@dataclass(frozen=True, slots=True)
class Thing(Box):
    """A thing that was seen: kind, colour, box in fractions of the picture, and how sure the judge is, 0
    to 1."""

    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Guess:
    """One name and how sure the judge is of it, 0 to 1."""

    name: str
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything a judge says about one picture, which is `aspect` times as wide as high; the surest thing comes
    first."""

    things: tuple[Thing, ...]
    place: Guess
    time: Guess
    weather: Guess
    style: Guess
    aspect: float = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Things that must be there: at least `count`, or that many and no more where `exact`, which with 0 is none. No
    colour: any."""

    kind: str
    colour: str | None = None
    count: int = 1
    exact: bool = False

    def among(self, things: Sequence[Thing]) -> list[Thing]:
        """Those that answer to the description, the surest first."""
        found = [t for t in things if t.kind == self.kind and self.colour in (None, t.colour)]
        return sorted(found, key=lambda thing: -thing.confidence)

    def met_by(self, count: int) -> bool:
        """Whether so many of them are as many as there must be."""
        return count == self.count if self.exact else count >= self.count


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a prompt asks for. `relation` says how the first wanted stands to the second; None asks
    nothing."""

    things: tuple[Wanted, ...] = ()
    relation: str | None = None
    place: str | None = None
    time: str | None = None
    weather: str | None = None
    style: str | None = None


def satisfies(reading: Reading, expectation: Expectation) -> bool:
    """Whether everything that was asked for is there."""
    for name in SETTING:
        if getattr(expectation, name) not in (None, getattr(reading, name).name):
            return False
    if not all(wanted.met_by(len(wanted.among(reading.things))) for wanted in expectation.things):
        return False
    return expectation.relation is None or stand_so(reading, expectation)


def stand_so(reading: Reading, expectation: Expectation) -> bool:
    """Whether the first two that are wanted are there and stand to each other as they are to, the surest of each."""
    assert expectation.relation is not None
    first, second = (wanted.among(reading.things)[: wanted.count] for wanted in expectation.things[:2])
    pairs = [related(a, expectation.relation, b, reading.aspect) for a in first for b in second]
    return bool(pairs) and all(pairs)


def related(first: Box, relation: str, second: Box, aspect: float = 1.0) -> bool:
    """Whether `first relation second` is what a viewer would say, in a picture `aspect` times as wide as high.

    GenEval's rule: the offset of the centres, less a tenth of the two boxes' sizes, points at most 60 degrees
    away from the relation's direction. "on": the first one's foot meets the second one's top, within a
    quarter of the smaller height, and at least a third of the narrower one lies over the other.
    """
    if relation == "on":
        gap = abs(second.y0 - first.y1)
        overlap = min(first.x1, second.x1) - max(first.x0, second.x0)
        touching = gap <= 0.25 * min(first.height, second.height)
        return touching and overlap >= min(first.width, second.width) / 3
    dx = aspect * _beyond(first.centre[0] - second.centre[0], 0.1 * (first.width + second.width))
    dy = _beyond(first.centre[1] - second.centre[1], 0.1 * (first.height + second.height))
    distance = math.hypot(dx, dy)
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    return along > 0.5 * distance


def _beyond(offset: float, margin: float) -> float:
    return math.copysign(max(abs(offset) - margin, 0.0), offset)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (a.width * a.height + b.width * b.height - shared)


def asked(scene: Scene) -> tuple[str, ...]:
    """The attributes that a rendered picture of the scene shows. The plain place has no time and no weather, nor has
    a room where things stand before half of its window."""
    hidden = scene.place == "plain" or (scene.place == "room" and _window_covered(scene) > 0.5)
    return tuple(name for name in ATTRIBUTES if not (hidden and name in ("time", "weather")))


def _window_covered(scene: Scene) -> float:
    """The share of a room's window that lies behind the boxes of things (which are clear of each other)."""
    x0, y0, x1, y1 = window(scene)
    shared = sum(
        max(min(box.x1, x1) - max(box.x0, x0), 0) * max(min(box.y1, y1) - max(box.y0, y0), 0)
        for box in layout(scene)
    )
    return shared / ((x1 - x0) * (y1 - y0))


def agreement(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Which of the attributes that are asked the reading has right, against the scene that was rendered.

    kind: the same kinds are there; count: as many of each; colour: each thing is found in its colour;
    position: each is found in its place (intersection over union of at least 0.5) and the relation holds.
    """
    truth = layout(scene)
    match = [max(reading.things, key=lambda thing: overlap(thing, box), default=None) for box in truth]
    pairs = [(box, thing) for box, thing in zip(truth, match, strict=True) if thing is not None]
    seen = Counter(thing.kind for thing in reading.things)
    there = Counter(box.kind for box in truth)
    right = {
        "kind": seen.keys() == there.keys(),
        "count": sorted(seen.values()) == sorted(there.values()),
        "colour": len(pairs) == len(truth) and all(box.colour == thing.colour for box, thing in pairs),
        "position": len(pairs) == len(truth) and all(overlap(box, thing) >= 0.5 for box, thing in pairs),
    }
    right |= {name: getattr(reading, name).name == getattr(scene, name) for name in SETTING}
    return {name: right[name] for name in asked(scene)}


def truth(scene: Scene) -> Reading:
    """What a perfect judge says of the rendered scene."""
    things = tuple(Thing(b.kind, b.colour, b.x0, b.y0, b.x1, b.y1) for b in layout(scene))
    place, time, weather, style = (Guess(getattr(scene, name)) for name in SETTING)
    return Reading(things, place, time, weather, style)


__all__ = [
    "ATTRIBUTES",
    "SETTING",
    "Expectation",
    "Guess",
    "Reading",
    "Thing",
    "Wanted",
    "agreement",
    "asked",
    "overlap",
    "related",
    "satisfies",
    "stand_so",
    "truth",
]
