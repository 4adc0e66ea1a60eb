"""Every schedule against k-diffusion, diffusers, or the formula written independently in numpy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from darkroom.diffusion import (
    CLEAN,
    SCHEDULES,
    Discrete,
    FlowSchedule,
    NoiseSchedule,
    Points,
    points_for,
    schedule_info,
    tail,
)
from darkroom.diffusion.beta import beta_quantile
from darkroom.errors import InvalidRequest

VP = Discrete()
FLOW = FlowSchedule(3.0)
ZERO_SNR = Discrete(zero_terminal_snr=True)
STEPS = [1, 2, 7, 20, 50]


def levels(points: Points) -> np.ndarray:
    assert points[-1] == CLEAN
    return np.array([points.schedule.level(p) for p in points[:-1]])


def table(schedule: NoiseSchedule) -> np.ndarray:
    """The trained levels, least first, from the definition."""
    if isinstance(schedule, FlowSchedule):
        u = np.arange(1, 1001) / 1000
        return schedule.shift * u / (1 + (schedule.shift - 1) * u)
    bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    return np.sqrt((1 - bar) / bar)


@pytest.mark.peer
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("karras", "karras", {}),
        ("karras", "karras", {"rho": 5.0}),
        ("exponential", "exponential", {}),
        ("polyexponential", "polyexponential", {}),
        ("polyexponential", "polyexponential", {"rho": 0.7}),
    ],
)
def test_against_k_diffusion(
    k_diffusion: Any, double: None, schedule: Any, name: str, theirs: str, options: Any, steps: int
) -> None:
    peer = getattr(k_diffusion, f"get_sigmas_{theirs}")(steps, schedule.lowest, schedule.highest, **options)
    np.testing.assert_allclose(
        levels(points_for(schedule, steps, "euler", name, **options)), peer[:-1], rtol=1e-12
    )


def test_range_of_levels_can_be_set() -> None:
    for name in ("karras", "exponential", "polyexponential", "kl_optimal", "normal", "sgm_uniform"):
        got = levels(points_for(VP, 6, "euler", name, sigma_min=0.1, sigma_max=8.0))
        assert got[0] == pytest.approx(8)
        if name != "sgm_uniform":
            assert got[-1] == pytest.approx(0.1)
        with pytest.raises(InvalidRequest, match="need 0 < sigma_min < sigma_max"):
            points_for(VP, 6, "euler", name, sigma_min=9.0, sigma_max=8.0)


@pytest.mark.parametrize("steps", STEPS)
def test_normal_and_sgm_uniform(steps: int) -> None:
    """k-diffusion: fractions of training steps, the logarithm of sigma linear between them."""
    logs = np.log(table(VP))
    for name, times in (
        ("normal", np.linspace(999, 0, steps)),
        ("sgm_uniform", np.linspace(999, 0, steps + 1)[:-1]),
    ):
        points = points_for(VP, steps, "euler", name)
        np.testing.assert_allclose(
            levels(points), np.exp(np.interp(times, np.arange(1000), logs)), rtol=1e-10
        )
        np.testing.assert_allclose([p.time for p in points[:-1]], times, atol=1e-9)


@pytest.mark.peer
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_normal_on_a_flow_is_that_of_diffusers(diffusers_scheduler: Any, steps: int, shift: float) -> None:
    peer = diffusers_scheduler("FlowMatchEulerDiscreteScheduler", shift=shift)
    peer.set_timesteps(steps)
    points = points_for(FlowSchedule(shift), steps, "euler", "normal")
    np.testing.assert_allclose(levels(points), peer.sigmas[:-1], rtol=1e-12)
    np.testing.assert_allclose([p.time for p in points[:-1]], peer.timesteps, rtol=1e-12)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_simple(schedule: Any, steps: int) -> None:
    picked = [-(1 + int(i * 1000 / steps)) for i in range(steps)]
    np.testing.assert_allclose(
        levels(points_for(schedule, steps, "euler", "simple")), table(schedule)[picked], rtol=1e-10
    )


@pytest.mark.parametrize("steps", [1, 2, 20, 50])
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_ddim_uniform(schedule: Any, steps: int) -> None:
    """ComfyUI's, for the numbers of steps that divide 1000; it takes one more for some others."""
    picked = np.arange(1, 1000, 1000 // steps)[::-1]
    np.testing.assert_allclose(
        levels(points_for(schedule, steps, "ddim", "ddim_uniform")), table(schedule)[picked], rtol=1e-10
    )


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 60])
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (0.5, 0.9)])
def test_beta(schedule: Any, steps: int, alpha: float, beta: float) -> None:
    places = stats.beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), alpha, beta)
    picked = np.rint(places * 999).astype(int)
    assert len(set(picked)) == steps
    points = points_for(schedule, steps, "euler", "beta", alpha=alpha, beta=beta)
    np.testing.assert_allclose(levels(points), table(schedule)[picked], rtol=1e-10)


@given(u=st.floats(1e-6, 1 - 1e-6), a=st.floats(0.5, 5), b=st.floats(0.5, 5))
@settings(max_examples=50)
def test_beta_quantile(u: float, a: float, b: float) -> None:
    """Compared as shares, since where the density is tiny one share covers many places."""
    assert stats.beta.cdf(beta_quantile(u, a, b), a, b) == pytest.approx(u, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("steps", [2, 7, 20, 50])
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_kl_optimal(schedule: Any, steps: int) -> None:
    share = np.arange(steps) / (steps - 1)
    low, high = np.arctan(table(schedule)[[0, -1]])
    np.testing.assert_allclose(
        levels(points_for(schedule, steps, "euler", "kl_optimal")),
        np.tan(share * low + (1 - share) * high),
        rtol=1e-9,
    )


@pytest.mark.peer
@pytest.mark.parametrize(
    ("family", "peer"), [("sd1", "StableDiffusionSigmas"), ("sdxl", "StableDiffusionXLSigmas")]
)
def test_align_your_steps_tables(family: str, peer: str) -> None:
    from diffusers.schedulers import AysSchedules

    got = levels(points_for(VP, 10, "euler", "align_your_steps", table=family))
    np.testing.assert_allclose(got, AysSchedules[peer][:-1], rtol=1e-12)


@pytest.mark.parametrize("steps", STEPS)
def test_align_your_steps_between(steps: int) -> None:
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
    logs = np.interp(np.linspace(0, 10, steps + 1), np.arange(11), np.log(sigmas))
    np.testing.assert_allclose(
        levels(points_for(VP, steps, "euler", "align_your_steps")), np.exp(logs)[:-1], rtol=1e-12
    )
    on_flow = points_for(FLOW, steps, "euler", "align_your_steps")
    np.testing.assert_allclose([p.sigma / p.alpha for p in on_flow[:-1]], np.exp(logs)[:-1], rtol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("steps", [1, 3, 7, 20, 50, 400])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("offset", [0, 1])
def test_spacings_of_diffusers(diffusers_scheduler: Any, spacing: str, steps: int, offset: int) -> None:
    for kind, drop in (("DDIMScheduler", False), ("DPMSolverMultistepScheduler", True)):
        peer = diffusers_scheduler(
            kind, beta_schedule="scaled_linear", timestep_spacing=spacing, steps_offset=offset
        )
        peer.set_timesteps(steps)
        if spacing == "linspace" and steps == 1 and not drop:
            continue  # diffusers' one step starts at the least noise, ours at the most.
        options: dict[str, Any] = {} if spacing == "trailing" else {"drop_last": drop}
        if spacing == "leading":
            options["steps_offset"] = offset
        points = points_for(VP, steps, "ddim", spacing, **options)
        assert [p.time for p in points[:-1]] == peer.timesteps.tolist()


@pytest.mark.peer
@pytest.mark.parametrize("steps", [1, 3, 4, 8, 50])
@pytest.mark.parametrize("original", [50, 100])
def test_lcm(diffusers_scheduler: Any, steps: int, original: int) -> None:
    peer = diffusers_scheduler("LCMScheduler")
    peer.set_timesteps(steps, original_inference_steps=original)
    points = points_for(VP, steps, "lcm", original_steps=original)
    assert [p.time for p in points[:-1]] == peer.timesteps.tolist()


def test_lcm_has_only_so_many_steps() -> None:
    with pytest.raises(InvalidRequest, match="at most original_steps = 50"):
        points_for(VP, 51, "lcm")


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("schedule", [VP, ZERO_SNR, FLOW], ids=["vp", "zero_snr", "flow"])
@given(steps=st.one_of(st.integers(1, 50), st.sampled_from([333, 334, 500, 501, 999, 1000])))
@settings(max_examples=10)
def test_any_number_of_steps_goes_down(name: str, schedule: Any, steps: int) -> None:
    if name == "lcm" and steps > 50:
        return
    points = points_for(schedule, steps, "euler", name)
    assert len(points) == steps + 1
    got = [schedule.level(p) for p in points]
    if name == "leading" and steps == 1000:
        got = got[:-1]  # Its first training step is both its last point and its end.
    assert all(a > b for a, b in itertools.pairwise(got))


def test_pure_noise_is_where_zero_snr_starts() -> None:
    for name in ("normal", "karras", "simple", "trailing", "linspace", "beta", "sgm_uniform"):
        assert points_for(ZERO_SNR, 9, "euler", name)[0] == ZERO_SNR.table[-1]


@pytest.mark.parametrize("steps", [1, 4, 10, 30])
@given(strength=st.floats(0.01, 1))
def test_strength(steps: int, strength: float) -> None:
    points = points_for(VP, steps, "euler")
    kept = min(int(steps * strength), steps)
    if kept:
        assert list(tail(points, strength)) == list(points)[steps - kept :]
    else:
        with pytest.raises(InvalidRequest, match="leaves none"):
            tail(points, strength)
    encode = int(min(strength, 0.999) * steps)  # A1111's setup_img2img_steps.
    assert list(tail(points, strength, convention="a1111")) == list(points)[steps - encode - 1 :]


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan")])
def test_strength_outside(strength: float) -> None:
    with pytest.raises(InvalidRequest, match="strength is"):
        tail(points_for(VP, 10, "euler"), strength)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "sgm_uniform"),
        ("Align Your Steps", "align_your_steps"),
        ("KL Optimal", "kl_optimal"),
        ("uniform", "normal"),
        ("DDIM", "ddim_uniform"),
        ("ddim_uniform", "ddim_uniform"),
    ],
)
def test_names(written: str, name: str) -> None:
    assert schedule_info(written).name == name


def test_unknown_name() -> None:
    with pytest.raises(InvalidRequest, match="unknown schedule 'karas': did you mean 'karras'"):
        schedule_info("karas")


def test_all_are_described() -> None:
    for name, info in SCHEDULES.items():
        assert info.name == name
        assert info.label
        assert info.description.endswith(".")
        assert torch.tensor([p.time for p in info.function(VP, 5)]).isfinite().all()
