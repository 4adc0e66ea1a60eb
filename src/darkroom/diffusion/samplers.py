"""Samplers: the ways from noise to picture.

Each is a page of mathematics: a generator (see `darkroom.diffusion.run`) that yields (x, point) and
is sent an Estimate. They work on x = alpha * x0 + sigma * noise with + - * / only, so x may be a
tensor, an array or a number, and never change it in place. All numbers about points are floats.

`lam` is lambda = log(alpha / sigma) and h a step in it, as in the DPM-Solver papers.
"""

from __future__ import annotations

import math

from darkroom.diffusion.points import Point, Points
from darkroom.diffusion.process import Array
from darkroom.diffusion.run import Run, Steps


def along(x: Array, denoised: Array, p: Point, q: Point) -> Array:
    """x moved from p to q with its x0 and its noise held: Euler's step, DDIM's and the flow step at once."""
    return q.alpha * denoised + (q.sigma / p.sigma) * (x - p.alpha * denoised)


def noised(run: Run, x: Array, down: float, q: Point, s_noise: float = 1.0) -> Array:
    """x, at sigma `down` and q's alpha, with as much noise added as q has more."""
    up = math.sqrt(max(q.sigma * q.sigma - down * down, 0.0))
    return x + (up * s_noise) * run.noise() if up else x


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
    return noised(run, ratio * run.x, ratio * p.sigma, up, s_noise), up


def euler(
    run: Run,
    points: Points,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Steps:
    """Straight to where the estimate points (Karras et al. 2022, https://arxiv.org/abs/2206.00364)."""
    for p, q in run.steps(points):
        x, p = churned(run, points, p, s_churn, s_tmin, s_tmax, s_noise)
        d = (yield x, p).denoised
        run.x = along(x, d, p, q)


def euler_ancestral(run: Run, points: Points, *, eta: float = 1.0, s_noise: float = 1.0) -> Steps:
    """Euler further down than asked, then fresh noise up: never settles (k-diffusion)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        down = points.schedule.below(p, q, eta)
        run.x = noised(run, along(run.x, d, p, Point(q.alpha, down, q.time)), down, q, s_noise)


def ddim(run: Run, points: Points, *, eta: float = 0.0) -> Steps:
    """Denoising diffusion implicit models (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 12
    with the sigma of eq. 16)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        fresh = eta * math.sqrt(-math.expm1(2 * (p.lam - q.lam)))
        down = q.sigma * math.sqrt(max(1 - fresh * fresh, 0.0))
        run.x = noised(run, along(run.x, d, p, Point(q.alpha, down, q.time)), down, q)


def dpmpp_2m(run: Run, points: Points) -> Steps:
    """DPM-Solver++(2M): the estimate extrapolated from the last two
    (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        guess = d
        if run.history and q.sigma:
            before, lam = run.history[0]
            guess = d + (q.lam - p.lam) / (2 * (p.lam - lam)) * (d - before)
        run.x = along(run.x, guess, p, q)
        run.history = [(d, p.lam)]
