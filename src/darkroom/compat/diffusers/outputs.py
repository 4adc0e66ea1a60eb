"""What calls give back, as diffusers' users read it: by attribute, by name, or by place as a tuple."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass
class BaseOutput:
    """One or more results, in the order of the fields."""

    def __getitem__(self, index: int | str) -> Any:
        return getattr(self, index) if isinstance(index, str) else self.to_tuple()[index]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))
