"""Pictures that are asked for together: what is heard of them, and how they are made in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import torch
from PIL import Image

from darkroom.checkpoint.family import Family
from darkroom.engine import Task
from darkroom.engine.loop import Loop, answer
from darkroom.generation import Picture
from darkroom.generation.job import Job
from darkroom.pixels import to_pixels
from darkroom.ranking.halting import Half

AnyTask: TypeAlias = "Task[Job | Half]"


@dataclass(frozen=True)
class Step:
    """A picture on its way: `done` of `total` network calls are behind it."""

    index: int
    seed: int
    done: int
    total: int
    _denoised: torch.Tensor | None
    _family: Family

    def preview(self) -> Image.Image | None:
        """A small picture of what the network sees so far, for next to nothing; None where the model
        has no preview map or nothing has been seen yet."""
        latent, rows = self._denoised, self._family.preview
        if latent is None or rows is None:
            return None
        matrix = torch.tensor(rows)
        colours = torch.einsum("rc,nchw->nrhw", matrix[:, :-1], latent) + matrix[:, -1, None, None]
        (pixels,) = to_pixels(colours)
        side = self._family.factor
        return Image.fromarray(pixels).resize(
            (pixels.shape[1] * side, pixels.shape[0] * side), Image.Resampling.BICUBIC
        )


Finish: TypeAlias = Callable[[AnyTask, int], "Picture | None"]
"""What makes the picture of a finished job, given its index; None of one that only halted. Raises what made it fail."""

Callback: TypeAlias = Callable[[Step], "bool | None"]
"""Sees every step; when it returns False, work stops."""


class Series:
    """Pictures in the order in which they are asked for, a few of them under way at a time.

    jobs: each with what makes its picture; they are made when they are due. room: how many may be under way.
    """

    def __init__(self, jobs: Iterator[tuple[Job | Half, Finish]], room: int) -> None:
        self._waiting = enumerate(jobs)
        self._room = room
        self._under_way: dict[Job | Half, tuple[int, Finish]] = {}
        self._heard: dict[Job | Half, int] = {}  # How many calls of each were told of.

    def due(self) -> list[Job | Half]:
        """The jobs to begin now."""
        begun = []
        for index, (job, finish) in islice(self._waiting, self._room - len(self._under_way)):
            self._under_way[job], self._heard[job] = (index, finish), job.done
            begun.append(job)
        return begun

    @property
    def over(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def events(self, task: AnyTask) -> Iterator[Step | Picture]:
        """What there is to tell of a task that got on. Raises what made it fail."""
        job = task.job
        index, finish = self._under_way[job]
        if job.done > self._heard[job]:
            self._heard[job] = job.done
            yield Step(index, job.request.seed or 0, job.done, job.total, job.denoised, job.family)
        if task.finished:
            del self._under_way[job], self._heard[job]
            if (picture := finish(task, index)) is not None:
                yield picture


def stops(callback: Callback | None, step: Step) -> bool:
    """Whether a callback wants the work to stop."""
    wish = None if callback is None else callback(step)
    return wish is not None and not wish


def in_order(pictures: Iterable[Picture]) -> list[Picture]:
    """Pictures in the order in which they were asked for."""
    return sorted(pictures, key=lambda picture: picture.index)


class _Outcome:
    """What is known of a series from outside: a future that is settled once, by whoever comes first, and the tasks that
    are cancelled when it is. It holds nothing of the model, for people keep futures."""

    def __init__(self) -> None:
        self.future: Future[list[Picture]] = Future()
        self.tasks: list[Future[AnyTask]] = []
        self._lock, self._settled = threading.Lock(), False
        self.future.add_done_callback(self.stop)

    def settle(self, outcome: list[Picture] | BaseException | None) -> None:
        """Give the future its pictures, what failed, or, with None, its cancellation."""
        with self._lock:
            if self._settled:
                return
            self._settled = True
        answer(self.future, outcome)

    def add(self, task: Future[AnyTask]) -> None:
        self.tasks.append(task)
        task.add_done_callback(self._ended)
        if self.future.done():
            self.stop(self.future)

    def stop(self, future: Future[list[Picture]]) -> None:
        if future.cancelled():
            self.settle(None)
        for task in [*self.tasks]:
            task.cancel()

    def _ended(self, task: Future[AnyTask]) -> None:
        """A task's end is the series' where it was cancelled or failed."""
        self.tasks.remove(task)
        if task.cancelled():
            self.settle(None)
        elif (error := task.exception()) is not None:
            self.settle(error)


def in_background(loop: Loop, series: Series, callback: Callback | None) -> Future[list[Picture]]:
    """Have a loop make a series: the future of its pictures, in the order in which they were asked for."""
    outcome, finished = _Outcome(), list[Picture]()

    def submit(jobs: Sequence[Job | Half]) -> None:
        if not jobs and series.over:
            outcome.settle(in_order(finished))
        for job in jobs:
            # The series is the owner: series take turns, whatever their length.
            outcome.add(loop.submit(job, told, owner=series))

    def told(task: AnyTask) -> None:
        for event in series.events(task):
            if isinstance(event, Picture):
                finished.append(event)
            elif stops(callback, event):
                outcome.settle(in_order(finished))
        if task.finished and not outcome.future.done():
            submit(series.due())

    # Once the first job is submitted, the loop's thread alone touches the series.
    submit(series.due())
    return outcome.future
