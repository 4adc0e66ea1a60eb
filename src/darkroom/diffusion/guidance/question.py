"""What a sampler asks, the rows that a guidance makes of it, and the estimate that comes back."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from darkroom.diffusion.process import Array, Place, Process
from darkroom.diffusion.run import Estimate


@dataclass(frozen=True)
class Question:
    """What does the network make of `x` at `point`, in step `step` (from 0) of `steps`?

    `memory` is what a guidance remembers from one question to the next: arrays by name, put in whole, never changed in
    place. It belongs to the picture; guidances themselves have no state.
    """

    x: Array
    point: Place
    process: Process
    step: int = 0
    steps: int = 1
    memory: MutableMapping[str, Array] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How much of the way is behind it, from 0 up to but not including 1."""
        return self.step / self.steps

    def within(self, start: float, stop: float) -> bool:
        """Whether its step begins within that part of the way."""
        return start <= self.share < stop

    def denoised(self, output: Array) -> Array:
        """The estimate of x0 that an output amounts to."""
        return self.process.denoised(output, self.x, self.point)

    def output(self, denoised: Array) -> Array:
        """The output that amounts to that estimate of x0."""
        return self.process.output(denoised, self.x, self.point)


class Without(NamedTuple):
    """A network that is made to do worse: `attention` lets every token of the picture see itself alone in the layers
    named, `blocks` leaves the blocks of those numbers out, `picture` does not show it the picture that it draws
    over."""

    what: Literal["attention", "blocks", "picture"]
    where: tuple[str, ...] | tuple[int, ...] = ()


class Ask(NamedTuple):
    """One row for the network: the prompt it is told, by name, and what the network is to do without."""

    name: str
    prompt: str
    without: Without | None = None


NEGATIVE = Ask("negative", "negative")


def positives(count: int) -> tuple[Ask, ...]:
    """The rows of the prompt's `count` parts: positive, positive 1, positive 2, ..."""
    names = ["positive", *(f"positive {number}" for number in range(1, count))]
    return tuple(Ask(name, name) for name in names)


class Guidance(Protocol):
    """A way to make one answer of the outputs of several rows."""

    def rows(self, question: Question) -> tuple[Ask, ...]:
        """The rows to run, the prompt's first part ("positive") always among them."""
        ...

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        """One output for the network's raw outputs of those rows, by the rows' names."""
        ...


def estimate(guidance: Guidance, outputs: Sequence[Array], question: Question) -> Estimate:
    """The answer for a sampler, of the network's raw outputs in the order of `guidance.rows(question)`."""
    names = [row.name for row in guidance.rows(question)]
    named = dict(zip(names, outputs, strict=True))
    negative = named.get(NEGATIVE.name)
    return Estimate(
        question.denoised(guidance.guided(named, question)),
        None if negative is None else question.denoised(negative),
    )
