"""Samplers that look at one step at a time; `darkroom.diffusion.multistep` has those that remember.

Each is a page of mathematics: a generator (see `darkroom.diffusion.run`) that yields (x, point) and
is sent an Estimate. They work on x = alpha * x0 + sigma * noise with + - * / only, so x may be a
tensor, an array or a number, and never change it in place. All numbers about points are floats.

Names in common: p and q are the points a step goes from and to, d the estimate of x0 at p; `lam` is
lambda = log(alpha / sigma) and h a step in it, as in the DPM-Solver papers.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Annotated, Literal

from darkroom.diffusion.options import Amount, Share, Unbounded, Within
from darkroom.diffusion.points import NoiseSchedule, Point, Points
from darkroom.diffusion.process import Array
from darkroom.diffusion.run import Estimate, Run, Steps

# Four moves, of which all samplers are made.


def along(x: Array, d: Array, p: Point, q: Point) -> Array:
    """x moved from p to q with its x0 and its noise held: Euler's step, DDIM's and the flow step at once."""
    return q.alpha * d + (q.sigma / p.sigma) * (x - p.alpha * d)


def slope(schedule: NoiseSchedule, x: Array, d: Array, p: Point) -> Array:
    """How x / scale changes per unit of level: the noise of a variance-preserving model, the velocity of
    a flow. The probability-flow ODE is d(x / scale) / d(level) = slope."""
    return (x / schedule.scale(p) - d) / schedule.level(p)


def moved(schedule: NoiseSchedule, x: Array, mean: Array, p: Point, q: Point) -> Array:
    """x moved from p to q, given the mean slope on the way."""
    change = mean * (schedule.level(q) - schedule.level(p))
    return schedule.scale(q) * (x / schedule.scale(p) + change)


def noised(
    run: Run, x: Array, below: Point, q: Point, s_noise: float = 1.0, since: Point | None = None
) -> Array:
    """x moved from `below` to q, of the same alpha and more sigma, by fresh noise; `since` is where it came from, of
    steps on the reverse SDE, whose noise may be of one path."""
    up = math.sqrt(max(q.sigma * q.sigma - below.sigma * below.sigma, 0.0))
    return x + (up * s_noise) * run.noise(since, q) if up else x


# The places they move by.


def posterior(p: Point, q: Point, eta: float) -> Point:
    """Where, at q's alpha, to go before noise is added up to q, so that the step is the reverse chain's
    at eta = 1 and the ODE's at 0 (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 16)."""
    share = math.sqrt(max(1 + eta * eta * math.expm1(2 * (p.lam - q.lam)), 0.0))
    return Point(q.alpha, share * q.sigma, q.time)


def between(schedule: NoiseSchedule, p: Point, q: Point, share: float) -> Point:
    """The point whose lambda lies a share of the way from p's to q's."""
    lam = p.lam + share * (q.lam - p.lam)
    return schedule.at(schedule.level(Point(1.0, math.exp(-lam), 0.0)))


def churned(
    run: Run, points: Points, p: Point, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Array, Point]:
    """Back to somewhat more noise before a step (Karras et al. 2022, algorithm 2)."""
    level = points.schedule.level(p)
    gamma = min(s_churn / (len(points) - 1), math.sqrt(2) - 1) if s_tmin <= level <= s_tmax else 0.0
    if not gamma or not p.alpha:
        return run.x, p
    up = points.schedule.at(level * (1 + gamma))
    ratio = up.alpha / p.alpha
    return noised(run, ratio * run.x, Point(up.alpha, ratio * p.sigma, p.time), up, s_noise), up


# The samplers.

Middle = Annotated[float, Within(0, 1, above=True)]


def euler(
    run: Run,
    points: Points,
    *,
    s_churn: Amount = 0.0,
    s_tmin: Amount = 0.0,
    s_tmax: Unbounded = math.inf,
    s_noise: Amount = 1.0,
) -> Steps:
    """Straight to where the estimate points (Karras et al. 2022, https://arxiv.org/abs/2206.00364,
    algorithm 2 without its second half)."""
    for p, q in run.steps(points):
        x, p = churned(run, points, p, s_churn, s_tmin, s_tmax, s_noise)
        d = (yield x, p).denoised
        run.x = along(x, d, p, q)


def euler_ancestral(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """Euler further down than asked, then fresh noise up to where it was asked (k-diffusion)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = points.schedule.below(p, q, eta)
        run.x = noised(run, along(run.x, d, p, below), below, q, s_noise)


def ddim(run: Run, points: Points, *, eta: Amount = 0.0) -> Steps:
    """Denoising diffusion implicit models (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 12).
    Without noise (eta 0) it is Euler's step; with eta 1 it is DDPM."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = posterior(p, q, eta)
        run.x = noised(run, along(run.x, d, p, below), below, q)


def ddpm(run: Run, points: Points, *, variance: Literal["small", "large"] = "small") -> Steps:
    """The learned chain run backwards, between any points (Ho et al. 2020, https://arxiv.org/abs/2006.11239,
    algorithm 2), with the smaller or the larger of section 3.2's variances: that of the chain back, given the picture,
    or that of the chain forth."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = posterior(p, q, 1.0)
        x = along(run.x, d, p, below)
        if variance == "large" and q.sigma:
            run.x = x + math.sqrt(p.sigma**2 - (p.alpha / q.alpha * q.sigma) ** 2) * run.noise()
        else:
            run.x = noised(run, x, below, q)


def heun(
    run: Run,
    points: Points,
    *,
    s_churn: Amount = 0.0,
    s_tmin: Amount = 0.0,
    s_tmax: Unbounded = math.inf,
    s_noise: Amount = 1.0,
) -> Steps:
    """Euler's step again with the mean of the slopes at both its ends (Karras et al. 2022,
    https://arxiv.org/abs/2206.00364, algorithm 2)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        x, p = churned(run, points, p, s_churn, s_tmin, s_tmax, s_noise)
        d = (yield x, p).denoised
        end = along(x, d, p, q)
        if q.sigma and schedule.scale(p):
            d2 = (yield end, q).denoised
            mean = (slope(schedule, x, d, p) + slope(schedule, end, d2, q)) / 2
            end = moved(schedule, x, mean, p, q)
        run.x = end


def heunpp2(
    run: Run,
    points: Points,
    *,
    s_churn: Amount = 0.0,
    s_tmin: Amount = 0.0,
    s_tmax: Unbounded = math.inf,
    s_noise: Amount = 1.0,
) -> Steps:
    """Heun's step with the slope two points ahead as well, each weighed by its level: the more noise there is, the more
    the first counts alone (Heun++2, from sd-webui-samplers-scheduler; ComfyUI)."""
    schedule, last = points.schedule, len(points) - 1
    first = schedule.level(points[0])
    for p, q in run.steps(points):
        step = run.step
        x, p = churned(run, points, p, s_churn, s_tmin, s_tmax, s_noise)
        d = (yield x, p).denoised
        end = along(x, d, p, q)
        if q.sigma and schedule.scale(p):
            d2 = (yield end, q).denoised
            slopes = [slope(schedule, x, d, p), slope(schedule, end, d2, q)]
            shares = [schedule.level(q)]
            ahead = points[step + 2] if step + 1 < last else None
            if ahead is not None and ahead.sigma:
                far = along(end, d2, q, ahead)
                d3 = (yield far, ahead).denoised
                slopes.append(slope(schedule, far, d3, ahead))
                shares.append(schedule.level(ahead))
            shares = [level / (len(slopes) * first) for level in shares]
            mean = (1 - sum(shares)) * slopes[0]
            for share, each in zip(shares, slopes[1:], strict=True):
                mean = mean + share * each
            end = moved(schedule, x, mean, p, q)
        run.x = end


def dpm_2(
    run: Run,
    points: Points,
    *,
    s_churn: Amount = 0.0,
    s_tmin: Amount = 0.0,
    s_tmax: Unbounded = math.inf,
    s_noise: Amount = 1.0,
) -> Steps:
    """The whole step with the slope at its geometric middle (k-diffusion, after DPM-Solver-2)."""
    for p, q in run.steps(points):
        x, p = churned(run, points, p, s_churn, s_tmin, s_tmax, s_noise)
        run.x = yield from _midpoint(points.schedule, x, p, q)


def dpm_2_ancestral(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """DPM2 further down than asked, then fresh noise up to where it was asked (k-diffusion)."""
    for p, q in run.steps(points):
        below = points.schedule.below(p, q, eta)
        x = yield from _midpoint(points.schedule, run.x, p, below)
        run.x = noised(run, x, below, q, s_noise)


def _midpoint(
    schedule: NoiseSchedule, x: Array, p: Point, q: Point
) -> Generator[tuple[Array, Point], Estimate, Array]:
    d = (yield x, p).denoised
    if not (q.sigma and schedule.scale(p)):
        return along(x, d, p, q)
    middle = schedule.at(math.sqrt(schedule.level(p) * schedule.level(q)))
    half = along(x, d, p, middle)
    d2 = (yield half, middle).denoised
    return moved(schedule, x, slope(schedule, half, d2, middle), p, q)


def dpmpp_2s_ancestral(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """DPM-Solver++(2S): the whole step with the estimate at its middle in lambda, then fresh noise
    (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 1 with r = 1/2; k-diffusion)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = points.schedule.below(p, q, eta)
        if below.sigma:
            middle = between(points.schedule, p, below, 1 / 2)
            d = (yield along(run.x, d, p, middle), middle).denoised
        run.x = noised(run, along(run.x, d, p, below), below, q, s_noise)


def dpmpp_sde(
    run: Run,
    points: Points,
    *,
    eta: Amount = 1.0,
    s_noise: Amount = 1.0,
    r: Middle = 1 / 2,
) -> Steps:
    """DPM-Solver++ on the reverse SDE, one middle point a step, with noise at both (k-diffusion)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if q.sigma:
            middle = between(points.schedule, p, q, r)
            below = posterior(p, middle, eta)
            half = noised(run, along(run.x, d, p, below), below, middle, s_noise, p)
            d2 = (yield half, middle).denoised
            d = d + (d2 - d) / (2 * r)
        below = posterior(p, q, eta)
        run.x = noised(run, along(run.x, d, p, below), below, q, s_noise, p)


def tcd(run: Run, points: Points, *, eta: Share = 0.3) -> Steps:
    """Past the next point to a share 1 - eta of its time, then back up with fresh noise (Zheng et al. 2024,
    https://arxiv.org/abs/2402.19159, algorithm 4, whose gamma is eta). It ends at the first training step, as these
    models were distilled to."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = points.schedule.told(math.floor((1 - eta) * q.time))
        x = below.alpha * d + below.sigma * (run.x - p.alpha * d) / p.sigma
        if q.sigma:
            share = q.alpha / below.alpha
            x = noised(run, share * x, Point(q.alpha, share * below.sigma, q.time), q)
        run.x = x


def lcm(run: Run, points: Points, *, timestep_scaling: Unbounded = 10.0) -> Steps:
    """To the estimate at once, then back up with fresh noise (Song et al. 2023,
    https://arxiv.org/abs/2303.01469, algorithm 1; Luo et al. 2023, https://arxiv.org/abs/2310.04378).

    A little of x in the estimate makes it x itself at time 0 (eq. 5 there), as it was in distillation;
    `timestep_scaling` infinite leaves it out."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        far = p.time * timestep_scaling / 0.5
        keep = 1 / (far * far + 1)
        d = keep * run.x + math.sqrt(1 - keep) * d
        run.x = noised(run, q.alpha * d, Point(q.alpha, 0.0, q.time), q)
