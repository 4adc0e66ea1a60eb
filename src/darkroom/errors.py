"""The errors a user can meet.

Every one of them says what was wrong, the value, and what to do. Doors (command line, service)
print the message alone: a mistake of the user's is not a traceback. A setting that a remedy names is written in one
way, as Python has it, between backquotes: `memory="full"`, or `vae=` whatever it is to be. A door that calls settings
otherwise says so with `reworded`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable


class DarkroomError(Exception):
    """Base of everything Darkroom raises on purpose."""


class InvalidRequest(DarkroomError, ValueError):
    """A value in a request that cannot be honoured: the message names it and the remedy."""


class ModelError(DarkroomError):
    """A model that is missing, damaged, or not what it claims to be."""


class UnsupportedModel(ModelError):
    """A model that is whole, as far as can be seen, and of a kind that Darkroom does not run."""


class GenerationError(DarkroomError):
    """Work that failed while a picture was being made (not-a-number, out of memory)."""


class OutOfMemory(GenerationError):
    """A device or the machine had no room for what was to be made."""


class NotANumber(GenerationError):
    """What a network made are no numbers."""


class Cancelled(DarkroomError):
    """The job was cancelled before its picture was finished."""


_SETTING = re.compile(r"`(\w+)=([^`]*)`")


def reworded(message: str, door: Callable[[str, str], str]) -> str:
    """A message as a door words it, which is told the name of each setting in it and its value, "" for any; also of
    what a user wrote in that form, where a message shows it."""
    return _SETTING.sub(lambda found: door(found[1], found[2].strip("\"'")), message)


def closest(name: str, known: Iterable[str], alike: float = 0.5) -> str | None:
    """The known name closest to a mistyped one, if any is so much `alike`, of 1."""
    close = difflib.get_close_matches(str(name).lower(), sorted(known), n=1, cutoff=alike)
    return close[0] if close else None


def nearest(name: str, known: Iterable[str], alike: float = 0.5) -> str:
    """A sentence suggesting the known name closest to a mistyped one, listing all if none is close."""
    known = sorted(known)
    close = closest(name, known, alike)
    return f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
