"""A name and what stands behind its colons, as requests and prompts write it: "detail:0.8:te=0.5"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from darkroom.errors import InvalidRequest, closest, nearest

_PATH = re.compile(r"^[^=]*([/\\]|\.(safetensors|sft|ckpt|pt|pth|bin|onnx)$)", re.IGNORECASE)
"""What only a path holds: a separator, or the ending of a file with weights."""


def named_options(
    text: str, what: str, positions: Sequence[str], others: Sequence[str] = (), switches: Sequence[str] = ()
) -> tuple[str, dict[str, str]]:
    """The name, and its options as text: option=value, or a value alone, which is that of the next of `positions`;
    `switches` stand alone, and are "" then. `what` is what has options, for errors: "the adapter".

    Raises InvalidRequest for an option that is not known.
    """
    name, words = named(text)
    known = (*positions, *others)
    found: dict[str, str] = {}
    alone = iter(positions)
    for word in words:
        if word in switches:
            found[word] = ""
            continue
        option, equals, value = (each.strip() for each in word.rpartition("="))
        hint = f"did you mean {close!r}?" if (close := closest(word, switches)) else ""
        if equals and option in switches:
            hint = f"{option} stands alone"
        elif equals:
            hint = "" if option in known else nearest(option, (*known, *switches))
        elif not hint and (option := next(alone, "")) == "":
            hint = (
                f"without a name there are {' and '.join(positions)}"
                if positions
                else f"write an option as {others[0]}=..., there are {', '.join(others)}"
            )
        if hint:
            raise InvalidRequest(f"{word!r} of {what} {text!r} is not understood: {hint}")
        found[option] = value
    return name, found


def named(text: str) -> tuple[str, list[str]]:
    """The name and the words behind it. A path may hold colons, as after the letter of a drive."""
    words = [word.strip() for word in text.split(":")]
    last = max((at for at, word in enumerate(words) if _PATH.search(word)), default=0)
    return ":".join(text.split(":")[: last + 1]).strip(), words[last + 1 :]


def number(value: str, text: str, what: str) -> float:
    """An option of `text` as a number. Raises InvalidRequest where it is none, or not finite."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidRequest(f"{value!r} of {what} {text!r} is no number: write it as in detail:0.8")
    return found
