"""How much of a seam there is around what was painted anew: Darkroom beside diffusers, on the embedded model.

    python benchmarks/seams.py [--scenes 16] [--strength 1.0] [--sheet seams.png]

Pictures of the drawn world are painted anew in a box or an ellipse with their own captions, by both, in as many steps
and with no blur. The seam is the mean step from one pixel to the next across the border of the mask, as a share of the
steps beside it, one pixel further in and one further out: any line through a picture has about 1. Told, too, is whether
what lies outside is the same to the byte. diffusers' pictures are laid over the original by its own `apply_overlay`.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageDraw

import darkroom
from darkroom.library.locate import locate
from darkroom.pixels import sheet
from darkroom.world import caption, render, sample_scene

STEPS, GUIDANCE, SIDE = 20, 4.0, 128


def main() -> None:
    args = parsed()
    import diffusers
    from diffusers.image_processor import VaeImageProcessor

    diffusers.utils.logging.set_verbosity_error()
    theirs = diffusers.StableDiffusionInpaintPipeline.from_pretrained(
        locate("pocket"), safety_checker=None, local_files_only=True
    )
    theirs.set_progress_bar_config(disable=True)
    model = darkroom.load("pocket", device="cpu", precision="float32")
    found: dict[str, list[float]] = {"the pictures themselves": [], "Darkroom": [], "diffusers": []}
    kept, rows = {"Darkroom": 0, "diffusers": 0}, []
    for number in range(args.scenes):
        draw = random.Random(number)
        scene = sample_scene(draw)
        picture, mask, prompt = Image.fromarray(render(scene)), masked(draw), caption(scene, draw)
        settings = {"strength": args.strength, "steps": STEPS, "guidance": GUIDANCE, "seed": number}
        ours = model.edit(picture, prompt, mask=mask, **settings)[0].image
        drawn = theirs(
            prompt,
            image=picture,
            mask_image=mask,
            width=SIDE,
            height=SIDE,
            strength=args.strength,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(number),
        ).images[0]
        laid = VaeImageProcessor().apply_overlay(mask, picture, drawn).convert("RGB")
        inside = np.asarray(mask) > 0
        for name, each in (("the pictures themselves", picture), ("Darkroom", ours), ("diffusers", laid)):
            found[name].append(seam(np.asarray(each, np.float64), inside))
            if name in kept:
                kept[name] += int((np.asarray(each)[~inside] == np.asarray(picture)[~inside]).all())
        rows += [picture, outlined(picture, inside), ours, laid]
    print(f"{'':26} {'median':>7} {'mean':>7} {'worst':>7}  outside the same")
    for name, each in found.items():
        same = f"{kept[name]} of {args.scenes}" if name in kept else ""
        print(f"{name:26} {median(each):7.2f} {np.mean(each):7.2f} {max(each):7.2f}  {same}")
    if args.sheet is not None:
        sheet(rows, columns=4).save(args.sheet)


def masked(draw: random.Random) -> Image.Image:
    """A box or an ellipse of a quarter to two thirds of the picture's sides, anywhere."""
    mask = Image.new("L", (SIDE, SIDE))
    width, height = (draw.randint(SIDE // 4, SIDE * 2 // 3) for _ in range(2))
    left, top = draw.randint(4, SIDE - width - 4), draw.randint(4, SIDE - height - 4)
    pen = ImageDraw.Draw(mask)
    (pen.rectangle if draw.random() < 0.5 else pen.ellipse)((left, top, left + width, top + height), fill=255)
    return mask


def outlined(picture: Image.Image, inside: np.ndarray) -> Image.Image:
    """A picture whose mask is shown."""
    pixels = np.asarray(picture).copy()
    pixels[inside] = pixels[inside] // 2 + 100
    return Image.fromarray(pixels)


def seam(pixels: np.ndarray, inside: np.ndarray) -> float:
    """The mean step across the border of a mask, as a share of the steps beside it."""
    across, beside = [], []
    for axis in (0, 1):
        turned, mask = (np.moveaxis(each, axis, 0) for each in (pixels, inside))
        steps = np.abs(np.diff(turned, axis=0)).mean(axis=-1)
        border = mask[1:] != mask[:-1]
        # The steps one pixel before and after that of the border, which are on no border themselves.
        for at, column in zip(*np.nonzero(border), strict=True):
            near = [each for each in (at - 1, at + 1) if 0 <= each < len(steps) and not border[each, column]]
            if len(near) == 2:
                across.append(steps[at, column])
                beside += [steps[each, column] for each in near]
    return float(np.mean(across) / max(np.mean(beside), 1e-6))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--sheet", type=Path, help="write the pictures side by side")
    return parser.parse_args()


if __name__ == "__main__":
    main()
