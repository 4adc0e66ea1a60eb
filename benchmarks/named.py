"""How well a thing in a picture is found by its name, on pictures of the drawn world and the embedded model.

    python benchmarks/named.py [--scenes 40] [--sheet named.png]

What `model.mask_of(picture, "the boat")` gives is compared with where the things are: the share of both masks together
that both have (intersection over union), 1 for the very same. Of each kind of scene so many are drawn; beside it stands
what the oracle's boxes of the same name come to, who was taught on this world what the model was not told.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import darkroom
from darkroom.oracle.oracle import Oracle
from darkroom.pixels import sheet
from darkroom.world import Scene, caption, render, sample_scene, silhouette

KINDS: dict[str, Callable[[Scene], bool]] = {
    "one thing": lambda scene: len(scene.groups) == 1 and scene.groups[0].count == 1,
    "several of a kind": lambda scene: len(scene.groups) == 1 and scene.groups[0].count > 1,
    "beside another kind": lambda scene: len({group.kind for group in scene.groups}) == 2,
}


def main() -> None:
    args = parsed()
    model, oracle = darkroom.load("pocket", device="cpu", precision="float32"), Oracle.load()
    rows = []
    print(f"{'':22} {'the name alone':>16} {'in its prompt':>16} {'oracle boxes':>16}   (mean, median)")
    for kind, is_one in KINDS.items():
        found: dict[str, list[float]] = {"alone": [], "prompt": [], "oracle": []}
        draw = random.Random(7)
        while len(found["alone"]) < args.scenes:
            scene = sample_scene(draw)
            if not is_one(scene):
                continue
            group, picture = scene.groups[0], render(scene)
            truth, name = silhouette(scene, group), f"the {group.kind}"
            text = caption(scene, draw)
            masks = {
                "alone": as_mask(model.mask_of(picture, name)),
                "prompt": as_mask(model.mask_of(picture, name, text)),
                "oracle": boxes(oracle, picture, group.kind),
            }
            for way, mask in masks.items():
                found[way].append(float((mask & truth).sum() / max((mask | truth).sum(), 1)))
            if len(found["alone"]) <= 4:
                rows += [
                    Image.fromarray(picture),
                    *(shown(picture, each) for each in (truth, *masks.values())),
                ]
        print(f"{kind:22} " + " ".join(f"{mean(each):8.2f} {median(each):7.2f}" for each in found.values()))
    if args.sheet is not None:
        sheet(rows, columns=5).save(args.sheet)


def as_mask(mask: Image.Image) -> NDArray[np.bool_]:
    return np.asarray(mask) > 127


def boxes(oracle: Any, picture: NDArray[np.uint8], kind: str) -> NDArray[np.bool_]:
    """The boxes of all things of a kind that the oracle sees."""
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    for thing in oracle([Image.fromarray(picture)])[0].things:
        if thing.kind == kind:
            rows = slice(round(thing.y0 * height), round(thing.y1 * height))
            mask[rows, round(thing.x0 * width) : round(thing.x1 * width)] = True
    return mask


def shown(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Image.Image:
    """A picture dark where the mask is not."""
    return Image.fromarray(np.where(mask[..., None], picture, picture // 4))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=40, help="how many pictures of each kind (default: 40)")
    parser.add_argument("--sheet", type=Path, help="write a sheet of what was found to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
