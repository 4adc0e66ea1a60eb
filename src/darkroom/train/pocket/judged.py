"""Pictures with their labels for the oracle, some of them spoiled: a judge trained on clean pictures alone
flatters mush. Sample i is a pure function of (seed, i). No torch is imported here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from darkroom.oracle.judging import asked
from darkroom.pixels import Pixels
from darkroom.train.feed import Arrays
from darkroom.train.pocket.data import WorldConfig, generator_at
from darkroom.world import (
    COLOURS,
    KINDS,
    PLACES,
    STYLES,
    TIMES,
    WEATHERS,
    Scene,
    layout,
    render,
    sample_scene,
)

NAMES = {"place": PLACES, "time": TIMES, "weather": WEATHERS, "style": STYLES}
SLOTS = 8  # the most things in one sample
ABSENT, UNSURE = -1, -2  # instead of a kind: no thing; a region that nothing is to be learned from


@dataclass(frozen=True, slots=True)
class Label:
    """One thing: its kind's number, or UNSURE; its colour's number; its edges in fractions of the picture."""

    kind: int
    colour: int
    edges: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture (size, size, 3), the things in it, and the number of each of place, time, weather and style
    (-1: not asked)."""

    pixels: Pixels
    labels: tuple[Label, ...]
    setting: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """The oracle's data: {"pictures": (N, size, size, 3) uint8, "boxes": (N, SLOTS, 4) float32, "kinds" and
    "colours": (N, SLOTS) int64, "setting": (N, 4) int64}.

    `views`: samples made of each rendered scene, one after the other, spoiled differently. `spoiled`,
    `joined`, `mush`: shares of samples in which things are destroyed, which show parts of two scenes, and in
    which all is smeared beyond recognition.
    """

    world: WorldConfig
    seed: int
    views: int = 2
    spoiled: float = 0.25
    joined: float = 0.15
    mush: float = 0.04

    def __call__(self, start: int, count: int) -> Arrays:
        samples = [self._sample(i) for i in range(start, start + count)]
        padding = Label(ABSENT, 0, (0.0, 0.0, 0.0, 0.0))
        rows = [(list(s.labels) + [padding] * SLOTS)[:SLOTS] for s in samples]
        return {
            "pictures": np.stack([s.pixels for s in samples]),
            "boxes": np.array([[label.edges for label in row] for row in rows], dtype=np.float32),
            "kinds": np.array([[label.kind for label in row] for row in rows], dtype=np.int64),
            "colours": np.array([[label.colour for label in row] for row in rows], dtype=np.int64),
            "setting": np.array([s.setting for s in samples], dtype=np.int64),
        }

    def _sample(self, i: int) -> Sample:
        rng = generator_at("judged", self.seed, i)
        sample, chance = drawn(self.world.size, self.seed, i // self.views), rng.random()
        if chance < self.spoiled:
            return with_spoiled_things(sample, rng)
        chance -= self.spoiled
        if chance < self.joined:
            return joined(sample, drawn(self.world.size, self.seed, i // self.views + 1), rng)
        if chance - self.joined < self.mush:
            return smeared(sample, rng)
        return sample


@lru_cache(maxsize=4)
def drawn(size: int, seed: int, index: int) -> Sample:
    """Scene `index` of the oracle's world with its labels, as it is rendered."""
    return labelled(oracle_scene(seed, index), size)


def oracle_scene(seed: int, index: int) -> Scene:
    """Scene `index` of those with a seed: any composition, every style as often as any other."""
    rng = generator_at("oracle", seed, index)
    return replace(sample_scene(rng, split="any"), style=rng.choice(STYLES))


def labelled(scene: Scene, size: int) -> Sample:
    """A rendered scene with its labels."""
    labels = tuple(
        Label(KINDS.index(box.kind), COLOURS.index(box.colour), (box.x0, box.y0, box.x1, box.y1))
        for box in layout(scene)
    )
    shown = asked(scene)
    setting = (known.index(getattr(scene, name)) if name in shown else -1 for name, known in NAMES.items())
    return Sample(render(scene, size), labels, tuple(setting))


# Spoiling


def with_spoiled_things(sample: Sample, rng: random.Random) -> Sample:
    """At least one thing destroyed so far that nobody would name it, and no longer labelled."""
    if not sample.labels:
        return sample
    pixels = sample.pixels.copy()
    doomed = {rng.randrange(len(sample.labels))}
    doomed |= {k for k in range(len(sample.labels)) if rng.random() < 0.4}
    for k in doomed:
        where = _region(sample.labels[k], len(pixels))
        # A blurred disc is still a disc, a shuffled square nearly a square.
        shape = KINDS[sample.labels[k].kind] in ("circle", "square", "triangle")
        pixels[where] = rng.choice(_WAYS[:2] if shape else _WAYS)(pixels[where], rng)
    kept = tuple(label for k, label in enumerate(sample.labels) if k not in doomed)
    return replace(sample, pixels=pixels, labels=kept)


def _region(label: Label, size: int) -> tuple[slice, slice]:
    """The pixels of a thing and its rim."""
    rim = 2 * size // 128
    x0, y0, x1, y1 = (int(edge * size) for edge in label.edges)
    rows, columns = slice(max(y0 - rim, 0), y1 + 1 + rim), slice(max(x0 - rim, 0), x1 + 1 + rim)
    return rows, columns


def warped(part: Pixels, rng: random.Random, strength: float = 0.34) -> Pixels:
    """Bent along a smooth random field, up to `strength` of the part's size."""
    height, width = part.shape[:2]
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    fade = np.minimum(np.minimum(ys, height - 1 - ys), np.minimum(xs, width - 1 - xs)) / 4
    reach = np.clip(fade, 0, 1) * strength * min(height, width)
    noise = np.random.default_rng(rng.getrandbits(32))
    shifts = []
    for _ in range(2):
        coarse = Image.fromarray(noise.choice((-1.0, 1.0), (4, 4)).astype(np.float32))
        shifts.append(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * reach)
    y = np.clip(np.rint(ys + shifts[0]), 0, height - 1).astype(np.intp)
    x = np.clip(np.rint(xs + shifts[1]), 0, width - 1).astype(np.intp)
    bent: Pixels = part[y, x]
    return bent


def halved(part: Pixels, rng: random.Random) -> Pixels:
    """Most of the part painted over with what is beside it; a fragment stays."""
    height, width = part.shape[:2]
    blend = np.linspace(0, 1, width)[None, :, None]
    ground = np.rint(part[:, :1] * (1 - blend) + part[:, -1:] * blend).astype(np.uint8)
    share = rng.uniform(0.66, 0.85)
    result = part.copy()
    y, x = round(height * share), round(width * share)
    whole = slice(None)
    where = rng.choice(
        (
            (slice(y), whole),
            (slice(height - y, None), whole),
            (whole, slice(x)),
            (whole, slice(width - x, None)),
        )
    )
    result[where] = ground[where]
    return result


def shuffled(part: Pixels, rng: random.Random) -> Pixels:
    """Cut into nine tiles that change places."""
    height, width = part.shape[0] // 3, part.shape[1] // 3
    result = part.copy()
    order = list(range(9))
    while sum(k == place for k, place in enumerate(order)) > 2:
        rng.shuffle(order)
    for k, place in enumerate(order):
        a, b = (slice(n // 3 * height, n // 3 * height + height) for n in (k, place))
        c, d = (slice(n % 3 * width, n % 3 * width + width) for n in (k, place))
        result[a, c] = part[b, d]
    return result


def faint(part: Pixels, rng: random.Random) -> Pixels:
    """Blurred until only a stain is left."""
    height, width = part.shape[:2]
    image = Image.fromarray(part)
    cells = (rng.choice((2, 3)), rng.choice((2, 3)))
    stain = image.resize(cells, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 10 : -(height // 10) or None, width // 10 : -(width // 10) or None] = 255
    soft = Image.fromarray(mask).filter(ImageFilter.BoxBlur(min(height, width) / 12))
    return np.asarray(Image.composite(stain, image, soft))


_WAYS: tuple[Callable[[Pixels, random.Random], Pixels], ...] = (warped, halved, shuffled, faint)


def smeared(sample: Sample, rng: random.Random) -> Sample:
    """The whole picture beyond recognition: nothing in it, nothing asked about it."""
    pixels = warped(sample.pixels, rng, 0.25)
    for way in rng.sample((warped, shuffled, faint), 2):
        pixels = way(pixels, rng)
    return Sample(pixels, (), (-1,) * len(NAMES))


def joined(sample: Sample, other: Sample, rng: random.Random) -> Sample:
    """One side of one scene beside the other side of another. Things cut in two are labelled where nearly
    whole, not where little is left, and UNSURE in between."""
    size, axis, cut = len(sample.pixels), rng.randrange(2), rng.uniform(0.3, 0.7)
    pixels, edge = sample.pixels.copy(), round(cut * size)
    after = (slice(None), slice(edge, None)) if axis == 0 else (slice(edge, None), slice(None))
    pixels[after] = other.pixels[after]
    labels = [_cut(label, axis, 0.0, cut) for label in sample.labels]
    labels += [_cut(label, axis, cut, 1.0) for label in other.labels]
    return Sample(pixels, tuple(label for label in labels if label), (-1,) * len(NAMES))


def _cut(label: Label, axis: int, low: float, high: float) -> Label | None:
    """What becomes of a thing of which only the part between low and high along an axis is seen."""
    edges = list(label.edges)
    length = edges[axis + 2] - edges[axis]
    edges[axis], edges[axis + 2] = max(edges[axis], low), min(edges[axis + 2], high)
    seen = (edges[axis + 2] - edges[axis]) / length
    if seen < 0.25:
        return None
    return replace(label, kind=label.kind if seen > 0.85 else UNSURE, edges=tuple(edges))  # type: ignore[arg-type]
