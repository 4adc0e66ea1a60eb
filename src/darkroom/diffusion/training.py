"""The mathematics of a training step: where on the schedule, how noised, how weighted.

points = [schedule.drawn(logit_normal(u)) for u in spread(random.random(), len(x0))]
at = rows(points, x0)
x = at.alpha * x0 + at.sigma * noise
output = network(*process.network_input(x, at))
error = ((output - process.target(x0, noise, at)) ** 2).mean((1, 2, 3))
loss = (error * weights).mean()        # weights: min_snr(process, point) of each point
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from darkroom.diffusion.points import Point
from darkroom.diffusion.process import Process

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """One point per row of a batch: alpha and sigma (B, 1, 1, 1), time (B,). A `Process` takes it
    wherever it takes a point."""

    alpha: Tensor
    sigma: Tensor
    time: Tensor


def rows(points: Sequence[Point], like: Tensor) -> Rows:
    """The points stacked, in the dtype and on the device of `like` (B, ...)."""
    shape = (len(points),) + (1,) * (like.ndim - 1)
    alpha, sigma, time = (
        like.new_tensor(numbers)
        for numbers in zip(*((p.alpha, p.sigma, p.time) for p in points), strict=True)
    )
    return Rows(alpha.reshape(shape), sigma.reshape(shape), time)


def spread(offset: float, count: int) -> list[float]:
    """`count` numbers in [0, 1), one in each equal part of it, all moved by the one random `offset` in
    [0, 1): a batch covers the schedule evenly, so its loss varies less than with independent draws
    (Kingma et al. 2021, https://arxiv.org/abs/2107.00630, appendix I.1)."""
    return [((i + offset) / count) % 1.0 for i in range(count)]


def logit_normal(u: float, mean: float = 0.0, std: float = 1.0) -> float:
    """u in [0, 1] moved to where sigmoid(normal(mean, std)) has that share below it: more training
    in the middle of the schedule, towards noise for mean > 0
    (Esser et al. 2024, https://arxiv.org/abs/2403.03206, eq. 19)."""
    normal = NormalDist(mean, std).inv_cdf(min(max(u, 1e-9), 1 - 1e-9))
    return 1 / (1 + math.exp(-normal))


def snr(point: Point) -> float:
    """The signal-to-noise ratio (alpha / sigma)^2, infinite where clean."""
    return (point.alpha / point.sigma) ** 2 if point.sigma else math.inf


def min_snr(process: Process, point: Point, gamma: float = 5.0) -> float:
    """The weight of a squared error of the network's output under which the error of x0 weighs
    min(SNR, gamma) (Hang et al. 2023, https://arxiv.org/abs/2303.09556). For an epsilon
    network that is min(SNR, gamma) / SNR, for a velocity network min(SNR, gamma) / (SNR + 1)."""
    return min(snr(point), gamma) * float(process.gain(point)) ** 2
