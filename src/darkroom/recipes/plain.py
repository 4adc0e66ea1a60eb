"""Values of other programs' making, as plain as they have to be."""

from __future__ import annotations

import math
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


def shown(value: object, limit: int = 100) -> str:
    """A value in one line of so many characters, without what would steer a terminal."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(value)[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
