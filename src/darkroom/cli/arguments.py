"""What stands behind options, for argparse."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from darkroom.files import expanded


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
