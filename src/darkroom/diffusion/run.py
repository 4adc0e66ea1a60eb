"""How a sampler is run.

A sampler is a generator: a function that stops at each `yield` to ask its caller for something, and
goes on when it gets the answer. Ours ask one question: what does the network make of x at this point?

    run = Run(x)                                    # pure noise
    sampler = euler(run, points)                    # nothing has happened yet
    x, point = next(sampler)                        # the first question
    try:
        while True:
            x, point = sampler.send(Estimate(network(x, point)))    # an answer, the next question
    except StopIteration:
        picture = run.x                             # no more questions

So a sampler never sees a network, and whoever drives it may answer one or a thousand of them with
the same call, in whatever order, or let one go: all that has to be remembered is its `Run`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from darkroom.diffusion.points import Point, Points
from darkroom.diffusion.process import Array


class Estimate(NamedTuple):
    """The answer to a sampler's question: what x0 looks like from here.

    `unconditional` is the estimate without the prompt, for methods that need it (CFG++); None where
    guidance did not compute one.
    """

    denoised: Array
    unconditional: Array | None = None


class Snapshot(NamedTuple):
    """All that outlives a step, as plain data: arrays, numbers and tuples of them; `memory` is (whose, what, array)."""

    x: Array
    step: int
    history: tuple[Any, ...]
    draws: int
    calls: int = 0
    memory: tuple[tuple[str, str, Array], ...] = ()


Noise: TypeAlias = Callable[[int], Array]
"""Gives draw number n of a picture's noise, shaped like x. The same n is always the same noise."""

Steps: TypeAlias = Generator[tuple[Array, Point], Estimate, None]
"""A sampler at work: yields (x, point), is sent an Estimate, leaves its result in run.x."""

Sampler: TypeAlias = "Callable[[Run, Points], Steps]"


@dataclass
class Run:
    """The state of one picture being sampled.

    x: the latent; step: steps finished; history: what a multistep method remembers; draws: how many
    noises were drawn (draw 0 is usually the one x began as); calls: how many estimates were made; memory: what others
    remember on the way, each under its name (a guidance, a canvas). `source` gives the noise, `path` noise between two
    points that belongs to one path; both are no state. `finished` is told after each step, and may put another x in the
    place of what the step came to. No array in it is ever changed in place, so a snapshot costs nothing.
    """

    x: Array
    step: int = 0
    history: list[Any] = field(default_factory=list)
    draws: int = 0
    calls: int = 0
    memory: dict[str, dict[str, Array]] = field(default_factory=dict)
    source: Noise | None = None
    saved: Snapshot | None = None
    finished: Callable[[Run], None] | None = None
    path: Callable[[Point, Point], Array] | None = None

    @classmethod
    def begin(cls, source: Noise, point: Point, x0: Array | None = None, full: bool = False) -> Run:
        """A run that starts at `point` with draw 0, from `x0` (image to image) or from nothing; `full`: with the whole
        of the noise, where `point` has a little less of it."""
        noise = source(0) if full else point.sigma * source(0)
        return cls(noise if x0 is None else point.alpha * x0 + noise, draws=1, source=source)

    @classmethod
    def restore(cls, snapshot: Snapshot, source: Noise | None = None) -> Run:
        """A run that goes on from a snapshot; a sampler built on it gives the very same bytes."""
        x, step, history, draws, calls, remembered = snapshot
        memory: dict[str, dict[str, Array]] = {}
        for whose, what, array in remembered:
            memory.setdefault(whose, {})[what] = array
        return cls(x, step, list(history), draws, calls, memory, source)

    def snapshot(self) -> Snapshot:
        memory = [(whose, *each) for whose, own in self.memory.items() for each in own.items()]
        return Snapshot(self.x, self.step, tuple(self.history), self.draws, self.calls, tuple(memory))

    def noise(self, p: Point | None = None, q: Point | None = None) -> Array:
        """The next draw of the picture's own noise, shaped like x; on a path, that of the way from p to q."""
        if self.path is not None and p is not None and q is not None:
            return self.path(p, q)
        if self.source is None:
            raise ValueError("this sampler draws noise: give the Run a source")
        value = self.source(self.draws)
        self.draws += 1
        return value

    def steps(self, points: Points) -> Iterator[tuple[Point, Point]]:
        """The pairs (p, q) still to be stepped from p to q; `saved` is taken at the top of each, `finished` told at
        its end."""
        while self.step < len(points) - 1:
            self.saved = self.snapshot()
            yield points[self.step], points[self.step + 1]
            self.step += 1
            if self.finished is not None:
                self.finished(self)


def dry_run(sampler: Sampler, points: Points, x: Array = 0.0) -> Iterator[tuple[int, Point]]:
    """Which estimates `sampler` asks for on its way over all points, each as the step that it is in (from 0) and the
    point: a dry run, on a plain number or an array of zeros."""
    run = Run(x, source=lambda draw: x)
    asked = sampler(run, points)
    try:
        _, point = next(asked)
        while True:
            yield run.step, point
            _, point = asked.send(Estimate(x, x))
    except StopIteration:
        return


def count_calls(sampler: Sampler, points: Points, steps: int | None = None) -> int:
    """How many estimates `sampler` asks for over all points, or in its first `steps` steps."""
    last = len(points) - 1 if steps is None else steps
    return sum(1 for _ in itertools.takewhile(lambda call: call[0] < last, dry_run(sampler, points)))
