from __future__ import annotations

import random
from dataclasses import replace

import pytest

from darkroom.world import RELATIONS, Box, Group, Scene, holds, layout, sample_scene
from darkroom.world.layout import GAP, MARGIN
from darkroom.world.scene import SEATS, held_out_relation


def scenes(count: int, seed: int = 0, **mix: float) -> list[Scene]:
    rng = random.Random(seed)
    weights = mix or {"single": 1, "counting": 1, "two": 1, "position": 1}
    return [sample_scene(rng, "any", mix=weights) for _ in range(count)]


def test_boxes_are_what_the_scene_asks_for() -> None:
    for scene in scenes(1500):
        boxes = layout(scene)
        wanted = [(group.kind, group.colour) for group in scene.groups for _ in range(group.count)]
        assert [(box.kind, box.colour) for box in boxes] == wanted
        assert boxes == layout(scene)


def test_boxes_stay_in_the_frame_and_apart() -> None:
    for scene in scenes(1500, 1):
        boxes = layout(scene)
        for i, box in enumerate(boxes):
            assert min(box.x0, box.y0) > MARGIN - 1e-6
            assert max(box.x1, box.y1) < 1 - MARGIN + 1e-6
            if scene.relation != "on":
                assert all(box.apart(other, GAP) for other in boxes[:i])


def test_things_are_big_enough() -> None:
    for scene in scenes(1500, 2):
        boxes = layout(scene)
        least = {1: 0.34, 2: 0.24, 3: 0.22, 4: 0.2}[len(boxes)]
        assert all((box.width * box.height) ** 0.5 > least * 0.9 for box in boxes), scene
        assert all(box.width <= 0.5 for box in boxes)


def test_relations_are_plainly_true() -> None:
    for scene in scenes(1500, 3, position=1):
        boxes = layout(scene)
        first, second = boxes[: scene.groups[0].count], boxes[scene.groups[0].count :]
        assert scene.relation is not None
        for a in first:
            for b in second:
                assert holds(a, scene.relation, b)
                others = [r for r in RELATIONS if r != scene.relation and holds(a, r, b)]
                assert others in ([], ["above"] if scene.relation == "on" else [])


def test_holds_on_boxes_drawn_by_hand() -> None:
    def box(x: float, y: float, kind: str = "square") -> Box:
        return Box(kind, "red", x - 0.1, y - 0.1, x + 0.1, y + 0.1)

    middle = box(0.5, 0.5)
    for x, y, relation in (
        (0.2, 0.5, "left of"),
        (0.8, 0.55, "right of"),
        (0.5, 0.2, "above"),
        (0.4, 0.8, "below"),
    ):
        assert [r for r in RELATIONS if holds(box(x, y), r, middle)] == [relation]
    assert not any(holds(box(0.25, 0.25), relation, middle) for relation in RELATIONS)
    assert holds(box(0.5, 0.3), "on", middle)
    assert not holds(box(0.69, 0.3), "on", middle)


@pytest.mark.parametrize("seat", SEATS)
def test_things_on_a_seat_touch_it(seat: str) -> None:
    for seed in range(20):
        scene = Scene(
            (Group("bird", "red"), Group(seat, "blue")), "on", "meadow", "day", "clear", "neon", seed
        )
        bird, below = layout(scene)
        assert holds(bird, "on", below)
        assert bird.centre[1] < below.centre[1]


def test_no_held_out_relation_is_shown_by_accident() -> None:
    for scene in scenes(1500, 4, two=1):
        boxes = layout(scene)
        first, second = boxes[: scene.groups[0].count], boxes[scene.groups[0].count :]
        for relation in RELATIONS:
            if held_out_relation(first[0].kind, relation, second[0].kind):
                assert not all(holds(a, relation, b) for a in first for b in second)


def test_the_seed_moves_things() -> None:
    scene = scenes(1)[0]
    assert len({tuple(layout(replace(scene, seed=seed))) for seed in range(10)}) == 10
