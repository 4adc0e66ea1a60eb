"""Samplers and their network times against diffusers' schedulers, in float64."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
import torch

from darkroom.diffusion import (
    Discrete,
    Estimate,
    FlowSchedule,
    Point,
    Points,
    Run,
    betas,
    from_levels,
    points_for,
    process,
    sampler,
)

pytestmark = pytest.mark.peer

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
VP = Discrete()


@pytest.fixture
def compare(mixture: Any, noises: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps a sampler and a scheduler side by side: each call's time and the latent it is made with,
    then the end. The network's output is what would have predicted the mixture's estimate."""

    def compare(
        scheduler: Any,
        ours: Any,
        points: Points,
        prediction: str = "epsilon",
        times: bool = True,
        **step: Any,
    ) -> None:
        model = process(prediction)

        def batch(draw: int) -> torch.Tensor:
            return noises(draw)[None, None]  # (1, 1, height, width), as schedulers expect.

        def network(x: torch.Tensor, point: Point) -> torch.Tensor:
            d = mixture(x, point)
            return model.target(d, (x - point.alpha * d) / point.sigma, point)

        draws = itertools.count(1)
        module = sys.modules[type(scheduler).__module__]
        if hasattr(module, "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: batch(next(draws)))
        run = Run.begin(batch, points[0])
        x = run.x
        steps = ours(run, points)
        asked = next(steps)
        for t in scheduler.timesteps:
            mine, point = asked
            torch.testing.assert_close(mine, x, rtol=1e-9, atol=1e-10)
            if times:
                assert point.time == pytest.approx(float(t), abs=1e-9)
            output = network(x, point)
            x = scheduler.step(output, t, x, return_dict=False, **step)[0]
            try:
                asked = steps.send(Estimate(model.denoised(output, mine, point)))
            except StopIteration:
                asked = (run.x, None)
        assert asked[1] is None, "we ask for more calls than the scheduler"
        torch.testing.assert_close(run.x, x, rtol=1e-9, atol=1e-9)

    return compare


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_ddim(diffusers_scheduler: Any, compare: Any, steps: int, prediction: str) -> None:
    scheduler = diffusers_scheduler(
        "DDIMScheduler",
        **SD,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    scheduler.set_timesteps(steps)
    compare(scheduler, sampler("ddim"), points_for(VP, steps, "ddim", "leading"), prediction)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise_to_a_clean_end(diffusers_scheduler: Any, compare: Any, eta: float) -> None:
    scheduler = diffusers_scheduler("DDIMScheduler", **SD, clip_sample=False, steps_offset=1)
    scheduler.set_timesteps(10)
    points = points_for(VP, 10, "ddim", "leading", clean_end=True)
    compare(scheduler, sampler("ddim", eta=eta), points, eta=eta)


def test_ddim_from_zero_terminal_snr(diffusers_scheduler: Any, compare: Any) -> None:
    scheduler = diffusers_scheduler(
        "DDIMScheduler",
        **SD,
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
    )
    scheduler.set_timesteps(8)
    schedule = Discrete(zero_terminal_snr=True)
    points = points_for(schedule, 8, "ddim", "trailing")
    assert points[0] == Point(0.0, 1.0, 999.0)
    compare(scheduler, sampler("ddim"), points, "v_prediction")


@pytest.mark.parametrize("beta", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_ddpm(diffusers_scheduler: Any, compare: Any, beta: str) -> None:
    scheduler = diffusers_scheduler(
        "DDPMScheduler", beta_schedule=beta, beta_start=0.001, beta_end=0.015, clip_sample=False
    )
    scheduler.set_timesteps(20)
    schedule = Discrete(betas(beta, 0.001, 0.015))
    compare(
        scheduler,
        sampler("ddpm"),
        points_for(schedule, 20, "ddpm", "leading", steps_offset=0, clean_end=True),
    )


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_plms_as_stable_diffusion_1_ships_it(diffusers_scheduler: Any, compare: Any, steps: int) -> None:
    scheduler = diffusers_scheduler(
        "PNDMScheduler", **SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    scheduler.set_timesteps(steps)
    points = points_for(VP, steps, "plms")
    assert all(point.time.is_integer() for point in points)
    compare(scheduler, sampler("plms"), points)


@pytest.mark.parametrize("steps", [5, 20])
def test_pndm(diffusers_scheduler: Any, compare: Any, steps: int) -> None:
    scheduler = diffusers_scheduler("PNDMScheduler", **SD, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(steps)
    compare(scheduler, sampler("pndm"), points_for(VP, steps, "pndm"))


@pytest.mark.parametrize("steps", [4, 16])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(diffusers_scheduler: Any, compare: Any, order: int, steps: int) -> None:
    scheduler = diffusers_scheduler("DEISMultistepScheduler", **SD, solver_order=order)
    scheduler.set_timesteps(steps)
    points = points_for(VP, steps, "deis", "linspace", drop_last=True)
    points = Points([*points[:-1], VP.trained(0)], VP)
    compare(scheduler, sampler("deis", order=order), points)


@pytest.mark.parametrize("steps", [1, 4, 16])
@pytest.mark.parametrize(("variant", "lower"), [("bh1", False), ("bh2", False), ("bh2", True)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(
    diffusers_scheduler: Any, compare: Any, order: int, variant: str, lower: bool, steps: int
) -> None:
    scheduler = diffusers_scheduler(
        "UniPCMultistepScheduler",
        **SD,
        solver_order=order,
        solver_type=variant,
        lower_order_final=lower,
        final_sigmas_type="zero" if lower else "sigma_min",
    )
    scheduler.set_timesteps(steps)
    points = points_for(VP, steps, "unipc", "linspace", drop_last=True)
    if not lower:  # At a clean end diffusers' bh1 and its higher orders give not-a-number.
        points = Points([*points[:-1], VP.trained(0)], VP)
    ours = sampler("unipc", order=order, variant=variant, lower_order_final=lower)
    compare(scheduler, ours, points)


@pytest.mark.parametrize("steps", [2, 8])
def test_unipc_on_a_flow(diffusers_scheduler: Any, compare: Any, steps: int) -> None:
    scheduler = diffusers_scheduler(
        "UniPCMultistepScheduler",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    )
    scheduler.set_timesteps(steps)
    points = from_levels(FlowSchedule(3.0), scheduler.sigmas.tolist()[:-1])
    compare(scheduler, sampler("unipc"), points, "flow", times=False)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [4, 20])
def test_dpmpp_2m(diffusers_scheduler: Any, compare: Any, steps: int, spacing: str) -> None:
    scheduler = diffusers_scheduler(
        "DPMSolverMultistepScheduler", **SD, timestep_spacing=spacing, steps_offset=1
    )
    scheduler.set_timesteps(steps)
    options = {"leading": {"drop_last": True, "clean_end": True}, "linspace": {"drop_last": True}}
    points = points_for(VP, steps, "dpmpp_2m", spacing, **options.get(spacing, {}))
    compare(scheduler, sampler("dpmpp_2m"), points)


@pytest.mark.parametrize(
    ("name", "algorithm", "kind"),
    [
        ("dpmpp_2m", "dpmsolver++", "midpoint"),
        ("dpmpp_2m_sde", "sde-dpmsolver++", "midpoint"),
        ("dpmpp_2m_sde_heun", "sde-dpmsolver++", "heun"),
    ],
)
def test_dpmpp_on_a_flow(
    diffusers_scheduler: Any, compare: Any, name: str, algorithm: str, kind: str
) -> None:
    scheduler = diffusers_scheduler(
        "DPMSolverMultistepScheduler",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
        algorithm_type=algorithm,
        solver_type=kind,
    )
    scheduler.set_timesteps(9)
    points = from_levels(FlowSchedule(3.0), scheduler.sigmas.tolist()[:-1])
    compare(scheduler, sampler(name), points, "flow", times=False)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_flow(diffusers_scheduler: Any, compare: Any, name: str, shift: float) -> None:
    kind = {"euler": "FlowMatchEulerDiscreteScheduler", "heun": "FlowMatchHeunDiscreteScheduler"}[name]
    scheduler = diffusers_scheduler(kind, shift=shift)
    scheduler.set_timesteps(8)
    compare(scheduler, sampler(name), points_for(FlowSchedule(shift), 8, name, "normal"), "flow")


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_euler_ancestral_on_a_flow(
    diffusers_scheduler: Any, mixture: Any, noises: Any, drive: Any, eta: float
) -> None:
    """diffusers adds 1e-12 to the divisors here, so the two agree to that and no further."""
    scheduler = diffusers_scheduler("LTXEulerAncestralRFScheduler", eta=eta)
    points = points_for(FlowSchedule(2.0), 8, "euler", "simple")
    scheduler.set_timesteps(sigmas=[FlowSchedule().level(p) for p in points])
    run = Run.begin(noises, points[0])
    x = run.x[None, None]
    draws = itertools.count(1)
    module = sys.modules[type(scheduler).__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda *args, **kwargs: noises(next(draws))[None, None])
        for t, p in zip(scheduler.timesteps, points, strict=False):
            if not p.sigma:
                break
            output = (x - mixture(x, p)) / p.sigma
            x = scheduler.step(output, t, x, return_dict=False)[0]
    ours, _ = drive(sampler("euler_ancestral", eta=eta), run, points, mixture)
    torch.testing.assert_close(ours, x[0, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_lcm(diffusers_scheduler: Any, compare: Any, steps: int) -> None:
    scheduler = diffusers_scheduler("LCMScheduler", **SD)
    scheduler.set_timesteps(steps)
    points = points_for(VP, steps, "lcm")
    assert [p.time for p in points[:-1]] == scheduler.timesteps.tolist()
    compare(scheduler, sampler("lcm"), points)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_tcd(diffusers_scheduler: Any, compare: Any, steps: int, eta: float) -> None:
    scheduler = diffusers_scheduler("TCDScheduler", **SD)
    scheduler.set_timesteps(steps)
    points = points_for(VP, steps, "tcd")
    assert [p.time for p in points[:-1]] == scheduler.timesteps.tolist()
    compare(scheduler, sampler("tcd", eta=eta), points, eta=eta)


def test_lcm_on_a_flow(diffusers_scheduler: Any, compare: Any) -> None:
    scheduler = diffusers_scheduler("FlowMatchLCMScheduler")
    points = points_for(FlowSchedule(), 4, "lcm", "simple")
    scheduler.set_timesteps(4, sigmas=[p.sigma for p in points[:-1]])
    compare(scheduler, sampler("lcm", timestep_scaling=float("inf")), points, "flow")
