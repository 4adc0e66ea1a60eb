"""Noise of one path, which is the same however many steps it is walked in.

A sampler of the reverse SDE with fresh noise at every step ends elsewhere with every number of steps. With increments
of one Brownian motion it comes nearer to one picture the more steps it takes. The motion is that of torchsde's
BrownianTree, to the number: the interval is halved again and again, each half's increment is drawn given the whole's
(a Brownian bridge), from a seed that follows from the picture's and from where the interval is in the tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

_DIGITS = 6  # Times are rounded to so many.
_POOL = 24  # Of numpy's SeedSequence, on which the seeds depend.
_MOST_KEPT = 64


class _Node(NamedTuple):
    """An interval of the tree: its place among those of its depth, and its ends."""

    depth: int
    place: int
    start: float
    end: float


class BrownianTree:
    """A Brownian motion from time `start` to `end`; `normal` gives an array of normal numbers for a seed."""

    def __init__(self, start: float, end: float, seed: int, normal: Callable[[int], Tensor]) -> None:
        self._root = _Node(0, 0, _rounded(start), _rounded(end))
        self._seed, self._normal = seed, normal
        first = np.random.SeedSequence(seed, pool_size=_POOL).generate_state(3)[0]
        self._whole = normal(int(first)) * math.sqrt(end - start)
        self._kept: dict[_Node, Tensor] = {}

    def __call__(self, start: float, end: float) -> Tensor:
        """The increment from one time to a later one; times outside the tree's are moved to its ends."""
        start, end = (min(max(_rounded(each), self._root.start), self._root.end) for each in (start, end))
        total: Tensor | None = None
        waiting = [(self._root, self._whole)]
        while waiting and end > start:
            node, increment = waiting.pop()
            if node.end <= start or node.start >= end:
                continue
            if start <= node.start and node.end <= end:
                total = increment if total is None else total + increment
                continue
            left, right = _halves(node)
            if left == node or right == node:  # As fine as times are told.
                continue
            before = self._left(node, left, increment)
            waiting += [(right, increment - before), (left, before)]
        return self._whole * 0 if total is None else total

    def _left(self, node: _Node, left: _Node, increment: Tensor) -> Tensor:
        """The increment of the left half, given the whole's."""
        if (kept := self._kept.get(left)) is not None:
            return kept
        key = np.random.SeedSequence(self._seed, spawn_key=(node.place, node.depth), pool_size=_POOL)
        noise = self._normal(int(key.generate_state(4)[0]))
        part, rest, share = left.end - left.start, node.end - left.end, 1 / (node.end - node.start)
        made = part * increment * share + math.sqrt(part * rest * share) * noise
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[left] = made
        return made


def _halves(node: _Node) -> tuple[_Node, _Node]:
    middle = _rounded(0.5 * (node.end + node.start))
    depth, place = node.depth + 1, 2 * node.place
    return _Node(depth, place, node.start, middle), _Node(depth, place + 1, middle, node.end)


def _rounded(time: float) -> float:
    return round(time, _DIGITS)
