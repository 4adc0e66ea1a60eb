"""How pictures are chosen among several of one request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from darkroom.diffusion import Within
from darkroom.errors import InvalidRequest
from darkroom.generation.checks import a_number, a_text, a_whole, checked, setting

MOST = 1000
LOOK_AFTER = 1 / 3


def a_judge(name: str, given: object) -> str:
    """Checks what a judge is called, which may be a path."""
    return a_text(name, str(given) if isinstance(given, Path) else given)


@dataclass(frozen=True)
class Choosing:
    """How pictures are chosen among several that differ in nothing but their noise."""

    variants: int = setting(
        8, a_whole(2, MOST), "how many are begun, each with a seed of its own (vary's default: 8)"
    )
    finish: int | None = setting(
        None,
        a_whole(1, MOST),
        "how many are finished: those that look best on the way, the others are given up (default: those that look "
        "right, half of them at most; half where the judge cannot say)",
    )
    keep: int = setting(1, a_whole(1, MOST), "how many are kept, the best")
    look_after: float = setting(
        LOOK_AFTER,
        a_number(Within(0, 1, above=True)),
        "after which share of the network calls they are looked at (default: a third)",
    )
    judge: str | None = setting(
        None,
        a_judge,
        "who ranks them: oracle, which knows the drawn world, clip, the model's own pair of encoders, or such a pair "
        "by its name, folder or file (default: as the model has it)",
        sign="NAME",
    )

    def checked(self) -> Choosing:
        """With its values in canonical form. Raises InvalidRequest for more that are to be kept or finished than there
        are."""
        own = Choosing(**checked(self))
        for name, count in (("finish", own.finish), ("keep", own.keep)):
            if count is not None and count > own.variants:
                raise InvalidRequest(
                    f"{name} is {count}, of {own.variants} variants: choose {own.variants} at most"
                )
        if own.keep > own.finished:
            raise InvalidRequest(f"keep is {own.keep}, of {own.finished} that are finished: raise `finish=`")
        return own

    @property
    def finished(self) -> int:
        """How many are finished at most."""
        half = max(math.ceil(self.variants / 2), self.keep)
        return half if self.finish is None else self.finish


CHOOSING: Mapping[str, Field[Any]] = {each.name: each for each in fields(Choosing)}
"""The settings of choosing by name."""
