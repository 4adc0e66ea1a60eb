"""Samplers that remember the steps before: one network call a step, of higher order.

`run.history` holds what they remember as plain data. See `darkroom.diffusion.samplers` for the
moves and the names.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Annotated, Literal

from darkroom.diffusion.options import Amount, Within
from darkroom.diffusion.points import Point, Points
from darkroom.diffusion.process import Array
from darkroom.diffusion.run import Run, Steps
from darkroom.diffusion.samplers import along, moved, noised, slope


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


def distinct(known: Sequence[tuple[Array, float]]) -> list[tuple[Array, float]]:
    """The first of what is known at each place: many steps, or levels bent far, lay out one place twice, which says
    nothing more."""
    places = [place for _, place in known]
    return [each for i, each in enumerate(known) if each[1] not in places[:i]]


def blend(factors: Sequence[float], arrays: Sequence[Array]) -> Array:
    """sum_j factors[j] * arrays[j], in that order."""
    total = factors[0] * arrays[0]
    for factor, array in zip(factors[1:], arrays[1:], strict=True):
        total = total + factor * array
    return total


def lms(run: Run, points: Points, *, order: Annotated[int, Within(1, 8)] = 4) -> Steps:
    """Linear multistep: the polynomial in the level through the last slopes, integrated
    (Adams-Bashforth with uneven steps; k-diffusion)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if not schedule.scale(p):
            run.x = along(run.x, d, p, q)
            continue
        level = schedule.level(p)
        past = distinct([(slope(schedule, run.x, d, p), level), *run.history])[:order]
        step = schedule.level(q) - level
        moments = [step**i / (i + 1) for i in range(len(past))]  # The mean of v^i from 0 to step.
        mean = blend(weights([u - level for _, u in past], moments), [s for s, _ in past])
        run.x = moved(schedule, run.x, mean, p, q)
        run.history = past


def deis(
    run: Run, points: Points, *, order: Annotated[int, Within(1, 8)] = 3, lower_order_final: bool = True
) -> Steps:
    """Diffusion exponential integrator sampler: the polynomial in the *logarithm* of the level through
    the last slopes, integrated over the level (Zhang and Chen 2022, https://arxiv.org/abs/2204.13902;
    diffusers' "logrho"). The last of few steps are of lower order, as in diffusers."""
    schedule = points.schedule
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if not schedule.scale(p) or q.sigma == p.sigma:
            run.x = along(run.x, d, p, q)
            continue
        level = schedule.level(p)
        past = distinct([(slope(schedule, run.x, d, p), level), *run.history])[:order]
        steps = len(points) - 1
        few = not q.sigma or (lower_order_final and steps < 15)
        used = past[: steps - run.step] if few else past
        moments = [1.0]  # The mean of v^i e^v from 0 to step, by parts.
        for i in range(1, len(used)):
            step = math.log(schedule.level(q) / level)
            moments.append(step**i / -math.expm1(-step) - i * moments[-1])
        mean = blend(weights([math.log(u / level) for _, u in used], moments), [s for s, _ in used])
        run.x = moved(schedule, run.x, mean, p, q)
        run.history = past


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(run: Run, points: Points) -> Steps:
    """Pseudo linear multistep: Adams-Bashforth as if all steps were even, after one Heun step
    (Liu et al. 2022, https://arxiv.org/abs/2202.09778; what Stable Diffusion 1 ships with)."""
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
            mean = (past[0] + slope(schedule, end, d2, q)) / 2
        else:
            mean = blend(ADAMS_BASHFORTH[len(past) - 1], past)
        run.x = moved(schedule, run.x, mean, p, q)
        run.history = past


def ipndm(run: Run, points: Points) -> Steps:
    """Improved PNDM: Adams-Bashforth as if all steps were even, of as high an order as the steps so far allow, the last
    straight to the estimate (Zhang and Chen 2022, https://arxiv.org/abs/2204.13902, section 3.1; ComfyUI)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        if not (schedule.scale(p) and q.sigma):
            run.x = along(run.x, d, p, q)
            continue
        past = [slope(schedule, run.x, d, p), *run.history][:4]
        run.x = moved(schedule, run.x, blend(ADAMS_BASHFORTH[len(past) - 1], past), p, q)
        run.history = past


def res_multistep(run: Run, points: Points, *, eta: Amount = 0.0, s_noise: Amount = 1.0) -> Steps:
    """Refined exponential solver, from the last two estimates: its second-order conditions are all met
    (Zhang et al. 2023, https://arxiv.org/abs/2308.02157, section 3.3; ComfyUI)."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = points.schedule.below(p, q, eta)
        x = along(run.x, d, p, below)
        if run.history and below.sigma:
            before, lam, reached = run.history[0]
            h = below.lam - p.lam
            bend = (math.expm1(-h) / -h - 1) / -h  # phi_2
            x = x + (below.alpha * h * bend * h / (lam - reached)) * (before - d)
        run.x = noised(run, x, below, q, s_noise)
        run.history = [(d, p.lam, below.lam)]


def res_multistep_ancestral(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """The same with fresh noise at every step."""
    return res_multistep(run, points, eta=eta, s_noise=s_noise)


def pndm(run: Run, points: Points) -> Steps:
    """Pseudo numerical methods: PLMS after three pseudo Runge-Kutta steps of four calls each, at whole
    training steps (Liu et al. 2022, https://arxiv.org/abs/2202.09778)."""
    schedule = points.schedule
    for p, q in run.steps(points):
        x = run.x
        d = (yield x, p).denoised
        if not schedule.scale(p):
            run.x = along(x, d, p, q)
            continue
        past = [slope(schedule, x, d, p), *run.history][:4]
        if len(past) < 4 and run.step < len(points) - 2:
            middle = schedule.told(p.time - (p.time - q.time) // 2)
            slopes = past[:1]
            for place in (middle, middle, q):
                end = moved(schedule, x, slopes[-1], p, place)
                d = (yield end, place).denoised
                slopes.append(slope(schedule, end, d, place))
            mean = blend((1 / 6, 1 / 3, 1 / 3, 1 / 6), slopes)
        else:
            mean = blend(ADAMS_BASHFORTH[len(past) - 1], past)
        run.x = moved(schedule, x, mean, p, q)
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


def decayed(p: Point, q: Point, eta: float) -> Point:
    """Where, at q's alpha, the noise x has at p is once it has decayed as in the reverse SDE; what is
    missing to q comes fresh."""
    share = math.exp(-eta * (q.lam - p.lam)) if q.sigma else 0.0
    return Point(q.alpha, share * q.sigma, q.time)


def dpmpp_2m_sde(
    run: Run,
    points: Points,
    *,
    eta: Amount = 1.0,
    s_noise: Amount = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Steps:
    """DPM-Solver++(2M) on the reverse SDE (Lu et al. 2022, https://arxiv.org/abs/2211.01095;
    k-diffusion). `solver_type` heun integrates the change of the estimate exactly."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = decayed(p, q, eta)
        x = along(run.x, d, p, below)
        if run.history and q.sigma:
            before, lam = run.history[0]
            h = q.lam - p.lam
            gone = -math.expm1(-h * (1 + eta))
            share = gone / 2 if solver_type == "midpoint" else 1 - gone / (h * (1 + eta))
            x = x + (q.alpha * share * h / (p.lam - lam)) * (d - before)
        run.x = noised(run, x, below, q, s_noise, p)
        run.history = [(d, p.lam)]


def dpmpp_3m_sde(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """DPM-Solver++(3M) on the reverse SDE: first and second differences of the estimate, the second with
    k-diffusion's weight, half of what the third order would take."""
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        below = decayed(p, q, eta)
        x = along(run.x, d, p, below)
        if run.history and q.sigma:
            h = q.lam - p.lam
            step = h * (1 + eta)
            phi_2 = math.expm1(-step) / step + 1
            (d1, lam1), *rest = run.history
            change = (d - d1) * (h / (p.lam - lam1))
            for d2, lam2 in rest:
                r0, r1 = (p.lam - lam1) / h, (lam1 - lam2) / h
                bend = (change - (d1 - d2) / r1) / (r0 + r1)
                change = change + r0 * bend
                x = x - q.alpha * (phi_2 / step - 0.5) * bend
            x = x + (q.alpha * phi_2) * change
        run.x = noised(run, x, below, q, s_noise, p)
        run.history = [(d, p.lam), *run.history][:2]


def unipc(
    run: Run,
    points: Points,
    uncorrected: Container[int] = (),
    *,
    order: Annotated[int, Within(1, 8)] = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    lower_order_final: bool = True,
    predict: Literal["x0", "noise"] = "x0",
) -> Steps:
    """Unified predictor-corrector: each estimate first corrects the step that led to it, then predicts the next (Zhao
    et al. 2023, https://arxiv.org/abs/2302.04867). The polynomial is of the estimates of x0 or of the noise; steps that
    are `uncorrected`, counted from 0, are left as they were predicted."""
    noise = predict == "noise"
    for p, q in run.steps(points):
        d = (yield run.x, p).denoised
        left = len(points) - 1 - run.step if lower_order_final else order
        x = run.x
        value = (x - p.alpha * d) / p.sigma if noise else d
        if run.history and run.step - 1 not in uncorrected:
            start, *_ = run.history[0]
            known = [(before, lam) for _, before, lam in run.history[: left + 1]]
            x = unified(start, points[run.step - 1], p, [*known, (value, p.lam)], variant, noise)
        past = [(x, value, p.lam), *run.history][:order]
        known = [(before, lam) for _, before, lam in past[: left if q.sigma else 1]]
        run.x = unified(x, p, q, known, variant, noise)
        run.history = past


def unified(
    x: Array, p: Point, q: Point, known: list[tuple[Array, float]], variant: str, noise: bool = False
) -> Array:
    """x moved from p to q by the polynomial in lambda through `known`: (estimate, lambda) at p, then elsewhere, the
    estimates of x0 or of the noise. To predict, all others lie before p; to correct, the last lies at q."""
    (value, lam), *others = distinct(known)
    d = (x - p.sigma * value) / max(p.alpha, 1e-8) if noise else value
    x, h = along(x, d, p, q), q.lam - lam
    if not others or not h:
        return x
    k = h if noise else -h
    size = k if variant == "bh1" else math.expm1(k)
    phi, factorial, moments = math.expm1(k) / k - 1, 1.0, []
    for i in range(len(others)):
        moments.append(phi * factorial / size)
        factorial *= i + 2
        phi = phi / k - 1 / factorial
    nodes = [(at - lam) / h for _, at in others]
    # With one other estimate the paper takes one half, which is right to the order needed.
    factors = weights(nodes, moments) if len(others) > 1 else [0.5]
    change = blend([w / r for w, r in zip(factors, nodes, strict=True)], [each - value for each, _ in others])
    return x - ((q.sigma if noise else q.alpha) * size) * change
