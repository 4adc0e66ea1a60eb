"""`darkroom again`: a picture made once more from its own file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from darkroom.cli.arguments import a_path, a_place
from darkroom.cli.asked import OPENING
from darkroom.errors import InvalidRequest
from darkroom.files import expanded, write_numbered
from darkroom.networks.roles import Role

_LOADED = {*OPENING, "fuse"} - {"vae", "refiner", "others"}
"""What a picture's file says its model was loaded with, but for other files."""


_KINDS: dict[str, type] = {
    "name": str,
    "paths": dict,
    "weights": dict,
    **dict.fromkeys(("vae", "refiner", "prediction", "variant"), str),
    **dict.fromkeys(("others", "ensemble", "fuse"), list),
}
"""What a file's words on its model are to be."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "again",
        help="make a picture again from its file",
        description="Make a picture again from the metadata in its file, and compare: the pixels are the "
        "same, or what differs is said. Exit status 0 means every pixel is the same.",
    )
    command.add_argument("picture", type=a_path, help="a picture made by Darkroom")
    command.add_argument(
        "--output",
        type=a_place,
        metavar="PATH",
        help="also write the new picture to this file or folder",
    )
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
    from darkroom.cli.files import check_folder, picture_file
    from darkroom.generation import Request, open_picture
    from darkroom.generation.picture import format_of

    output = None
    if args.output is not None:
        output = picture_file(args.output) or expanded(args.output) / args.picture.name
        format_of(output)
        check_folder(output.parent)
    image, metadata = open_picture(args.picture)
    request, numerics = Request.from_dict(metadata["request"]), metadata.get("numerics") or {}
    request.checked()
    if not isinstance(numerics, dict):
        raise InvalidRequest(f"{args.picture}: its metadata is damaged (numerics is {numerics!r})")

    from darkroom.model import load

    made_by = metadata.get("model")
    made_by = made_by if isinstance(made_by, dict) else {}
    if wrong := [name for name, kind in _KINDS.items() if not _is(kind, made_by.get(name), name)]:
        raise InvalidRequest(f"{args.picture}: its metadata is damaged (model, {wrong[0]}): give --model")
    parts = _parts(made_by)
    found = parts.pop("model", None)
    if (name := args.model or found) is None:
        raise InvalidRequest(f"{args.picture} does not say which model made it: give --model")
    given = {key: getattr(args, key) for key in ("refiner", "vae") if getattr(args, key) is not None}
    model = load(
        name,
        **{key: value for key, value in made_by.items() if key in _LOADED},
        **{**parts, **given},
        device=args.device or numerics.get("device"),
        precision=args.precision or numerics.get("precision"),
        memory="low" if numerics.get("tiled") else "full",
    )
    picture = model.generate(request)[0]
    if output is not None:
        # The picture to compare with may lie there.
        print(write_numbered(output, picture.encoded(format_of(output))))
    return _compare(args.picture, image, picture.image, differences(metadata, picture.metadata))


def _is(kind: type, value: Any, name: str) -> bool:
    """Whether a word of a picture's file is of its kind: a text, a list of texts or texts by name; of paths, lists."""
    if not value:
        return True
    if not isinstance(value, kind):
        return False
    within: Mapping[type, Callable[[Any], list[Any]]] = {
        str: lambda one: [one],
        list: list,
        dict: lambda by: [*by.values()],
    }
    inside = within[kind](value)
    if name == "paths":
        several = [one if isinstance(one, list) else [one] for one in inside]
        inside = [each for one in several for each in one if each is not None]
    return all(isinstance(each, str) for each in inside)


def _parts(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """The model that made a picture, its autoencoder, its refiner and the files beside it, as they are found now."""
    from darkroom.library.locate import OF_A_VAE, recalled

    paths, weights = made_by.get("paths") or {}, made_by.get("weights") or {}
    own = {role: each for role, each in weights.items() if role in {*Role}}
    found: dict[str, Any] = {}
    if isinstance(name := made_by.get("name"), str):
        # What came from elsewhere is in none of the model's files.
        apart = {"vae"} if made_by.get("vae") else set()
        apart |= {role for role in own if role.startswith("text")} if made_by.get("others") else set()
        found["model"] = recalled(
            name, paths.get("model"), {each for role, each in own.items() if role not in apart}
        )
    if vae := made_by.get("vae"):
        found["vae"] = recalled(vae, paths.get("vae"), {own["vae"]} if "vae" in own else (), *OF_A_VAE)
    if refiner := made_by.get("refiner"):
        hashes = {weights["refiner unet"]} if "refiner unet" in weights else ()
        found["refiner"] = recalled(refiner, paths.get("refiner"), hashes)
    if others := made_by.get("others"):
        places = paths.get("others") or [None] * len(others)
        found["others"] = [recalled(each, place, ()) for each, place in zip(others, places, strict=False)]
    return found


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
