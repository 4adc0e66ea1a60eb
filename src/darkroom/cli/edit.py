"""`darkroom edit` and `darkroom outpaint`: pictures made of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darkroom.cli.arguments import USUAL_NAME_OF_EDITS, Saving, a_path, a_whole, add_prompt
from darkroom.cli.asked import Asked, each, layered, one_request, prompt_of
from darkroom.cli.generate import add_file_options, add_loading_options, add_picture_options, made
from darkroom.cli.like import own_recipe, recipe_of
from darkroom.cli.parser import Parser
from darkroom.errors import InvalidRequest
from darkroom.generation.edits import taken_over
from darkroom.generation.request import SETTINGS
from darkroom.generation.sources import several
from darkroom.loading import Loading

_EXAMPLES = """\
examples:
  darkroom edit boat.png "a red boat on a calm sea at night" --strength 0.6
  darkroom edit photos/ "a watercolour of a harbour" --strength 0.4 -o painted/
  darkroom edit boat.png "a house by a calm sea" --mask-box 8,52,68,72
  darkroom edit boat.png "a blue boat on a calm sea" --mask "the boat"
"""
_EXTENDING = """\
examples:
  darkroom outpaint boat.png --left 64 --right 64
  darkroom outpaint photo.jpg "a harbour below mountains" --top 200
  darkroom outpaint boat.png --right 64 --rounds 4
"""
_SIDES = ("left", "top", "right", "bottom")


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "edit",
        help="make pictures of a picture",
        description="Make a picture of a picture, or of each in a folder, and write it beside nothing that is there: "
        "the prompt says what it is to become, --strength how much of it is drawn anew. A picture by Darkroom starts "
        "from its own recipe: its model, its prompt where none is given, and its settings but for the seed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(command, "what the picture is to become (default: the prompt of a picture by Darkroom)")
    command = commands.add_parser(
        "outpaint",
        help="make pictures larger by what is beyond their edges",
        description="Go on with a picture, or each in a folder, beyond its edges; what is there stays as it is, to the "
        "byte. A picture by Darkroom starts from its own recipe: its model, its prompt where none is given, and its "
        "settings but for the seed.",
        epilog=_EXTENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sides = command.add_argument_group("the sides")
    for side in _SIDES:
        name = f"extend_{side}"
        sides.add_argument(
            f"--{side}", dest=name, type=a_whole, metavar="N", help=SETTINGS[name].metadata["help"]
        )
    sides.add_argument(
        "--rounds",
        type=a_whole,
        default=1,
        metavar="N",
        help="go on so many times, each time with what the last one made and the next seed; all are kept (default: 1)",
    )
    _add_options(
        command,
        "what the picture shows when it is larger (default: the prompt of a picture by Darkroom)",
        [f"extend_{side}" for side in _SIDES],
    )


def _add_options(command: Parser, prompt: str, but: Sequence[str] = ()) -> None:
    command.add_argument("picture", type=a_path, help="a picture's file, or a folder of pictures")
    add_prompt(command, prompt)
    recipe = command.add_mutually_exclusive_group()
    recipe.add_argument(
        "--like",
        type=a_path,
        metavar="PICTURE",
        help="start from the recipe of this picture, by Darkroom, A1111, ComfyUI or InvokeAI",
    )
    recipe.add_argument(
        "--no-like",
        dest="like",
        action="store_const",
        const=False,
        help="start from no recipe, not even from the picture's own",
    )
    add_picture_options(command, but=("image", *but))
    add_loading_options(command)
    add_file_options(command)
    command.set_defaults(run=run, outpaints=bool(but))


def run(args: argparse.Namespace) -> int:
    if args.outpaints and not any(getattr(args, f"extend_{side}") for side in _SIDES):
        raise InvalidRequest("no side to go on at: give --left, --top, --right or --bottom, in pixels")
    layers = layered(args)
    like = recipe_of(args.like, args.model) if args.like else None

    def asked(where: str, picture: Path) -> tuple[Loading, Saving, Asked]:
        found = own_recipe(picture, args.model) if args.like is None else like
        recipe: dict[str, Any] = {"prompt": None}
        if found:
            options, request = found
            recipe = options | taken_over(request)
        elif prompt_of(args) is None:
            raise InvalidRequest(
                "no prompt: say what the picture is to become, or start from a recipe (--like PICTURE)"
            )
        loading, saving, settings = layers.over({**recipe, "image": str(picture)})
        return loading, saving, Asked(one_request(args, settings, settings.pop("prompt")), where)

    if not args.picture.exists():
        raise InvalidRequest(f"no file {args.picture}: name a picture, or a folder of them")
    pictures = several(args.picture)
    whole = len(pictures) == 1
    found: list[Any] = each(asked, [("" if whole else str(picture), picture) for picture in pictures])
    loading, saving, _ = found[0]
    for other, _, one in found:
        if other != loading:
            raise InvalidRequest(
                f"{one.where} was made with {other.model}, {found[0][2].where} with {loading.model}, or otherwise "
                "loaded: say `model=`, or --no-like"
            )
    if (rounds := getattr(args, "rounds", 1)) != 1:
        from darkroom.editing import check_rounds

        for _, _, one in found:
            check_rounds(rounds, one.request.flat())
    return made(args, loading, saving, [one for _, _, one in found], USUAL_NAME_OF_EDITS, rounds)
