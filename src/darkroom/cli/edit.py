"""`darkroom edit`, `darkroom outpaint` and `darkroom detail`: pictures made of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from darkroom.cli.arguments import (
    USUAL_NAME_OF_EDITS,
    Saving,
    a_number,
    a_whole,
    add_pictures,
    add_prompt,
    pictures_named,
    spelt,
)
from darkroom.cli.asked import Asked, each, layered, one_request, prompt_of
from darkroom.cli.generate import add_file_options, add_loading_options, add_picture_options, made
from darkroom.cli.like import add_recipe_options, own_recipe, recipe_of
from darkroom.cli.parser import Parser
from darkroom.cli.variants import add_variant_options, of_variants
from darkroom.errors import InvalidRequest
from darkroom.generation.edits import taken_over
from darkroom.generation.request import PARTS, SETTINGS, within
from darkroom.generation.sizing import STRENGTH_OF_DETAILS
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
_DETAILING = """\
examples:
  darkroom detail portrait.png face_yolov8n.pt
  darkroom detail street.png face.pt:confidence=0.5:strength=0.3 hand.onnx --detail-prompt "a tired face"
  darkroom detail boat.png "the boat" --detail-prompt "a blue boat" --seed 5
  darkroom detail pets.png oracle:only=cat+dog

what a detail is:
  NAME                  a detector's file: .pt of the YOLO family, or .onnx of that or with outputs called boxes,
                        scores and labels; its name in $DARKROOM_MODELS/detectors; oracle, which knows the drawn
                        world; or else a thing by its name, which the model reads in the picture
  :only=cat+dog         of what a detector finds these alone
  :confidence=0.3       how sure it is to be, 0 to 1
  :most=3               the largest so many
  :smallest=0.01        the share of the picture's area that a thing has at least
  :largest=0.2          and at most
  :strength=0.4         how much of it is drawn anew, 0 to 1
  :grow=4 :blur=4       by how many pixels its mask is made larger, and softened (default: 4 of a model of 512)
  :padding=32           how many pixels around it are seen (default: 32 of a model of 512; of one that composes at its
                        native size, as pocket, three quarters of the thing's larger side)
  :size=512             the side of a square of the area that it is drawn at (default: the model's native size)
  :steps=30             other steps than the picture's
  :guidance=5           another guidance scale
"""
_SIDES = ("left", "top", "right", "bottom")
_NOT_OF_DETAILS = {
    *("details", "strength", "fill", "only_masked", "mask_padding"),
    *(
        name
        for part in ("canvas", "tiling", "edit", "seen", "extend", "second")
        for name in within(PARTS[part])
    ),
} - {"frame", "compose", "upscaler"}
"""The settings that mean nothing where nothing but details is drawn, or have an option of their own there."""


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
    add_pictures(command)
    add_prompt(command, "what the picture is to become (default: the prompt of a picture by Darkroom)")
    _add_options(command, [], edit)
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
    add_pictures(command)
    add_prompt(
        command, "what the picture shows when it is larger (default: the prompt of a picture by Darkroom)"
    )
    _add_options(command, [f"extend_{side}" for side in _SIDES], outpaint)

    command = commands.add_parser(
        "detail",
        help="draw small things in a picture over, each by itself and larger",
        description="Find things in a picture, or in each of a folder, draw each over by itself, larger, and put it "
        "back; all else stays as it is, to the byte. --detail of the other commands does the same with what they make. "
        "A picture by Darkroom starts from its own recipe.",
        epilog=_DETAILING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pictures(command)
    command.add_argument("details", nargs="+", metavar="DETAIL", help="what to find, with options: see below")
    command.add_argument(
        *spelt("prompt"),
        metavar="TEXT",
        help="what the whole picture shows (default: the prompt of a picture by Darkroom)",
    )
    command.add_argument(
        *spelt("strength"),
        type=a_number,
        metavar="X",
        help=f"how much of each thing is drawn anew, 0 to 1 (default: {STRENGTH_OF_DETAILS:g})",
    )
    command.set_defaults(prompt_too=None, loops=0)
    _add_options(command, _NOT_OF_DETAILS, detail)


def _add_options(command: Parser, but: Collection[str], run: Callable[[argparse.Namespace], int]) -> None:
    add_recipe_options(command)
    add_picture_options(command, but=("image", *but))
    if run is edit:
        add_variant_options(command)
    add_loading_options(command)
    add_file_options(command)
    command.set_defaults(run=run)


def outpaint(args: argparse.Namespace) -> int:
    if not any(getattr(args, f"extend_{side}") for side in _SIDES):
        raise InvalidRequest("no side to go on at: give --left, --top, --right or --bottom, in pixels")
    return edit(args)


def detail(args: argparse.Namespace) -> int:
    # Things are told what they are where there is nothing else to tell; what settings files say of other edits is not
    # for this one.
    return edit(args, usual="", without=_NOT_OF_DETAILS - {"details", "strength", "loops", "image"})


def edit(args: argparse.Namespace, usual: str | None = None, without: Collection[str] = ()) -> int:
    layers = layered(args)
    like = recipe_of(args.like, args.model) if args.like else None

    def asked(where: str, picture: Path) -> tuple[Loading, Saving, Asked]:
        found = own_recipe(picture, args.model) if args.like is None else like
        recipe: dict[str, Any] = {"prompt": usual}
        if found:
            options, request = found
            recipe = options | taken_over(request)
        elif prompt_of(args) is None and usual is None:
            raise InvalidRequest(
                "no prompt: say what the picture is to become, or start from a recipe (--like PICTURE)"
            )
        loading, saving, settings = layers.over({**recipe, "image": str(picture)})
        settings = {name: value for name, value in of_variants(settings, args).items() if name not in without}
        return loading, saving, Asked(one_request(args, settings, settings.pop("prompt")), where)

    pictures = pictures_named(args)
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
