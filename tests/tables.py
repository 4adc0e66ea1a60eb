"""Tables of what is combined with what, of which the quick suite takes some and `make test-all` every pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def pairs(*axes: Sequence[Any]) -> list[Any]:
    """Every combination for `pytest.mark.parametrize`. Those are quick that take each value of each axis at least once,
    all axes going on together; the others are `wide`."""
    longest = max(map(len, axes))
    quick = {tuple(at % len(axis) for axis in axes) for at in range(longest)}
    return [
        pytest.param(
            *(axis[at] for axis, at in zip(axes, place, strict=True)),
            marks=[] if place in quick else [pytest.mark.wide],
        )
        for place in product(*(range(len(axis)) for axis in axes))
    ]


def wide(*values: Any) -> Any:
    """A row of a table that `make test-all` alone takes."""
    return pytest.param(*values, marks=pytest.mark.wide)
