"""What a picture of the drawn world shows, as plain names: the vocabulary, the scene, the held-out rules.

The order of the names below is part of the held-out rules: append, never reorder.
"""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.errors import InvalidRequest, nearest

KINDS = (
    *("tree", "flower", "mushroom"),
    *("house", "lighthouse"),
    *("cat", "bird", "fish", "butterfly"),
    *("boat", "car", "balloon", "rocket"),
    *("circle", "square", "triangle", "star", "heart"),
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
PLACES = ("plain", "mountains", "sea", "city", "desert", "forest", "meadow", "sky", "room")
TIMES = ("day", "sunrise", "sunset", "night")
WEATHERS = ("clear", "cloudy", "rain", "snow", "fog")
STYLES = ("flat illustration", "watercolour", "ink drawing", "pixel art", "neon", "pastel")
RELATIONS = ("left of", "right of", "above", "below", "on")
CLOUDS = ("white", "golden", "pink")
MAX_THINGS = 4

# What a thing can stand on: these have a top that is flat or gently round.
SEATS = ("tree", "mushroom", "house", "car", "circle", "square")
CORE_PLACES = ("plain", "desert", "meadow", "sky")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True, slots=True)
class Group:
    """Some things of one kind and colour: `count` is 1 to 4."""

    kind: str
    colour: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture in words; `seed` decides where things are and every small irregularity.

    No groups make a landscape. `relation` says how the first of two groups stands to the second; None
    makes no claim. `clouds` is the colour of the clouds and counts where the weather is "cloudy".
    Raises InvalidRequest for names outside the vocabulary and for compositions that cannot be drawn.
    """

    groups: tuple[Group, ...]
    relation: str | None
    place: str
    time: str
    weather: str
    style: str
    seed: int
    clouds: str = "white"

    def __post_init__(self) -> None:
        for value, known, name in (
            (self.place, PLACES, "place"),
            (self.time, TIMES, "time"),
            (self.weather, WEATHERS, "weather"),
            (self.style, STYLES, "style"),
            (self.clouds, CLOUDS, "cloud colour"),
            (self.relation or "on", RELATIONS, "relation"),
            *((group.kind, KINDS, "kind") for group in self.groups),
            *((group.colour, COLOURS, "colour") for group in self.groups),
        ):
            if value not in known:
                raise InvalidRequest(f"unknown {name} {value!r}: {nearest(value, known)}")
        problem = self._problem()
        if problem:
            raise InvalidRequest(f"{problem}, in {self.groups} {self.relation!r} {self.place!r}")

    def _problem(self) -> str | None:
        counts = [group.count for group in self.groups]
        if len(counts) > 2 or any(count < 1 for count in counts) or sum(counts) > MAX_THINGS:
            return f"a scene holds at most two groups and {MAX_THINGS} things, each group at least one"
        if len({(group.kind, group.colour) for group in self.groups}) < len(counts):
            return "two groups of one kind and colour are one group: raise its count"
        if self.relation is not None and len(counts) != 2:
            return "a relation needs two groups"
        if self.relation == "on" and (counts != [1, 1] or self.groups[1].kind not in SEATS):
            return f"'on' puts one thing on one of {', '.join(SEATS)}"
        if self.place == "plain" and (not counts or (self.time, self.weather) != ("day", "clear")):
            return "the plain place shows things only, by day and in clear weather"
        return None


# Held-out rules. Each is an arithmetic pattern modulo 11 over the positions of the names, so that it is
# the same for ever and balanced: one composition in eleven is held out, and no name is starved.


def held_out_colour(kind: str, colour: str) -> bool:
    """Whether training never shows this kind in this colour."""
    return (KINDS.index(kind) + 5 * COLOURS.index(colour)) % 11 == 7


def held_out_pair(first: str, second: str) -> bool:
    """Whether training never shows these two kinds together (the order does not matter)."""
    a, b = KINDS.index(first), KINDS.index(second)
    return a != b and (a * b + 2 * (a + b)) % 11 == 3


def held_out_relation(first: str, relation: str, second: str) -> bool:
    """Whether training never shows `first relation second`; "a left of b" and "b right of a" are one."""
    if relation in ("right of", "below"):
        first, relation, second = second, OPPOSITE[relation], first
    code = KINDS.index(first) + 4 * KINDS.index(second) + 3 * RELATIONS.index(relation)
    return code % 11 == 5


def held_out_setting(place: str, time: str, style: str) -> bool:
    """Whether training never shows this place at this time in this style (the plain place always may be)."""
    if place == "plain":
        return False
    code = PLACES.index(place) + 3 * TIMES.index(time) + 4 * STYLES.index(style)
    return code % 11 == 9


def is_held_out(scene: Scene) -> bool:
    """Whether any composition in the scene is kept from training for ever."""
    if any(held_out_colour(group.kind, group.colour) for group in scene.groups):
        return True
    if len(scene.groups) == 2:
        first, second = (group.kind for group in scene.groups)
        if held_out_pair(first, second):
            return True
        if scene.relation and held_out_relation(first, scene.relation, second):
            return True
    return held_out_setting(scene.place, scene.time, scene.style)


def is_core(scene: Scene) -> bool:
    """Whether the scene belongs to the simple part of the world: flat style, plain places, a clear day."""
    return (
        scene.style == "flat illustration"
        and scene.place in CORE_PLACES
        and scene.time == "day"
        and scene.weather == "clear"
    )
