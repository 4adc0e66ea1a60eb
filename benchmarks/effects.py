"""What the ways to make a picture of a picture come to, on the embedded model: the drawn world says what there is, the
oracle what is seen.

    python benchmarks/effects.py [strength] [loops] [outpainting] [second-pass] [vary] [interrogate] [--scenes 12]

strength: scenes of the world, each told the caption of another one: how far a picture is from the one that it began
with, in levels of 255, and how many show what they were told. loops: scenes drawn over with their own captions at
strength 0.3: how far their colours, whatever their place and light, are from the picture's own, in levels, and how many
still show it. outpainting: the same going on by 32 pixels on both sides: the seam (`benchmarks/seams.py`), and how many
show what they did. second-pass: pictures of 256 pixels with and without one: how steep their edges are
(`benchmarks/details.py`), and how many are right. vary: how far variations are from a picture, beside other seeds.
interrogate: what is said of scenes of the world: how much of it is true, all at once and by what it is of.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

import darkroom
from darkroom.evaluation.benchmark import GENEVAL_TASKS, prompts
from darkroom.generation.masks import Box
from darkroom.model import Model
from darkroom.oracle.judging import Expectation, agreement, satisfies, truth
from darkroom.oracle.oracle import Oracle
from darkroom.oracle.prompts import asked_of
from darkroom.world import Scene, caption, render, sample_scene
from details import crispness
from seams import seam

SIDE = 128


class Table:
    """What was measured, by rows and columns, and shown as means."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, row: str, **measured: float) -> None:
        for column, value in measured.items():
            self._rows[row][column.replace("_", " ")].append(value)

    def show(self) -> None:
        columns = [*dict.fromkeys(name for row in self._rows.values() for name in row)]
        count = max(len(values) for row in self._rows.values() for values in row.values())
        print(f"{self.title} ({count} of each)")
        print(f"{'':22}" + "".join(f"{name:>14}" for name in columns))
        for row, measured in self._rows.items():
            shown = (
                f"{np.mean(measured[name]):14.2f}" if name in measured else f"{'':14}" for name in columns
            )
            print(f"{row:22}" + "".join(shown))
        print(flush=True)


def scenes(count: int) -> Iterator[tuple[Scene, Image.Image, str]]:
    """Scenes of the world, each with its picture and its caption."""
    for number in range(count):
        draw = random.Random(f"effects {number}")
        scene = sample_scene(draw)
        yield scene, Image.fromarray(render(scene, SIDE)), caption(scene, draw)


def apart(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures are apart, in levels."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def recolored(one: Image.Image, other: Image.Image) -> float:
    """How far their colours are, wherever in the pictures they are and however light, in levels of Cb and Cr."""
    colours = (np.asarray(each.convert("YCbCr"), float)[..., 1:].reshape(-1, 2) for each in (one, other))
    ordered = (np.sort(each, axis=0) for each in colours)
    return float(np.abs(np.subtract(*ordered)).mean())


class Seen:
    """The oracle, asked whether pictures show what is expected of them."""

    def __init__(self) -> None:
        self.oracle = Oracle.load()

    def right(self, image: Image.Image, expectation: Expectation) -> bool:
        return satisfies(self.oracle([image])[0], expectation)


def strength(model: Model, seen: Seen, count: int) -> None:
    table, drawn = Table("strength: told the caption of another scene"), [*scenes(count + 1)]
    for number, ((_, picture, _), (_, _, told)) in enumerate(pairwise(drawn)):
        for share in (0, 0.2, 0.4, 0.6, 0.75, 0.9, 1):
            made = model.edit(picture, told, strength=share, seed=number)[0].image
            right = seen.right(made, asked_of(told).expectation)
            table.add(f"{share:g}", apart=apart(made, picture), as_told=right)
    table.show()


def loops(model: Model, seen: Seen, count: int) -> None:
    table = Table("loops at strength 0.3: its own caption")
    for number, (_, picture, told) in enumerate(scenes(count)):
        expectation = asked_of(told).expectation
        table.add("the picture", colours_off=0, as_told=seen.right(picture, expectation))
        for times in (1, 2, 4, 8):
            for matched in (False, True):
                asked = {"strength": 0.3, "loops": times, "match_colors": matched, "seed": number}
                made = model.edit(picture, told, **asked)[0].image
                row = f"{times}{', colours matched' if matched else ''}"
                off = recolored(made, picture)
                table.add(row, colours_off=off, as_told=seen.right(made, expectation))
    table.show()


def outpainting(model: Model, seen: Seen, count: int) -> None:
    table = Table("outpainting by 32 pixels on both sides")
    for number, (_, picture, told) in enumerate(scenes(count)):
        expectation, before = asked_of(told).expectation, np.asarray(picture)
        new = np.ones((SIDE, SIDE + 64), bool)
        new[:, 32:-32] = False
        inner = np.zeros((SIDE, SIDE), bool)
        inner[:, 32:-32] = True
        table.add(
            "the picture", seam=seam(before.astype(float), inner), as_told=seen.right(picture, expectation)
        )
        for fill in ("original", "mirror"):
            made = model.outpaint(picture, told, left=32, right=32, fill=fill, seed=number)[0].image
            pixels = np.asarray(made)
            kept = bool((pixels[:, 32:-32] == before).all())
            right = seen.right(made, expectation)
            table.add(fill, seam=seam(pixels.astype(float), new), as_told=right, kept=kept)
    table.show()


def second_pass(model: Model, seen: Seen, count: int) -> None:
    table, whole = Table("a second pass, 256x256"), Box(0, 0, 256, 256)
    for task in GENEVAL_TASKS:
        for number, prompt in enumerate(prompts(task, -(-count // len(GENEVAL_TASKS)), seed=5)):
            asked = {"seed": number, "width": 256, "height": 256}
            for row, settings in {
                "none, pocket-x4": {"second_pass": "auto"},
                "none, lanczos": {"second_pass": "auto", "upscaler": "lanczos"},
                **{
                    f"{upscaler}, {share:g}": {
                        "second_pass": "on",
                        "second_strength": share,
                        "upscaler": upscaler,
                    }
                    for upscaler in ("pocket-x4", "lanczos")
                    for share in (0.2, 0.35)
                },
            }.items():
                made = model.generate(prompt.text, **asked, **settings)[0].image
                right = seen.right(made, prompt.expectation)
                table.add(row, crispness=crispness(made, whole), as_told=right)
    table.show()


def vary(model: Model, seen: Seen, count: int) -> None:
    table, variations = Table("variations of a picture"), 4
    for number, (_, _, told) in enumerate(scenes(count)):
        expectation, asked = asked_of(told).expectation, {"seed": number, "count": variations}
        base = model.generate(told, seed=number)[0].image
        table.add("the picture", apart=0, as_told=seen.right(base, expectation))
        rows = {
            f"{share:g}": {**asked, "variation_strength": share, "variation_seed": 100}
            for share in (0.05, 0.15, 0.3, 0.6)
        }
        rows["other seeds"] = {**asked, "seed": 1000 + variations * number}
        for row, settings in rows.items():
            for made in model.generate(told, **settings):
                table.add(row, apart=apart(made.image, base), as_told=seen.right(made.image, expectation))
    table.show()


def interrogate(model: Model, seen: Seen, count: int) -> None:
    table = Table("what is said of drawn scenes: true of them")
    for scene, picture, _ in scenes(20 * count):
        said = asked_of(model.interrogate(picture).prompt).expectation
        table.add("all of it", true=satisfies(truth(scene), said))
        for name, right in agreement(seen.oracle([picture])[0], scene).items():
            table.add(name, true=right)
    table.show()


MEASURED: dict[str, Callable[[Model, Seen, int], None]] = {
    "strength": strength,
    "loops": loops,
    "outpainting": outpainting,
    "second-pass": second_pass,
    "vary": vary,
    "interrogate": interrogate,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*MEASURED, []], default=[])
    parser.add_argument("--scenes", type=int, default=12, help="of each measure (default: 12)")
    args = parser.parse_args()
    model, seen = darkroom.load("pocket"), Seen()
    for name in args.what or MEASURED:
        MEASURED[name](model, seen, args.scenes)


if __name__ == "__main__":
    main()
