"""What people's detectors say, in every form: the same boxes."""

from __future__ import annotations

import numpy as np
import pytest

from darkroom.detection.outputs import boxes_in, distinct
from darkroom.detection.seen import Seen, box_of
from darkroom.errors import UnsupportedModel
from darkroom.generation.masks import Box

SIZE = (96, 128)
CELLS = sum((96 // by) * (128 // by) for by in (8, 16, 32))
# Left, top, right, bottom, how sure, kind; the second is the first again, the last is of another kind.
THINGS = np.array(
    [
        [10, 20, 50, 60, 0.9, 1],
        [11, 20, 50, 61, 0.8, 1],
        [70, 30, 120, 90, 0.7, 0],
        [12, 21, 50, 60, 0.6, 2],
        [0, 0, 8, 8, 0.1, 2],
    ],
    np.float32,
)
WANTED = THINGS[[0, 2, 3]]


def middles(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]], axis=1)


def of_kinds(rows, kinds=3):
    found = np.zeros((len(rows), kinds), np.float32)
    found[np.arange(len(rows)), rows[:, 5].astype(int)] = rows[:, 4]
    return found


def scattered(rows, count, seed=0):
    """Among so many answers of nothing."""
    whole = np.zeros((count, rows.shape[1]), np.float32)
    whole[np.random.default_rng(seed).choice(count, len(rows), replace=False)] = rows
    return whole


def v8(kinds=3, beside=0):
    rows = np.concatenate([middles(THINGS), of_kinds(THINGS, kinds), np.zeros((5, beside))], axis=1)
    return {"output0": scattered(rows.astype(np.float32), CELLS).T[None]}


def v5():
    sure = np.full((5, 1), 0.95, np.float32)
    rows = np.concatenate([middles(THINGS), sure, of_kinds(THINGS) / 0.95], axis=1)
    return {"output": scattered(rows, 3 * CELLS)[None]}


def chosen():
    return {"output0": scattered(THINGS, 300)[None]}


def in_shares():
    shares = np.array([128, 96, 128, 96], np.float32)
    rows = np.concatenate([middles(THINGS) / shares, of_kinds(THINGS)], axis=1)
    return {"output0": scattered(rows.astype(np.float32), 300)[None]}


def apart(scale=1.0):
    return {
        "labels": THINGS[None, :, 5].astype(np.int64).astype(np.float32),
        "boxes": THINGS[None, :, :4] / np.float32(scale),
        "scores": THINGS[None, :, 4],
    }


def of_each_kind():
    return {"boxes": THINGS[None, :, :4], "scores": of_kinds(THINGS)[None]}


def dets():
    return {"dets": THINGS[None, :, :5], "labels": THINGS[None, :, 5]}


@pytest.mark.parametrize(
    ("outputs", "kinds"),
    [
        (v8(), 3),
        (v8(), None),
        (v8(beside=51), 3),
        ({"output0": v8()["output0"].transpose(0, 2, 1)}, 3),
        (v5(), 3),
        (v5(), None),
        (chosen(), 3),
        (chosen(), None),
        (in_shares(), 3),
        (in_shares(), None),
        (apart(), 3),
        (apart(), None),
        (of_each_kind(), 3),
        (dets(), 3),
    ],
    ids=[
        *("v8", "v8, kinds unsaid", "pose", "v8 the other way round", "v5", "v5, kinds unsaid"),
        *(
            "chosen",
            "chosen, kinds unsaid",
            "RT-DETR",
            "RT-DETR, kinds unsaid",
            "apart",
            "apart, kinds unsaid",
        ),
        *("scores of each kind", "scores with the boxes"),
    ],
)
def test_every_form_says_the_same(outputs, kinds):
    found = boxes_in(outputs, SIZE, kinds, 0.3)
    np.testing.assert_allclose(found.boxes, WANTED[:, :4], atol=1e-3)
    np.testing.assert_allclose(found.scores, WANTED[:, 4], rtol=1e-5)
    np.testing.assert_array_equal(found.kinds, WANTED[:, 5])
    assert found.masks is None


@pytest.mark.parametrize("kinds", [1, None])
def test_one_kind(kinds):
    """As most people's are."""
    rows = np.concatenate([middles(THINGS), THINGS[:, 4:5]], axis=1)
    found = boxes_in({"output0": scattered(rows, CELLS).T[None]}, SIZE, kinds, 0.3)
    np.testing.assert_allclose(found.boxes, THINGS[[0, 2], :4], atol=1e-3)


@pytest.mark.parametrize("make", [v8, chosen])
def test_nothing_is_found(make):
    outputs = {name: each * 0 for name, each in make().items()}
    found = boxes_in(outputs, SIZE, 3, 0.3)
    assert len(found.boxes) == len(found.scores) == len(found.kinds) == 0


@pytest.mark.parametrize("end_to_end", [False, True])
def test_masks(end_to_end):
    """Of 4 prototypes, in cells of 4 pixels: the left half, and the upper half of what is seen."""
    prototypes = np.full((4, 24, 32), -4, np.float32)
    prototypes[0, :, :16] = 4
    prototypes[1, :12] = 4
    weights = np.zeros((5, 4), np.float32)
    weights[[0, 1, 2, 3, 4], [0, 0, 1, 1, 0]] = 1
    if end_to_end:
        rows = scattered(np.concatenate([THINGS, weights], axis=1), 300)[None]
    else:
        joined = np.concatenate([middles(THINGS), of_kinds(THINGS), weights], axis=1)
        rows = scattered(joined.astype(np.float32), CELLS).T[None]
    found = boxes_in({"output0": rows, "output1": prototypes[None]}, SIZE, 3, 0.3)
    seen = Seen.of((192, 256), SIZE)
    things = seen.things(found, {0: "dog", 1: "cat"})
    assert [each.label for each in things] == ["cat", "dog", "thing 2"]
    assert things[0].box == Box(20, 40, 80, 80)
    assert (things[0].share == 1).all()
    assert things[0].share.shape == (80, 80)
    share = np.zeros((120, 100), np.float32)
    share[:36] = 1
    assert np.abs(things[1].share - share).mean() < 0.02


def test_poses_that_were_chosen():
    """Their joints stand behind what they are."""
    rows = np.concatenate([THINGS, np.random.default_rng(1).random((5, 51), np.float32)], axis=1)
    found = boxes_in({"output0": scattered(rows, 300)[None]}, SIZE, 3, 0.3)
    np.testing.assert_allclose(found.boxes, WANTED[:, :4], atol=1e-3)


def test_outputs_that_do_not_go_together():
    with pytest.raises(ValueError, match="5 boxes, 4 scores"):
        boxes_in({"boxes": THINGS[None, :, :4], "scores": THINGS[None, :4, 4]}, SIZE, None, 0.3)
    labels = np.full((1, 5), np.nan, np.float32)
    found = boxes_in({**apart(), "labels": labels}, SIZE, None, 0.3)
    assert set(found.kinds) == {0}


@pytest.mark.parametrize(
    "outputs", [{"x": np.zeros((3, 4), np.float32)}, {"y": np.zeros((1, 3, 4), np.float32)}, {}]
)
def test_other_outputs(outputs):
    with pytest.raises(UnsupportedModel, match="in no form that Darkroom knows"):
        boxes_in(outputs, SIZE, None, 0.3)


def test_boxes_that_are_no_numbers_are_left_out():
    rows = THINGS.copy()
    rows[0, 0] = np.nan
    found = boxes_in({"output0": scattered(rows, 300)[None]}, SIZE, 3, 0.3)
    np.testing.assert_allclose(found.scores, [0.8, 0.7, 0.6])


def test_many_are_told_apart():
    rng = np.random.default_rng(1)
    corners = rng.random((500, 2), np.float32) * 90
    boxes = np.concatenate([corners, corners + 5 + 20 * rng.random((500, 2), np.float32)], axis=1)
    kinds = rng.integers(0, 2, 500)
    kept: list[int] = []
    for at, box in enumerate(boxes):
        if all(kinds[at] != kinds[other] or overlap(box, boxes[other]) <= 0.7 for other in kept):
            kept.append(at)
    assert distinct(boxes, kinds) == kept[:300]


def overlap(a, b):
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


@pytest.mark.parametrize("whole", [(192, 256), (300, 100), (40, 700), (7, 9), (96, 128)])
def test_there_and_back(whole):
    """A box in a picture lies in the same place again, whatever proportions that has."""
    seen = Seen.of(whole, SIZE)
    scale = min(SIZE[0] / whole[0], SIZE[1] / whole[1])
    assert abs(seen.within.width - whole[1] * scale) <= 1
    assert abs(seen.within.height - whole[0] * scale) <= 1
    picture = np.full((*whole, 3), 200, np.uint8)
    brought = seen.brought(picture)
    assert brought.shape == (*SIZE, 3)
    assert (brought[seen.within.slices] == 200).all()
    assert (brought == 200).sum() == 3 * seen.within.width * seen.within.height
    left, top, width, height = seen.within
    rows = np.array([[left, top, left + width, top + height, 0.9, 0]], np.float32)
    (found,) = seen.things(boxes_in({"o": scattered(rows, 300)[None]}, SIZE, 1, 0.3), {})
    assert found.box == Box(0, 0, whole[1], whole[0])


def test_boxes_beyond_the_picture():
    assert box_of(np.array([-5.5, 2.2, 30.1, 400]), (100, 50)) == Box(0, 2, 31, 98)
    assert box_of(np.array([60, 2, 90, 10]), (100, 50)) is None
    assert box_of(np.array([10, 20, 10, 10]), (100, 50)) is None
