"""Random scenes: the mix that training sees, its held-out complement, and hard negatives."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from darkroom.errors import InvalidRequest, nearest
from darkroom.world.scene import (
    CLOUDS,
    COLOURS,
    CORE_PLACES,
    KINDS,
    OPPOSITE,
    PLACES,
    SEATS,
    STYLES,
    TIMES,
    WEATHERS,
    Group,
    Scene,
    is_held_out,
)

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "held_out", "any")
# What share of the pictures teaches what. Counting and position are the hardest to learn.
MIX: Mapping[str, float] = {
    "landscape": 0.08,
    "single": 0.27,
    "counting": 0.22,
    "two": 0.15,
    "position": 0.28,
}
_STYLE_WEIGHTS = (0.34, 0.14, 0.13, 0.13, 0.13, 0.13)
_PLACE_WEIGHTS = (0.2, 0.1, 0.11, 0.09, 0.1, 0.1, 0.1, 0.1, 0.1)
_TIME_WEIGHTS = (0.43, 0.17, 0.2, 0.2)
_WEATHER_WEIGHTS = (0.5, 0.2, 0.1, 0.1, 0.1)


def as_random(rng: random.Random | np.random.Generator) -> random.Random:
    """A `random.Random` that continues from either kind of generator (advancing it)."""
    if isinstance(rng, random.Random):
        return rng
    return random.Random(int(rng.integers(2**63)))


def sample_scene(
    rng: random.Random | np.random.Generator,
    split: str = "train",
    core: bool = False,
    mix: Mapping[str, float] = MIX,
) -> Scene:
    """A random scene of the split ("train", "held_out" or "any"), with `core` from the simple part alone.

    `mix` weighs landscapes, single things, counting, two things and positions against each other.
    """
    if split not in SPLITS:
        raise InvalidRequest(f"unknown split {split!r}: {nearest(split, SPLITS)}")
    draw = as_random(rng)
    makers: dict[str, Callable[[random.Random], tuple[tuple[Group, ...], str | None]]] = {
        "landscape": lambda _: ((), None),
        "single": _single,
        "counting": _counting,
        "two": _two,
        "position": _position,
    }
    while True:
        task = draw.choices(list(mix), list(mix.values()))[0]
        groups, relation = makers[task](draw)
        scene = Scene(groups, relation, *_setting(draw, core, bool(groups)))
        if split == "any" or is_held_out(scene) == (split == "held_out"):
            return scene


def _setting(draw: random.Random, core: bool, things: bool) -> tuple[str, str, str, str, int, str]:
    seed = draw.getrandbits(48)
    if core:
        place = draw.choice(CORE_PLACES if things else CORE_PLACES[1:])
        return place, "day", "clear", STYLES[0], seed, "white"
    place = draw.choices(PLACES, _PLACE_WEIGHTS)[0]
    if not things and place == "plain":
        place = draw.choice(PLACES[1:])
    style = draw.choices(STYLES, _STYLE_WEIGHTS)[0]
    if place == "plain":
        return place, "day", "clear", style, seed, "white"
    time = draw.choices(TIMES, _TIME_WEIGHTS)[0]
    weather = draw.choices(WEATHERS, _WEATHER_WEIGHTS)[0]
    return place, time, weather, style, seed, clouds_for(draw, time, weather)


def clouds_for(draw: random.Random, time: str, weather: str) -> str:
    """A cloud colour: mostly golden or pink at the ends of the day, white otherwise."""
    if weather != "cloudy":
        return "white"
    return draw.choices(CLOUDS, (0.15, 0.5, 0.35) if time in ("sunrise", "sunset") else (0.76, 0.12, 0.12))[0]


Composition = tuple[tuple[Group, ...], str | None]


def _group(draw: random.Random, count: int = 1) -> Group:
    return Group(draw.choice(KINDS), draw.choice(COLOURS), count)


def _single(draw: random.Random) -> Composition:
    return (_group(draw),), None


def _counting(draw: random.Random) -> Composition:
    return (_group(draw, draw.choices((1, 2, 3, 4), (0.1, 0.28, 0.31, 0.31))[0]),), None


def _different(draw: random.Random, first: Group, count: int = 1) -> Group:
    while True:
        second = _group(draw, count)
        if second.kind != first.kind and (second.colour != first.colour or draw.random() < 0.3):
            return second
        if second.kind == first.kind and second.colour != first.colour and draw.random() < 0.5:
            return second


def _two(draw: random.Random) -> Composition:
    counts = draw.choices(
        ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3)), (0.7, 0.08, 0.08, 0.06, 0.04, 0.04)
    )[0]
    first = _group(draw, counts[0])
    return (first, _different(draw, first, counts[1])), None


def _position(draw: random.Random) -> Composition:
    if draw.random() < 0.14:
        first = _group(draw)
        second = replace(_different(draw, first), kind=draw.choice(SEATS))
        if (second.kind, second.colour) != (first.kind, first.colour):
            return (first, second), "on"
    counts = draw.choices(((1, 1), (2, 1), (1, 2)), (0.9, 0.05, 0.05))[0]
    first = _group(draw, counts[0])
    return (first, _different(draw, first, counts[1])), draw.choice(list(OPPOSITE))


def variants(scene: Scene, rng: random.Random | np.random.Generator) -> list[Scene]:
    """Hard negatives: scenes that differ from this one in one respect that a caption would name.

    Swapped colours, another colour, another count, the opposite relation, exchanged things, another kind,
    another place, time, weather or style; in random order, each with the same seed.
    """
    draw = as_random(rng)
    found: list[Scene] = []

    def add(**changes: object) -> None:
        try:
            other = replace(scene, **changes)  # type: ignore[arg-type]
        except InvalidRequest:
            return
        if other != scene and other not in found:
            found.append(other)

    def another(known: tuple[str, ...], value: str) -> str:
        return draw.choice([name for name in known if name != value])

    groups = scene.groups
    for i, group in enumerate(groups):
        others = [n for n in range(1, 5) if n != group.count]
        for change in (
            replace(group, colour=another(COLOURS, group.colour)),
            replace(group, kind=another(KINDS, group.kind)),
            replace(group, count=draw.choice(others)),
        ):
            add(groups=(*groups[:i], change, *groups[i + 1 :]))
    if len(groups) == 2:
        a, b = groups
        add(groups=(replace(a, colour=b.colour), replace(b, colour=a.colour)))
        add(groups=(replace(a, count=b.count), replace(b, count=a.count)))
        if scene.relation:
            add(groups=(b, a))
            add(relation=another(tuple(OPPOSITE), scene.relation))
            if scene.relation in OPPOSITE:
                add(relation=OPPOSITE[scene.relation])
    if scene.place == "plain":
        add(place=draw.choice(PLACES[1:]))
    else:
        add(place=another(PLACES[1:], scene.place))
        add(time=another(TIMES, scene.time))
        weather = another(WEATHERS, scene.weather)
        add(weather=weather, clouds=clouds_for(draw, scene.time, weather))
        if scene.weather == "cloudy" and scene.style != "neon":
            add(clouds=another(CLOUDS, scene.clouds))
    add(style=another(STYLES, scene.style))
    draw.shuffle(found)
    return found
