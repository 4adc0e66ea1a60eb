"""`darkroom mask`: where in a picture a thing is, as a mask to look at, to mend and to edit with."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from darkroom.cli.arguments import a_path, a_place, spelt
from darkroom.cli.asked import layered
from darkroom.cli.generate import add_loading_options
from darkroom.cli.parser import Parser
from darkroom.cli.progress import loading_bar
from darkroom.cli.settings import add_settings_file
from darkroom.errors import InvalidRequest

_EXAMPLES = """\
examples:
  darkroom mask boat.png "the boat"
  darkroom edit boat.png "a blue boat" --mask boat-mask.png
"""


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "mask",
        help="find a thing in a picture by its name",
        description="Write a mask of a thing in a picture: white where the model's own network reads its name, in the "
        "prompt of a picture by Darkroom or else alone. 'darkroom edit --mask NAME' makes the same mask.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("picture", type=a_path, help="a picture's file")
    command.add_argument("thing", help="what it shows: 'the boat'")
    command.add_argument(
        *spelt("output"),
        type=a_place,
        metavar="FILE",
        help="where to write it (default: the picture's name with -mask.png, beside it)",
    )
    add_loading_options(command)
    add_settings_file(command)
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the name of the file")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from darkroom.files import write_numbered

    output = (
        args.picture.with_name(f"{args.picture.stem}-mask.png") if args.output is None else Path(args.output)
    )
    if output.suffix.lower() != ".png":
        raise InvalidRequest(f"{output} is no .png file: masks are written as those")
    from darkroom.cli.like import own_recipe
    from darkroom.model import load

    recipe = own_recipe(args.picture, args.model)
    loading, _, _ = layered(args).over(recipe[0] if recipe else {})
    with loading_bar(args.quiet) as progress:
        model = load(loading, progress=progress)
    mask, content = model.mask_of(args.picture, args.thing), io.BytesIO()
    mask.save(content, "PNG")
    print(write_numbered(output, content.getvalue()))
    return 0
