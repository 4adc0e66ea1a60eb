"""Other people's numbers: whatever is an integer or a real number to Python, NumPy's and tensors of one included."""

from __future__ import annotations

import numbers
import operator
import re
from decimal import Decimal
from typing import Any, SupportsFloat, cast


def integer(value: object) -> int | None:
    """The whole number that a value is; None where it is none. True and False are none."""
    if _is_truth(value):
        return None
    try:
        return operator.index(cast(Any, value))
    except (TypeError, RuntimeError):  # The latter of a tensor that has no number.
        return None


def real(value: object) -> float | None:
    """The real number that a value is, infinite and not-a-number ones included; None where it is none. Texts are
    none, nor are True and False."""
    if _is_truth(value):
        return None
    dtype, single = getattr(value, "dtype", None), not getattr(value, "ndim", 0)
    if single and (isinstance(value, numbers.Real | Decimal) if dtype is None else _is_number(dtype)):
        try:
            return float(cast(SupportsFloat, value))
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return None
    return None


def _is_number(dtype: object) -> bool:
    """Whether a type of NumPy's or torch's is that of real numbers: not of texts, complex numbers or times."""
    return re.search(r"(^|\.)(u?int|b?float)\d", str(dtype)) is not None


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
