"""Whether the map of a thing's name lies on the thing: on drawn pictures, of which the thing's every pixel is known.

Each picture of the drawn world is drawn once more without its thing; where the two differ, the thing is. The picture is
noised as it is on its way, the model makes a step of it, told the picture's caption, and the map of the thing's name is
compared with the thing: how often its largest value is on it, and the chance that a place on it has a larger value than
a place beside it (the area under the ROC curve; 0.5 is chance).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import darkroom
from darkroom.diffusion import points_for
from darkroom.files import as_json
from darkroom.generation.attention import Observer
from darkroom.generation.work import Row
from darkroom.model import Model
from darkroom.prompt import Prompt
from darkroom.world.captions import caption
from darkroom.world.render import render
from darkroom.world.sampling import sample_scene
from darkroom.world.scene import Scene

SIZE = 128
STEPS = (0.2, 0.4, 0.6, 0.8)
"""How far on the way the pictures are."""
_SEEN = 24
"""From how much of 255 pixels differ."""


def scenes(count: int, seed: int) -> Iterator[tuple[Scene, str]]:
    """Scenes of one thing, with captions that name it."""
    rng = random.Random(seed)
    found = 0
    while found < count:
        scene = sample_scene(rng, split="any")
        if len(scene.groups) != 1 or scene.groups[0].count != 1 or scene.place == "plain":
            continue
        text = caption(scene, rng)
        if scene.groups[0].kind in text.lower().replace(",", " ").replace(".", " ").split():
            found += 1
            yield scene, text


def mask_of(scene: Scene) -> NDArray[np.bool_]:
    """Where the thing is, (SIZE, SIZE)."""
    whole, bare = render(scene, SIZE), render(replace(scene, groups=()), SIZE)
    differs: NDArray[np.bool_] = np.abs(whole.astype(int) - bare).max(axis=-1) > _SEEN
    return differs


def maps_of(model: Model, scene: Scene, text: str, seed: int) -> Observer:
    """What was seen of a drawn picture's caption, over some steps."""
    expert = model._networks.experts[0]
    watch = Observer(expert.text, expert.denoiser.joint)
    latent = model.encode(render(scene, SIZE))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    prompt = Prompt((text,))
    (told,) = model._networks.encode([prompt])
    points = points_for(model.family.schedule, 20, "euler", "normal")
    for share in STEPS:
        point = points[round(share * 20)]
        x, time = model.family.process.network_input(point.alpha * latent + point.sigma * noise, point)
        model._networks.denoise([Row(x, time, replace(told, attention=watch(prompt, x, told)))])
    return watch


def area(heat: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Under the ROC curve: by ranks (Mann and Whitney 1947)."""
    ranks = heat.ravel().argsort().argsort()
    inside = ranks[mask.ravel()]
    n, m = len(inside), mask.size - len(inside)
    return float((inside.sum() - n * (n - 1) / 2) / (n * m))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--count", type=int, default=200, help="pictures (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    args = parser.parse_args()
    model = darkroom.load(args.model)
    rows: dict[str, list[tuple[bool, float]]] = {"name": [], "colour": [], "a": []}
    sizes = []
    with torch.no_grad():
        for number, (scene, text) in enumerate(scenes(args.count, args.seed)):
            mask, maps = mask_of(scene), maps_of(model, scene, text, number).maps()
            sizes.append(float(mask.mean()))
            words = {"name": scene.groups[0].kind, "colour": scene.groups[0].colour, "a": "a"}
            for row, word in words.items():
                if word not in map(str.lower, maps.words):
                    continue
                heat = Image.fromarray(maps.of(word)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
                large = np.asarray(heat)
                hit = bool(mask.ravel()[large.argmax()])
                rows[row].append((hit, area(large, mask)))
    print(f"{args.model}, {args.count} drawn pictures; things cover {np.mean(sizes):.0%} of them\n")
    print(
        "| map of | pictures | its largest value is on the thing | area under the curve |\n|---|---|---|---|"
    )
    figures = {}
    for row, found in rows.items():
        hits, areas = np.mean([hit for hit, _ in found]), np.mean([each for _, each in found])
        figures[row] = {"pictures": len(found), "hits": float(hits), "area": float(areas)}
        print(
            f"| the thing's {row} | {len(found)} | {hits:.0%} | {areas:.2f} |"
            if row != "a"
            else f'| "a" | {len(found)} | {hits:.0%} | {areas:.2f} |'
        )
    if args.json:
        args.json.write_text(as_json({"covered": float(np.mean(sizes)), **figures}, 2) + "\n")


if __name__ == "__main__":
    main()
