"""What a scheduler says of the way from noise to a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from darkroom.compat.diffusers.arguments import a_number
from darkroom.compat.diffusers.schedulers import solvers
from darkroom.diffusion import Point, Points, Process, Sampler
from darkroom.errors import InvalidRequest
from darkroom.numeric import integer, real

Floats = NDArray[np.float64]


class Layout(TypedDict, total=False):
    """The arguments of `set_timesteps`."""

    num_inference_steps: int | None
    device: Any
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    mu: float | None
    original_inference_steps: int | None
    strength: float


class Options(TypedDict, total=False):
    """What callers choose of a sampler beside the scheduler's settings. Each scheduler has its own of these; the others
    change nothing."""

    eta: float
    use_clipped_model_output: bool
    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float
    order: int


PLAIN = Options(
    eta=0.0, use_clipped_model_output=False, s_churn=0.0, s_tmin=0.0, s_tmax=math.inf, s_noise=1.0, order=4
)


@dataclass(frozen=True)
class Way:
    """What a call is run with.

    limit: bounds for estimates of x0, if any. exploding: latents in diffusers' convention are x / alpha, so their
    spread grows with the noise. start: what unit noise is multiplied by to begin with, in that convention.
    float32_noise: fresh noise is drawn in float32 whatever the networks' type. calls: the network calls, each as the
    step that it is of and its point, of a way that is laid out.
    """

    points: Points
    sampler: Sampler
    process: Process
    limit: solvers.Limit | None = None
    exploding: bool = False
    start: float = 1.0
    float32_noise: bool = False
    calls: tuple[tuple[int, Point], ...] = ()

    @property
    def times(self) -> tuple[float, ...]:
        """What the network is told at each of its calls."""
        return tuple(point.time for _, point in self.calls)

    def begin(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of unit noise as the sampler begins with them."""
        return latents * self.start * self.scale(self.points[0])

    def scale(self, point: Point) -> float:
        """What latents in diffusers' convention are multiplied by to be ours."""
        return point.alpha if self.exploding else 1.0


@dataclass(frozen=True)
class Custom:
    """What a caller lays out in the scheduler's place."""

    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    mu: float | None = None
    original_inference_steps: int | None = None
    strength: float = 1.0

    @staticmethod
    def of(layout: Layout) -> Custom:
        """What was laid out, as Python's numbers. Raises InvalidRequest for what are none."""
        mu, original = layout["mu"], layout["original_inference_steps"]
        if original is not None and integer(original) is None:
            raise InvalidRequest(f"original_inference_steps is {original!r}: give a whole number")
        return Custom(
            numbers("timesteps", layout["timesteps"]),
            numbers("sigmas", layout["sigmas"]),
            None if mu is None else a_number("mu", mu),
            integer(original),
            a_number("strength", layout["strength"]),
        )

    def refused(self, scheduler: object, *names: str) -> None:
        """Raises InvalidRequest where one of these was given to a scheduler that takes none."""
        for name in names:
            if getattr(self, name) is not None:
                raise InvalidRequest(f"{type(scheduler).__name__} takes no custom {name}: leave them out")

    def falling(self, most: int, whole: bool = True) -> Floats:
        """The timesteps, checked: falling numbers below `most`; cut to whole ones where they are to be `whole`."""
        times = np.asarray(self.timesteps, dtype=float)
        times = np.trunc(times) if whole else times
        if not len(times) or times.max() >= most or times.min() < 0 or (np.diff(times) >= 0).any():
            raise InvalidRequest(
                f"timesteps are {times.tolist()}: give falling numbers from {most - 1} down to 0 at the least"
            )
        return times


def numbers(name: str, given: Any) -> list[float] | None:
    if given is None:
        return None
    found = (
        [real(each) for each in given] if isinstance(given, Iterable) and not isinstance(given, str) else []
    )
    numbers = [each for each in found if each is not None and math.isfinite(each)]
    if not numbers or len(numbers) != len(found):
        raise InvalidRequest(f"{name} are {given!r}: give a list of numbers")
    return numbers
