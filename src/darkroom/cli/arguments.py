"""What stands behind options, for argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from darkroom.errors import InvalidRequest
from darkroom.files import expanded
from darkroom.generation.checks import called, setting
from darkroom.generation.request import SETTINGS
from darkroom.generation.sources import several
from darkroom.loading import LOADING


def a_path(text: str) -> Path:
    """A path with ~ as the home, which is not nothing: that would be the folder one is in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: name a file or a folder")
    return expanded(text)


def a_place(text: str) -> str:
    """Where something is to be written, as it was typed: what ends in a slash is to be a folder."""
    a_path(text)
    return text


def a_whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def a_number(text: str) -> float:
    """A number, with a decimal point."""
    try:
        return float(text)
    except ValueError:
        hint = f": write {text.replace(',', '.')}" if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text) else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no number{hint}") from None


def a_size(text: str) -> tuple[int, int]:
    """Width and height in pixels: of "256" or "256x128"."""
    if not (found := re.fullmatch(r"\s*(\d+)\s*(?:[x×*]\s*(\d+)\s*)?", text, re.IGNORECASE)):
        raise argparse.ArgumentTypeError(f"{text!r}: give a side in pixels, or WIDTHxHEIGHT, such as 256x128")
    return int(found[1]), int(found[2] or found[1])


# As stable-diffusion.cpp has them.
_SHORT = {
    "model": "-m",
    "prompt": "-p",
    "negative": "-n",
    "width": "-W",
    "height": "-H",
    "seed": "-s",
    "count": "-b",
    "output": "-o",
}


def _as_given(name: str, given: object) -> object:
    """`darkroom.cli.files` looks at it, where the pictures are known."""
    return given


def _format(name: str, given: object) -> str:
    from darkroom.generation.picture import canonical_format

    return canonical_format(str(given))


USUAL_NAME = "{seed}-{prompt}"
USUAL_NAME_OF_EDITS = "{image}-{seed}"


@dataclass(frozen=True)
class Saving:
    """What there is to say of the files of pictures."""

    output: str = setting(
        "out",
        _as_given,
        "folder for the pictures (default: out), or the file of one: boat.png, .jpg, .webp",
        sign="PATH",
    )
    format: str | None = setting(None, _format, "png, jpeg or webp (default: png)", sign="FORMAT")
    name: str | None = setting(
        None,
        _as_given,
        "file name, made of {seed} {prompt} {index} {image} {model} {sampler} {steps} {width} {height} {guidance} "
        f"{{date}} {{time}} (default: {USUAL_NAME}, of an edit {USUAL_NAME_OF_EDITS})",
        sign="TEMPLATE",
    )
    grid: bool = setting(False, _as_given, "also write one sheet of all pictures (default: no)")
    metadata: bool = setting(
        True,
        _as_given,
        "write into the file how the picture was made (default: yes); without it the file is nothing but pixels, and "
        "the picture cannot be made again from it",
    )


SAVING: Mapping[str, Field[Any]] = {each.name: each for each in fields(Saving)}
FIELDS: Mapping[str, Field[Any]] = {**SETTINGS, **LOADING, **SAVING}
"""All settings of a picture, of loading and of its file, by the names that they have in Python."""


def option_name(name: str) -> str:
    """What a setting is called where there is one of them at a time: "with" of others, itself of guidance_rescale."""
    each = FIELDS.get(name)
    return (each and each.metadata["each"]) or name


def spelt(name: str) -> list[str]:
    """An option as it may be spelt: -m, --model."""
    long = f"--{option_name(name).replace('_', '-')}"
    return [_SHORT[name], long] if name in _SHORT else [long]


def is_list(name: str) -> bool:
    """Whether a setting is a list, of which each is an option of its own."""
    return name in FIELDS and bool(FIELDS[name].metadata["each"])


def kind_of(each: Field[Any]) -> str:
    """Of which type a setting is: int, float, str, bool, or a tuple of texts."""
    return str(each.type).split(" ")[0]


_TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (a_whole, "N"),
    "float": (a_number, "X"),
    "str": (str, "TEXT"),
    "Source": (str, "FILE"),
}


def add_prompt(command: argparse.ArgumentParser, help: str) -> None:
    """The prompt, which stands by itself or behind --prompt."""
    command.add_argument("prompt", nargs="?", help=help)
    command.add_argument(*spelt("prompt"), dest="prompt_too", metavar="TEXT", help="the prompt as an option")


def add_pictures(command: argparse.ArgumentParser) -> None:
    """The pictures that something is done with."""
    command.add_argument("picture", type=a_path, help="a picture's file, or a folder of pictures")


def pictures_named(args: argparse.Namespace) -> list[Path]:
    """The pictures that `add_pictures` has something done with. Raises InvalidRequest where there is none."""
    if not args.picture.exists():
        raise InvalidRequest(f"no file {args.picture}: name a picture, or a folder of them")
    return [Path(each) for each in several(args.picture)]


def add_size(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--size", type=a_size, metavar="WxH", help="width and height at once: 256x128, or 256")


def add_settings(group: argparse._ArgumentGroup, settings: Iterable[Field[Any]]) -> None:
    """An option for each setting (`darkroom.generation.checks.setting`); None where it is not given."""
    for each in settings:
        facts = each.metadata
        options = spelt(called(each))
        given: dict[str, Any] = {"dest": called(each), "default": None, "help": facts["help"]}
        if each.default not in (None, "", ()) and "default" not in facts["help"]:
            given["help"] += f" (default: {each.default})"
        if facts["each"]:
            given["help"] += "; may be repeated"
            group.add_argument(*options, action="append", metavar=facts["sign"] or "NAME[:...]", **given)
        elif (kind := kind_of(each)) == "bool":
            group.add_argument(*options, action=argparse.BooleanOptionalAction, **given)
        elif facts["choices"]:
            group.add_argument(*options, type=str.lower, choices=facts["choices"], **given)
        else:
            read, sign = _TYPES[kind]
            group.add_argument(*options, type=read, metavar=facts["sign"] or sign, **given)
