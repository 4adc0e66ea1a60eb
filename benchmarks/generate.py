"""A picture from a cold shell: `darkroom generate` beside a diffusers script on the same weights."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from darkroom.checkpoint.registry import locate
from interleave import arguments, interleave, report

PEER = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=getattr(torch, sys.argv[4]), local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(7)
size = int(sys.argv[5])
image = pipeline("a red boat on a calm sea", num_inference_steps=int(sys.argv[3]), width=size, height=size, generator=generator).images[0]
image.save(sys.argv[2])
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
