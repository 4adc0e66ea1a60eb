"""Other people's numbers: whatever is an integer or a real number to Python, NumPy's and tensors of one included; and
sizes of memory in words."""

from __future__ import annotations

import numbers
import operator
import re
from decimal import Decimal
from typing import Any, SupportsFloat, cast

from darkroom.errors import InvalidRequest


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


_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int | None:
    """Bytes of a size such as 8GB, 6.5 GiB or 900M (all of them powers of 1024, as memory is sold); None where the text
    is no size. Raises InvalidRequest for what is no text, and for a small number without its unit."""
    if not isinstance(text, str):
        raise InvalidRequest(f"memory is {text!r}: give the name of a mode, or a size such as '8GB'")
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([kmgt]?)(i?b)?\s*", text.lower())
    if match is not None and not (match[2] or match[3]) and len(match[1]) < 4:
        raise InvalidRequest(f"memory is {text!r}: write the unit, as in {match[1]}GB")
    return None if match is None else int(float(match[1].replace(",", ".")) * 1024 ** _UNITS[match[2]])


def as_size(count: float) -> str:
    """Bytes in words, as `parse_size` reads them."""
    unit, number = next(
        ((unit, count / 1024**power) for unit, power in (("GB", 3), ("MB", 2)) if count >= 1024**power),
        ("kB", count / 1024),
    )
    return f"{number:.1f} {unit}"
