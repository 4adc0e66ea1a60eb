"""Whose work is run next, of all that waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from darkroom.engine.engine import Task


class Turns(Protocol):
    """An order of tasks. One may serve several engines that share a device."""

    def queue(self, tasks: Sequence[Task[Any]]) -> list[Task[Any]]:
        """The tasks, whose work is due first at the beginning."""
        ...

    def had(self, shares: Sequence[tuple[Task[Any], float]]) -> None:
        """Is told of a group that was run, and of how many seconds of it each task had."""
        ...


class Rounds:
    """Owners take turns; of one owner's jobs the first that came is the first that is finished, for a picture that is
    nearly done is worth more than two half done."""

    def __init__(self) -> None:
        self._round = 0
        # By the hash of an owner, which is not to live on for having had a turn.
        self._served: dict[int, int] = {}

    def queue(self, tasks: Sequence[Task[Any]]) -> list[Task[Any]]:
        """Every owner's first, then every owner's second; whoever waited longest since the last turn before others, and
        who is new after them."""
        owners = {hash(task.owner) for task in tasks}
        self._served = {owner: self._served.get(owner, self._round) for owner in owners}
        before: Counter[int] = Counter()
        places = {}
        for task in sorted(tasks, key=lambda task: (self._served[hash(task.owner)], task.number)):
            owner = hash(task.owner)
            places[task] = before[owner], self._served[owner], task.number
            before[owner] += 1
        return sorted(tasks, key=places.__getitem__)

    def had(self, shares: Sequence[tuple[Task[Any], float]]) -> None:
        self._round += 1
        self._served |= {hash(task.owner): self._round for task, _ in shares}
