"""A picture from a cold shell: `darkroom generate` beside a diffusers script on the same weights."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from darkroom.library.locate import locate
from interleave import arguments, interleave, report

PEER = """
import sys, torch
from diffusers import StableDiffusionPipeline
folder, picture, steps, dtype, size = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(
    folder, torch_dtype=getattr(torch, dtype), local_files_only=True
)
pipeline.set_progress_bar_config(disable=True)
images = pipeline(
    "a red boat on a calm sea",
    num_inference_steps=int(steps),
    width=int(size),
    height=int(size),
    generator=torch.Generator().manual_seed(7),
).images
images[0].save(picture)
"""


def main() -> None:
    parser = arguments(__doc__, runs=5)
    parser.add_argument("--model", default="pocket", help="a name or a folder (default: pocket)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="pixels along each side (default: 128)")
    args = parser.parse_args()
    folder, steps, size = str(locate(args.model)), str(args.steps), str(args.size)
    with tempfile.TemporaryDirectory() as out:
        picture = str(Path(out) / "peer.png")

        def ours() -> None:
            command = [
                sys.executable,
                "-m",
                "darkroom",
                "generate",
                "a red boat on a calm sea",
                "--seed",
                "7",
            ]
            options = [
                "--model",
                folder,
                "--steps",
                steps,
                "--width",
                size,
                "--height",
                size,
                "--output",
                out,
            ]
            subprocess.run([*command, *options, "--quiet"], check=True, capture_output=True)

        def theirs(dtype: str) -> None:
            command = [sys.executable, "-c", PEER, folder, picture, steps, dtype, size]
            subprocess.run(command, check=True, capture_output=True)

        seconds = interleave(
            {
                "Darkroom": ours,
                "diffusers float32 (its default)": lambda: theirs("float32"),
                "diffusers bfloat16": lambda: theirs("bfloat16"),
            },
            args.runs,
        )
    report(f"process to picture, {args.model}, {steps} steps, {size}x{size}", seconds, "Darkroom", args.json)


if __name__ == "__main__":
    main()
