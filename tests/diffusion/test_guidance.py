"""Guidance: which rows, and what becomes of their outputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.diffusion import (
    ClassifierFree,
    Discrete,
    Epsilon,
    Flow,
    FlowSchedule,
    NoiseSchedule,
    Process,
    Sample,
    Velocity,
)

GENERATOR = torch.Generator().manual_seed(6)
X, NEGATIVE, POSITIVE = (torch.randn(2, 4, 8, 8, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
CASES = pytest.mark.parametrize(
    ("process", "schedule"),
    [(Epsilon(), Discrete()), (Velocity(), Discrete()), (Sample(), Discrete()), (Flow(), FlowSchedule())],
)


def test_rows() -> None:
    point = Discrete().trained(500)
    assert ClassifierFree(1.0).rows(point) == ("positive",)
    assert ClassifierFree(7.5).rows(point) == ("negative", "positive")


@CASES
def test_at_scale_one_the_positive_row_is_the_estimate(process: Process, schedule: NoiseSchedule) -> None:
    point = schedule.trained(500)
    estimate = ClassifierFree(1.0).combine([POSITIVE], process, X, point)
    assert torch.equal(estimate.denoised, process.denoised(POSITIVE, X, point))
    assert estimate.unconditional is None


@CASES
@given(scale=st.floats(-2, 20))
def test_the_same_on_outputs_and_on_estimates(
    process: Process, schedule: NoiseSchedule, scale: float
) -> None:
    point = schedule.trained(300)
    estimate = ClassifierFree(scale).combine([NEGATIVE, POSITIVE], process, X, point)
    negative, positive = (process.denoised(each, X, point) for each in (NEGATIVE, POSITIVE))
    torch.testing.assert_close(estimate.denoised, negative + scale * (positive - negative))
    assert estimate.unconditional is not None
    assert torch.equal(estimate.unconditional, negative)


@pytest.mark.peer
@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescale_is_that_of_diffusers(rescale: float) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    point = Discrete().trained(300)
    guided = NEGATIVE + 7.5 * (POSITIVE - NEGATIVE)
    expected = rescale_noise_cfg(guided, POSITIVE, guidance_rescale=rescale)
    estimate = ClassifierFree(7.5, rescale).combine([NEGATIVE, POSITIVE], Velocity(), X, point)
    torch.testing.assert_close(estimate.denoised, Velocity().denoised(expected, X, point))


def test_rescale_in_full_gives_back_the_spread_of_the_positive_row() -> None:
    point = Discrete().trained(300)
    estimate = ClassifierFree(9.0, 1.0).combine([NEGATIVE, POSITIVE], Sample(), X, point)
    torch.testing.assert_close(estimate.denoised.std((1, 2, 3)), POSITIVE.std((1, 2, 3)))


def test_each_picture_is_rescaled_alone() -> None:
    point = Discrete().trained(300)
    guidance = ClassifierFree(9.0, 0.7)
    both = guidance.combine([NEGATIVE, POSITIVE], Velocity(), X, point).denoised
    one = guidance.combine([NEGATIVE[1:], POSITIVE[1:]], Velocity(), X[1:], point).denoised
    torch.testing.assert_close(both[1:], one)
