"""The engine: runs the work of many jobs in few network calls.

`submit` takes a job, `tick` picks the work that is due, runs everything compatible with it in one
group and hands each result to its job. A command line drives an engine with one job, a server with
many at different steps; the loop is the same:

    task = engine.submit(job)
    while not task.finished:
        engine.tick()
    pixels = task.result()

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
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from darkroom.engine.devices import give_back_memory
from darkroom.engine.networks import Networks, NotNumbers, no_picture
from darkroom.errors import Cancelled, GenerationError
from darkroom.generation.work import Decode, Denoise, Encode, Prepare, Render, Row, Work

log = logging.getLogger(__name__)

_NO_NUMBER = (
    "{what} is not a number: its weights are damaged or the precision is too low, try --precision float32"
)
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
    """A job in an engine: its work in hand, and in the end its result or its error."""

    job: AnyJob
    number: int
    steps: Generator[Work, Any, Any]
    work: Work | None = None
    value: Any = None
    error: BaseException | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.value is not None or self.error is not None

    def result(self) -> Any:
        """What the job made; raises what made it fail."""
        if self.error is not None:
            raise self.error
        assert self.value is not None, "the task is still running"
        return self.value

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

    def _end(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error, self.work = value, error, None


class Engine:
    """Runs jobs on one model's networks.

    rows: the fixed number of rows of a denoising call (part of the numerics of a picture).
    calls: how many such calls one tick makes at most, when enough jobs wait.
    seconds: the time spent on each kind of work so far.
    """

    def __init__(self, networks: Networks, rows: int = ROWS, calls: int = 1) -> None:
        self.networks = networks
        self.rows = rows
        self.calls = calls
        self.tasks: list[Task[Any]] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._numbers = itertools.count()

    def beside(self) -> Engine:
        """Another engine on the same networks, for work that goes at its own pace; its time counts as this one's."""
        other = Engine(self.networks, self.rows, self.calls)
        other.seconds = self.seconds
        return other

    def submit(self, job: AnyJob) -> Task[AnyJob]:
        """Take a job in. Work starts with the next tick; earlier jobs come first."""
        task = Task(job, next(self._numbers), job.develop())
        task.start()
        if not task.finished:
            self.tasks.append(task)
        return task

    def tick(self) -> bool:
        """Run one group of compatible work; False when nothing is left to do."""
        self._sweep()
        if not self.tasks:
            return False
        group = self._group()
        kind, began = type(group[0].work).__name__.lower(), time.perf_counter()
        with torch.inference_mode():
            if isinstance(group[0].work, Denoise):
                self._denoise(group)
            else:
                for task in group:
                    self._single(task)
        self.seconds[kind] += time.perf_counter() - began
        self._sweep()
        return bool(self.tasks)

    def run(self) -> None:
        """Tick until every job is finished."""
        while self.tick():
            pass

    def _sweep(self) -> None:
        self.tasks = [task for task in self.tasks if not task.finished]

    def _group(self) -> list[Task[Any]]:
        """The work that is due, and what fits beside it, in the order the jobs came.

        Short work goes first: it brings jobs to where they can share a call, or ends them. Then first
        come, first finished: a picture that is nearly done is worth more than two half done.
        """
        first = next((task for task in self.tasks if not isinstance(task.work, Denoise)), self.tasks[0])
        if not isinstance(first.work, Denoise):
            return [first]
        group, room = [first], self.rows * self.calls - len(first.work.rows)
        for task in self.tasks[1:]:
            if (
                isinstance(task.work, Denoise)
                and task.work.key == first.work.key
                and len(task.work.rows) <= room
            ):
                group.append(task)
                room -= len(task.work.rows)
        return group

    def _denoise(self, group: Sequence[Task[Any]]) -> None:
        works = [task.work for task in group]
        rows = [row for work in works if isinstance(work, Denoise) for row in work.rows]
        size = self.rows
        try:
            outputs = self._call_in_batches(rows)
        except Exception as error:
            self._isolate(group, error)
            return
        if self.rows != size:
            for task in group:
                task.notes.append(
                    f"memory did not suffice for {size} rows in a call: went on with {self.rows}"
                )
        at = 0
        for task, work in zip(group, works, strict=True):
            assert isinstance(work, Denoise)
            self._deliver(task, work.rows, outputs[at : at + len(work.rows)])
            at += len(work.rows)

    def _deliver(self, task: Task[Any], rows: Sequence[Row], outputs: Sequence[Tensor]) -> None:
        if all(bool(output.isfinite().all()) for output in outputs):
            task.send(list(outputs))
            return
        step = f"at step {task.job.done + 1} of {task.job.total}"
        beyond = no_picture(
            f"what the network is given {step}", max(float(row.x.abs().max()) for row in rows)
        )
        task.throw(beyond or GenerationError(_NO_NUMBER.format(what=f"the network's output {step}")))

    def _call_in_batches(self, rows: Sequence[Row]) -> list[Tensor]:
        outputs: list[Tensor] = []
        for at in range(0, len(rows), self.rows):
            batch = list(rows[at : at + self.rows])
            padded = batch + [batch[-1]] * (self.rows - len(batch))
            outputs += self._call(padded)[: len(batch)]
        return outputs

    def _call(self, rows: Sequence[Row]) -> list[Tensor]:
        """One call; in two halves where memory does not suffice for it whole."""
        try:
            return self.networks.denoise(rows)
        except Exception as error:
            if not out_of_memory(error) or len(rows) == 1:
                raise
        give_back_memory()
        half = len(rows) // 2
        log.warning("out of memory with %d rows in a call: going on with %d", len(rows), half)
        self.rows = max(1, min(self.rows, half))
        return self._call(rows[:half]) + self._call(rows[half:])

    def _isolate(self, group: Sequence[Task[Any]], error: Exception) -> None:
        """A group failed: run its jobs one by one, so that only the guilty ones fail."""
        if len(group) == 1:
            group[0].throw(explained(error))
            return
        for task in group:
            self._denoise([task])

    def _single(self, task: Task[Any]) -> None:
        try:
            result = self._perform(task)
        except Exception as error:
            task.throw(explained(error))
        else:
            task.send(result)

    def _perform(self, task: Task[Any]) -> object:
        match task.work:
            case Encode(prompts, expert):
                found = self.networks.encode(prompts, expert)
                if not all(each.finite for each in found):
                    raise GenerationError(_NO_NUMBER.format(what="the text encoder's output"))
                return found
            case Prepare(pixels):
                return self._exact_if_must(task, "read", self.networks.prepare, pixels)
            case Decode(latent):
                return self._decoded(task, self.networks.decode, latent)
            case Render(latent):
                return self._decoded(task, self.networks.render, latent)
        raise AssertionError(task.work)

    def _decoded(self, task: Task[Any], decode: Callable[..., object], latent: Tensor) -> object:
        return self._exact_if_must(task, "decoded", self._in_tiles_if_must(task, decode), latent)

    def _exact_if_must(self, task: Task[Any], done: str, run: Callable[..., object], value: object) -> object:
        """The autoencoder's work, once more in float32 where it overflows in the precision of its weights."""
        try:
            return run(value)
        except NotNumbers:
            found = run(value, exact=True)
        task.notes.append(f"{done} in float32: the autoencoder overflows in a lower precision")
        return found

    def _in_tiles_if_must(self, task: Task[Any], decode: Callable[..., object]) -> Callable[..., object]:
        def run(latent: Tensor, **options: bool) -> object:
            try:
                return decode(latent, **options)
            except Exception as error:
                if not out_of_memory(error):
                    raise
            give_back_memory()
            task.notes.append("decoded in tiles: memory did not suffice for the whole picture")
            return decode(latent, tiled=True, **options)

        return run


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a device or the machine running out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def explained(error: Exception) -> Exception:
    """Out of memory in the user's words; anything else as it is."""
    if not out_of_memory(error):
        return error
    return GenerationError("out of memory: ask for a smaller picture, or close what else uses the device")
