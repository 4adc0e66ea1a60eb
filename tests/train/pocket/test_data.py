"""Data: every sample is a function of its number."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from functools import cache, partial

import numpy as np
import pytest

from darkroom.train.feed import feed
from darkroom.train.pocket.clip import Captions, world_tokenizer
from darkroom.train.pocket.data import Pictures, WorldConfig, scene_at, scenes_by_style
from darkroom.train.pocket.labels import COUNTS, ROLES, UNKNOWN, cells, labels
from darkroom.world import COLOURS, KINDS, Group, Scene, is_core, is_held_out, layout


def test_any_batch_can_be_asked_for_alone():
    source = Pictures(WorldConfig(size=32), seed=3)
    whole = source(0, 6)["pictures"]
    assert np.array_equal(source(4, 2)["pictures"], whole[4:])
    batches = feed(source, 2, 2)
    assert np.array_equal(next(batches)["pictures"], whole[2:4])
    assert np.array_equal(next(batches)["pictures"], whole[4:])
    assert not np.array_equal(Pictures(WorldConfig(size=32), seed=4)(0, 6)["pictures"], whole)


def test_processes_make_the_same_batches_in_order():
    source = Pictures(WorldConfig(size=32), seed=3)
    with closing(feed(source, 4, 2, workers=2, ahead=3)) as batches:
        for start in (4, 6, 8, 10):
            assert np.array_equal(next(batches)["pictures"], source(start, 2)["pictures"])


def test_training_scenes_are_never_held_out_and_the_core_share_holds():
    world = WorldConfig(core=0.5)
    scenes = [scene_at(world, 0, i) for i in range(400)]
    assert not any(is_held_out(scene) for scene in scenes)
    assert 0.42 < sum(map(is_core, scenes)) / 400 < 0.66
    assert all(is_held_out(scene) for found in scenes_by_style(world, 2).values() for scene in found)


def test_the_mix_is_followed():
    scenes = [scene_at(WorldConfig(position=1.0), 0, i) for i in range(50)]
    assert all(scene.relation for scene in scenes)


def test_processes_that_draw_do_not_load_torch():
    used = "darkroom.train.feed, darkroom.train.pocket.data, darkroom.train.pocket.labels"
    code = f"import sys, {used}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def scene():
    things = (Group("cat", "red", 1), Group("boat", "blue", 2))
    return Scene(things, "left of", "sea", "day", "clear", "neon", seed=5)


def test_labels_say_what_is_there(scene):
    found = labels(scene)
    cat, boat = found["kinds"][KINDS.index("cat")], found["kinds"][KINDS.index("boat")]
    assert cat.tolist() == [1, COLOURS.index("red"), ROLES.index("left of")]
    assert boat.tolist() == [2, COLOURS.index("blue"), ROLES.index("right of")]
    assert found["kinds"][KINDS.index("tree")].tolist() == [0, UNKNOWN, UNKNOWN]
    assert found["colours"][COLOURS.index("blue")].tolist() == [
        2,
        KINDS.index("boat"),
        ROLES.index("right of"),
    ]
    assert found["setting"][-1] == UNKNOWN
    assert found["kinds"][:, 0].max() < COUNTS


def test_cells_are_where_the_boxes_are(scene):
    grid = cells(scene, 8)
    for box in layout(scene):
        x, y = (int(8 * value) for value in box.centre)
        assert grid[0, y, x] == 1 + KINDS.index(box.kind)
        assert grid[1, y, x] == 1 + COLOURS.index(box.colour)
    assert (grid[0] == 0).any()


def test_wrong_captions_are_of_other_things(monkeypatch):
    few_words = cache(partial(world_tokenizer, captions=1000))
    monkeypatch.setattr("darkroom.train.pocket.clip.world_tokenizer", few_words)
    source = Captions(WorldConfig(size=32), 0, vocabulary=700, negatives=2, texts=3, pictured=False)
    batch = source(0, 4)
    assert len(batch["ids"]) == 4 * 3 + 3
    for i in range(4):
        wrong = batch["kinds"][4 + 2 * i : 6 + 2 * i]
        assert all(not np.array_equal(row, batch["kinds"][i]) for row in wrong)
    end = few_words(700).end
    assert (batch["ids"][:, -1] == end).all()
