"""Noise as diffusers draws it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from darkroom.compat.diffusers.arguments import Generators
from darkroom.errors import InvalidRequest

Drawing: TypeAlias = Callable[[torch.dtype], Tensor]
"""Draws noise in a type, and hands it on as float32 on the CPU."""


def each_of(generator: Generators) -> list[Any]:
    """The generators that are given, one or several."""
    return [*generator] if isinstance(generator, list | tuple) else [generator]


def drawing(generator: Generators, shape: tuple[int, ...], device: torch.device) -> Drawing:
    """What draws noise of a shape on a device, in the type that it is told, and hands it on as float32 on the CPU: all
    pictures' in one from a single generator, or each from its own.

    Raises InvalidRequest for what is no generator, and for another number of them.
    """
    each: list[object] = each_of(generator)
    given = [own for own in each if own is None or isinstance(own, torch.Generator)]
    if len(each) not in (1, shape[0]) or len(given) != len(each):
        raise InvalidRequest(
            f"generator has {len(each)} entries for {shape[0]} pictures: give one torch.Generator, or one a picture"
        )
    sizes = [shape] if len(given) == 1 else [(1, *shape[1:])] * len(given)

    def draw(dtype: torch.dtype) -> Tensor:
        drawn = [
            torch.randn(size, generator=own, device=own.device if own else device, dtype=dtype)
            for size, own in zip(sizes, given, strict=True)
        ]
        return torch.cat([noise.to("cpu", torch.float32) for noise in drawn])

    return draw
