"""Samplers against exact solutions: the order of convergence of the ODE, the law of the SDE.

For data drawn from a Gaussian with mean m and variance v, the probability-flow ODE takes x at p to
q.alpha * m + sqrt(total(q) / total(p)) * (x - p.alpha * m), where total = alpha^2 v + sigma^2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from darkroom.diffusion import (
    SAMPLERS,
    Discrete,
    Estimate,
    FlowSchedule,
    Point,
    Points,
    Run,
    Sampler,
    Snapshot,
    points_for,
    sampler,
)

MEAN, VARIANCE = 0.5, 0.25
VP = Discrete()
FLOW = FlowSchedule()


def total(point: Point) -> float:
    return point.alpha**2 * VARIANCE + point.sigma**2


def denoised(x: Any, point: Point) -> Any:
    return MEAN + point.alpha * VARIANCE / total(point) * (x - point.alpha * MEAN)


def exact(x: float, p: Point, q: Point) -> float:
    return q.alpha * MEAN + math.sqrt(total(q) / total(p)) * (x - p.alpha * MEAN)


def path(schedule: Any, steps: int) -> Points:
    """From much noise to little, not to none: there the last step of most methods is of first order."""
    if isinstance(schedule, FlowSchedule):
        return Points([schedule.at(1 - 0.9 * i / steps) for i in range(steps + 1)], schedule)
    return Points([schedule.at(10 * (0.2 / 10) ** (i / steps)) for i in range(steps + 1)], schedule)


def error(name: str, points: Points, warm: int, **options: Any) -> float:
    """How far the end is from the exact one. In the first `warm` steps x is put back on the exact path, so
    that a multistep method's first steps, of lower order, do not hide the order of the others."""
    method = sampler(name, **options)
    start = 1.3
    run = Run(start, source=lambda draw: 0.0)
    while run.step < len(points) - 1:
        steps = method(run, points)
        question = next(steps)
        here = run.step
        try:
            while run.step == here or run.step >= warm:
                question = steps.send(Estimate(denoised(*question)))
        except StopIteration:
            return abs(run.x - exact(start, points[0], points[-1]))
        assert run.saved is not None
        on_path = exact(start, points[0], points[run.step])
        run = Run.restore(Snapshot(on_path, *run.saved[1:]), run.source)
    raise AssertionError("a run ends by StopIteration")


ODE = [
    ("euler", {}),
    ("ddim", {}),
    ("euler_ancestral", {"eta": 0.0}),
    ("heun", {}),
    ("dpm_2", {}),
    ("dpm_2_ancestral", {"eta": 0.0}),
    ("lms", {}),
    ("dpmpp_2s_ancestral", {"eta": 0.0}),
    ("dpmpp_2m", {}),
    ("dpmpp_sde", {"eta": 0.0}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
    ("dpmpp_2m_sde_heun", {"eta": 0.0}),
    ("dpmpp_3m_sde", {"eta": 0.0}),
    ("deis", {"lower_order_final": False}),
    ("unipc", {"lower_order_final": False}),
    ("res_multistep", {}),
    ("res_multistep_ancestral", {"eta": 0.0}),
    ("ddim_cfgpp", {}),
    ("euler_cfgpp", {}),
    ("euler_ancestral_cfgpp", {"eta": 0.0}),
    ("dpmpp_2s_ancestral_cfgpp", {"eta": 0.0}),
    ("dpmpp_2m_cfgpp", {}),
]
COMPARED = {"dpm_fast", "dpm_adaptive", "restart", "heunpp2", "ipndm"}
"""Those that are only compared with their peers: of mixed orders, or made for a few uneven steps."""


@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize(("name", "options"), ODE)
def test_order(name: str, options: dict[str, Any], schedule: Any) -> None:
    warm = 4 if ("ancestral" not in name or "multistep" in name) and SAMPLERS[name].order > 1 else 0
    coarse, fine = (error(name, path(schedule, steps), warm, **options) for steps in (160, 320))
    assert fine < coarse
    assert math.log2(coarse / fine) == pytest.approx(SAMPLERS[name].order, abs=0.35)


@pytest.mark.parametrize("name", ["plms", "pndm"])
def test_pseudo_methods_are_of_order_two(name: str) -> None:
    """At even training steps, as they are made for; the schedule between is smooth only in the large."""
    errors = []
    for steps in (24, 48, 96):
        times = [960 - 960 * i // steps + 20 for i in range(steps + 1)]
        points = Points([VP.trained(time) for time in times], VP)
        errors.append(error(name, points, 0))
    assert math.log2(errors[0] / errors[2]) / 2 > 1.8


def test_every_sampler_has_its_order_tested() -> None:
    assert {name for name, _ in ODE} == set(SAMPLERS) - {"plms", "pndm", "ddpm", "lcm", "tcd"} - COMPARED


def law(drive: Any, method: Sampler, points: Points) -> tuple[float, float]:
    """The exact mean and standard deviation of what a sampler gives. The denoiser is affine, so x is a
    constant plus a sum of coefficients times draws: those are run through it instead of numbers."""

    def coefficients(x: np.ndarray, point: Point) -> np.ndarray:
        d = denoised(x, point)
        d[1:] -= denoised(0.0, point)
        return d

    def source(draw: int) -> np.ndarray:
        unit = np.zeros(1000)
        unit[1 + draw] = 1
        return unit

    x, _ = drive(method, Run.begin(source, points[0]), points, coefficients)
    return x[0], math.sqrt((x[1:] ** 2).sum())


@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(
    "name",
    [name for name in SAMPLERS if SAMPLERS[name].stochastic and not SAMPLERS[name].adaptive] + ["ddim"],
)
def test_law(drive: Any, name: str, eta: float, schedule: Any) -> None:
    """The more steps, the nearer a stochastic sampler is to the data's own law, on flows as well."""
    options = {"eta": eta} if "eta" in SAMPLERS[name].options else {}
    method = sampler(name, **options)
    errors = []
    for steps in (50, 200):
        mean, std = law(drive, method, points_for(schedule, steps, "euler", "simple"))
        assert mean == pytest.approx(MEAN, abs=0.02)
        errors.append(abs(std / math.sqrt(VARIANCE) - 1))
    if name not in ("lcm", "tcd"):  # They jump far each time: right only for models made for it.
        assert errors[1] < 0.04
        # DPM fast ends at the least noise that the network knows, from which more steps lead no nearer.
        assert errors[1] < (max(errors[0] / 2, 2e-3) if name == "dpm_fast" else errors[0] / 2)


@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn_keeps_the_law(drive: Any, name: str, schedule: Any) -> None:
    errors = []
    for steps in (50, 200):
        points = points_for(schedule, steps, "euler", "simple")
        mean, std = law(drive, sampler(name, s_churn=10.0), points)
        assert mean == pytest.approx(MEAN, abs=0.02)
        errors.append(abs(std / math.sqrt(VARIANCE) - 1))
    assert errors[1] < 0.04
    assert errors[1] < max(errors[0] / 2, 1e-4)
