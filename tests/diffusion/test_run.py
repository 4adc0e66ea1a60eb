"""Runs: dropped and rebuilt anywhere, counted beforehand, driven by hand, finite at both ends."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.diffusion import (
    SAMPLERS,
    Discrete,
    Estimate,
    FlowSchedule,
    Point,
    Run,
    SeededNoise,
    Snapshot,
    count_calls,
    points_for,
    sampler,
)

VP = Discrete()
ZERO_SNR = Discrete(zero_terminal_snr=True)
FLOW = FlowSchedule(3.0)
SCHEDULES = pytest.mark.parametrize("schedule", [VP, ZERO_SNR, FLOW], ids=["vp", "zero_snr", "flow"])
NAMES = pytest.mark.parametrize("name", SAMPLERS)
SHAPE = (1, 2, 4, 4)


def options(name: str) -> dict[str, float]:
    """Options that make a sampler use all its state."""
    if "s_churn" in SAMPLERS[name].options:
        return {"s_churn": 2.0}
    return {"eta": 0.7} if "eta" in SAMPLERS[name].options else {}


@SCHEDULES
@NAMES
def test_dropped_and_rebuilt_anywhere_gives_the_same_bytes(
    mixture: Any, drive: Any, name: str, schedule: Any
) -> None:
    method = sampler(name, **options(name))
    points = points_for(schedule, 7, name)
    whole = Run.begin(SeededNoise(5, SHAPE), points[0])
    expected, asked = drive(method, whole, points, mixture)
    assert expected.isfinite().all()
    for kill in range(1, len(asked) + 1):
        run = Run.begin(SeededNoise(5, SHAPE), points[0])
        steps = method(run, points)
        x, point = next(steps)
        for _ in range(kill - 1):
            x, point = steps.send(Estimate(mixture(x, point)))
        steps.close()
        assert run.saved is not None
        kept = Snapshot(*copy.deepcopy(tuple(run.saved)))
        again = Run.restore(kept, SeededNoise(5, SHAPE))
        assert torch.equal(drive(method, again, points, mixture)[0], expected)


@NAMES
def test_a_snapshot_is_plain_data_and_is_not_changed_later(mixture: Any, name: str) -> None:
    def flatten(value: Any) -> list[Any]:
        return [leaf for item in value for leaf in flatten(item)] if isinstance(value, tuple) else [value]

    points = points_for(VP, 6, name)
    run = Run.begin(SeededNoise(5, SHAPE), points[0])
    steps = sampler(name)(run, points)
    question = next(steps)
    kept = []
    try:
        while True:
            assert run.saved is not None
            kept.append((run.saved, copy.deepcopy(run.saved)))
            question = steps.send(Estimate(mixture(*question)))
    except StopIteration:
        pass
    for saved, copied in kept:
        assert isinstance(saved.history, tuple)
        for now, then in zip(flatten(tuple(saved)), flatten(tuple(copied)), strict=True):
            assert isinstance(now, torch.Tensor | int | float)
            assert torch.equal(torch.as_tensor(now), torch.as_tensor(then))


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("euler", 10),
        ("euler_ancestral", 10),
        ("heun", 19),
        ("dpm_2", 19),
        ("dpm_2_ancestral", 19),
        ("lms", 10),
        ("dpmpp_2s_ancestral", 19),
        ("dpmpp_2m", 10),
        ("dpmpp_sde", 19),
        ("dpmpp_2m_sde", 10),
        ("dpmpp_2m_sde_heun", 10),
        ("dpmpp_3m_sde", 10),
        ("ddim", 10),
        ("ddpm", 10),
        ("plms", 11),
        ("pndm", 19),
        ("deis", 10),
        ("unipc", 10),
        ("lcm", 10),
        ("tcd", 10),
        ("dpm_fast", 10),
        ("restart", 19),
        ("heunpp2", 27),
        ("ipndm", 10),
        ("res_multistep", 10),
        ("res_multistep_ancestral", 10),
        ("ddim_cfgpp", 10),
        ("euler_cfgpp", 10),
        ("euler_ancestral_cfgpp", 10),
        ("dpmpp_2s_ancestral_cfgpp", 19),
        ("dpmpp_2m_cfgpp", 10),
    ],
)
def test_calls_of_ten_steps(mixture: Any, drive: Any, name: str, calls: int) -> None:
    for schedule in (VP, ZERO_SNR, FLOW):
        points = points_for(schedule, 10, name)
        # From the pure noise of zero terminal SNR there is no slope to correct.
        slopes = {"heun": 1, "dpm_2": 1, "dpm_2_ancestral": 1, "restart": 1, "heunpp2": 2}
        fewer = slopes.get(name, 0) if schedule is ZERO_SNR else 0
        assert count_calls(sampler(name), points) == calls - fewer
        _, asked = drive(sampler(name), Run.begin(SeededNoise(1, SHAPE), points[0]), points, mixture)
        assert len(asked) == calls - fewer


def test_every_sampler_is_counted() -> None:
    counted = test_calls_of_ten_steps.pytestmark[0].args[1]  # type: ignore[attr-defined]
    # An adaptive one takes what it needs.
    assert {name for name, _ in counted} == {name for name, info in SAMPLERS.items() if not info.adaptive}


@NAMES
def test_calls_up_to_a_step(name: str) -> None:
    """What a resumed run has behind it: calls are not the same in every step."""
    if name in ("dpm_fast", "dpm_adaptive"):  # They count several steps at once.
        return
    points = points_for(VP, 6, name)
    run = Run(0.0, source=lambda draw: 0.0)
    steps = sampler(name)(run, points)
    next(steps)
    calls = 0
    while run.step < 4:
        steps.send(Estimate(0.0))
        calls += 1
    assert count_calls(sampler(name), points, 4) == calls
    assert count_calls(sampler(name), points, 0) == 0
    assert count_calls(sampler(name), points, 6) == count_calls(sampler(name), points)


@SCHEDULES
@NAMES
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_finite_from_pure_noise_to_clean(
    mixture: Any, drive: Any, name: str, schedule: Any, steps: int
) -> None:
    points = points_for(schedule, steps, name, "trailing")
    run = Run.begin(SeededNoise(2, SHAPE), points[0])
    x, asked = drive(sampler(name), run, points, mixture)
    assert x.isfinite().all()
    if (
        name != "dpm_fast" or steps > 3
    ):  # Of high order in noise, it overshoots when it takes the way in a leap or two.
        assert x.abs().max() < 3
    assert all(schedule.first - 1 <= point.time <= schedule.last for point in asked)
    assert run.step == steps


@NAMES
def test_works_on_arrays_too(mixture: Any, drive: Any, name: str) -> None:
    """+ - * / are all a sampler asks of x, so numpy gives what torch gives."""
    points = points_for(VP, 6, name)
    noise = SeededNoise(3, SHAPE, dtype=torch.float64)

    def on_arrays(x: np.ndarray, point: Point) -> np.ndarray:
        return mixture(torch.from_numpy(x), point).numpy()

    tensors, _ = drive(sampler(name), Run.begin(noise, points[0]), points, mixture)
    arrays, _ = drive(
        sampler(name), Run.begin(lambda draw: noise(draw).numpy(), points[0]), points, on_arrays
    )
    np.testing.assert_allclose(arrays, tensors.numpy(), rtol=1e-12, atol=1e-12)


@SCHEDULES
@NAMES
def test_single_precision_is_enough(mixture: Any, drive: Any, name: str, schedule: Any) -> None:
    if SAMPLERS[name].adaptive:  # Its steps depend on the last bits.
        return
    points = points_for(schedule, 20, name)
    ends = []
    for dtype in (torch.float32, torch.float64):
        noise = SeededNoise(4, (1, 4, 16, 16), dtype=dtype)
        ends.append(drive(sampler(name), Run.begin(noise, points[0]), points, mixture)[0].double())
    assert (ends[0] - ends[1]).abs().max() < 2e-4 * ends[1].abs().max()


def test_begin_from_a_picture() -> None:
    noise = SeededNoise(3, SHAPE)
    point = points_for(VP, 10, "euler")[6]
    picture = torch.full(SHAPE, 0.3)
    run = Run.begin(noise, point, picture)
    torch.testing.assert_close(run.x, point.alpha * picture + point.sigma * noise(0))
    assert run.draws == 1


def test_noise_must_come_from_somewhere() -> None:
    points = points_for(VP, 3, "euler_ancestral")
    steps = sampler("euler_ancestral")(Run(torch.zeros(SHAPE)), points)
    next(steps)
    with pytest.raises(ValueError, match="give the Run a source"):
        steps.send(Estimate(torch.zeros(SHAPE)))


def test_the_example_of_the_module_runs(mixture: Any, drive: Any) -> None:
    from darkroom.diffusion.samplers import euler

    points = points_for(VP, 5, "euler")
    start = SeededNoise(1, SHAPE)(0)
    run = Run(start)
    steps = euler(run, points)
    x, point = next(steps)
    try:
        while True:
            x, point = steps.send(Estimate(mixture(x, point)))
    except StopIteration:
        picture = run.x
    assert torch.equal(picture, drive(euler, Run(start), points, mixture)[0])


class TestSeededNoise:
    def test_is_torch_randn_called_again_and_again(self) -> None:
        generator = torch.Generator().manual_seed(42)
        noise = SeededNoise(42, SHAPE)
        for draw in range(4):
            assert torch.equal(noise(draw), torch.randn(SHAPE, generator=generator))

    def test_the_same_draw_is_the_same_noise_in_any_order(self) -> None:
        noise, fresh = SeededNoise(7, (1, 3, 5, 5)), SeededNoise(7, (1, 3, 5, 5))
        drawn = [noise(draw) for draw in range(6)]
        for draw in (5, 2, 2, 0, 4, 3, 1):
            assert torch.equal(fresh(draw), drawn[draw])

    def test_leaves_the_global_generator_alone(self) -> None:
        before = torch.random.get_rng_state()
        SeededNoise(7, SHAPE)(3)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_dtype_is_applied_after_drawing(self) -> None:
        wide = SeededNoise(7, SHAPE, dtype=torch.bfloat16)(1)
        assert wide.dtype == torch.bfloat16
        assert torch.equal(wide, SeededNoise(7, SHAPE)(1).to(torch.bfloat16))

    def test_a_picture_is_noised_alike_alone_and_in_company(self) -> None:
        alone = SeededNoise(8, SHAPE)(2)
        batch = [SeededNoise(seed, SHAPE) for seed in (7, 8, 9)]
        assert torch.equal(torch.cat([noise(2) for noise in batch])[1:2], alone)
