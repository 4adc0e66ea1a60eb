"""Values of other programs' making, as plain as they have to be."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from typing import Any

_MOST = 2**64
"""What no honest number is larger than: a seed of 64 bits."""


def finite(value: Any) -> int | float | None:
    """A number; None for what is none, and for one that is infinite, not a number or huge."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if -_MOST <= value <= _MOST else None


def number_or(value: Any, otherwise: Any) -> Any:
    """A number, or another where it is none."""
    found = finite(value)
    return otherwise if found is None else found


def parsed(text: str | None) -> Any:
    """JSON, of which NaN is a number, too; None for what is none."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def literal(text: str) -> Any:
    """What Python writes for plain data; None for what is none."""
    try:
        return ast.literal_eval(text) if text else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def mapping(value: object) -> Mapping[str, Any]:
    """An object of JSON; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[Any]:
    """An array of JSON; an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def shown(value: object, limit: int = 100) -> str:
    """A value in one line of so many characters, without what would steer a terminal."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(value)[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
