"""The text that A1111 keeps in its pictures, taken apart.

    a red boat, <lora:detail:0.8>
    Negative prompt: fog
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model: dream, ...

Values that hold signs are JSON (`modules/infotext_utils.py`).
"""

from __future__ import annotations

import json
import re
from contextlib import suppress

from darkroom.recipes.plain import finite

_NEGATIVE = "Negative prompt:"
_FIRST = "Steps:"
_NAME = re.compile(r"\s*(\w[\w \-/]*?)\s*:\s*")
_FEWEST = 3
"""How many settings make a line one of settings, as A1111 counts."""
_KNOWN = {"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Model hash"}
"""Of which one is in every such line."""
_DIGITS = 40
_SIZE = re.compile(r"(\d{1,6})\s*[x×]\s*(\d{1,6})")
_LONGEST = 20_000
"""Characters of a value that is JSON."""
_CLOSED = {'"': '"', "[": "]", "{": "}"}


def parse(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings by name."""
    lines = text.strip().split("\n")
    said: dict[str, str] = {}
    # Extensions write lines of their own behind the settings.
    steps = [at for at, line in enumerate(lines) if line.lstrip().startswith(_FIRST)]
    for at in [*reversed(steps), len(lines) - 1]:
        if len(pairs := _pairs(lines[at])) >= _FEWEST and _KNOWN & {name for name, _ in pairs}:
            said, lines = dict(pairs), lines[:at]
            break
    at = next((at for at, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).strip().removeprefix(_NEGATIVE)
    return "\n".join(lines[:at]).strip(), negative.strip(), said


def pairs_of(text: str) -> list[tuple[str, str]]:
    """The pairs in a value such as "name: digits, name: digits"; a name alone has an empty second."""
    pairs = (each.rpartition(":") if ":" in each else (each, "", "") for each in text.split(","))
    return [(name.strip(), value.strip()) for name, _, value in pairs if name.strip()]


def size_of(text: str) -> tuple[int, int] | None:
    """The width and height in "512x768"; None where it is none."""
    match = _SIZE.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def number_of(text: str) -> int | float | str:
    """A number as it is written; text that is none stays what it is, for a check to say so."""
    for kind in (int, float):
        with suppress(ValueError):
            number = finite(kind(text[:_DIGITS]))
            return text if number is None else number
    return text


def _pairs(line: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(line):
        if match := _NAME.match(line, at):
            value, at = _value(line, match.end())
            found.append((match[1], value))
        comma = line.find(",", at)
        at = len(line) if comma < 0 else comma + 1
    return found


def _value(line: str, at: int) -> tuple[str, int]:
    """A value, and where it ends: JSON, what is in brackets, or all up to the next comma."""
    if closing := _CLOSED.get(line[at : at + 1]):
        piece = line[at : at + _LONGEST]
        try:
            value, end = json.JSONDecoder().raw_decode(piece)
        except (ValueError, RecursionError):
            if closing == "]" and (end := piece.find(closing)) > 0:
                return piece[: end + 1], at + end + 1
        else:
            return (value if isinstance(value, str) else piece[:end]), at + end
    comma = line.find(",", at)
    end = len(line) if comma < 0 else comma
    return line[at:end].strip(), end
