"""Upscalers: how well the embedded one draws, whether parts leave seams, seconds and memory beside spandrel.

    python benchmarks/upscaling.py [quality] [parts] [speed] [--scenes 8] [--size 256] [--runs 3] [--sheet larger.png]

quality: held-out scenes of the drawn world of 128 pixels, made four times as large, against the same drawn at 512 (PSNR
in dB); once the small ones are those made small, once they are drawn so, where lines have other widths.
parts: a picture made larger in parts against the same as a whole, in bytes. speed: ESRGAN's network at its own width
with random weights, a picture as a whole, against spandrel's (which is given torchvision's name alone, as its networks
of other sorts ask for it); the most memory of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import types
from collections import defaultdict
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image

import darkroom
from darkroom.engine import place
from darkroom.networks.configs import RRDBNetConfig
from darkroom.networks.upscaler import RRDBNet
from darkroom.pixels import sheet
from darkroom.train.pocket.data import WorldConfig, scenes_by_style
from darkroom.world import render
from interleave import arguments, interleave, most_memory, report, report_memory

SMALL, SCALE = 128, 4


def main() -> None:
    parser = arguments(__doc__, runs=3)
    parser.add_argument("what", nargs="*", choices=["quality", "parts", "speed", []], default=[])
    parser.add_argument("--scenes", type=int, default=8, help="scenes of each style (default: 8)")
    parser.add_argument(
        "--size", type=int, default=256, help="side of the picture that is timed (default: 256)"
    )
    parser.add_argument(
        "--sheet", help="keep a sheet of pictures here: nearest, Lanczos, pocket-x4, the truth"
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        alone(*args.alone.split(":"), args.size)
        return
    what = args.what or ["quality", "parts", "speed"]
    if "quality" in what:
        quality(args.scenes, args.sheet)
    if "parts" in what:
        parts()
    if "speed" in what:
        speed(args.size, args.runs, args.json)


def quality(count: int, kept: str | None) -> None:
    names = ("nearest", "lanczos", "pocket-x4")
    upscalers = {name: darkroom.load_upscaler(name, device="cpu") for name in names}
    rows = []
    for how in ("made small", "drawn small"):
        psnr: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for style, scenes in scenes_by_style(WorldConfig(), count).items():
            for number, scene in enumerate(scenes):
                truth, small = render(scene, SMALL * SCALE), render(scene, SMALL)
                if how == "made small":
                    shrunk = Image.fromarray(truth).resize((SMALL, SMALL), Image.Resampling.BICUBIC)
                    small = np.asarray(shrunk)
                made = {
                    name: np.asarray(each.upscale(small, SCALE).image) for name, each in upscalers.items()
                }
                for name, picture in made.items():
                    error = ((picture.astype(float) - truth) ** 2).mean()
                    psnr[style][name].append(10 * np.log10(255**2 / error))
                if number == 0 and how == "made small":
                    rows += [*made.values(), truth]
        print(f"PSNR in dB, {count} held-out scenes of each style, {SMALL} to {SMALL * SCALE}, {how}")
        print(f"{'':20}" + "".join(f"{name:>12}" for name in names))
        for style, found in psnr.items():
            print(f"{style:20}" + "".join(f"{mean(found[name]):12.2f}" for name in names))
        overall = {name: mean(value for found in psnr.values() for value in found[name]) for name in names}
        print(f"{'all':20}" + "".join(f"{overall[name]:12.2f}" for name in names))
    if kept:
        sheet(rows, columns=len(names) + 1, gap=4).save(kept)


def parts() -> None:
    scenes = [scene for scenes in scenes_by_style(WorldConfig(), 1).values() for scene in scenes]
    print("parts of 64 pixels against the whole, of 256: how far bytes are apart")
    for precision in ("float32", "bfloat16"):
        whole, pieces = (
            darkroom.load_upscaler("pocket-x4", device="cpu", precision=precision, tile=tile)
            for tile in (0, 64)
        )
        apart = [
            np.abs(
                np.asarray(whole.upscale(picture).image, int) - np.asarray(pieces.upscale(picture).image, int)
            )
            for picture in (render(scene, 256) for scene in scenes)
        ]
        share = mean((each > 0).mean() for each in apart)
        print(f"{precision}: {max(each.max() for each in apart)} at most, {share:.4%} of them at all")


def network(folder: Path) -> Path:
    torch.manual_seed(0)
    made = RRDBNet(RRDBNetConfig())
    for each in made.parameters():
        torch.nn.init.normal_(each, std=0.03)
    torch.save({"params_ema": made.state_dict()}, folder / "esrgan.pth")
    return folder / "esrgan.pth"


def theirs(path: Path, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    for name in names:
        sys.modules.setdefault(name, types.ModuleType(name))
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(sys.modules[names[-1]], name, object)
    import spandrel

    return spandrel.ModelLoader().load_from_file(path).eval().to(dtype=dtype)


def picture(size: int) -> np.ndarray:
    return np.asarray(Image.effect_mandelbrot((size, size), (-2, -1.5, 1, 1.5), 100).convert("RGB"))


def runs(name: str, path: Path, size: int):  # type: ignore[no-untyped-def]
    """What makes a picture larger, Darkroom or spandrel in a precision."""
    who, precision = name.split()
    if who == "Darkroom":
        upscaler, shown = darkroom.load_upscaler(path, precision=precision, tile=0), picture(size)
        return lambda: upscaler.upscale(shown)
    made, dtype = theirs(path, getattr(torch, precision)), getattr(torch, precision)
    x = torch.from_numpy(picture(size).copy()).permute(2, 0, 1)[None].float() / 255

    def run() -> None:
        with torch.inference_mode():
            made(x.to(dtype)).float().clamp(0, 1).mul(255).round().byte().numpy()

    return run


def speed(size: int, count: int, kept: Path | None) -> None:
    here = place()
    precisions = dict.fromkeys(["float32", here.precision])
    with tempfile.TemporaryDirectory() as folder:
        path = network(Path(folder))
        names = [f"{who} {each}" for each in precisions for who in ("spandrel", "Darkroom")]
        seconds = interleave({name: runs(name, path, size) for name in names}, count)
        report(f"ESRGAN x4, {size}x{size}, {here.device}", seconds, f"Darkroom {here.precision}", kept)
        peaks: dict[str, float] = {}
        for name in names:
            asked = [sys.executable, __file__, "--alone", f"{name}:{path}", "--size", str(size)]
            peaks[name] = int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
        report_memory(peaks, f"Darkroom {here.precision}")


def alone(name: str, path: str, size: int) -> None:
    runs(name, Path(path), size)()
    print(most_memory())


if __name__ == "__main__":
    main()
