"""What weights, negative prompts, prompts that change on the way and prompts between two do, measured on pictures.

Colours are counted by pixels; what a picture shows is told by the oracle (`darkroom.evaluation`). The same seeds stand
behind every row of a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import darkroom
from darkroom.files import as_json
from darkroom.generation import Picture
from darkroom.model import Model
from darkroom.oracle.oracle import Oracle

_HUES = {"red": (345, 15)}
_SATURATED, _BRIGHT = 0.5, 0.3


def share(picture: Picture, colour: str) -> float:
    """The share of a picture's pixels whose hue is that of a colour."""
    hue, saturation, value = np.asarray(picture.image.convert("HSV"), float).transpose(2, 0, 1) / 255
    low, high = _HUES[colour]
    degrees = hue * 360
    within = (degrees >= low) & (degrees <= high) if low < high else (degrees >= low) | (degrees <= high)
    return float((within & (saturation > _SATURATED) & (value > _BRIGHT)).mean())


class Bench:
    """Pictures of some seeds, and the oracle that looks at them."""

    def __init__(self, model: Model, seeds: int) -> None:
        self.model, self.seeds, self.oracle = model, seeds, Oracle.load()

    def pictures(self, prompt: str, **settings: object) -> list[Picture]:
        return self.model.generate(prompt, seed=0, count=self.seeds, **settings)  # type: ignore[arg-type]

    def showing(self, pictures: Sequence[Picture], kind: str, colour: str | None = None) -> float:
        """How many of the pictures show a thing, of that colour if one is given."""
        seen = self.oracle([picture.image for picture in pictures])
        return float(
            np.mean(
                [
                    any(thing.kind == kind and colour in (None, thing.colour) for thing in reading.things)
                    for reading in seen
                ]
            )
        )


def weights(bench: Bench) -> list[list[str]]:
    """A word's weight: how much of the picture is red."""
    rows = [["weight of `red`", "0.5", "1", "1.25", "1.5", "1.75"], ["red pixels"]]
    for weight in rows[0][1:]:
        found = bench.pictures(f"a house in a meadow, (red:{weight})")
        rows[1].append(f"{np.mean([share(each, 'red') for each in found]):.1%}")
    return rows


def negatives(bench: Bench) -> list[list[str]]:
    """A negative prompt: how many pictures still show what it names, and what the prompt asks for."""
    rows = [["prompt", "negative", "shows the tree", "shows the house"]]
    for prompt, negative in (
        ("a house and a tree in a meadow", ""),
        ("a house and a tree in a meadow", "tree"),
        ("a house and a tree in a meadow", "house"),
    ):
        found = bench.pictures(prompt, negative=negative)
        rows.append([prompt, negative, *(f"{bench.showing(found, kind):.0%}" for kind in ("tree", "house"))])
    return rows


def on_the_way(bench: Bench) -> list[list[str]]:
    """A prompt that changes, [a red house:a blue tree:X] in a meadow: of what kind things are, of which colour."""
    rows = [["X", "0", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]]
    ends = {"0": "a blue tree in a meadow", "1": "a red house in a meadow"}
    found = {
        x: bench.pictures(ends.get(x, f"[a red house:a blue tree:{x}] in a meadow")) for x in rows[0][1:]
    }
    for kind in ("house", "tree"):
        rows.append([f"shows a {kind}", *(f"{bench.showing(found[x], kind):.0%}" for x in rows[0][1:])])
    rows.append(
        ["red pixels", *(f"{np.mean([share(each, 'red') for each in found[x]]):.1%}" for x in rows[0][1:])]
    )
    return rows


def between(bench: Bench) -> list[list[str]]:
    """A red boat on a calm sea, towards a blue boat there: of which colour the oracle sees boats."""
    rows = [["`towards_strength`", "0", "0.25", "0.5", "0.75", "1"]]
    way = "a red boat on a calm sea", "a blue boat on a calm sea"
    found = {x: bench.pictures(way[0], towards=way[1], towards_strength=float(x)) for x in rows[0][1:]}
    for colour in ("red", "purple", "blue"):
        shown = [f"{bench.showing(found[x], 'boat', colour):.0%}" for x in rows[0][1:]]
        rows.append([f"{colour} boats", *shown])
    return rows


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--seeds", type=int, default=48, help="pictures of each prompt (default: 48)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    args = parser.parse_args()
    bench = Bench(darkroom.load(args.model), args.seeds)
    figures = {}
    for measure in (weights, negatives, on_the_way, between):
        figures[measure.__name__] = measure(bench)
        print(f"{measure.__doc__}\n\n{table(figures[measure.__name__])}\n", flush=True)
    if args.json:
        args.json.write_text(as_json(figures, 2) + "\n")


if __name__ == "__main__":
    main()
