"""Pictures whose opposite edges meet: convolutions that see, beyond one edge, what is at the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def seamless(network: nn.Module, axes: str) -> Iterator[None]:
    """Within which a network's pictures (B, C, H, W) have no edges along "x", "y" or "xy"; "" changes nothing.

    For networks that know of no places beside convolutions: what they make of a picture that is rolled along such an
    axis, by a multiple of what they shrink by, is what they make of it, rolled.
    """
    hooks, padded = [], []
    for module in network.modules() if axes else ():
        if isinstance(module, nn.Conv2d | nn.ZeroPad2d):
            left, right, top, bottom = sides = _sides(module)
            across, along = ("x" in axes) * (left + right) > 0, ("y" in axes) * (top + bottom) > 0
            if across or along:
                own = (
                    0 if across else left,
                    0 if across else right,
                    0 if along else top,
                    0 if along else bottom,
                )
                padded.append((module, module.padding))
                module.padding = own if isinstance(module, nn.ZeroPad2d) else (own[2], own[0])
                hooks.append(module.register_forward_pre_hook(_wrapping(sides, across, along)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, padding in padded:
            module.padding = padding


def wrapped(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """A picture that goes on beyond its first edge along `dim` with so much of its last, and the other way round."""
    size = x.shape[dim]
    parts = [x.narrow(dim, size - before, before)] if before else []
    parts += [x, *([x.narrow(dim, 0, after)] if after else [])]
    return (
        torch.cat(parts, dim) if len(parts) > 1 else x
    )  # Unlike circular padding this keeps to channels-last.


def _sides(module: nn.Conv2d | nn.ZeroPad2d) -> tuple[int, int, int, int]:
    """By how much it pads a picture left, right, above and below."""
    if isinstance(module, nn.ZeroPad2d):
        return module.padding
    high, wide = (int(side) for side in module.padding)
    return wide, wide, high, high


def _wrapping(sides: tuple[int, int, int, int], across: bool, along: bool) -> Any:
    left, right, top, bottom = sides

    def wrap(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = inputs
        x = wrapped(x, -1, left, right) if across else x
        x = wrapped(x, -2, top, bottom) if along else x
        return (x, *others)

    return wrap
