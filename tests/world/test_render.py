from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from darkroom.errors import InvalidRequest
from darkroom.world import (
    COLOURS,
    KINDS,
    PLACES,
    STYLES,
    TIMES,
    WEATHERS,
    Group,
    Scene,
    layout,
    render,
    sample_scene,
    sheet,
)
from darkroom.world.canvas import WHITE, Pen, Shades
from darkroom.world.render import silhouette as silhouette_of
from darkroom.world.styles import style
from darkroom.world.things import DRAW


def scene_of(
    kind: str, colour: str, how: str = STYLES[0], seed: int = 0, place: str = "plain", time: str = "day"
) -> Scene:
    return Scene((Group(kind, colour),), None, place, time, "clear", how, seed)


@cache
def silhouette(scene: Scene, size: int) -> NDArray[np.bool_]:
    """Where the thing is: the same strokes, all in white on black."""
    mask = Image.new("RGB", (size, size))
    for box in layout(scene):
        DRAW[box.kind](
            Pen(ImageDraw.Draw(mask), size, box, Shades(WHITE, WHITE, WHITE, WHITE), 0, lambda _: WHITE)
        )
    return np.asarray(mask)[..., 0] > 0


def test_pictures_are_rgb_of_any_size() -> None:
    scene = sample_scene(random.Random(0))
    for size in (64, 96, 128, 256, 384):
        picture = render(scene, size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
    for size in (16, 4096):
        with pytest.raises(InvalidRequest, match=str(size)):
            render(scene, size)


def test_a_scene_looks_the_same_at_every_size() -> None:
    rng = random.Random(4)
    for _ in range(12):
        scene = sample_scene(rng, "any")
        large = Image.fromarray(render(scene, 256)).resize((32, 32), Image.Resampling.BOX)
        small = Image.fromarray(render(scene, 128)).resize((32, 32), Image.Resampling.BOX)
        difference = np.abs(np.asarray(large, dtype=float) - np.asarray(small, dtype=float)).mean()
        assert difference < 6, scene


def test_silhouettes_are_where_the_things_are() -> None:
    """Within their boxes."""
    rng = random.Random(6)
    for _ in range(6):
        scene = sample_scene(rng, "any")
        if scene.style != "flat illustration" or not scene.groups:
            scene = replace(scene, groups=(Group("boat", "red", 2),), relation=None, style=STYLES[0])
        group = scene.groups[0]
        mask, boxes = silhouette_of(scene, group, 64), np.zeros((64, 64), bool)
        for box in layout(scene):
            if (box.kind, box.colour) == (group.kind, group.colour):
                y, x = (
                    slice(int(64 * low) - 1, int(64 * high) + 2)
                    for low, high in ((box.y0, box.y1), (box.x0, box.x1))
                )
                boxes[y, x] = True
        assert mask.any()
        assert not (mask & ~boxes).any()
        assert mask.sum() > 0.2 * boxes.sum()


def test_the_same_scene_gives_the_same_bytes_in_another_process() -> None:
    program = """
import hashlib, random
from darkroom.world import render, sample_scene
rng = random.Random(8)
print(hashlib.sha256(b"".join(render(sample_scene(rng), 64).tobytes() for _ in range(12))).hexdigest())
"""
    rng = random.Random(8)
    here = hashlib.sha256(b"".join(render(sample_scene(rng), 64).tobytes() for _ in range(12))).hexdigest()
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_every_kind_fills_its_box() -> None:
    for kind in KINDS:
        scene = scene_of(kind, "red")
        box, mask = layout(scene)[0], silhouette(scene, 256)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 256
        assert np.abs(edges - [box.x0, box.y0, box.x1, box.y1]).max() < 0.03, kind


@pytest.mark.parametrize("how", STYLES)
def test_the_colour_of_a_thing_dominates_it(how: str) -> None:
    """Of the pixels inside the silhouette, more than half are nearest to the paint of the thing's colour."""
    paints = np.array([style(how).paints[colour] for colour in COLOURS], dtype=float)
    for (kind, colour), (place, time) in zip(
        product(KINDS, COLOURS), [("plain", "day"), ("meadow", "night"), ("city", "sunset")] * 66, strict=True
    ):
        scene = scene_of(kind, colour, how, 3, place, time)
        pixels = render(scene, 96).astype(float)[silhouette(scene, 96)]
        nearest = ((pixels[:, None] - paints) ** 2).sum(-1).argmin(1)
        share = (nearest == COLOURS.index(colour)).mean()
        assert share > 0.45, (kind, colour, how, place, share)
        assert np.bincount(nearest, minlength=11).argmax() == COLOURS.index(colour)


_GROW = (ImageFilter.MaxFilter(3), ImageFilter.MaxFilter(13))


@pytest.mark.parametrize("how", STYLES)
def test_things_stand_out_from_every_place(how: str) -> None:
    """Around the silhouette runs a line that differs from what is outside it or from the thing itself."""
    for (place, time), colour in product(product(PLACES[1:], TIMES), ("black", "white", "grey")):
        scene = scene_of("heart", colour, how, 1, place, time)
        x = render(scene, 96).astype(float)
        mask = silhouette(scene, 96)
        grown, wide = (np.asarray(Image.fromarray(mask).convert("L").filter(f)) > 0 for f in _GROW)
        thing, line, outside = x[mask].mean(0), x[grown & ~mask], x[wide & ~grown].mean(0)
        far = np.abs(line - outside).sum(-1) + np.abs(line - thing).sum(-1)
        assert np.median(far) > 60, (place, time, colour)


def test_settings_can_be_told_apart() -> None:
    """Each place, time, weather and style changes much of the picture."""
    base = Scene((), None, "meadow", "day", "clear", STYLES[0], 5)
    for name, values in (("place", PLACES[1:]), ("time", TIMES), ("weather", WEATHERS), ("style", STYLES)):
        pictures = [render(replace(base, **{name: value}), 64).astype(float) for value in values]
        for i, first in enumerate(pictures):
            for second in pictures[:i]:
                assert np.abs(first - second).mean() > 4, (name, values[i])


def test_clouds_have_their_colour() -> None:
    for time in TIMES:
        base = Scene((), None, "sea", time, "cloudy", STYLES[0], 2)
        white, golden, pink = (
            render(replace(base, clouds=c), 96).astype(float) for c in ("white", "golden", "pink")
        )
        changed = np.abs(white - golden).sum(-1) > 30
        assert changed.mean() > 0.05
        assert golden[changed, 2].mean() < pink[changed, 2].mean() < white[changed, 2].mean() + 1
        assert golden[changed, 1].mean() > pink[changed, 1].mean() + 10


def test_sheets_have_a_cell_for_each_scene() -> None:
    rng = random.Random(0)
    picture = sheet([sample_scene(rng) for _ in range(5)], columns=3, size=64, gap=2)
    assert picture.size == (3 * 66 + 2, 2 * 66 + 2)
