"""From a cold shell to a model that is ready: the dimensions of Stable Diffusion 1.5 in float16 (2 GB), random weights.

Darkroom beside diffusers on the same folder, with its files in the system's cache. The process's start and its imports
count, its end does not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from darkroom.files import write_json
from darkroom.networks import VAE, CLIPText, CLIPTextConfig, UNet, UNetConfig, VAEConfig
from darkroom.prompt import Tokenizer
from darkroom.train.folders import save_network
from darkroom.weights.names import WRITTEN_AS
from interleave import arguments, interleave, report

OURS = """
import sys, darkroom
model = darkroom.load(sys.argv[1], device="cpu", precision=sys.argv[2])
print("ready", flush=True)
"""
PEER = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(
    sys.argv[1], torch_dtype=getattr(torch, sys.argv[2]), local_files_only=True
)
print("ready", flush=True)
"""


def write_folder(folder: Path) -> None:
    """Stable Diffusion 1.5 with the weights that its layers draw first."""
    vae = VAEConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512)
    for role, network in (
        ("unet", UNet(UNetConfig())),
        ("vae", VAE(vae)),
        ("text_encoder", CLIPText(CLIPTextConfig())),
    ):
        save_network(folder / role, network, torch.float16)
    Tokenizer.clip().save(folder / "tokenizer")
    scheduler = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            **WRITTEN_AS,
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
        },
    )


def ready(program: str, folder: Path, precision: str) -> None:
    """Run a program until it says that it is ready, and be rid of it."""
    command = [sys.executable, "-c", program, str(folder), precision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(process.stderr.read())
        process.kill()


def main() -> None:
    parser = arguments(__doc__, runs=5)
    parser.add_argument("--folder", type=Path, help="a folder of your own, in the Hugging Face layout")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        if args.folder is None:
            write_folder(folder)
        contenders = {
            f"{name}, {precision}": lambda program=program, precision=precision: ready(
                program, folder, precision
            )
            for precision in ("float16", "bfloat16")
            for name, program in (("Darkroom", OURS), ("diffusers", PEER))
        }
        seconds = interleave(contenders, args.runs)
    report("process start to ready, Stable Diffusion 1.5", seconds, "Darkroom, float16", args.json)


if __name__ == "__main__":
    main()
