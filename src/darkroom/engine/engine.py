"""The engine: runs the work of many jobs in few network calls.

`submit` takes a job, `tick` picks the work that is due, runs everything compatible with it in one
group and hands each result to its job. A command line drives an engine with one job, a server with
many at different steps; the loop is the same:

    task = engine.submit(job)
    while not task.finished:
        engine.tick()
    pixels = task.result()

Jobs of one owner come in the order in which they were submitted; owners take turns, unless the engine is given another
order (`darkroom.engine.turns`). An engine is for one thread;
`darkroom.engine.loop` takes jobs in from any.

What a picture looks like never depends on the jobs beside it: a network call always has the same
number of rows (`rows`), padded where there are fewer, and on one machine a row's output depends
on that number only, not on its place or its neighbours. How many such calls one tick makes
(`calls`) is free.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from darkroom.engine.devices import give_back_memory, out_of_memory
from darkroom.engine.turns import Rounds, Turns
from darkroom.errors import Cancelled, OutOfMemory
from darkroom.generation.work import Networks, Shared, Work

log = logging.getLogger(__name__)

ROWS = 2
"""How many rows a denoising call has: one picture with guidance."""


class Job(Protocol):
    """What an engine runs, such as `darkroom.generation.job.Job`: `done` of `total` network calls are behind it."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    def develop(self) -> Generator[Work, Any, Any]:
        """Yields work and is sent what came of it; returns what the job is for."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)


@dataclass(eq=False)
class Task(Generic[AnyJob]):
    """A job in an engine: its `Work` in hand, and in the end its result or its error.

    rows: how many rows its network calls have. owner: whose it is, all owners have their turns. notes: what was done
    otherwise than usual, in words. seconds: by kind of work, its share of the time of all calls that it had rows in.
    """

    job: AnyJob
    number: int
    steps: Generator[Work, Any, Any]
    rows: int
    owner: Hashable = None
    work: Any = None
    value: Any = None
    error: BaseException | None = None
    notes: list[str] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    finished: bool = False

    def result(self) -> Any:
        """What the job made; raises what made it fail."""
        if self.error is not None:
            raise self.error
        assert self.finished, "the task is still running"
        return self.value

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def cancel(self) -> None:
        """Stop the job where it is. A finished one stays as it is."""
        if not self.finished:
            self.steps.close()
            self._end(error=Cancelled("cancelled before the picture was finished"))

    def _resume(self, advance: Callable[[], Work]) -> None:
        """Let the job run to its next work; its end and its failures are its own."""
        try:
            self.work = advance()
        except StopIteration as finished:
            self._end(value=finished.value)
        except Exception as error:
            self._end(error=error)

    def send(self, value: object) -> None:
        self._resume(lambda: self.steps.send(value))

    def throw(self, error: Exception) -> None:
        self._resume(lambda: self.steps.throw(error))

    def start(self) -> None:
        self._resume(lambda: next(self.steps))

    def answer(self, result: Callable[[], object]) -> None:
        """Send the job what comes of its work, or throw what comes in its way."""
        try:
            value = result()
        except Exception as error:
            self.throw(explained(error))
        else:
            self.send(value)

    def _end(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error, self.work, self.finished = value, error, None, True


class Engine:
    """Runs jobs on one model's networks.

    rows: the fixed number of rows of a shared network call (part of the numerics of a picture).
    calls: how many such calls one tick makes at most, when enough jobs wait.
    turns: whose work comes next.
    seconds: the time spent on each kind of work so far.
    """

    def __init__(
        self, networks: Networks, rows: int = ROWS, calls: int = 1, turns: Turns | None = None
    ) -> None:
        self.networks = networks
        self.rows = rows
        self.calls = calls
        self.turns = turns or Rounds()
        self.tasks: list[Task[Any]] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._numbers = itertools.count()

    def beside(self, turns: Turns | None = None) -> Engine:
        """Another engine on the same networks, for work that goes at its own pace; its time counts as this one's."""
        other = Engine(self.networks, self.rows, self.calls, turns)
        other.seconds = self.seconds
        return other

    def submit(self, job: AnyJob, owner: Hashable = None) -> Task[AnyJob]:
        """Take a job in; its work starts with the next tick."""
        task = Task(job, next(self._numbers), job.develop(), self.rows, owner)
        self.tasks.append(task)
        return task

    def tick(self) -> list[Task[Any]]:
        """Run one group of compatible work. Returns the tasks that got on by it; an empty list when nothing is left."""
        self._sweep()
        group = self._started()
        if not group and self.tasks:
            group = self._due()
            self._run(group)
        self._sweep()
        return group

    def run(self) -> None:
        """Tick until every job is finished."""
        while self.tick():
            pass

    def _sweep(self) -> None:
        self.tasks = [task for task in self.tasks if not task.finished]

    def _started(self) -> list[Task[Any]]:
        """Have new jobs say what their first work is: those that are over with that."""
        new = [task for task in self.tasks if task.work is None]
        for task in new:
            task.start()
        return [task for task in new if task.finished]

    def _run(self, group: Sequence[Task[Any]]) -> None:
        kind, began = type(group[0].work).__name__.lower(), time.perf_counter()
        rows = [len(task.work.rows) or 1 for task in group]
        with torch.inference_mode():
            if group[0].work.rows:
                self._share(group)
            else:
                (task,) = group
                task.answer(partial(task.work.run, self.networks, task.note))
        took = time.perf_counter() - began
        self.seconds[kind] += took
        shares = [took * count / sum(rows) for count in rows]
        for task, share in zip(group, shares, strict=True):
            task.seconds[kind] += share
        self.turns.had([*zip(group, shares, strict=True)])

    def _due(self) -> list[Task[Any]]:
        """The work that is due, and what fits beside it.

        Work that shares no calls is short and goes first: it brings jobs to where they can share one, or ends them.
        Then what is due by turns.
        """
        queue = self.turns.queue(self.tasks)
        first = next((task for task in queue if not task.work.rows), queue[0])
        if not first.work.rows:
            return [first]
        group, room = [first], first.rows * self.calls - len(first.work.rows)
        for task in queue[1:]:
            fits = task.rows == first.rows and len(task.work.rows) <= room
            if fits and task.work.key == first.work.key:
                group.append(task)
                room -= len(task.work.rows)
        return group

    def _share(self, group: Sequence[Task[Any]]) -> None:
        work: Shared = group[0].work
        size = group[0].rows
        try:
            outputs, fitting = self._call(work, [row for task in group for row in task.work.rows], size)
        except Exception as error:
            self._isolate(group, error)
            return
        at = 0
        for task in group:
            count = len(task.work.rows)
            if fitting != size:
                task.rows = fitting
                task.note(f"memory did not suffice for {size} rows in a call: went on with {fitting}")
            when = f" at step {task.job.done + 1} of {task.job.total}"
            task.answer(partial(task.work.made, outputs[at : at + count], when))
            at += count

    def _call(self, work: Shared, rows: Sequence[Any], size: int) -> tuple[list[Tensor], int]:
        """The outputs of rows in calls of `size`, padded; in smaller ones from where memory does not suffice. And the
        size that it came to."""
        outputs: list[Tensor] = []
        while len(outputs) < len(rows):
            batch = list(rows[len(outputs) : len(outputs) + size])
            padded = batch + [batch[-1]] * (size - len(batch))
            try:
                made = work.call(self.networks, padded)
            except Exception as error:
                if size == 1 or not out_of_memory(error):
                    raise
                made = []
            if made:
                outputs += made[: len(batch)]
                continue
            # Not where the error was caught: it still held what the call had made.
            give_back_memory()
            log.warning("out of memory with %d rows in a call: going on with %d", size, size // 2)
            size //= 2
        return outputs, size

    def _isolate(self, group: Sequence[Task[Any]], error: Exception) -> None:
        """A group failed: run its jobs one by one, so that only the guilty ones fail."""
        if len(group) == 1:
            group[0].throw(explained(error))
            return
        for task in group:
            self._share([task])


def explained(error: Exception) -> Exception:
    """Out of memory in the user's words; anything else as it is."""
    if not out_of_memory(error):
        return error
    return OutOfMemory("out of memory: ask for a smaller picture, or close what else uses the device")
