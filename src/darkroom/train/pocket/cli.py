"""`darkroom train STAGE`: every stage from the same few arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.errors import DarkroomError

if TYPE_CHECKING:
    from darkroom.train.config import LoopConfig
    from darkroom.train.loop import Stage

STAGES = {
    "vae": "the autoencoder: pictures to latents and back",
    "clip": "the text and the image encoder, on captions and pictures",
    "unet": "the U-Net, on latents and captions",
    "oracle": "the judge of generated pictures",
    "upscaler": "the upscaler, on drawn pictures made small",
}


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `train` and its stages to a command line."""
    train = commands.add_parser("train", help="train a model from scratch on the drawn world")
    stages = train.add_subparsers(title="stages", metavar="STAGE")
    for name, about in STAGES.items():
        stage = stages.add_parser(name, help=f"train {about}", description=f"Train {about}.")
        stage.add_argument(
            "--config", default=f"pocket/{name}", help="a settings file or a shipped one (%(default)s)"
        )
        stage.add_argument(
            "--run",
            type=Path,
            required=True,
            dest="folder",
            metavar="DIR",
            help="where the run lives; an interrupted one goes on",
        )
        stage.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="TABLE.KEY=VALUE",
            dest="changes",
            help="change a setting; may be repeated",
        )
        stage.add_argument(
            "--from",
            type=Path,
            metavar="CHECKPOINT",
            dest="source",
            help="start from another run's checkpoint",
        )
        stage.add_argument(
            "--finish",
            type=int,
            metavar="STEPS",
            help="end after so many more steps, letting the learning rate fall to zero",
        )
        stage.add_argument("--device", default="auto", help="cpu, cuda, ... (%(default)s)")
        stage.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
        stage.set_defaults(run=main, stage=name)
    latents = stages.add_parser("latents", help="render scenes and encode them, for training the U-Net")
    latents.add_argument(
        "--config", default="pocket/latents", help="a settings file or a shipped one (%(default)s)"
    )
    latents.add_argument(
        "--vae", type=Path, required=True, metavar="DIR", help="the trained autoencoder's folder"
    )
    latents.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the cache; an unfinished one goes on"
    )
    latents.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help="change a setting"
    )
    latents.add_argument("--device", default="auto", help="cpu, cuda, ... (%(default)s)")
    latents.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    latents.set_defaults(run=main, stage="latents")
    export = stages.add_parser("export", help="put trained networks together into a model folder")
    export.add_argument(
        "--vae", type=Path, required=True, metavar="DIR", help="the autoencoder's result folder"
    )
    export.add_argument("--unet", type=Path, required=True, metavar="DIR", help="the U-Net's result folder")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to write")
    export.set_defaults(run=main, stage="export")


def main(args: argparse.Namespace) -> int:
    """Do what the arguments say; 0 when done, 130 when stopped before the end."""
    if args.stage == "export":
        from darkroom.train.pocket.export import assemble

        assemble(args.vae, args.unet, args.out)
        return 0

    import torch

    from darkroom.engine import keep_freed_memory, place

    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = str(place(args.device).device)
    if args.stage == "latents":
        from darkroom.train.pocket.latents import build

        return build(args.config, args.changes, args.vae, args.out, device)
    return _train(args, device)


def _train(args: argparse.Namespace, device: str) -> int:
    from darkroom.train.loop import Trainer, continue_from

    stage, loop = build_stage(args.stage, args.config, args.changes)
    trainer = Trainer(stage, loop, args.folder, device)
    if args.source is not None:
        continue_from(trainer, args.source)
    if args.finish is not None:
        trainer.finish(args.finish)
    done = trainer.run()
    if not done:
        print(f"stopped at step {trainer.step}: run the same command to go on", file=sys.stderr)
    return 0 if done else 130


def build_stage(name: str, config: str, changes: Sequence[str] = ()) -> tuple[Stage, LoopConfig]:
    """A stage as its settings file describes it, and the loop's settings."""
    from darkroom.train.config import load_config

    if name == "vae":
        from darkroom.train.pocket.vae import VAESettings, VAEStage

        vae = load_config(VAESettings, config, changes)
        return VAEStage(vae), vae.loop
    if name == "clip":
        from darkroom.train.pocket.clip import CLIPSettings, CLIPStage

        clip = load_config(CLIPSettings, config, changes)
        return CLIPStage(clip), clip.loop
    if name == "unet":
        from darkroom.train.pocket.unet import UNetSettings, UNetStage

        unet = load_config(UNetSettings, config, changes)
        return UNetStage(unet), unet.loop
    if name == "upscaler":
        from darkroom.train.pocket.upscaler import UpscalerSettings, UpscalerStage

        upscaler = load_config(UpscalerSettings, config, changes)
        return UpscalerStage(upscaler), upscaler.loop
    from darkroom.train.pocket.oracle import OracleSettings, OracleStage

    oracle = load_config(OracleSettings, config, changes)
    return OracleStage(oracle), oracle.loop


def run(arguments: Sequence[str] | None = None) -> int:
    """`python -m darkroom.train`."""
    parser = argparse.ArgumentParser(prog="python -m darkroom.train")
    commands = parser.add_subparsers(required=True)
    add_arguments(commands)
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser.parse_args(["train", *given])
    try:
        return main(args)
    except DarkroomError as error:
        print(f"darkroom train: {error}", file=sys.stderr)
        return 1
