"""Other people's numbers."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from darkroom.numeric import integer, real

WHOLE = (3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3))
REAL = (
    3.0,
    np.float32(3),
    np.longdouble(3),
    torch.tensor(3.0),
    torch.tensor(3.0).bfloat16(),
    Decimal(3),
    Fraction(3),
)
NONE = (
    *(
        True,
        np.bool_(True),
        torch.tensor(True),
        "3",
        np.str_("3"),
        np.array("3"),
        3j,
        np.complex64(3),
        torch.tensor(3 + 0j),
    ),
    *(
        np.timedelta64(3),
        np.datetime64("2026-01-01"),
        None,
        [3],
        torch.tensor([3.0, 4.0]),
        torch.empty((), device="meta"),
    ),
)


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers(value):
    assert (integer(value), real(value)) == (3, 3.0)


@pytest.mark.parametrize("value", REAL, ids=repr)
def test_real_numbers(value):
    assert (integer(value), real(value)) == (None, 3.0)


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_what_is_none(value):
    assert real(value) is None
    assert integer(value) is None
