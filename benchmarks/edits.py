"""Pictures from pictures beside diffusers, at the dimensions of Stable Diffusion 1.5 with random weights.

    python benchmarks/edits.py [image-to-image] [inpainting] [twice-as-large] [--side 512] [--steps 10] [--runs 3]

image-to-image: a photograph, half changed. inpainting: what a box in its middle holds, by a model of four channels.
twice-as-large: a photograph enlarged by Lanczos and 0.3 changed, the usual way to draw details into it; by Darkroom in
tiles, too. All with DDIM, guidance 7.5, as many steps and calls of the networks.

Each run is a process of its own, for the most memory that it has: it loads the model, draws once with a single step,
and is timed while it draws a second time, from the picture given to the picture made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image, ImageDraw

from interleave import arguments, most_memory, report, report_memory

PROMPT, NEGATIVE, GUIDANCE, SEED = "a red boat on a calm sea", "blurry", 7.5, 7
STRENGTH = {"image-to-image": 0.5, "inpainting": 1.0, "twice-as-large": 0.3}
TILE = 512


def main() -> None:
    parser = arguments(__doc__, runs=3)
    parser.add_argument("what", nargs="*", choices=[*STRENGTH, []], default=[])
    parser.add_argument("--side", type=int, default=512, help="pixels along each side given (default: 512)")
    parser.add_argument(
        "--steps", type=int, default=10, help="of which strength leaves a share (default: 10)"
    )
    parser.add_argument("--folder", type=Path, help="a folder of your own, in the Hugging Face layout")
    parser.add_argument("--skip-float32", action="store_true", help="leave out diffusers' default precision")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        alone(*args.alone, args)
        return
    from darkroom.engine import place  # Not above: the peer's processes are to be without Darkroom.
    from load import write_folder

    here = place()
    ours = f"Darkroom {here.precision}"
    names = [ours, f"diffusers {here.precision}"]
    if not args.skip_float32 and here.precision != "float32":
        names.append("diffusers float32 (its default)")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        if args.folder is None:
            write_folder(folder)
        for task in args.what or STRENGTH:
            tiled = [f"{ours} in tiles of {TILE}"] if task == "twice-as-large" else []
            seconds, peaks = measured(task, [*names, *tiled], folder, args)
            side = args.side * (2 if tiled else 1)
            calls = int(args.steps * STRENGTH[task])
            title = f"{task}, {side}x{side}, {calls} steps, {here.device}"
            kept = args.json and args.json.with_stem(f"{args.json.stem}-{task}")
            report(title, seconds, ours, kept)
            report_memory(peaks, ours)


def measured(
    task: str, names: list[str], folder: Path, args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each run, A B C A B C ..., and the median of the most memory (KiB), of each."""
    seconds: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, list[int]] = defaultdict(list)
    how = ["--side", str(args.side), "--steps", str(args.steps), "--folder", str(folder)]
    for _ in range(args.runs):
        for name in names:
            asked = [sys.executable, __file__, *how, "--alone", task, name]
            said = subprocess.run(asked, capture_output=True, text=True)
            if said.returncode:
                raise RuntimeError(f"{name}, {task}: {said.stderr}")
            took, peak = json.loads(said.stdout.splitlines()[-1])
            seconds[name].append(took)
            peaks[name].append(peak)
    return seconds, {name: median(each) for name, each in peaks.items()}


def alone(task: str, name: str, args: argparse.Namespace) -> None:
    """Print how long one contender draws, and the most memory that this process had."""
    who, precision, *tiled = name.split()
    draw = (darkrooms if who == "Darkroom" else diffusers)(task, precision, "tiles" in tiled, args)
    strength = STRENGTH[task]
    draw(1, 1.0)
    began = time.perf_counter()
    draw(args.steps, strength)
    took = time.perf_counter() - began
    print(json.dumps([took, most_memory()]))


def darkrooms(
    task: str, precision: str, tiled: bool, args: argparse.Namespace
) -> Callable[[int, float], object]:
    import darkroom

    model = darkroom.load(args.folder, precision=precision)
    given: dict[str, Any] = {}
    if task == "inpainting":
        given["mask"] = box(args.side)
    if task == "twice-as-large":
        given |= {"width": 2 * args.side, "height": 2 * args.side}
    if tiled:
        given |= {"tile": TILE, "tile_overlap": TILE // 4}
    given |= {"negative": NEGATIVE, "guidance": GUIDANCE, "seed": SEED, "sampler": "ddim"}

    def draw(steps: int, strength: float) -> None:
        model.edit(photograph(args.side), PROMPT, steps=steps, strength=strength, **given)

    return draw


def diffusers(
    task: str, precision: str, tiled: bool, args: argparse.Namespace
) -> Callable[[int, float], object]:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline

    sort = StableDiffusionInpaintPipeline if task == "inpainting" else StableDiffusionImg2ImgPipeline
    dtype = getattr(torch, precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = sort.from_pretrained(args.folder, torch_dtype=dtype, local_files_only=True).to(device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"mask_image": box(args.side)} if task == "inpainting" else {}
    given |= {"negative_prompt": NEGATIVE, "guidance_scale": GUIDANCE}

    def draw(steps: int, strength: float) -> None:
        picture = photograph(args.side)
        if task == "twice-as-large":
            picture = picture.resize((2 * args.side, 2 * args.side), Image.Resampling.LANCZOS)
        seeded = torch.Generator().manual_seed(SEED)
        pipeline(
            PROMPT, image=picture, strength=strength, num_inference_steps=steps, generator=seeded, **given
        )

    return draw


def photograph(side: int) -> Image.Image:
    return Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 100).convert("RGB")


def box(side: int) -> Image.Image:
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rectangle((side // 4, side // 4, side * 3 // 4, side * 3 // 4), fill=255)
    return mask


if __name__ == "__main__":
    main()
