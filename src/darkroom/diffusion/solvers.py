"""Samplers that choose their own points: DPM-Solver (Lu et al. 2022, https://arxiv.org/abs/2206.00927) and Restart.

Of the points that they are given DPM-Solver's take the first and how many there are, Restart's the range. They work on
y = x / alpha, which is x0 with noise of size sigma / alpha, whatever the schedule; `lam` is log(alpha / sigma).
DPM-Solver ends at the least noise that the network knows and not in the clean picture, as in k-diffusion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from typing import Annotated, NamedTuple

import numpy as np

from darkroom.diffusion.options import Amount, Share, Within
from darkroom.diffusion.points import NoiseSchedule, Point, Points
from darkroom.diffusion.process import Array
from darkroom.diffusion.run import Estimate, Run, Steps
from darkroom.diffusion.samplers import along, moved, slope
from darkroom.diffusion.spacing import line

_PURE = 1e-6
"""Below this alpha a point is pure noise, in which there is nothing to measure from."""

Asking = Generator[tuple[Array, Point], Estimate, Array]
"""Asks for estimates, and returns an array."""


class _Stretch(NamedTuple):
    """The way of DPM-Solver: its schedule, and where it ends."""

    schedule: NoiseSchedule
    end: float

    def point(self, lam: float) -> Point:
        return self.schedule.at(self.schedule.level(Point(1.0, math.exp(-lam), 0.0)))

    def noise(self, y: Array, lam: float) -> Asking:
        """The noise that the network sees in y."""
        point = self.point(lam)
        d = (yield point.alpha * y, point).denoised
        return (y - d) * math.exp(lam)

    def below(self, lam: float, to: float, eta: float) -> tuple[float, float]:
        """Where a step goes before noise is added, at most to the end, and the noise's size."""
        if not eta:
            return to, 0.0
        start, level = math.exp(-lam), math.exp(-to)
        up = min(level, eta * level * math.sqrt(1 - (level / start) ** 2))
        down = max(math.sqrt(level**2 - up**2), math.exp(-self.end))
        return -math.log(down), math.sqrt(max(level**2 - down**2, 0.0))


def _first(y: Array, e: Array, lam: float, to: float) -> Array:
    return y - math.exp(-to) * math.expm1(to - lam) * e


def _second(
    way: _Stretch, y: Array, e: Array, lam: float, to: float, e1: Array | None = None, r: float = 1 / 2
) -> Asking:
    """A step of second order; `e1` is the slope at the share r of the way, if it is known."""
    h = to - lam
    if e1 is None:
        e1 = yield from way.noise(_first(y, e, lam, lam + r * h), lam + r * h)
    return _first(y, e, lam, to) - math.exp(-to) / (2 * r) * math.expm1(h) * (e1 - e)


def _third(way: _Stretch, y: Array, e: Array, lam: float, to: float, e1: Array | None = None) -> Asking:
    """A step of third order, with the slopes at one and two thirds of the way."""
    h, r1, r2 = to - lam, 1 / 3, 2 / 3
    if e1 is None:
        e1 = yield from way.noise(_first(y, e, lam, lam + r1 * h), lam + r1 * h)
    second = lam + r2 * h
    bend = math.exp(-second) * (r2 / r1) * (math.expm1(r2 * h) / (r2 * h) - 1)
    e2 = yield from way.noise(_first(y, e, lam, second) - bend * (e1 - e), second)
    return _first(y, e, lam, to) - math.exp(-to) / r2 * (math.expm1(h) / h - 1) * (e2 - e)


def _begin(run: Run, points: Points) -> Steps:
    """From pure noise, where there is no slope yet, to the next point."""
    p, q = points[0], points[1]
    run.saved = run.snapshot()
    d = (yield run.x, p).denoised
    run.x = along(run.x, d, p, q)
    _done(run, 1)


def _done(run: Run, steps: int) -> None:
    run.step += steps
    if run.finished is not None:
        run.finished(run)


def _ends(points: Points) -> tuple[int, float, float]:
    """How many steps there are from pure noise, and the lam of the first point after them and of the last that the
    network knows; the first is infinite where there is no such point."""
    schedule = points.schedule
    skipped = int(points[0].alpha < _PURE)
    return skipped, points[1].lam if skipped else points[0].lam, schedule.at(schedule.lowest).lam


def dpm_fast(run: Run, points: Points, *, eta: Share = 1.0, s_noise: Amount = 1.0) -> Steps:
    """DPM-Solver of orders three, two and one, in as many calls as there are steps, evenly in the logarithm of the
    level; with noise at eta > 0 (k-diffusion)."""
    skipped, start, end = _ends(points)
    if skipped and run.step == 0:
        yield from _begin(run, points)
    count = len(points) - 1 - skipped
    if start >= end or not count:
        return
    whole = count // 3 + 1
    orders = [3] * (whole - 2) + [2, 1] if count % 3 == 0 else [3] * (whole - 1) + [count % 3]
    way = _Stretch(points.schedule, end)
    lams = line(start, end, whole + 1)
    behind = skipped
    for number, order in enumerate(orders):
        behind += order
        if behind <= run.step:
            continue
        run.saved = run.snapshot()
        lam, to = lams[number], lams[number + 1]
        down, up = way.below(lam, to, eta)
        y = run.x / way.point(lam).alpha
        e = yield from way.noise(y, lam)
        if order == 1:
            y = _first(y, e, lam, down)
        else:
            y = yield from (_second if order == 2 else _third)(way, y, e, lam, down)
        y = y + (up * s_noise) * run.noise() if up else y
        last = number == len(orders) - 1
        run.x = y if last else way.point(to).alpha * y
        _done(run, order)


Tolerance = Annotated[float, Within(0.0001, 10)]


def dpm_adaptive(
    run: Run,
    points: Points,
    *,
    order: Annotated[int, Within(2, 3)] = 3,
    rtol: Tolerance = 0.05,
    atol: Tolerance = 0.0078,
    h_init: Annotated[float, Within(0.001, 10)] = 0.05,
    accept_safety: Annotated[float, Within(0, 1)] = 0.81,
    eta: Share = 1.0,
    s_noise: Amount = 1.0,
) -> Steps:
    """DPM-Solver of two orders at once, whose difference tells how long the next step may be (k-diffusion, with an
    integral controller). How many calls it takes follows from the picture, not from the steps asked for."""
    skipped, start, end = _ends(points)
    if skipped and run.step == 0:
        yield from _begin(run, points)
    last = len(points) - 1
    if start >= end or last == skipped:
        return
    way = _Stretch(points.schedule, end)
    y, before, lam, h = run.x / way.point(start).alpha, None, start, h_init
    if run.history:
        y, before, lam, h = run.history
    while lam < end - 1e-5:
        run.saved = run.snapshot()
        to = min(end, lam + h)
        down, up = way.below(lam, to, eta)
        e = yield from way.noise(y, lam)
        if order == 2:
            low = _first(y, e, lam, down)
            high = yield from _second(way, y, e, lam, down)
        else:
            third = lam + (down - lam) / 3
            e1 = yield from way.noise(_first(y, e, lam, third), third)
            low = yield from _second(way, y, e, lam, down, e1, 1 / 3)
            high = yield from _third(way, y, e, lam, down, e1)
        error = _error(low, high, y if before is None else before, atol, rtol)
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / (1.5 if eta else order)) - 1)
        h *= factor
        if factor >= accept_safety:
            y, before, lam = (high + (up * s_noise) * run.noise() if up else high), low, to
        run.x = y if lam >= end - 1e-5 else way.point(lam).alpha * y
        run.history = [y, y if before is None else before, lam, h]
        done = last if lam >= end - 1e-5 else skipped + int((last - skipped) * (lam - start) / (end - start))
        _done(run, done - run.step)


def _error(low: Array, high: Array, before: Array, atol: float, rtol: float) -> float:
    """How far two results lie apart, in units of what is tolerated."""
    a, b, c = (np.asarray(each, dtype=np.float64) for each in (low, high, before))
    tolerated = np.maximum(atol, rtol * np.maximum(abs(a), abs(c)))
    return float(np.sqrt(np.mean(((a - b) / tolerated) ** 2)))


# Restart

_RHO = 7.0
_AGAIN_FROM, _AGAIN_TO = 0.1, 2.0
"""Sigmas (sigma / alpha) between which the way is gone again."""


def restart(run: Run, points: Points, *, s_noise: Amount = 1.0) -> Steps:
    """Heun's steps down to little noise, back up by fresh noise, and down once more (Xu et al. 2023,
    https://arxiv.org/abs/2306.14878, algorithm 1, with A1111's choice of steps: none is gone again of less than 20)."""
    schedule = points.schedule
    way = _way(points)
    for number in range(run.step, len(way)):
        p, q = way[number]
        run.saved = run.snapshot()
        x = run.x
        if number and schedule.level(p) > schedule.level(way[number - 1][1]):
            below = way[number - 1][1]
            rise = math.sqrt((p.sigma / p.alpha) ** 2 - (below.sigma / below.alpha) ** 2)
            x = p.alpha * (x / below.alpha + (rise * s_noise) * run.noise())
        d = (yield x, p).denoised
        end = along(x, d, p, q)
        if q.sigma and schedule.scale(p):
            d2 = (yield end, q).denoised
            end = moved(schedule, x, (slope(schedule, x, d, p) + slope(schedule, end, d2, q)) / 2, p, q)
        run.x = end
        _done(run, 1)


def _way(points: Points) -> list[tuple[Point, Point]]:
    """Every step from a point to another; as many as there are between the points."""
    schedule, steps = points.schedule, len(points) - 1
    plain = [(points[number], points[number + 1]) for number in range(steps)]
    if steps < 20:
        return plain
    again, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    high, low = schedule.level(points[0]), schedule.level(points[-2])
    levels = [*_bent(high, low, steps - again * times), 0.0]
    way = [schedule.at(level) for level in levels]
    way[0] = points[0]
    # In sigma / alpha, whatever a level is.
    sigmas = [point.sigma / max(point.alpha, 1e-8) for point in way]
    bottom, top = (min(range(len(way)), key=lambda i: abs(sigmas[i] - at)) for at in (_AGAIN_FROM, _AGAIN_TO))
    down = list(itertools.pairwise(way))
    if top >= bottom:
        return plain
    loop = [schedule.at(level) for level in _bent(levels[top], levels[bottom], again + 1)]
    return down[:bottom] + list(itertools.pairwise(loop)) * times + down[bottom:]


def _bent(high: float, low: float, count: int) -> list[float]:
    """Levels from high to low, evenly in their seventh root (Karras et al. 2022, eq. 5)."""
    return [root**_RHO for root in line(high ** (1 / _RHO), low ** (1 / _RHO), count)]
