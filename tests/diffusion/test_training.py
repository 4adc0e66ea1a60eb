"""The mathematics of a training step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from darkroom.diffusion import (
    CLEAN,
    Discrete,
    Epsilon,
    Flow,
    FlowSchedule,
    Sample,
    SeededNoise,
    Velocity,
    logit_normal,
    min_snr,
    points_for,
    rows,
    snr,
    spread,
)
from darkroom.diffusion.run import Run
from darkroom.diffusion.samplers import heun

VP = Discrete()
FLOW = FlowSchedule()


@given(offset=st.floats(0, 1, exclude_max=True), count=st.integers(1, 200))
def test_spread_has_one_in_each_part(offset: float, count: int) -> None:
    assert sorted(int(u * count + 1e-9) % count for u in spread(offset, count)) == list(range(count))


@given(u=st.floats(0.001, 0.999), mean=st.floats(-2, 2), std=st.floats(0.3, 2))
def test_logit_normal_has_its_distribution(u: float, mean: float, std: float) -> None:
    t = logit_normal(u, mean, std)
    assert stats.norm.cdf((math.log(t) - math.log1p(-t) - mean) / std) == pytest.approx(u, rel=1e-6)


def test_logit_normal_is_finite_at_the_ends() -> None:
    assert 0 < logit_normal(0.0) < logit_normal(1.0) < 1


def test_uniform_draws_cover_the_training_steps_evenly() -> None:
    drawn = [VP.drawn(u).time for u in spread(0.3, 4000)]
    assert sorted(drawn) == sorted(4 * [float(i) for i in range(1000)])
    assert FLOW.drawn(0.25).sigma == 0.25
    assert FlowSchedule(3.0).drawn(0.5).sigma == 0.75


@given(step=st.integers(0, 999), gamma=st.floats(0.5, 20))
def test_min_snr_is_that_of_the_paper(step: int, gamma: float) -> None:
    point = VP.trained(step)
    ratio = snr(point)
    least = min(ratio, gamma)
    assert min_snr(Sample(), point, gamma) == pytest.approx(least)
    assert min_snr(Epsilon(), point, gamma) == pytest.approx(least / ratio)
    assert min_snr(Velocity(), point, gamma) == pytest.approx(least / (ratio + 1))


def test_min_snr_at_the_ends() -> None:
    assert snr(CLEAN) == math.inf
    assert min_snr(Flow(), CLEAN) == 0
    assert min_snr(Flow(), FLOW.at(1)) == 0
    assert min_snr(Velocity(), Discrete(zero_terminal_snr=True).trained(999)) == 0


@pytest.mark.parametrize(
    ("process", "schedule"),
    [
        (Epsilon(), VP),
        (Velocity(), Discrete(zero_terminal_snr=True)),
        (Flow(), FlowSchedule(2.0)),
        (Sample(), VP),
    ],
)
def test_what_training_minimises_is_what_sampling_needs(process: Any, schedule: Any, drive: Any) -> None:
    """Fit the best affine output at each of a few points by the training objective alone, then sample
    with it: the data's mean and spread come back."""
    points = points_for(schedule, 40, "heun", "normal")
    generator = torch.Generator().manual_seed(3)
    fitted = {}

    def network(x: torch.Tensor, point: Any) -> torch.Tensor:
        if point not in fitted:
            x0 = 0.5 + 0.4 * torch.randn(1, 1, 1, 20_000, generator=generator, dtype=torch.float64)
            noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
            at = rows([point], x0)
            scaled, _ = process.network_input(at.alpha * x0 + at.sigma * noise, at)
            design = torch.stack([scaled.flatten(), torch.ones(scaled.numel(), dtype=torch.float64)], 1)
            fitted[point] = torch.linalg.lstsq(design, process.target(x0, noise, at).reshape(-1, 1)).solution
        slope, offset = fitted[point].flatten()
        return process.denoised(slope * process.network_input(x, point)[0] + offset, x, point)

    noise = SeededNoise(1, (1, 1, 100, 200), dtype=torch.float64)
    x, _ = drive(heun, Run.begin(noise, points[0]), points, network)
    assert x.mean().item() == pytest.approx(0.5, abs=0.02)
    assert x.std().item() == pytest.approx(0.4, abs=0.04)
