"""What drawing things over does to pocket's large pictures: how crisp they are, and whether the oracle still knows them
close up, beside what the world draws.

    python benchmarks/details.py [--count 24] [--strengths 0.3 0.4 0.5] [--sheet SHEET.png]

Pictures of 512 x 512 of two things, composed at the native size and made larger as pocket's are; then each thing that
the oracle finds is drawn over by itself. Of each, a close-up in which it takes two fifths of a side is shown to the
oracle.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
from PIL import Image

import darkroom
from darkroom.evaluation.benchmark import prompts
from darkroom.generation.masks import Box, Found
from darkroom.oracle.oracle import Oracle
from darkroom.world.render import render
from darkroom.world.sampling import sample_scene

SIDE = 512


def close_up(image: Image.Image, box: Box) -> Image.Image:
    """A square of a picture in whose middle a thing takes two fifths of a side."""
    half = 1.25 * max(box.width, box.height)
    x, y = box.left + box.width / 2, box.top + box.height / 2
    return image.crop((round(x - half), round(y - half), round(x + half), round(y + half)))


def known(oracle: Oracle, image: Image.Image, box: Box, label: str) -> bool:
    """Whether the oracle sees such a thing in the middle of the close-up, and calls it the same."""
    (reading,) = oracle([close_up(image, box)])
    middle = [
        each
        for each in reading.things
        if each.x0 < 0.5 < each.x1 and each.y0 < 0.5 < each.y1 and f"{each.colour} {each.kind}" == label
    ]
    return bool(middle)


def crispness(image: Image.Image, box: Box) -> float:
    """How steep the steepest twentieth of its edges are, in levels of 255 a pixel."""
    grey = np.asarray(image.convert("L"), np.float32)[box.slices]
    steep = np.hypot(*np.gradient(grey))
    return float(np.sort(steep.ravel())[-max(steep.size // 20, 1) :].mean())


def things(oracle: Oracle, image: Image.Image) -> list[Found]:
    (reading,) = oracle([image])
    found = []
    for each in reading.things:
        edges = [round(SIDE * min(max(value, 0), 1)) for value in (each.x0, each.y0, each.x1, each.y1)]
        box = Box(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
        if box.width > 8 and box.height > 8:
            found.append(Found(f"{each.colour} {each.kind}", each.confidence, box))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=24, help="how many pictures")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.3, 0.4, 0.5])
    parser.add_argument("--prompt", default="", help="of the details, as in --detail-prompt")
    parser.add_argument("--options", default="", help="of the details: padding=100")
    parser.add_argument("--sheet", help="a PNG of the first six pictures, before and after")
    args = parser.parse_args()
    model, oracle = darkroom.load("pocket"), Oracle.load()
    rows = {"as it was": [], **{f"strength {each:g}": [] for each in args.strengths}, "the world": []}
    sheet = []
    for number, prompt in enumerate(prompts("two", args.count, seed=7)):
        plain = model.generate(prompt.text, seed=number, width=SIDE, height=SIDE)[0]
        found = things(oracle, plain.image)
        pictures = {"as it was": plain.image}
        for strength in args.strengths:
            option = f":{args.options}" if args.options else ""
            made = model.edit(
                plain,
                loops=0,
                seed=number,
                details=[f"oracle:strength={strength}{option}"],
                detail_prompts=[args.prompt] if args.prompt else [],
            )
            pictures[f"strength {strength:g}"] = made[0].image
        for name, image in pictures.items():
            rows[name] += [
                (crispness(image, each.box), known(oracle, image, each.box, each.label)) for each in found
            ]
        if number < 6:
            sheet.append(list(pictures.values()))
        scene = sample_scene(random.Random(f"details {number}"))
        drawn = Image.fromarray(render(scene, SIDE))
        rows["the world"] += [
            (crispness(drawn, each.box), known(oracle, drawn, each.box, each.label))
            for each in things(oracle, drawn)
        ]
    print(f"{'':14} {'things':>7} {'crispness':>10} {'known close up':>15}")
    for name, measured in rows.items():
        crisp, right = (np.mean([each[at] for each in measured]) for at in (0, 1))
        print(f"{name:14} {len(measured):>7} {crisp:>10.1f} {right:>14.0%}")
    if args.sheet:
        whole = Image.new("RGB", (SIDE * len(sheet[0]), SIDE * len(sheet)))
        for y, images in enumerate(sheet):
            for x, image in enumerate(images):
                whole.paste(image, (SIDE * x, SIDE * y))
        whole.save(args.sheet)


if __name__ == "__main__":
    main()
