"""`darkroom again`: a picture made once more from its own file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from darkroom.cli.generate import OPENING
from darkroom.errors import InvalidRequest

_LOADED = (*OPENING, "fuse")
"""What a picture's file says its model was loaded with."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "again",
        help="make a picture again from its file",
        description="Make a picture again from the metadata in its file, and compare: the pixels are the "
        "same, or what differs is said. Exit status 0 means every pixel is the same.",
    )
    command.add_argument("picture", type=Path, help="a picture made by Darkroom")
    command.add_argument("--output", type=Path, metavar="FILE", help="also write the new picture here")
    command.add_argument("--model", help="use this model instead of the one the picture names")
    command.add_argument(
        "--refiner", metavar="PATH", help="use this refiner instead of the one the picture names"
    )
    command.add_argument(
        "--vae", metavar="PATH", help="use this autoencoder instead of the one the picture names"
    )
    command.add_argument("--device", help="run here instead of where the picture was made")
    command.add_argument("--precision", help="use this precision instead of the picture's")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from darkroom.generation import Request, open_picture
    from darkroom.generation.picture import format_of

    if args.output is not None:
        format_of(args.output)
    image, metadata = open_picture(args.picture)
    request, numerics = Request.from_dict(metadata["request"]), metadata.get("numerics", {})
    request.checked()

    from darkroom.model import load

    made_by = metadata.get("model")
    made_by = made_by if isinstance(made_by, dict) else {}
    name = args.model or made_by.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"{args.picture} does not say which model made it: give --model")
    then = {key: value for key, value in made_by.items() if key in _LOADED}
    given = {key: getattr(args, key) for key in ("refiner", "vae") if getattr(args, key) is not None}
    model = load(
        name,
        **{**then, **given},
        device=args.device or numerics.get("device"),
        precision=args.precision or numerics.get("precision"),
        memory="low" if numerics.get("tiled") else "full",
    )
    picture = model.generate(request)[0]
    if args.output is not None:
        print(picture.save(args.output))
    return _compare(args.picture, image, picture.image, differences(metadata, picture.metadata))


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What besides the request decides a picture and is not as it was."""
    found = []
    for part in ("weights", "numerics"):
        old, new = (_part(metadata, part) for metadata in (then, now))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                found.append(f"{part} {name}: was {_short(old.get(name))}, is {_short(new.get(name))}")
    return found


def _part(metadata: dict[str, Any], part: str) -> dict[str, Any]:
    value = metadata.get("model", {}).get("weights") if part == "weights" else metadata.get(part)
    return value if isinstance(value, dict) else {}


def _short(value: object) -> str:
    text = str(value)
    return text[:10] if len(text) == 64 else text


def _compare(path: Path, before: Any, after: Any, causes: list[str]) -> int:
    import numpy as np

    if before.size != after.size:
        was, now = (f"{image.size[0]}x{image.size[1]}" for image in (before, after))
        print(f"{path} differs: it is {was}, made again {now}")
        return 1
    gap = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(axis=-1)
    changed = int((gap > 0).sum())
    if not changed:
        print(f"{path}: the same, pixel for pixel")
        return 0
    print(f"{path} differs in {changed:,} of {gap.size:,} pixels, by {int(gap.max())} of 255 at most")
    if path.suffix.lower() not in (".png",):
        causes = [*causes, f"{path.suffix} files do not keep every pixel"]
    for cause in causes or ["nothing known: was the file edited?"]:
        print(f"  {cause}", file=sys.stderr)
    return 1
