"""Places on the way from noise to picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, overload


@dataclass(frozen=True, slots=True)
class Point:
    """A place where x = alpha * x0 + sigma * noise.

    `alpha` and `sigma` are in [0, 1]; `time` is exactly what the network is told there. The one form
    serves variance-preserving models (alpha^2 + sigma^2 = 1) and flow models (alpha + sigma = 1), and
    is finite at both ends: clean is (1, 0), pure noise (0, 1). The sigma of k-diffusion and of its
    users is sigma / alpha.
    """

    alpha: float
    sigma: float
    time: float

    @property
    def lam(self) -> float:
        """Lambda = log(alpha / sigma) of the DPM-Solver papers, infinite where the point is clean.

        At pure noise it would be minus infinity; a floor under alpha keeps the solvers' step
        sizes finite, far below any level a schedule can tell from pure noise.
        """
        return math.log(max(self.alpha, 1e-8) / self.sigma) if self.sigma else math.inf


CLEAN = Point(1.0, 0.0, 0.0)


class NoiseSchedule(Protocol):
    """The levels of noise a model was trained on. A *level* is one number that grows with the noise:
    sigma / alpha for variance-preserving models, t for flow models."""

    @property
    def lowest(self) -> float:
        """The least level trained on."""
        ...

    @property
    def highest(self) -> float:
        """The greatest level trained on."""
        ...

    @property
    def first(self) -> int:
        """The training step of the least level."""
        ...

    @property
    def last(self) -> int:
        """The training step of the greatest level."""
        ...

    def at(self, level: float) -> Point:
        """The point at any level from 0 (clean) to `highest`."""
        ...

    def trained(self, step: float) -> Point:
        """The point of training step `step`, `first` to `last`; fractions lie between."""
        ...

    def told(self, time: float) -> Point:
        """The point whose network time is `time`."""
        ...

    def drawn(self, u: float) -> Point:
        """The point a share u in [0, 1) of the way up: uniform u draws training's points evenly."""
        ...

    def level(self, point: Point) -> float:
        """The inverse of `at`."""
        ...

    def scale(self, point: Point) -> float:
        """What x must be divided by to move on a straight line while the estimate of x0 stays:
        x / scale = x0 + level * slope. It is 0 at the pure noise of a variance-preserving
        schedule, which has no slope."""
        ...

    def below(self, point: Point, target: Point, eta: float) -> Point:
        """Where, at target's alpha, an ancestral step from `point` goes before it adds noise up to
        `target`. With eta = 0 that is `target` itself."""
        ...


class Points(Sequence[Point]):
    """The points a sampler visits, noise first, and the schedule they lie on.

    n steps take n + 1 points. A slice is `Points` again.
    """

    def __init__(self, points: Iterable[Point], schedule: NoiseSchedule) -> None:
        self._points = tuple(points)
        self.schedule = schedule

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> Point | Points:
        if isinstance(index, slice):
            return Points(self._points[index], self.schedule)
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __repr__(self) -> str:
        return f"Points({list(self._points)!r}, {self.schedule!r})"
