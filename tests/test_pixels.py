"""Arrays, tensors and pictures say the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.pixels import sheet, to_images, to_pixels


def pictures(count=3, height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("form", [lambda given: given, torch.from_numpy], ids=["array", "tensor"])
def test_there_and_back(form):
    given = pictures()
    images = to_images(form(given))
    assert images.shape == (3, 3, 4, 6)
    assert images.dtype == torch.float32
    assert np.array_equal(to_pixels(images), given)


def test_the_ends_of_the_range():
    black_and_white = np.array([0, 255], np.uint8)[:, None, None, None].repeat(3, axis=3)
    assert to_images(black_and_white).flatten().tolist() == [-1.0] * 3 + [1.0] * 3
    levels = torch.tensor([-9.0, -1.0, 0.5 / 127.5 - 1, 1.5 / 127.5 - 1, 1.0, 9.0])
    images = levels[:, None, None, None].expand(-1, 3, 1, 1)
    # Halves go to the even neighbour; what is beyond the range is cut off.
    assert to_pixels(images)[:, 0, 0, 0].tolist() == [0, 0, 0, 2, 255, 255]


def test_arrays_that_may_not_be_written_to():
    given = pictures()
    given.flags.writeable = False
    assert np.array_equal(to_pixels(to_images(given)), given)


@pytest.mark.parametrize(
    ("count", "columns", "size"), [(5, 2, (2, 3)), (5, None, (3, 2)), (1, None, (1, 1)), (2, 4, (4, 1))]
)
def test_a_sheet_has_a_cell_for_each(count, columns, size):
    tiles = [Image.new("RGB", (10, 8), (i + 1, 0, 0)) for i in range(count)]
    found = sheet(tiles, columns, gap=3, ground=(0, 0, 200))
    assert found.size == (size[0] * 13 + 3, size[1] * 11 + 3)
    for i in range(count):
        x, y = 3 + i % size[0] * 13, 3 + i // size[0] * 11
        assert found.getpixel((x, y)) == found.getpixel((x + 9, y + 7)) == (i + 1, 0, 0)
        assert found.getpixel((x - 1, y)) == found.getpixel((x + 10, y)) == (0, 0, 200)


def test_a_sheet_of_several_sizes_has_no_gaps():
    sizes = [(8, 4), (2, 6), (5, 5), (30, 10), (3, 7), (9, 9), (4, 2)]
    tiles = [np.full((high, wide, 3), 50 + 20 * i, np.uint8) for i, (wide, high) in enumerate(sizes)]
    found = np.asarray(sheet(tiles, columns=3, gap=1, ground=(255, 255, 255)))[..., 0]
    rows = [row for row in found if (row != 255).any()]
    # But for what is between them, every row but the last is of pictures from edge to edge.
    seen = [{*row.tolist()} - {255} for row in rows]
    assert {frozenset(each) for each in seen} == {
        frozenset(s) for s in ((50, 70, 90), (110, 130, 150), (170,))
    }
    for row, each in zip(rows, seen, strict=True):
        if len(each) == 3:
            assert (row == 255).sum() == 4
    two = sheet([np.full((4, 8, 3), 9, np.uint8), np.full((6, 2, 3), 7, np.uint8)], columns=2, gap=1)
    assert two.size == (12 + 2 + 3, 6 + 2)
