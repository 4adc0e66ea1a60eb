"""What stands behind options, for argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import Field
from pathlib import Path
from typing import Any

from darkroom.files import expanded
from darkroom.generation.checks import called


def a_path(text: str) -> Path:
    """A path with ~ as the home, which is not nothing: that would be the folder one is in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: name a file or a folder")
    return expanded(text)


def a_place(text: str) -> str:
    """Where something is to be written, as it was typed: what ends in a slash is to be a folder."""
    a_path(text)
    return text


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


_TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (int, "N"),
    "float": (a_number, "X"),
    "str": (str, "TEXT"),
}


def add_settings(group: argparse._ArgumentGroup, settings: Iterable[Field[Any]]) -> None:
    """An option for each setting (`darkroom.generation.checks.setting`); None where it is not given."""
    for each in settings:
        told = each.metadata
        option = f"--{(told['each'] or called(each)).replace('_', '-')}"
        kind = str(each.type).split(" ")[0]
        given: dict[str, Any] = {"dest": called(each), "default": None, "help": told["help"]}
        if told["each"]:
            given["help"] += "; may be repeated"
            group.add_argument(option, action="append", metavar=told["sign"] or "NAME[:...]", **given)
        elif kind == "bool":
            group.add_argument(option, action=argparse.BooleanOptionalAction, **given)
        elif told["choices"]:
            group.add_argument(option, type=str.lower, choices=told["choices"], **given)
        else:
            read, sign = _TYPES[kind]
            group.add_argument(option, type=read, metavar=told["sign"] or sign, **given)
