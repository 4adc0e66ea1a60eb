"""`darkroom mask`: where in a picture a thing is, as a mask to look at, to mend and to edit with."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from darkroom.cli.arguments import a_place, add_pictures, pictures_named, spelt
from darkroom.cli.asked import layered
from darkroom.cli.generate import add_loading_options
from darkroom.cli.parser import Parser
from darkroom.cli.settings import add_settings_file
from darkroom.errors import InvalidRequest
from darkroom.files import expanded

_EXAMPLES = """\
examples:
  darkroom mask boat.png "the boat"
  darkroom edit boat.png "a blue boat" --mask boat-mask.png
"""


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "mask",
        help="find a thing in a picture by its name",
        description="Write a mask of a thing in a picture, or in each of a folder: white where the model's own network "
        "reads its name, in the prompt of a picture by Darkroom or else alone. 'darkroom edit --mask NAME' makes the "
        "same mask.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pictures(command)
    command.add_argument("thing", help="what it shows: 'the boat'")
    command.add_argument(
        *spelt("output"),
        type=a_place,
        metavar="PATH",
        help="the file, or the folder, to write to (default: the picture's name with -mask.png, beside it)",
    )
    add_loading_options(command)
    add_settings_file(command)
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the name of the file")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    pictures = pictures_named(args)
    outputs = [_output(picture, args.output, len(pictures) > 1) for picture in pictures]
    from darkroom.cli.like import Kept, own_recipe
    from darkroom.files import write_numbered

    layers, kept = layered(args), Kept()
    for picture, output in zip(pictures, outputs, strict=True):
        recipe = own_recipe(picture, args.model)
        loading, _, _ = layers.over(recipe[0] if recipe else {})
        model = kept.load(loading, args.quiet)
        mask, content = model.mask_of(picture, args.thing), io.BytesIO()
        mask.save(content, "PNG")
        print(write_numbered(output, content.getvalue()), flush=True)
    return 0


def _output(picture: Path, output: str | None, of_several: bool) -> Path:
    """Where the mask of a picture is written. Raises InvalidRequest for what is no file of a mask."""
    from darkroom.cli.files import picture_file

    usual = f"{picture.stem}-mask.png"
    if output is None:
        return picture.with_name(usual)
    named = picture_file(output)
    if named is None:
        return expanded(output) / usual
    if named.suffix.lower() != ".png":
        raise InvalidRequest(f"{output} is no .png file: masks are written as those")
    if of_several:
        raise InvalidRequest(f"{output} is one file: name a folder for the masks of several pictures")
    return named
