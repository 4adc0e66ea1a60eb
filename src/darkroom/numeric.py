"""Other people's numbers: whatever is an integer or a real number to Python, NumPy's and tensors of one included."""

from __future__ import annotations

import numbers
import operator
from decimal import Decimal
from typing import Any, SupportsFloat, cast


def integer(value: object) -> int | None:
    """The whole number that a value is; None where it is none. True and False are none."""
    if _is_truth(value):
        return None
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        return None


def real(value: object) -> float | None:
    """The real number that a value is, infinite and not-a-number ones included; None where it is none. Texts are
    none, nor are True and False."""
    if _is_truth(value):
        return None
    if isinstance(value, numbers.Real | Decimal) or getattr(value, "ndim", None) == 0:
        try:
            return float(cast(SupportsFloat, value))
        except (TypeError, ValueError, OverflowError):
            return None
    return None


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
