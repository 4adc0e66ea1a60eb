"""Samplers against k-diffusion's, in float64, with the same network and the same noises.

k-diffusion moves y = x / alpha at sigma / alpha. Given the levels t of a flow and its denoiser instead,
the same functions are what ComfyUI runs on flow models.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from darkroom.diffusion import Discrete, FlowSchedule, Point, Run, points_for, sampler

pytestmark = pytest.mark.peer

VP = Discrete()
FLOW = FlowSchedule(shift=2.0)


def peer_model(mixture: Any, schedule: Any) -> Any:
    def model(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = float(sigma[0])
        if isinstance(schedule, FlowSchedule):
            return mixture(y, Point(1 - level, level, 0))
        alpha = 1 / math.hypot(1, level)
        return mixture(y * alpha, Point(alpha, level * alpha, 0))

    return model


def compare(
    k_diffusion: Any,
    mixture: Any,
    drive: Any,
    noises: Any,
    schedule: Any,
    ours: str,
    theirs: str,
    **kwargs: Any,
) -> None:
    steps = kwargs.pop("steps", 9)
    spacing = kwargs.pop("spacing", "karras")
    peer_only = kwargs.pop("peer", {})
    points = points_for(schedule, steps, "euler", spacing)
    run = Run.begin(noises, points[0])
    start = run.x / schedule.scale(points[0])
    x, _ = drive(sampler(ours, **kwargs), run, points, mixture)
    sigmas = torch.tensor([schedule.level(p) for p in points], dtype=torch.float64)
    draws = itertools.count(1)
    if "noise_sampler" in getattr(k_diffusion, theirs).__wrapped__.__code__.co_varnames:
        peer_only["noise_sampler"] = lambda a, b: noises(next(draws))
    y = getattr(k_diffusion, theirs)(
        peer_model(mixture, schedule), start, sigmas, disable=True, **kwargs, **peer_only
    )
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "lms"])
def test_deterministic(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, schedule: Any, name: str, steps: int
) -> None:
    compare(k_diffusion, mixture, drive, noises, schedule, name, f"sample_{name}", steps=steps)


@pytest.mark.parametrize("spacing", ["normal", "exponential", "simple"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_dpmpp_2m(k_diffusion: Any, mixture: Any, drive: Any, noises: Any, steps: int, spacing: str) -> None:
    compare(
        k_diffusion, mixture, drive, noises, VP, "dpmpp_2m", "sample_dpmpp_2m", steps=steps, spacing=spacing
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_lms_order(k_diffusion: Any, mixture: Any, drive: Any, noises: Any, order: int) -> None:
    compare(k_diffusion, mixture, drive, noises, VP, "lms", "sample_lms", order=order)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("s_noise", [1.0, 1.1])
@pytest.mark.parametrize(
    "name",
    [
        "euler_ancestral",
        "dpm_2_ancestral",
        "dpmpp_2s_ancestral",
        "dpmpp_sde",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
    ],
)
def test_stochastic(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, name: str, s_noise: float, eta: float
) -> None:
    compare(
        k_diffusion, mixture, drive, noises, VP, name, f"sample_{name}", eta=eta, s_noise=s_noise, steps=8
    )


def test_dpmpp_2m_sde_heun(k_diffusion: Any, mixture: Any, drive: Any, noises: Any) -> None:
    theirs = {"peer": {"solver_type": "heun"}}
    compare(
        k_diffusion, mixture, drive, noises, VP, "dpmpp_2m_sde_heun", "sample_dpmpp_2m_sde", eta=0.7, **theirs
    )


def test_dpmpp_sde_r(k_diffusion: Any, mixture: Any, drive: Any, noises: Any) -> None:
    compare(k_diffusion, mixture, drive, noises, VP, "dpmpp_sde", "sample_dpmpp_sde", r=1 / 3)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """k-diffusion draws at every step even where it does not churn, we only where we do: with one noise
    for all draws the two can be compared on a part of the levels."""
    same = noises(0)
    monkeypatch.setattr(k_diffusion.torch, "randn_like", lambda x: same)
    options = {"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 9.0, "s_noise": 1.007}
    compare(k_diffusion, mixture, drive, lambda draw: same, VP, name, f"sample_{name}", **options)
