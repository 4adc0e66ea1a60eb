"""Large pictures in tiles: their memory, foretold and measured, and how much of a seam they have.

    python benchmarks/tiles.py [memory] [seams] [autoencoder] [--side 2048] [--tile 512] [--runs 3] [--sheet tiles.png]

memory: a picture with the dimensions of Stable Diffusion 1.5 and random weights, one step, in some memory modes: the
most memory that its process had against what `darkroom plan` says, in tiles and, only foretold, as a whole.
seams: pictures of the embedded model, drawn in tiles and made larger by an edit in tiles. The seam is the mean step
from one pixel to the next where a tile begins or ends, as a share of the steps beside it; told, too, is that of the
same picture where no tile does, and that of tiles which know nothing of each other, side by side.
autoencoder: seconds of decoding with Stable Diffusion's autoencoder, in bands and in tiles against the whole, and how
far from it they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

import darkroom
from darkroom.checkpoint.families import SD1
from darkroom.engine.memory import MODES
from darkroom.generation.parts import Tiling
from darkroom.generation.tiles import tiles_of
from darkroom.networks import VAE, VAEConfig
from darkroom.pixels import sheet
from interleave import arguments, interleave, report
from load import write_folder

GIB = 1 << 30
PROMPTS = (
    "a field with two trees at day",
    "a calm sea with a boat at night",
    "a street with three houses in the rain",
)
SEEDS, STRENGTH = 3, 0.35


def main() -> None:
    parser = arguments(__doc__, runs=3)
    parser.add_argument("what", nargs="*", choices=["memory", "seams", "autoencoder", []], default=[])
    parser.add_argument("--side", type=int, default=2048, help="pixels along each side (default: 2048)")
    parser.add_argument("--tile", type=int, default=512, help="and of a tile (default: 512)")
    parser.add_argument("--modes", nargs="+", default=["full", "lowest"], choices=list(MODES))
    parser.add_argument("--sheet", help="keep a sheet of the pictures with seams here")
    args = parser.parse_args()
    what = args.what or ["memory", "seams", "autoencoder"]
    if "memory" in what:
        memory(args)
    if "seams" in what:
        seams(args.sheet)
    if "autoencoder" in what:
        autoencoder(args)


def memory(args: argparse.Namespace) -> None:
    """Print the most memory of a process that draws, and what was foretold."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, picture = Path(scratch) / "model", Path(scratch) / "made.png"
        write_folder(folder)
        size = [
            "--width",
            str(args.side),
            "--height",
            str(args.side),
            "--second-pass",
            "off",
            "--compose",
            "own",
        ]
        asked = ["a boat", "--model", str(folder), "--steps", "1", *size]
        tiled = [*asked, "--tile", str(args.tile), "--tile-overlap", str(args.tile // 4)]
        whole = foretold(asked)
        for mode, peak in foretold(tiled).items():
            line = f"{mode}: {peak / GIB:.2f} GiB foretold in tiles of {args.tile}, {whole[mode] / GIB:.2f} as a whole"
            if mode in args.modes:
                measured = most(["generate", *tiled, "--memory", mode, "-o", str(picture), "--quiet"])
                line += f"; measured in tiles {measured / GIB:.2f}"
            print(line, flush=True)


def foretold(asked: Sequence[str]) -> dict[str, int]:
    """The most memory in each mode, as `darkroom plan` says."""
    command = [sys.executable, "-m", "darkroom", "plan", *asked, "--json"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {each["mode"]: each["peak"] for each in said["modes"]}


def most(asked: Sequence[str]) -> int:
    """The most memory that a process of Darkroom's had, in bytes."""
    most = 0
    with subprocess.Popen([sys.executable, "-m", "darkroom", *asked], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:  # Its own account at the end would begin with what this process had.
            said = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")
            most = max(most, int(said[1].split()[0]) << 10 if len(said) > 1 else 0)
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"darkroom {' '.join(asked)} failed")
    return most


def seams(kept: str | None) -> None:
    """Print how much of a seam there is where tiles begin and end."""
    model = darkroom.load("pocket", device="cpu", precision="float32")
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    pictures: list[Image.Image] = []
    for seed, prompt in enumerate(PROMPTS * SEEDS):
        for blend, overlap in (("gaussian", 64), ("average", 64), ("gaussian", 32), ("average", 32)):
            tiling = {"tile": 128, "tile_overlap": overlap, "tile_blend": blend}
            wide = {"width": 448, "height": 128, "compose": "own", "second_pass": "off"}
            (made,) = model.generate(prompt, seed=seed, **wide, **tiling)
            found[f"drawn, {blend}, {overlap} of 128 shared"].append(seam(made.image, overlap))
            pictures.append(made.image)
        (small,) = model.generate(prompt, seed=seed)
        edit = {"strength": STRENGTH, "seed": seed, "width": 448, "height": 448, "match_colors": True}
        larger = model.edit(small, prompt, **edit, tile=128, tile_overlap=64)[0].image
        found["made larger by an edit, gaussian, 64 of 128 shared"].append(seam(larger, 64))
        alone = Image.new("RGB", (384, 384))
        source = small.image.resize((384, 384), Image.Resampling.LANCZOS)
        for top in range(0, 384, 128):
            for left in range(0, 384, 128):
                part = source.crop((left, top, left + 128, top + 128))
                drawn = model.edit(
                    part, prompt, strength=STRENGTH, seed=seed + top + left, width=128, height=128
                )
                alone.paste(drawn[0].image, (left, top))
        found["tiles on their own, side by side"].append(seam(alone, 0))
        pictures += [larger, alone]
    for name, each in found.items():
        across, elsewhere = (mean(every) for every in zip(*each, strict=True))
        print(f"{name}: {across:.2f} where tiles meet, {elsewhere:.2f} elsewhere")
    if kept:
        sheet(pictures).save(kept)
        print(f"the pictures: {kept}")


def seam(picture: Image.Image, overlap: int) -> tuple[float, float]:
    """The step across columns where tiles of 128 begin or end, as a share of those beside it, and across others."""
    pixels = np.asarray(picture).astype(np.float64)
    width = pixels.shape[1]
    tiles = tiles_of(Tiling(tile=128, overlap=overlap), width, picture.height, SD1)
    assert tiles is not None
    lefts = {8 * left for left in tiles.lefts}
    edges = sorted((lefts | {left + 128 for left in lefts}) - {0, width})
    others = [at for at in range(8, width - 8, 8) if at not in edges]
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=(0, 2))

    def share(places: Sequence[int]) -> float:
        return float(
            sum(steps[at - 1] for at in places) / sum((steps[at - 2] + steps[at]) / 2 for at in places)
        )

    return share(edges), share(others)


def autoencoder(args: argparse.Namespace) -> None:
    """Print seconds and memory of decoding in parts, and how far they are from the whole."""
    side = min(args.side, 1024) // 8
    torch.manual_seed(0)
    vae = VAE(VAEConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)).requires_grad_(False)
    latent = torch.randn(1, 4, side, side)
    with torch.inference_mode():
        whole = vae.decode(latent)
        for parts in ("bands", "tiles"):
            apart = (vae.decode(latent, parts) - whole).norm() / whole.norm()
            print(f"decoded in {parts}, float32: relative error {apart:.1e}")
        vae = vae.to(torch.bfloat16, memory_format=torch.channels_last)
        runs: dict[str, Any] = {
            parts: lambda parts=parts: vae.decode(latent, parts) for parts in ("whole", "bands", "tiles")
        }
        seconds = interleave(runs, args.runs)
    report(f"decoding {8 * side}x{8 * side}, bfloat16", seconds, "whole", args.json)


if __name__ == "__main__":
    main()
