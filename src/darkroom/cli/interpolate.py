"""`darkroom interpolate`: pictures on the way from one prompt, or one seed, to another."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.cli.arguments import SAVING, a_number, a_whole, add_settings, spelt
from darkroom.cli.asked import gather, given, heard
from darkroom.cli.generate import (
    add_loading_options,
    add_picture_options,
    developed,
    looked_at,
    save_sheet,
    saved,
)
from darkroom.cli.parser import Parser
from darkroom.cli.progress import loading_bar
from darkroom.cli.settings import add_settings_file
from darkroom.cli.words import aside
from darkroom.errors import InvalidRequest
from darkroom.files import as_json, expanded, write_numbered
from darkroom.generation.between import TAKEN, between

if TYPE_CHECKING:
    from PIL import Image

_ANIMATED = {".gif": "GIF", ".apng": "PNG", ".webp": "WEBP"}
_STRIPS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_FOLDER = "interpolation"
_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,3}", re.IGNORECASE)
"""What files end with, and folders do not."""
_EXAMPLES = """\
examples:
  darkroom interpolate "a red boat on a calm sea" "a blue boat on a calm sea" --seed 3 -o strip.png
  darkroom interpolate "a house in the snow" --seeds 1 2 3 --frames 48 --loop -o snow.gif
"""


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "interpolate",
        help="make pictures on the way between prompts, or between seeds",
        description="Make pictures on the way through several prompts, several seeds, or as many of both: as frames in "
        "a folder, each of which can be made again, as a strip, or as an animation.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "prompts", nargs="+", metavar="prompt", help="what the pictures show, one after another"
    )
    way = command.add_argument_group("the way")
    way.add_argument("--seeds", nargs="+", type=a_whole, metavar="N", help="seeds, one after another")
    way.add_argument(
        "--frames", type=a_whole, default=9, metavar="N", help="how many pictures in all (default: 9)"
    )
    way.add_argument("--loop", action="store_true", help="go back to the first, which is not there twice")
    way.add_argument(
        "--fps", type=a_number, default=8.0, metavar="X", help="frames a second of an animation (default: 8)"
    )
    add_picture_options(command, but=TAKEN)
    seed = command.add_argument_group("one seed")
    seed.add_argument(
        *spelt("seed"), type=a_whole, metavar="N", help="the seed of all frames (default: random)"
    )
    add_loading_options(command)
    files = command.add_argument_group("the files")
    files.add_argument(
        *spelt("output"),
        metavar="PATH",
        help="a folder for the frames; a strip of them side by side: .png, .jpg; an animation: .gif, .webp, .apng "
        f"(default: a new folder out/{_FOLDER})",
    )
    add_settings(files, [each for name, each in SAVING.items() if name != "output"])
    add_settings_file(command)
    command.add_argument("--json", action="store_true", help="print JSON, an object a file")
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the names of the files")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    loading, saving, settings = gather(args)
    if args.seeds and args.seed is not None:
        raise InvalidRequest("--seeds says the seeds, and so does --seed: leave one out")
    if not 0.1 <= args.fps <= 100:
        raise InvalidRequest(f"--fps is {args.fps:g}: choose 0.1 to 100")
    seeds: list[int] = args.seeds or ([] if args.seed is None else [args.seed])
    # What a settings file says of one picture's seed and count is not meant for a way.
    settings = {name: value for name, value in settings.items() if name not in TAKEN}
    prompts = [heard(prompt) for prompt in args.prompts]
    requests = [each.checked() for each in between(prompts, seeds, args.frames, args.loop, **settings)]
    whole = None if args.output is None else _file_of_all(args.output)
    from darkroom.cli.files import Files, check_folder

    files = None
    if whole is None:
        folder = _fresh(expanded(args.output) if args.output else expanded(saving.output) / _FOLDER)
        files = Files.of(replace(saving, output=f"{folder}/", name=saving.name or "{index:04}"))
    elif also := given(args, ("format", "name", "grid")):
        raise InvalidRequest(
            f"--output {args.output} is one file of all frames: leave --{next(iter(also))} out"
        )
    else:
        check_folder(whole.parent)
        saving = replace(saving, grid=False)

    from darkroom.model import load

    with loading_bar(args.quiet) as progress:
        model = load(loading, expecting=requests[0], progress=progress)
    if whole is not None:
        _check_width(whole, len(requests), model.settle(requests[0]).canvas.width or 0)
    settled = looked_at(model, [("", each) for each in requests], files, saving.grid, args.quiet)
    if files is not None:
        frames = [picture.image for _, picture in saved(model, requests, files, args) if saving.grid]
        if frames:
            save_sheet(frames, 0, files, args)
        return 0
    assert whole is not None
    frames = [picture.image for picture in developed(model, requests, args.quiet)]
    path = str(_written(whole, frames, args.fps))
    print(as_json({"path": path, "frames": [each.to_dict() for each in settled]}) if args.json else path)
    if not (seeds or args.quiet):
        aside("note", f"the seed was {settled[0].seed}")
    return 0


def _file_of_all(output: str) -> Path | None:
    """The strip or animation that is named; None for a folder. Raises InvalidRequest for a file of another kind."""
    path = expanded(output)
    if output.endswith(("/", os.sep)) or path.is_dir():
        return None
    if path.suffix.lower() in _ANIMATED.keys() | _STRIPS.keys():
        return path
    if path.exists() or _ENDING.fullmatch(path.suffix):
        known = f"a strip is {' '.join(_STRIPS)}, an animation {' '.join(_ANIMATED)}"
        raise InvalidRequest(
            f"--output {output} is none of the files that are written: {known}; a folder ends in /"
        )
    return None


def _fresh(folder: Path) -> Path:
    """That folder, or the first with a number, in which there is nothing yet; what else is there is told later."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(
        each
        for each in itertools.chain([folder], numbered)
        if not each.exists() or (each.is_dir() and not any(each.iterdir()))
    )


def _check_width(path: Path, frames: int, width: int) -> None:
    """Find out now that a file has no room for a strip of so many frames."""
    from darkroom.generation.picture import LONGEST_SIDE

    most = LONGEST_SIDE.get(_STRIPS.get(path.suffix.lower(), "").lower())
    if most is not None and frames * width > most:
        raise InvalidRequest(
            f"a strip of {frames} frames would be {frames * width:,} pixels wide, JPEG files have {most:,} at most: "
            "write PNG"
        )


def _written(path: Path, frames: list[Image.Image], fps: float) -> Path:
    """One file of all frames: under that name, or the first with a number that is free."""
    from darkroom.pixels import sheet

    content, suffix = io.BytesIO(), path.suffix.lower()
    if suffix in _STRIPS:
        sheet(frames, columns=len(frames), gap=0).save(content, _STRIPS[suffix], quality=95)
    else:
        first, *others = frames
        # GIF counts in hundredths of a second.
        duration = round(1000 / fps, -1 if suffix == ".gif" else None)
        options = {"save_all": True, "append_images": others, "duration": duration, "loop": 0}
        first.save(content, _ANIMATED[suffix], quality=90, **options)
    return write_numbered(path, content.getvalue())
