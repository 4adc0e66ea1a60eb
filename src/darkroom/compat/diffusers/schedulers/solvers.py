"""Samplers with the options that diffusers' schedulers give them and no other tool does.

They are samplers like those of `darkroom.diffusion`, with the same names: p and q are the points a step goes from and
to, d the estimate of x0 at p, `lam` is lambda = log(alpha / sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from darkroom.diffusion import NoiseSchedule, Point, Points, Process, Run, Steps
from darkroom.diffusion.multistep import ADAMS_BASHFORTH, blend, distinct
from darkroom.diffusion.samplers import along, noised, posterior

Limit = Callable[[Tensor], Tensor]
"""Holds an estimate of x0 within bounds."""


def clipped(bound: float) -> Limit:
    """Every number of an estimate held within -bound to bound."""
    return lambda d: d.clamp(-bound, bound)


def thresholded(ratio: float, most: float) -> Limit:
    """Dynamic thresholding: each picture's numbers held within their own quantile `ratio` (1 to `most`), and divided by
    it (Saharia et al. 2022, https://arxiv.org/abs/2205.11487, section 2.3)."""

    def limit(d: Tensor) -> Tensor:
        bound = d.abs().flatten(1).quantile(ratio, dim=1).clamp(1, most).view(-1, *[1] * (d.ndim - 1))
        return d.clamp(-bound, bound) / bound

    return limit


class Strided(Points):
    """Points whose steps go a fixed number of training steps down, wherever the next point lies: how diffusers' DDIM
    and PNDM step. What would be below the first training step is `last`."""

    def __init__(self, points: Iterable[Point], schedule: NoiseSchedule, stride: int, last: Point) -> None:
        super().__init__(points, schedule)
        self.stride, self._last = stride, last

    def end(self, index: int) -> Point:
        """Where the step from point `index` goes."""
        return self.below(self[index].time, self.stride)

    def below(self, time: float, steps: int) -> Point:
        """The point so many training steps below a time."""
        return self.schedule.trained(time - steps) if time >= steps else self._last


def ddim(run: Run, points: Strided, *, eta: float = 0.0, limit: Limit | None = None) -> Steps:
    """DDIM (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 12) whose estimate of x0 may be held within bounds
    while that of the noise is not."""
    for p, _ in run.steps(points):
        q = points.end(run.step)
        d = (yield run.x, p).denoised
        below = posterior(p, q, eta)
        x = along(run.x, d, p, below)
        if limit is not None:
            x = x + q.alpha * (limit(d) - d)
        run.x = noised(run, x, below, q)


def pndm(run: Run, points: Strided, *, process: Process, prk: bool) -> Steps:
    """Pseudo numerical methods (Liu et al. 2022, https://arxiv.org/abs/2202.09778) on the network's own outputs,
    whatever those are; with `prk` the first three steps are of Runge-Kutta's kind."""

    def output(x: Tensor, d: Tensor, p: Point) -> Any:
        return process.target(d, (x - p.alpha * d) / p.sigma, p)

    def stepped(x: Tensor, mean: Tensor, p: Point, q: Point) -> Tensor:
        moved: Tensor = along(x, process.denoised(mean, x, p), p, q)
        return moved

    schedule, last = points.schedule, len(points) - 2
    for p, _ in run.steps(points):
        x, q = run.x, points.end(run.step)
        d = (yield x, p).denoised
        past = [output(x, d, p), *run.history][:4]
        if prk and len(past) < 4 and run.step < last:
            # Where steps are not all of one stride, diffusers goes half of one down and tells the network the time half
            # of one above the next point.
            half, q = points.stride // 2, points[run.step + 1]
            middle = schedule.trained(q.time + half)
            outputs = past[:1]
            for place, told in ((points.below(p.time, half), middle), (middle, middle), (q, q)):
                end = stepped(x, outputs[-1], p, place)
                d = (yield end, told).denoised
                outputs.append(output(end, d, told))
            mean = blend((1 / 6, 1 / 3, 1 / 3, 1 / 6), outputs)
        elif len(past) == 1 and run.step < last:
            end, q = stepped(x, past[0], p, q), points[run.step + 1]
            d = (yield end, q).denoised
            mean = (past[0] + output(end, d, q)) / 2
            p = schedule.trained(min(q.time + points.stride, schedule.last))
            # Begun midway, diffusers goes on from here as if it were one step further.
            run.step += run.step > 0
        else:
            mean = blend(ADAMS_BASHFORTH[len(past) - 1], past)
        run.x = stepped(x, mean, p, q)
        run.history = past


# DPM-Solver


@dataclass(frozen=True)
class DPMSolver:
    """The integrals of DPM-Solver for one step: of the estimate of x0 ("dpmsolver++", Lu et al. 2022,
    https://arxiv.org/abs/2211.01095) or of the noise ("dpmsolver", Lu et al. 2022, https://arxiv.org/abs/2206.00927),
    along the ODE or the reverse SDE ("sde-")."""

    algorithm: str = "dpmsolver++"
    solver_type: str = "midpoint"

    @property
    def sde(self) -> bool:
        return self.algorithm.startswith("sde-")

    @property
    def of_noise(self) -> bool:
        return not self.algorithm.endswith("++")

    def value(self, x: Tensor, d: Tensor, p: Point) -> Tensor:
        """What is integrated, at p."""
        return (x - p.alpha * d) / p.sigma if self.of_noise else d

    def step(
        self, run: Run, x: Tensor, p: Point, q: Point, v: Tensor, slope: Any = None, bend: Any = None
    ) -> Tensor:
        """x at p moved to q: v is the value at p, `slope` its change over the step, `bend` half the change of
        that; None where the step is of lower order."""
        h = q.lam - p.lam
        if self.of_noise:
            keep, unit, k = q.alpha / p.alpha, -q.sigma * (1 + self.sde), h
        else:
            keep, unit, k = (
                q.sigma / p.sigma * (math.exp(-h) if self.sde else 1),
                -q.alpha,
                -h * (1 + self.sde),
            )
        whole = math.expm1(k)
        moved = keep * x + unit * whole * v
        if slope is not None:
            halved = bend is None and self.solver_type == "midpoint"
            moved = moved + unit * (whole / 2 if halved else whole / k - 1) * slope
        if bend is not None:
            # The series has a half taken away; on the SDE diffusers adds it, and so must this.
            moved = moved + unit * ((whole - k) / (k * k) + (0.5 if self.sde else -0.5)) * bend
        if self.sde and q.sigma:
            fresh = math.expm1(2 * h) if self.of_noise else -math.expm1(-2 * h)
            moved = moved + q.sigma * math.sqrt(fresh) * run.noise()
        return moved


def dpm_multistep(
    run: Run,
    points: Points,
    *,
    solver: DPMSolver = DPMSolver(),
    order: int = 2,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> Steps:
    """DPM-Solver from the values of the last `order` steps. The last of few steps are of lower order."""
    count = len(points) - 1
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if q.lam == p.lam:  # One place twice, as a thousand steps lay it out.
            continue
        past = distinct([(solver.value(run.x, d, p), p.lam), *run.history])[:order]
        left = count - run.step
        few = lower_order_final and count < 15
        used = past[:left] if few or (left == 1 and (euler_at_final or not q.sigma)) else past
        run.x = solver.step(run, run.x, p, q, *_changes(used, q.lam - p.lam))
        run.history = past


def _changes(past: Sequence[tuple[Tensor, float]], h: float) -> list[Tensor]:
    """The value at a step's beginning, and its first and second changes per step of size h, backwards."""
    (v0, lam0), *before = past
    if not before:
        return [v0]
    v1, lam1 = before[0]
    r0 = (lam0 - lam1) / h
    first = (v0 - v1) / r0
    if len(before) == 1:
        return [v0, first]
    v2, lam2 = before[1]
    r1 = (lam1 - lam2) / h
    other = (v1 - v2) / r1
    bend = (first - other) / (r0 + r1)
    return [v0, first + r0 * bend, bend]


def dpm_singlestep(
    run: Run,
    points: Points,
    *,
    solver: DPMSolver = DPMSolver(),
    order: int = 2,
    lower_order_final: bool = False,
) -> Steps:
    """DPM-Solver in blocks of `order` steps: the later ones of a block start again from where it began, with more
    values to go by."""
    orders = singlestep_orders(len(points) - 1, order, lower_order_final, not points[len(points) - 1].sigma)
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        before = run.history if orders[run.step] > 1 else []
        block = _apart([(solver.value(run.x, d, p), p, run.x), *before])
        (v, start, x), h = block[-1], q.lam - block[-1][1].lam
        run.history = block
        if not h:  # One place twice, as a thousand steps lay it out.
            run.x = x
            continue
        changes: list[Any] = [v]
        if len(block) == 2:
            changes += [(block[0][0] - v) * (h / (block[0][1].lam - start.lam))]
        elif len(block) == 3:
            r0, r1 = ((each[1].lam - start.lam) / h for each in block[:2])
            late, early = (block[0][0] - v) / r0, (block[1][0] - v) / r1
            if solver.solver_type == "midpoint":
                changes += [late, 0.0]  # Of third order at its end alone.
            else:
                changes += [(r0 * early - r1 * late) / (r0 - r1), 2 * (late - early) / (r0 - r1)]
        run.x = solver.step(run, x, start, q, *changes)


def _apart(block: Sequence[tuple[Tensor, Point, Tensor]]) -> list[tuple[Tensor, Point, Tensor]]:
    """A block without what is at the place of an earlier one of it; the latest comes first."""
    return [
        each for i, each in enumerate(block) if all(each[1].lam != other[1].lam for other in block[i + 1 :])
    ]


def singlestep_orders(steps: int, order: int, lower_order_final: bool, clean_end: bool) -> list[int]:
    """The order of each of `steps` steps. Blocks that do not come out even, or end without noise, end in lower
    orders."""
    if order == 1:
        return [1] * steps
    whole = [*range(1, order + 1)]
    if lower_order_final or steps % order or clean_end:
        blocks = (steps - 1) // order if steps % order else steps // order - 1
        rest = steps - blocks * order
        ends = {1: [1], 2: [1, 1] if order == 2 else [1, 2], 3: [1, 2, 1]}
        orders = whole * blocks + ends[rest]
    else:
        orders = whole * (steps // order)
    if clean_end:
        orders[-1] = 1
    return orders
