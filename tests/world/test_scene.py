from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from darkroom.errors import InvalidRequest
from darkroom.world import (
    COLOURS,
    KINDS,
    PLACES,
    RELATIONS,
    STYLES,
    TIMES,
    WEATHERS,
    Group,
    Scene,
    is_core,
    is_held_out,
    sample_scene,
    variants,
)
from darkroom.world.scene import (
    OPPOSITE,
    held_out_colour,
    held_out_pair,
    held_out_relation,
    held_out_setting,
)

PLAIN = Scene((Group("boat", "red"),), None, "plain", "day", "clear", STYLES[0], 0)


def test_the_world_is_as_large_as_promised() -> None:
    assert len(KINDS) >= 16
    assert len(COLOURS) == 11
    assert len(set(PLACES) - {"plain"}) == 8
    assert (len(TIMES), len(WEATHERS), len(STYLES), len(RELATIONS)) == (4, 5, 6, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place": "see"}, "'sea'"),
        ({"style": "watercolor"}, "'watercolour'"),
        ({"groups": (Group("bota", "red"),)}, "'boat'"),
        ({"groups": (Group("boat", "rad"),)}, "'red'"),
        ({"groups": (Group("boat", "red", 5),)}, "4 things"),
        ({"groups": (Group("boat", "red", 0),)}, "at least one"),
        ({"groups": (Group("boat", "red"), Group("boat", "red"))}, "raise its count"),
        ({"relation": "above"}, "two groups"),
        ({"groups": (Group("cat", "red"), Group("heart", "red")), "relation": "on"}, "'on' puts"),
        ({"time": "night"}, "plain place"),
        ({"groups": ()}, "plain place"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        replace(PLAIN, **change)


def test_about_a_tenth_is_held_out_and_no_name_is_starved() -> None:
    colours = [pair for pair in product(KINDS, COLOURS) if held_out_colour(*pair)]
    settings = [s for s in product(PLACES[1:], TIMES, STYLES) if held_out_setting(*s)]
    pairs = [(a, b) for a, b in product(KINDS, KINDS) if held_out_pair(a, b)]
    others = len(KINDS) * (len(KINDS) - 1)
    assert 0.08 < len(colours) / (len(KINDS) * len(COLOURS)) < 0.12
    assert 0.06 < len(settings) / (8 * len(TIMES) * len(STYLES)) < 0.12
    assert 0.06 < len(pairs) / others < 0.12
    assert set(Counter(kind for kind, _ in colours).values()) == {1}
    assert max(Counter(colour for _, colour in colours).values()) <= 2
    assert max(Counter(kind for kind, _ in pairs).values()) <= 3
    for relation in RELATIONS:
        held = [(a, b) for a, b in product(KINDS, KINDS) if a != b and held_out_relation(a, relation, b)]
        assert 0.08 < len(held) / others < 0.12


def test_held_out_rules_do_not_depend_on_the_way_of_saying() -> None:
    for a, b in product(KINDS, KINDS):
        assert held_out_pair(a, b) == held_out_pair(b, a)
        for relation, opposite in OPPOSITE.items():
            assert held_out_relation(a, relation, b) == held_out_relation(b, opposite, a)


def test_held_out_compositions_are_the_same_for_ever() -> None:
    # Weights are trained on these rules: what was held out once must stay so.
    held = {kind: colour for kind, colour in product(KINDS, COLOURS) if held_out_colour(kind, colour)}
    assert held == {
        **{"tree": "black", "flower": "grey", "mushroom": "orange", "house": "green", "lighthouse": "purple"},
        **{
            "cat": "brown",
            "bird": "white",
            "fish": "red",
            "butterfly": "yellow",
            "boat": "blue",
            "car": "pink",
        },
        **{"balloon": "black", "rocket": "grey", "circle": "orange", "square": "green", "triangle": "purple"},
        **{"star": "brown", "heart": "white"},
    }
    assert held_out_pair("house", "bird")
    assert held_out_relation("mushroom", "left of", "boat")
    assert held_out_setting("sea", "sunrise", "watercolour")


@pytest.mark.parametrize("core", [False, True])
def test_splits_are_disjoint(core: bool) -> None:
    rng = random.Random(1)
    train = [sample_scene(rng, "train", core) for _ in range(600)]
    held = [sample_scene(rng, "held_out", core) for _ in range(100)]
    assert not any(is_held_out(scene) for scene in train)
    assert all(is_held_out(scene) for scene in held)
    if core:
        assert all(is_core(scene) for scene in train + held)
    with pytest.raises(InvalidRequest, match="'train'"):
        sample_scene(rng, "trian")


def test_training_sees_every_name() -> None:
    rng = random.Random(2)
    scenes = [sample_scene(rng) for _ in range(3000)]
    groups = [group for scene in scenes for group in scene.groups]
    for known, seen in (
        (KINDS, Counter(group.kind for group in groups)),
        (COLOURS, Counter(group.colour for group in groups)),
        (PLACES, Counter(scene.place for scene in scenes)),
        (TIMES, Counter(scene.time for scene in scenes)),
        (WEATHERS, Counter(scene.weather for scene in scenes)),
        (STYLES, Counter(scene.style for scene in scenes)),
        (RELATIONS, Counter(scene.relation for scene in scenes if scene.relation)),
    ):
        total = sum(seen.values())
        assert all(seen[name] > 0.35 * total / len(known) for name in known if name != "on"), seen
    counts = Counter(sum(group.count for group in scene.groups) for scene in scenes)
    assert all(counts[number] > 200 for number in range(5)), counts


def test_sampling_is_seeded_by_either_kind_of_generator() -> None:
    assert sample_scene(random.Random(5)) == sample_scene(random.Random(5))
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    assert sample_scene(first) == sample_scene(second)
    assert sample_scene(first) != sample_scene(np.random.default_rng(6))


def test_variants_differ_in_what_a_caption_names() -> None:
    rng = random.Random(3)
    scene = Scene((Group("cat", "red"), Group("car", "blue")), "left of", "sea", "day", "clear", STYLES[0], 9)
    found = variants(scene, rng)
    assert len(found) == len(set(found)) >= 8
    assert replace(scene, relation="right of") in found
    assert replace(scene, groups=(Group("cat", "blue"), Group("car", "red"))) in found
    for _ in range(300):
        scene = sample_scene(rng)
        others = variants(scene, rng)
        assert len(others) >= 3
        assert all(replace(other, seed=0) != replace(scene, seed=0) for other in others)
