"""`darkroom again`: a picture made once more from its own file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import a_path, a_place, spelt
from darkroom.cli.asked import given
from darkroom.cli.words import aside, tell_notes
from darkroom.errors import InvalidRequest
from darkroom.files import expanded, write_numbered
from darkroom.generation.sources import Source, a_source, lying_in

if TYPE_CHECKING:
    from darkroom.generation import Picture, Request


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "again",
        help="make a picture again from its file",
        description="Make a picture again from the metadata in its file, and compare: the pixels are the "
        "same, or what differs is said. Exit status 0 means every pixel is the same. Pictures by A1111 (and what "
        "writes like it), ComfyUI and InvokeAI are made as they say; what of it cannot be honoured is said. For "
        "these 0 means that there is a picture.",
    )
    command.add_argument("picture", type=a_path, help="a picture by Darkroom, A1111, ComfyUI or InvokeAI")
    command.add_argument(
        *spelt("output"),
        type=a_place,
        metavar="PATH",
        help="also write the new picture to this file or folder",
    )
    command.add_argument(
        "--image", type=a_path, metavar="FILE", help="the picture that this one began with, where that is now"
    )
    command.add_argument("--mask", type=a_path, metavar="FILE", help="its mask, where that is now")
    command.add_argument("--depth", type=a_path, metavar="FILE", help="its depth, where that is now")
    add_instead(command)
    command.set_defaults(run=run)


INSTEAD = ("model", "refiner", "vae", "device", "precision")
"""What may be given of a picture's model in place of what its file says."""


def add_instead(command: argparse.ArgumentParser) -> None:
    """The options for `INSTEAD`."""
    command.add_argument(*spelt("model"), help="use this model instead of the one the picture names")
    command.add_argument(
        "--refiner", metavar="PATH", help="use this refiner instead of the one the picture names"
    )
    command.add_argument(
        "--vae", metavar="PATH", help="use this autoencoder instead of the one the picture names"
    )
    command.add_argument("--device", help="run here instead of where the picture was made")
    command.add_argument("--precision", help="use this precision instead of the picture's")


def run(args: argparse.Namespace) -> int:
    from darkroom.cli.files import check_folder, picture_file
    from darkroom.generation import Request, open_picture
    from darkroom.generation.picture import MadeElsewhere, format_of

    output = None
    if args.output is not None:
        output = picture_file(args.output) or expanded(args.output) / args.picture.name
        format_of(output)
        check_folder(output.parent)
    try:
        image, metadata = open_picture(args.picture)
    except MadeElsewhere:
        return _enlarged_again(args, output)
    request = _found(Request.from_dict(metadata["request"]).checked(), args)
    picture = made_again(args, metadata, request)
    if after := metadata.get("after"):
        picture = _done_after(picture, after, args)
    from darkroom.provenance import differences

    _keep(picture, output)
    return _compare(args.picture, image, picture.image, differences(metadata, picture.metadata))


def _found(request: Request, args: argparse.Namespace) -> Request:
    """The request with the picture that it begins with, its mask and its depth as they are now: where `args` say, where
    they were, or in the folder of the picture that was made of them."""
    image = _beside(request.edit.image, "image", args.image, args, request.edit.frame)
    mask = request.inpaint.mask
    if isinstance(mask, Source) or args.mask is not None:
        mask = _beside(mask if isinstance(mask, Source) else None, "mask", args.mask, args)
    depth = _beside(request.seen.depth, "depth", args.depth, args)
    return request.replace(image=image, mask=mask, depth=depth)


def _beside(
    source: Source | None, name: str, given: Path | None, args: argparse.Namespace, frame: int | None = None
) -> Source | None:
    if given is not None:
        now = a_source(name, given).found(name, frame)[0]
        if source is not None and source.sha256 not in (None, now.sha256):
            aside("note", f"its {name} was another picture: that had the SHA-256 {source.sha256}")
        return now
    if source is None:
        return None
    try:
        return source.found(name, frame)[0]
    except InvalidRequest:
        if source.sha256 and (beside := lying_in(args.picture.parent, source)) is not source:
            aside("note", f"its {name} is {beside.path} now")
        return beside


def _enlarged_again(args: argparse.Namespace, output: Path | None) -> int:
    """A picture that Darkroom only made larger: of the one that it was made of, as far as that is here."""
    from darkroom.generation.picture import after_of, pixels_of

    after = after_of(args.picture)
    first = after[0] if after and isinstance(after[0], Mapping) else {}
    if "of" not in first:
        return _from_elsewhere(args, output, after)
    frame = first.get("frame")
    began = _beside(a_source("image", first["of"]), "image", args.image, args, frame)
    try:
        assert began is not None
        began, _ = began.found("image", frame)
    except InvalidRequest as error:
        if args.image is not None:
            raise
        aside("note", str(error))
        return _from_elsewhere(args, output, after)
    picture = _done_after(expanded(str(began.path)), after, args)
    _keep(picture, output)
    return _compare(args.picture, pixels_of(args.picture), picture.image, [])


def _done_after(picture: Picture | Path, after: list[Any], args: argparse.Namespace) -> Picture:
    from darkroom.upscaling.upscaler import repeated

    return repeated(picture, after, **given(args, ("device", "precision")))


def _keep(picture: Picture, output: Path | None) -> None:
    """Writes it where it is asked for; the picture that it was made from may lie there."""
    from darkroom.generation.picture import format_of

    if output is not None:
        print(write_numbered(output, picture.encoded(format_of(output))))


def _from_elsewhere(args: argparse.Namespace, output: Path | None, after: list[Any]) -> int:
    """Another program's picture: made as it says, as far as that goes, and then what was done with it `after`."""
    from darkroom.generation.picture import pixels_of
    from darkroom.recipes import read_recipe

    recipe, image = read_recipe(args.picture), pixels_of(args.picture)
    print(f"{args.picture} was made by {recipe.program}", file=sys.stderr)
    loading = recipe.loading(**given(args, INSTEAD))
    from darkroom.model import load

    model = load(loading)
    if args.image is not None:
        recipe.draw_on(args.image)
    request = recipe.request(model.family)
    for line in recipe.lost:
        aside("not honoured", line)
    picture = model.generate(request)[0]
    tell_notes(picture.metadata["notes"])
    if after:
        picture = _done_after(picture, after, args)
    _keep(picture, output)
    if (gap := _gap(args.picture, image, picture.image)) is not None and gap.any():
        print(f"{args.picture} differs by {gap.mean():.1f} of 255 on average, {int(gap.max())} at most")
    return 0


def _gap(path: Path, before: Any, after: Any) -> Any:
    """How far each value of two pictures is apart, (height, width, 3 or 4), None where they are of other sizes; told
    where there is no more to say of it."""
    import numpy as np

    from darkroom.pixels import over_white

    if before.size != after.size:
        was, now = (f"{image.size[0]}x{image.size[1]}" for image in (before, after))
        print(f"{path} differs: it is {was}, made again {now}")
        return None
    if before.mode != after.mode:  # What is transparent was not kept.
        before, after = over_white(before), over_white(after)
    gap = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16))
    if not gap.any():
        print(f"{path}: the same, pixel for pixel")
    return gap


def made_again(
    args: argparse.Namespace, metadata: Mapping[str, Any], request: Request, attention: bool = False
) -> Picture:
    """The picture of `args.picture`, whose file says `metadata` and in it `request`, by the model that made it or by
    what is given in place of that; its notes are told."""
    from darkroom.model import load
    from darkroom.provenance import loading_of

    model = load(loading_of(metadata, args.picture, **given(args, INSTEAD)))
    picture = model.generate(request, attention=attention)[0]
    tell_notes(picture.metadata["notes"])
    return picture


def _compare(path: Path, before: Any, after: Any, causes: list[str]) -> int:
    if (gap := _gap(path, before, after)) is None:
        return 1
    if not gap.any():
        return 0
    gap = gap.max(axis=-1)
    changed = int((gap > 0).sum())
    print(f"{path} differs in {changed:,} of {gap.size:,} pixels, by {int(gap.max())} of 255 at most")
    if path.suffix.lower() not in (".png",):
        causes = [*causes, f"{path.suffix} files do not keep every pixel"]
    for cause in causes or ["nothing known: was the file edited?"]:
        print(f"  {cause}", file=sys.stderr)
    return 1
