"""Whose step comes next in the engine of a worker: users share its time, and short jobs do not wait for long ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from darkroom.engine import Task
from darkroom.serve.claims import WEIGHTS

_AGEING = 0.1
"""By how much of the time that a job waited it comes before others of its owner: one of these never waits for ever."""
_SMOOTHING = 0.1


@dataclass(frozen=True)
class Owner:
    """Whose jobs have turns together."""

    user: str
    priority: str


class Shares:
    """Fair queueing by the time that everybody had, as jobs are claimed by (`darkroom.serve.claims`): whoever had least
    for their weight is next. Of one owner's jobs the one that will be done first: that makes the sum of all waiting
    smallest (Schrage 1968, https://doi.org/10.1287/opre.16.3.687)."""

    def __init__(self) -> None:
        self._clocks: dict[Owner, float] = {}
        self._here = 0.0
        self._pace = 0.0  # Seconds for a network call on a million pixels.
        # Weakly: with a task its model would live on.
        self._came: WeakKeyDictionary[Task[Any], tuple[float, int]] = WeakKeyDictionary()

    def queue(self, tasks: Sequence[Task[Any]]) -> list[Task[Any]]:
        """The order of tasks whose owners are `Owner`s."""
        now = time.monotonic()
        for task in tasks:
            self._came.setdefault(task, (now, task.job.done))
        owners: dict[Owner, list[Task[Any]]] = {}
        for task in sorted(tasks, key=lambda task: self._rank(task, now)):
            owners.setdefault(_owner(task), []).append(task)
        order = sorted(owners, key=self._clock)
        if order:
            self._here = max(self._here, self._clock(order[0]))
        longest = max(map(len, owners.values()), default=0)
        rounds = ((owners[owner], place) for place in range(longest) for owner in order)
        return [mine[place] for mine, place in rounds if place < len(mine)]

    def had(self, shares: Sequence[tuple[Task[Any], float]]) -> None:
        for task, seconds in shares:
            owner = _owner(task)
            self._clocks[owner] = self._clock(owner) + seconds / WEIGHTS[owner.priority]
            calls = task.job.done - self._came.get(task, (0.0, task.job.done))[1]
            if calls and (spent := task.seconds.get("denoise")):
                pace = spent / (calls * _area(task))
                self._pace += (pace - self._pace) * (_SMOOTHING if self._pace else 1.0)

    def _clock(self, owner: Owner) -> float:
        """Whoever comes back from a pause begins where the others are now."""
        return max(self._clocks.get(owner, 0.0), self._here)

    def _rank(self, task: Task[Any], now: float) -> tuple[float, int]:
        left = (task.job.total - task.job.done) * _area(task) * self._pace
        return left - _AGEING * (now - self._came[task][0]), task.number


def _owner(task: Task[Any]) -> Owner:
    assert isinstance(task.owner, Owner)
    return task.owner


def _area(task: Task[Any]) -> float:
    """Of a job's picture, in millions of pixels."""
    canvas = task.job.request.canvas
    return float(canvas.width * canvas.height) / 1e6
