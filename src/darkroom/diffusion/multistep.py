"""Samplers that remember the steps before: one network call a step, of higher order.

`run.history` holds what they remember as plain data. See `darkroom.diffusion.samplers` for the
moves and the names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from darkroom.diffusion.points import Point, Points
from darkroom.diffusion.process import Array
from darkroom.diffusion.run import Run, Steps
from darkroom.diffusion.samplers import along, noised, shifted, slope


def weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The w with sum_j w[j] * nodes[j]^i = moments[i] for every i: when moments are the integrals of the
    powers, sum_j w[j] * f(nodes[j]) is the integral of the polynomial through f at the nodes."""
    result = []
    for j, node in enumerate(nodes):
        basis = [1.0]  # Coefficients of Lagrange's polynomial: 1 at this node, 0 at the others.
        for other in (*nodes[:j], *nodes[j + 1 :]):
            pairs = zip([0.0, *basis], [*basis, 0.0], strict=True)
            basis = [(lower - other * same) / (node - other) for lower, same in pairs]
        result.append(sum(b * m for b, m in zip(basis, moments, strict=False)))
    return result


def blend(factors: Sequence[float], arrays: Sequence[Array]) -> Array:
    """sum_j factors[j] * arrays[j], in that order."""
    total = factors[0] * arrays[0]
    for factor, array in zip(factors[1:], arrays[1:], strict=True):
        total = total + factor * array
    return total


def lms(run: Run, points: Points, *, order: int = 4) -> Steps:
    """Linear multistep: the polynomial in the level through the last slopes, integrated
    (Adams-Bashforth with uneven steps; k-diffusion)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if not schedule.scale(p):
            run.x = along(run.x, d, p, q)
            continue
        level = schedule.level(p)
        past = [(slope(schedule, run.x, d, p), level), *run.history][:order]
        step = schedule.level(q) - level
        moments = [step ** (i + 1) / (i + 1) for i in range(len(past))]
        change = blend(weights([u - level for _, u in past], moments), [s for s, _ in past])
        run.x = shifted(schedule, run.x, change, p, q)
        run.history = past


def deis(run: Run, points: Points, *, order: int = 3, lower_order_final: bool = True) -> Steps:
    """Diffusion exponential integrator sampler: the polynomial in the *logarithm* of the level through
    the last slopes, integrated over the level (Zhang and Chen 2022, https://arxiv.org/abs/2204.13902,
    the rho-AB of section 4 with log rho). The last of few steps are of lower order, as in diffusers."""
    schedule = points.schedule
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if not schedule.scale(p):
            run.x = along(run.x, d, p, q)
            continue
        level = schedule.level(p)
        past = [(slope(schedule, run.x, d, p), level), *run.history][:order]
        used = past[: order_left(run, points, q, order, lower_order_final)]
        step = math.log(schedule.level(q) / level) if q.sigma else -math.inf
        moments = [level * math.expm1(step)]  # The integral of v^i e^v from 0 to step, by parts.
        for i in range(1, len(used)):
            moments.append(level * step**i * math.exp(step) - i * moments[-1])
        change = blend(weights([math.log(u / level) for _, u in used], moments), [s for s, _ in used])
        run.x = shifted(schedule, run.x, change, p, q)
        run.history = past


def order_left(run: Run, points: Points, q: Point, order: int, lower: bool) -> int:
    """The order to use for this step: one at the last if it ends clean, where the logarithm of the level
    has no end, and with `lower` no more than there are steps left of fewer than 15."""
    steps = len(points) - 1
    if not q.sigma:
        return 1
    return min(order, steps - run.step) if lower and steps < 15 else order


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(run: Run, points: Points) -> Steps:
    """Pseudo linear multistep: Adams-Bashforth as if all steps were even, after one Heun step
    (Liu et al. 2022, https://arxiv.org/abs/2202.09778, eq. 12; what Stable Diffusion 1 ships with)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if not schedule.scale(p):
            run.x = along(run.x, d, p, q)
            continue
        past = [slope(schedule, run.x, d, p), *run.history][:4]
        if len(past) == 1 and run.step < len(points) - 2:
            end = along(run.x, d, p, q)
            d2 = (yield end, q).denoised
            used = (past[0] + slope(schedule, end, d2, q)) / 2
        else:
            used = blend(ADAMS_BASHFORTH[len(past) - 1], past)
        run.x = shifted(schedule, run.x, used * (schedule.level(q) - schedule.level(p)), p, q)
        run.history = past


def pndm(run: Run, points: Points) -> Steps:
    """Pseudo numerical methods: PLMS after three pseudo Runge-Kutta steps of four calls each, at whole
    training steps (Liu et al. 2022, https://arxiv.org/abs/2202.09778, algorithm 2)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        x = run.x
        d = (yield x, p).denoised
        if not schedule.scale(p):
            run.x = along(x, d, p, q)
            continue
        first = slope(schedule, x, d, p)
        past = [first, *run.history][:4]
        step = schedule.level(q) - schedule.level(p)
        if len(past) < 4 and run.step < len(points) - 2:
            middle = schedule.told(p.time - (p.time - q.time) // 2)
            slopes = [first]
            for place in (middle, middle, q):
                part = slopes[-1] * (schedule.level(place) - schedule.level(p))
                end = shifted(schedule, x, part, p, place)
                d = (yield end, place).denoised
                slopes.append(slope(schedule, end, d, place))
            used = blend((1 / 6, 1 / 3, 1 / 3, 1 / 6), slopes)
        else:
            used = blend(ADAMS_BASHFORTH[len(past) - 1], past)
        run.x = shifted(schedule, x, used * step, p, q)
        run.history = past


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


def dpmpp_2m_sde(
    run: Run,
    points: Points,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Steps:
    """DPM-Solver++(2M) on the reverse SDE (Lu et al. 2022, https://arxiv.org/abs/2211.01095, appendix;
    k-diffusion). `solver_type` heun integrates the change of the estimate exactly."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        h = q.lam - p.lam
        below = Point(q.alpha, q.sigma * math.exp(-eta * h) if q.sigma else 0.0, q.time)
        x = along(run.x, d, p, below)
        if run.history and q.sigma:
            before, lam = run.history[0]
            grown = -math.expm1(-h * (1 + eta))
            share = grown / 2 if solver_type == "midpoint" else 1 - grown / (h * (1 + eta))
            x = x + q.alpha * share * h / (p.lam - lam) * (d - before)
        run.x = noised(run, x, below.sigma, q, s_noise)
        run.history = [(d, p.lam)]


def dpmpp_3m_sde(run: Run, points: Points, *, eta: float = 1.0, s_noise: float = 1.0) -> Steps:
    """DPM-Solver++(3M) on the reverse SDE: first and second differences of the estimate, the second with
    k-diffusion's weight, half of what the third order would take."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        h = q.lam - p.lam
        below = Point(q.alpha, q.sigma * math.exp(-eta * h) if q.sigma else 0.0, q.time)
        x = along(run.x, d, p, below)
        if run.history and q.sigma:
            step = h * (1 + eta)
            phi_2 = math.expm1(-step) / step + 1
            (d1, lam1), *rest = run.history
            change = (d - d1) * (h / (p.lam - lam1))
            if rest:
                ((d2, lam2),) = rest
                r0, r1 = (p.lam - lam1) / h, (lam1 - lam2) / h
                bend = (change - (d1 - d2) / r1) / (r0 + r1)
                change = change + r0 * bend
                x = x - q.alpha * (phi_2 / step - 0.5) * bend
            x = x + q.alpha * phi_2 * change
        run.x = noised(run, x, below.sigma, q, s_noise)
        run.history = [(d, p.lam), *run.history][:2]


def unipc(
    run: Run,
    points: Points,
    *,
    order: int = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    lower_order_final: bool = True,
) -> Steps:
    """Unified predictor-corrector: each estimate first corrects the step that led to it, then predicts
    the next (Zhao et al. 2023, https://arxiv.org/abs/2302.04867, algorithms 5 and 6 on x0)."""
    steps = len(points) - 1

    def usable(step: int, known: int) -> int:
        return min(order, known, steps - step) if lower_order_final else min(order, known)

    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        x = run.x
        if run.history:
            start = points[run.step - 1]
            known = run.history[: usable(run.step - 1, len(run.history))]
            x = unified(run.history[0][0], [(d, p.lam)], known, start, p, variant)
        past = [(x, d, p.lam), *run.history][:order]
        known = past[: usable(run.step, len(past)) if q.sigma else 1]
        run.x = unified(x, [], known, p, q, variant)
        run.history = past


def unified(
    x: Array,
    ahead: list[tuple[Array, float]],
    past: list[tuple[Array, Array, float]],
    p: Point,
    q: Point,
    variant: str,
) -> Array:
    """x moved from p to q with the polynomial in lambda through the estimates at p, before it (`past`,
    newest first: x, estimate, lambda), and at q when that is known (`ahead`); eq. 3 and 8 of the paper."""
    _, d, lam = past[0]
    h = q.lam - lam
    others = [(each, (at - lam) / h) for each, at in [(o, at) for _, o, at in past[1:]] + ahead]
    x = along(x, d, p, q)
    if not others:
        return x
    size = -h if variant == "bh1" else math.expm1(-h)
    phi, factorial, moments = math.expm1(-h) / -h - 1, 1.0, []
    for i in range(len(others)):
        moments.append(phi * factorial / size)
        factorial *= i + 2
        phi = phi / -h - 1 / factorial
    nodes = [r for _, r in others]
    # With one other estimate the paper takes one half, which is right to the order needed.
    factors = weights(nodes, moments) if len(others) > 1 else [0.5]
    changes = blend([w / r for w, r in zip(factors, nodes, strict=True)], [each - d for each, _ in others])
    return x - q.alpha * size * changes
