"""`darkroom vary` and `darkroom interrogate`: pictures like one that there is, and what one shows."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import (
    USUAL_NAME,
    USUAL_NAME_OF_EDITS,
    a_path,
    add_pictures,
    add_prompt,
    add_settings,
    pictures_named,
)
from darkroom.cli.asked import heard, layered, prompt_of
from darkroom.cli.generate import (
    add_file_options,
    add_loading_options,
    add_picture_options,
    choose_each,
    looked_at,
)
from darkroom.cli.like import Kept, add_recipe_options, recipe_of
from darkroom.cli.parser import Parser
from darkroom.cli.settings import add_settings_file
from darkroom.cli.variants import add_variant_options, choosing_of
from darkroom.cli.words import aside
from darkroom.files import as_json
from darkroom.generation.request import SETTINGS
from darkroom.loading import LOADING
from darkroom.ranking.options import CHOOSING, Choosing

if TYPE_CHECKING:
    from darkroom.generation import Request
    from darkroom.ranking.judge import Interrogation

_EXAMPLES = """\
examples:
  darkroom vary out/3-a-red-boat.png
  darkroom vary out/3-a-red-boat.png --variation-strength 0.3 --variants 12 --keep 3
  darkroom vary photo.jpg "a watercolour of a harbour" --strength 0.6
  darkroom vary shell.png "a shell" --model sd21-unclip --judge clip-vit-large-patch14/
"""
_ASKING = """\
examples:
  darkroom interrogate boat.png
  darkroom interrogate photo.jpg --judge clip-vit-large-patch14/
  darkroom interrogate photo.jpg --judge clip-vit-large-patch14/ --phrases interrogate/ --json
"""


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "vary",
        help="make pictures like one that there is, and keep the best",
        description="Make pictures like one that there is, or like each in a folder, rank them and keep the best, with "
        "a sheet and the ranking of all. A picture by Darkroom, A1111, ComfyUI or InvokeAI is drawn again by its own "
        "recipe, with its noise a little towards that of other seeds (--variation-strength); any other, or with "
        "--strength, is drawn over, by a prompt of what it shows where none is given.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pictures(command)
    add_prompt(command, "what the pictures are to show (default: the picture's own prompt, or what it shows)")
    add_variant_options(command)
    add_recipe_options(command)
    add_picture_options(command, but=("image", "count"))
    add_loading_options(command)
    add_file_options(command)
    command.set_defaults(run=run, count=None)

    command = commands.add_parser(
        "interrogate",
        help="say what a picture shows, as a prompt",
        description="Write a prompt for a picture, or for each in a folder, and how sure its judge is of each part: "
        "the oracle in the words of the drawn world, a pair of CLIP encoders in phrases that come near to the picture.",
        epilog=_ASKING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pictures(command)
    asking = command.add_argument_group("who says it")
    add_settings(asking, [CHOOSING["judge"]])
    asking.add_argument(
        "--phrases",
        type=a_path,
        metavar="PATH",
        help="phrases of one's own for a CLIP: a text file with one a line, or a folder of such, each of which is of "
        "one sort, as A1111 has them in interrogate/",
    )
    add_settings(asking, [SETTINGS["frame"]])
    add_settings(command.add_argument_group("where it runs"), [LOADING[name] for name in ("model", "device")])
    add_settings_file(command)
    command.add_argument(
        "--json",
        action="store_true",
        help="print JSON: the prompt, its parts and what was close; of a folder an object a line",
    )
    command.add_argument("--quiet", action="store_true", help="print the prompt alone")
    command.set_defaults(run=interrogate)


def run(args: argparse.Namespace) -> int:
    choosing = choosing_of(args, always=True)
    assert choosing is not None
    kept = Kept()
    for picture in pictures_named(args):
        if status := _vary(picture, args, choosing, kept):
            return status
    return 0


def _vary(picture: Path, args: argparse.Namespace, choosing: Choosing, kept: Kept) -> int:
    layers = layered(args)
    options, recipe, own = _recipe(picture, args)
    loading, saving, settings = layers.over(options)
    if recipe is not None:  # It says all; what stands elsewhere than on the command line is not for it.
        settings = {name: heard(value) for name, value in layers.own.items() if name in SETTINGS}
    settings = {name: value for name, value in settings.items() if name != "count"}
    from darkroom.choosing import by_noise, variation_of
    from darkroom.cli.files import Files

    files = Files.of(replace(saving, grid=False), USUAL_NAME if own else USUAL_NAME_OF_EDITS)
    model = kept.load(loading, args.quiet, expecting=recipe)
    prompt = heard(prompt_of(args))
    if own and recipe is not None and by_noise(recipe, model.family, settings):
        asked = variation_of(recipe, model.refiner is not None, prompt, settings)
    else:
        like = False if recipe is None else recipe
        asked = model.drawn_over(picture, prompt, like, args.judge, settings)
        if not args.quiet:
            why = "" if prompt is not None or recipe is not None else f", by what it shows: {asked.prompt}"
            aside("note", f"{picture} is drawn over{why}")
    asked = asked.checked()
    looked_at(model, [("", asked)], files, False, args.quiet)
    return choose_each(model, [asked], choosing, files, args)


def _recipe(picture: Path, args: argparse.Namespace) -> tuple[dict[str, Any], Request | None, bool]:
    """The recipe that the pictures start from, with what its model was loaded with, as options by their names, and
    whether it is the one by which the picture itself was drawn from noise. Raises InvalidRequest for one that cannot be
    used, ModelError where its model is not here."""
    if args.like is False:
        return {}, None, False
    if args.like is not None:
        return *recipe_of(args.like, args.model), False
    from darkroom.generation.picture import MadeElsewhere, metadata_of
    from darkroom.recipes import read_recipe

    try:
        metadata_of(picture)
        drawn = True
    except MadeElsewhere:
        try:
            drawn = not read_recipe(picture).edit  # It does not hold the picture that it began with.
        except MadeElsewhere:
            return {}, None, False
    return *recipe_of(picture, args.model, over=picture), drawn


def interrogate(args: argparse.Namespace) -> int:
    pictures = pictures_named(args)
    loading, _, settings = layered(args).over({})
    from darkroom.checkpoint.opening import open_source
    from darkroom.choosing import interrogated
    from darkroom.engine.devices import place
    from darkroom.library.locate import locate
    from darkroom.ranking.judges import judge_called

    path = locate(loading.model)
    with open_source(path) as source:
        preferred = source.family.judge
    judge = judge_called(args.judge, path, preferred, place(loading.device).device)
    for picture in pictures:
        found = interrogated(judge, picture, args.phrases, settings.get("frame"))
        _tell(found, judge.name, picture if len(pictures) > 1 else None, args)
    return 0


def _tell(found: Interrogation, judge: str, picture: Path | None, args: argparse.Namespace) -> None:
    """What was found in a picture, and in which, where there are several."""
    if args.json:
        whole = {"judge": judge, **found.to_dict()}
        print(
            as_json(whole, 2) if picture is None else as_json({"picture": str(picture), **whole}), flush=True
        )
        return
    print(found.prompt if picture is None else f"{picture}: {found.prompt}", flush=True)
    for each in () if args.quiet else (*found.phrases, *found.others):
        mark = "*" if each in found.phrases else " "
        print(f"{mark} {each.score:5.3f}  {each.about:10} {each.text}")
