from __future__ import annotations

import random
from dataclasses import replace

import pytest

from darkroom.oracle.judging import (
    ATTRIBUTES,
    Expectation,
    Guess,
    Reading,
    Thing,
    Wanted,
    agreement,
    overlap,
    related,
    satisfies,
    truth,
)
from darkroom.world import Scene, sample_scene

ORDINARY = (Guess("plain"), Guess("day"), Guess("clear"), Guess("flat illustration"))


def thing(
    kind: str, colour: str, x: float, y: float, w: float = 0.2, h: float = 0.2, sure: float = 1.0
) -> Thing:
    return Thing(kind, colour, x - w / 2, y - h / 2, x + w / 2, y + h / 2, sure)


def reading(*things: Thing) -> Reading:
    return Reading(things, *ORDINARY)


CAT, BOAT = thing("cat", "red", 0.2, 0.5), thing("boat", "blue", 0.8, 0.5)


def test_single_and_two_things_need_each_kind_at_least_once() -> None:
    one, two = Expectation((Wanted("cat"),)), Expectation((Wanted("cat"), Wanted("boat")))
    assert satisfies(reading(CAT), one)
    assert satisfies(reading(CAT, CAT, BOAT), one)
    assert not satisfies(reading(BOAT), one)
    assert not satisfies(reading(), one)
    assert satisfies(reading(BOAT, CAT), two)
    assert not satisfies(reading(CAT, CAT), two)


@pytest.mark.parametrize("seen", range(5))
def test_counting_is_exact(seen: int) -> None:
    wanted = Expectation((Wanted("cat", None, 3, exact=True),))
    cats = [thing("cat", "red", 0.2 * k, 0.5) for k in range(seen)]
    assert satisfies(reading(*cats, BOAT), wanted) == (seen == 3)


def test_colours_belong_to_their_things() -> None:
    wanted = Expectation((Wanted("cat", "red"), Wanted("boat", "blue")))
    swapped = replace(CAT, colour="blue"), replace(BOAT, colour="red")
    assert satisfies(reading(CAT, BOAT), wanted)
    assert not satisfies(reading(*swapped), wanted)
    assert satisfies(reading(*swapped, CAT, BOAT), wanted)  # It is there, whatever else is.


@pytest.mark.parametrize(
    ("dx", "dy", "holding"),
    [
        (-0.5, 0.0, {"left of"}),
        (0.5, 0.1, {"right of"}),
        (0.0, -0.4, {"above"}),
        (0.1, 0.4, {"below"}),
        (-0.4, -0.4, {"left of", "above"}),  # Both are what a viewer would say of a diagonal.
        (0.03, 0.03, set()),  # Within the margin there is no relation.
        (-0.5, 0.29, {"left of"}),  # 24 degrees after the margins: 0.46 across, 0.25 down.
    ],
)
def test_relations_of_two_centres(dx: float, dy: float, holding: set[str]) -> None:
    first, second = thing("cat", "red", 0.5 + dx, 0.5 + dy), thing("boat", "blue", 0.5, 0.5)
    known = ("left of", "right of", "above", "below")
    assert {relation for relation in known if related(first, relation, second)} == holding


def test_a_relation_counts_in_lengths_not_in_shares_of_the_sides() -> None:
    first, second = thing("cat", "red", 0.4, 0.2), thing("boat", "blue", 0.6, 0.8)
    assert related(first, "above", second)
    assert not related(first, "left of", second)
    assert related(first, "left of", second, aspect=4.0)
    assert not related(first, "above", second, aspect=16.0)


def test_on_means_touching_from_above() -> None:
    seat = thing("house", "red", 0.5, 0.7, 0.3, 0.3)
    assert related(thing("cat", "blue", 0.52, 0.45), "on", seat)
    assert not related(thing("cat", "blue", 0.52, 0.2), "on", seat)  # hovering
    assert not related(thing("cat", "blue", 0.8, 0.45), "on", seat)  # beside it
    assert not related(thing("cat", "blue", 0.5, 0.95), "on", seat)  # under it


def test_a_relation_is_asked_of_the_surest_things() -> None:
    wanted = Expectation((Wanted("cat"), Wanted("boat")), "left of")
    stray = thing("cat", "red", 0.95, 0.5, sure=0.6)
    assert satisfies(reading(CAT, BOAT, stray), wanted)
    assert not satisfies(reading(replace(CAT, confidence=0.5), BOAT, stray), wanted)


@pytest.mark.parametrize("name", ["place", "time", "weather", "style"])
def test_the_setting_is_asked_by_name(name: str) -> None:
    right = {"place": "plain", "time": "day", "weather": "clear", "style": "flat illustration"}[name]
    wrong = {"place": "sea", "time": "night", "weather": "fog", "style": "neon"}[name]
    assert satisfies(reading(CAT), replace(Expectation(), **{name: right}))
    assert not satisfies(reading(CAT), replace(Expectation(), **{name: wrong}))


def test_a_perfect_judge_is_right_about_every_scene() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng, split="any")
        assert all(agreement(truth(scene), scene).values())
        if scene.relation:
            things = tuple(Wanted(g.kind, g.colour, g.count) for g in scene.groups)
            assert satisfies(truth(scene), Expectation(things, scene.relation))
            exchanged = Expectation(things[::-1], scene.relation)
            assert not satisfies(truth(scene), exchanged)


def scene_of_two() -> Scene:
    rng = random.Random(1)
    while True:
        scene = sample_scene(rng, split="any")
        counts = [group.count for group in scene.groups]
        if counts == [1, 1] and scene.place != "plain" and scene.groups[0].kind != scene.groups[1].kind:
            return scene


def test_each_mistake_is_held_against_its_attribute() -> None:
    scene = scene_of_two()
    perfect = truth(scene)
    first, second = perfect.things

    def wrong(**changes: object) -> set[str]:
        verdict = agreement(replace(perfect, **changes), scene)
        assert tuple(verdict) == ATTRIBUTES
        return {name for name, right in verdict.items() if not right}

    other = "circle" if "circle" not in (first.kind, second.kind) else "square"
    assert wrong(things=(replace(first, kind=other), second)) == {"kind"}
    assert wrong(things=(replace(first, colour="grey" if first.colour != "grey" else "red"), second)) == {
        "colour"
    }
    assert wrong(things=(first, second, thing(first.kind, first.colour, 0.9, 0.9, 0.05, 0.05))) == {"count"}
    assert wrong(things=()) == {"kind", "count", "colour", "position"}
    moved = replace(first, x0=first.x0 + 0.12, x1=first.x1 + 0.12, y0=first.y0 + 0.12, y1=first.y1 + 0.12)
    assert "position" in wrong(things=(moved, second))
    assert wrong(time=Guess("night" if scene.time != "night" else "day")) == {"time"}


def test_the_plain_place_is_not_asked_for_time_and_weather() -> None:
    rng = random.Random(0)
    plain = next(s for s in (sample_scene(rng, core=True) for _ in range(99)) if s.place == "plain")
    assert agreement(truth(plain), plain).keys() == set(ATTRIBUTES) - {"time", "weather"}


def test_overlap_is_intersection_over_union() -> None:
    a = thing("cat", "red", 0.5, 0.5, 0.2, 0.2)
    assert overlap(a, a) == pytest.approx(1)
    assert overlap(a, thing("cat", "red", 0.6, 0.5, 0.2, 0.2)) == pytest.approx(1 / 3)
    assert overlap(a, thing("cat", "red", 0.9, 0.5, 0.2, 0.2)) == 0
