"""Messages of the library as the command line words them, and where they go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from darkroom.errors import reworded

# Settings of what is no picture: of fetching, of the evaluation.
_BESIDE = {
    "core",
    "file",
    "insecure",
    "token",
    "variants",
    "finish",
    "keep",
    "look_after",
    "judge",
    "phrases",
}


def in_options(message: str) -> str:
    """A message with the settings that it names as options: --memory full, --no-metadata."""
    from darkroom.cli.arguments import FIELDS, option_name

    def option(name: str, value: str) -> str:
        if name not in FIELDS.keys() | _BESIDE:
            return f"`{name}={value}`"
        long = option_name(name).replace("_", "-")
        if value in ("True", "False"):
            return f"--{'no-' * (value == 'False')}{long}"
        return f"--{long}{value and f' {value}'}"

    return reworded(message, option)


def placed(error: Exception, args: argparse.Namespace) -> str:
    """An error with the place where what it names is said, if that is not the command line."""
    message = str(error)
    for value, where in getattr(args, "said", {}).items():
        if repr(value) in message and where not in message:
            return f"{where}: {message}"
    return message


def aside(who: str, message: object) -> None:
    """Tell people something that is no result: a note, an error."""
    print(f"{who}: {in_options(str(message))}", file=sys.stderr)


def tell_notes(notes: Iterable[object]) -> None:
    """Tell people notes, each in a line."""
    for note in notes:
        aside("note", note)
