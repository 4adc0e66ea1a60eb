"""Pictures whose opposite edges meet: convolutions that see, beyond one edge, what is at the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


@contextmanager
def joined(network: nn.Module, axes: str) -> Iterator[None]:
    """Within which the edges of a network's pictures (B, C, H, W) meet along "x", "y" or "xy"; "" changes nothing.

    For networks that know of no places beside convolutions: what they make of a picture that is rolled along such an
    axis, by a multiple of what they shrink by, is what they make of it, rolled.
    """
    hooks, padded = [], []
    for module in network.modules() if axes else ():
        if isinstance(module, nn.Conv2d | nn.ZeroPad2d):
            left, right, top, bottom = _sides(module)
            across = (left, right) if "x" in axes else (0, 0)
            along = (top, bottom) if "y" in axes else (0, 0)
            if any(across) or any(along):
                padded.append((module, module.padding))
                own = left - across[0], right - across[1], top - along[0], bottom - along[1]
                module.padding = own if isinstance(module, nn.ZeroPad2d) else (own[2], own[0])
                hooks.append(module.register_forward_pre_hook(partial(_wrapped, across, along)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, padding in padded:
            module.padding = padding


def _sides(module: nn.Conv2d | nn.ZeroPad2d) -> tuple[int, int, int, int]:
    """By how much it pads a picture left, right, above and below."""
    if isinstance(module, nn.ZeroPad2d):
        return module.padding
    high, wide = (int(side) for side in module.padding)
    return wide, wide, high, high


def _wrapped(
    across: tuple[int, int], along: tuple[int, int], module: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """What a module is given, going on beyond its edges with what is at the other ones: so far before and after."""
    x, *others = inputs
    for dim, (before, after) in ((-1, across), (-2, along)):
        size = x.shape[dim]
        parts = x.narrow(dim, size - before, before), x, x.narrow(dim, 0, after)
        # Unlike circular padding this keeps to channels-last, if nothing in it is empty.
        x = torch.cat([part for part in parts if part.numel()], dim) if before or after else x
    return (x, *others)
