"""Points, noise schedules and processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.diffusion import (
    CLEAN,
    Discrete,
    Epsilon,
    Flow,
    FlowSchedule,
    NoiseSchedule,
    Point,
    Points,
    Process,
    Sample,
    Velocity,
    betas,
    process,
    resolution_shift,
    rows,
)
from darkroom.errors import InvalidRequest, ModelError

VP = Discrete()
ZERO_SNR = Discrete(zero_terminal_snr=True)
SHIFTED = FlowSchedule(3.0)
SCHEDULES = [VP, ZERO_SNR, Discrete(betas("cosine")), Discrete(betas("linear", 1e-4, 0.02)), SHIFTED]


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(share=st.floats(0, 1))
def test_level_and_point_are_inverse(schedule: NoiseSchedule, share: float) -> None:
    level = schedule.lowest + share * (schedule.highest - schedule.lowest)
    point = schedule.at(level)
    assert schedule.level(point) == pytest.approx(level, rel=1e-12)
    if isinstance(schedule, FlowSchedule):
        assert point.alpha + point.sigma == 1
        assert point.time == 1000 * point.sigma
    else:
        assert math.hypot(point.alpha, point.sigma) == pytest.approx(1, abs=1e-14)
    assert schedule.first - 1 <= point.time <= schedule.last
    told = schedule.told(point.time)
    assert schedule.level(told) == pytest.approx(level, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_more_steps_are_more_noise(schedule: NoiseSchedule, a: float, b: float) -> None:
    span = schedule.last - schedule.first
    low, high = (schedule.trained(schedule.first + span * share) for share in sorted((a, b)))
    assert low.sigma <= high.sigma
    assert low.alpha >= high.alpha
    assert low.lam >= high.lam


@pytest.mark.parametrize("schedule", [VP, ZERO_SNR])
def test_whole_steps_keep_whole_times(schedule: Discrete) -> None:
    assert [schedule.trained(i).time for i in range(1000)] == [float(i) for i in range(1000)]
    for i in (0, 1, 500, 998, 999):
        assert schedule.at(schedule.levels[i]).time == i
        assert schedule.trained(i) == schedule.drawn((i + 0.5) / 1000)


def test_clean_and_pure_noise_are_finite() -> None:
    assert VP.at(0) == SHIFTED.at(0) == CLEAN
    assert ZERO_SNR.trained(999) == ZERO_SNR.at(1e9) == Point(0.0, 1.0, 999.0)
    assert SHIFTED.trained(1000) == SHIFTED.at(1.5) == Point(0.0, 1.0, 1000.0)
    assert ZERO_SNR.highest == 4096
    for point in (ZERO_SNR.trained(999), SHIFTED.trained(1000)):
        assert math.isfinite(point.lam)
    assert CLEAN.lam == math.inf


def test_beyond_the_trained_levels_time_stays_inside() -> None:
    assert VP.at(100).time == 999
    assert VP.at(100).sigma / VP.at(100).alpha == pytest.approx(100)
    assert VP.at(0.001).time == 0


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("zero", [False, True])
def test_betas_are_those_of_diffusers(diffusers_scheduler, kind: str, zero: bool) -> None:  # type: ignore[no-untyped-def]
    peer = diffusers_scheduler(
        "DDPMScheduler" if kind == "sigmoid" else "DDIMScheduler",
        beta_schedule=kind,
        beta_start=0.0005,
        beta_end=0.014,
        rescale_betas_zero_snr=zero,
    )
    ours = Discrete(betas(kind, 0.0005, 0.014), zero_terminal_snr=zero)
    bar = np.array([point.alpha**2 for point in ours.table])
    np.testing.assert_allclose(bar, peer.alphas_cumprod.numpy(), rtol=1e-9, atol=1e-15)


def test_sigmas_of_stable_diffusion() -> None:
    """The ends every k-diffusion user knows."""
    assert VP.lowest == pytest.approx(0.02917, rel=2e-4)
    assert VP.highest == pytest.approx(14.6146, rel=1e-5)


def test_flow_shift() -> None:
    assert FlowSchedule(1.0).trained(250).sigma == 0.25
    assert SHIFTED.trained(250).sigma == pytest.approx(3 * 0.25 / (1 + 2 * 0.25))
    assert resolution_shift(1024 * 1024, 512 * 512) == 2
    with pytest.raises(InvalidRequest, match="shift is 0"):
        FlowSchedule(0)


def test_slices_of_points_are_points() -> None:
    points = Points([VP.trained(999), VP.trained(500), CLEAN], VP)
    assert isinstance(points[1:], Points)
    assert list(points[1:]) == [VP.trained(500), CLEAN]
    assert points[1:].schedule is VP
    assert points[-1] is CLEAN


@pytest.mark.parametrize("bad", [-1, 1000, float("nan")])
def test_training_step_outside(bad: float) -> None:
    with pytest.raises(InvalidRequest, match="training step"):
        VP.trained(bad)
    with pytest.raises(InvalidRequest, match="training step"):
        SHIFTED.trained(bad + 1 if bad > 0 else bad)


def test_unknown_betas() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'cosine'"):
        betas("cosin")


CASES = [(Epsilon(), VP), (Velocity(), VP), (Velocity(), ZERO_SNR), (Sample(), VP), (Flow(), SHIFTED)]


@pytest.mark.parametrize(("model", "schedule"), CASES)
@given(u=st.floats(0.001, 1, exclude_max=True), x0=st.floats(-3, 3), noise=st.floats(-3, 3))
def test_the_right_output_gives_back_x0(
    model: Process, schedule: NoiseSchedule, u: float, x0: float, noise: float
) -> None:
    point = schedule.drawn(u)
    x = point.alpha * x0 + point.sigma * noise
    output = model.target(x0, noise, point)
    assert model.denoised(output, x, point) == pytest.approx(x0, abs=1e-9)
    wrong = model.denoised(output + 1, x, point)
    assert abs(wrong - x0) == pytest.approx(model.gain(point), abs=1e-9)
    assert model.network_input(x, point) == (x, point.time)


@pytest.mark.parametrize(("model", "schedule"), CASES)
def test_training_rows_are_sampling_points(model: Process, schedule: NoiseSchedule) -> None:
    points = [schedule.drawn(u) for u in (0.1, 0.4, 0.9)]
    x0 = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    at = rows(points, x0)
    assert at.alpha.shape == (3, 1, 1, 1)
    x = at.alpha * x0 + at.sigma * noise
    output = model.target(x0, noise, at)
    together = model.denoised(output, x, at)
    for i, point in enumerate(points):
        torch.testing.assert_close(output[i], model.target(x0[i], noise[i], point))
        torch.testing.assert_close(together[i], model.denoised(output[i], x[i], point))
        assert at.time[i] == point.time


def test_epsilon_says_why_not_from_pure_noise() -> None:
    point = ZERO_SNR.trained(999)
    for ask in (lambda: Epsilon().denoised(0.0, 1.0, point), lambda: Epsilon().gain(point)):
        with pytest.raises(ModelError, match="zero terminal SNR"):
            ask()


@pytest.mark.parametrize(
    ("name", "found"),
    [("epsilon", Epsilon()), ("v_prediction", Velocity()), ("flow_prediction", Flow()), ("sample", Sample())],
)
def test_process_by_name(name: str, found: Process) -> None:
    assert process(name) == found


def test_unknown_process() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'epsilon'"):
        process("epsilom")
