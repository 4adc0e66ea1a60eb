"""Every scheduler against diffusers' of that name: settings handed on, times told, latents after every call."""

from __future__ import annotations

import inspect
import json
import math
import warnings

import diffusers
import numpy as np
import pytest
import torch
from tests.tables import pairs

from darkroom.compat import diffusers as compat
from darkroom.compat.diffusers.schedulers import CLASSES, scheduler_of
from darkroom.diffusion import Estimate, Run
from darkroom.errors import InvalidRequest, ModelError

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # diffusers', of numpy
]

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD1 = {
    **SD,
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
EXPLODING = ("EulerDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "LMSDiscrete")
SOLVERS = ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep")
SHAPE = (2, 4, 6, 5)
# diffusers' of that name needs torchsde, and draws from a Brownian tree of its own.
COMPARABLE = sorted(set(CLASSES) - {"DPMSolverSDEScheduler"})


def denoised(x, alpha, sigma):
    """The exact denoiser of a mixture of two Gaussians, number by number."""
    parts = []
    for weight, mean, variance in ((0.3, -0.8, 0.02), (0.7, 0.6, 0.1)):
        total, off = alpha**2 * variance + sigma**2, x - alpha * mean
        log = math.log(weight) - 0.5 * math.log(total) - off**2 / (2 * total)
        parts.append((log, mean + alpha * variance / total * off))
    share = torch.sigmoid(parts[1][0] - parts[0][0])
    return (1 - share) * parts[0][1] + share * parts[1][1]


def compare(
    name,
    steps,
    *,
    eta=None,
    tolerance=1e-4,
    begin=0,
    announced=False,
    between=lambda x: x,
    extra=None,
    **settings,
):
    """Steps both side by side from one generator's noise, with a network that knows the mixture above; from the call
    `begin` on, which may be `announced`, and with what is done to latents `between` steps. `extra`: what steps take."""
    theirs = getattr(diffusers, name)(**settings)
    ours = CLASSES[name](**settings)
    theirs.set_timesteps(steps)
    ours.set_timesteps(steps)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=2e-3)
    assert ours.order == theirs.order
    noise, (mine, other) = torch.randn(SHAPE), (torch.Generator().manual_seed(3) for _ in range(2))
    x, y = (noise * float(getattr(each, "init_noise_sigma", 1.0)) for each in (ours, theirs))
    assert relative(x, y) <= tolerance
    known = {*inspect.signature(theirs.step).parameters}
    extra = {**({"eta": eta} if eta is not None else {}), **(extra or {})}
    if announced and hasattr(theirs, "set_begin_index"):
        for each in (ours, theirs):
            each.set_begin_index(begin)
    way = ours.way()
    for number in range(begin, len(theirs.timesteps)):
        asked, given = (
            each.scale_model_input(sample, each.timesteps[number])
            if hasattr(each, "scale_model_input")
            else sample
            for each, sample in ((ours, x), (theirs, y))
        )
        assert relative(asked, given) <= tolerance, f"before call {number}"

        def network(x, p=way.calls[number][1]):
            d = denoised(x, p.alpha, p.sigma)
            return way.process.target(d, (x - p.alpha * d) / p.sigma, p)

        x, y = (
            each.step(
                network(input),
                each.timesteps[number],
                sample,
                return_dict=False,
                **{**({"generator": own} if "generator" in known else {}), **extra},
            )[0]
            for each, input, sample, own in ((ours, asked, x, mine), (theirs, given, y, other))
        )
        if number + 1 == len(way.calls) or way.calls[number][0] != way.calls[number + 1][0]:
            x, y = between(x), between(y)
    assert relative(x, y) <= tolerance


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


SPACED = [
    *(f"{each}Scheduler" for each in (*EXPLODING, "EulerAncestralDiscrete", "DDIM", "DDPM", "PNDM")),
    *("DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"),
]


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize(("name", "steps"), pairs(SPACED, [1, 5, 30]))
def test_spacings(name, steps, spacing):
    own = {"PNDMScheduler": {"skip_prk_steps": True}}
    own |= {each: {"clip_sample": False} for each in ("DDIMScheduler", "DDPMScheduler")}
    compare(name, steps, **SD, timestep_spacing=spacing, steps_offset=1, **own.get(name, {}))


@pytest.mark.parametrize("bend", ["karras", "exponential", "beta"])
@pytest.mark.parametrize(("name", "steps"), pairs([*EXPLODING, *SOLVERS], [1, 6, 19]))
def test_bent_sigmas(name, steps, bend):
    compare(f"{name}Scheduler", steps, **SD, **{f"use_{bend}_sigmas": True})


@pytest.mark.parametrize(
    ("steps", "lower_order_final", "solver_type"), pairs([1, 6, 17], [True, False], ["midpoint", "heun"])
)
@pytest.mark.parametrize(
    ("algorithm", "orders", "ends"),
    [
        ("dpmsolver++", (1, 2, 3), ("zero", "sigma_min")),
        ("sde-dpmsolver++", (1, 2, 3), ("zero", "sigma_min")),
        ("dpmsolver", (1, 2, 3), ("sigma_min",)),
        ("sde-dpmsolver", (1, 2), ("sigma_min",)),
    ],
)
@pytest.mark.parametrize("form", ["Multi", "Single"])
def test_dpm_solver(form, algorithm, orders, ends, solver_type, lower_order_final, steps):
    if form == "Single" and algorithm == "sde-dpmsolver":
        pytest.skip("diffusers has no such scheduler")
    for order in orders:
        for end in ends:
            compare(
                f"DPMSolver{form}stepScheduler",
                steps,
                **SD,
                solver_order=order,
                algorithm_type=algorithm,
                solver_type=solver_type,
                lower_order_final=lower_order_final,
                final_sigmas_type=end,
            )


@pytest.mark.parametrize(
    "settings",
    [
        {"use_lu_lambdas": True},
        {"euler_at_final": True},
        {"thresholding": True},
        {"lambda_min_clipped": -2.0},
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    ],
)
def test_more_of_dpm_solver(settings):
    compare("DPMSolverMultistepScheduler", 12, **SD | settings)


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_models(shift, steps):
    compare("FlowMatchEulerDiscreteScheduler", steps, shift=shift)
    compare("FlowMatchHeunDiscreteScheduler", steps, shift=shift)
    compare("FlowMatchEulerDiscreteScheduler", steps, shift=shift, use_karras_sigmas=True)
    compare("FlowMatchEulerDiscreteScheduler", steps, shift=shift, stochastic_sampling=True)
    if steps > 1:
        compare("FlowMatchEulerDiscreteScheduler", steps, shift=shift, shift_terminal=0.1)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    for name in SOLVERS:
        compare(f"{name}Scheduler", steps, tolerance=3e-4, **flow)


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_distilled_models(steps):
    compare("LCMScheduler", steps)
    compare("LCMScheduler", steps, clip_sample=True, original_inference_steps=25)
    for eta in (0.0, 0.3, 1.0):
        compare("TCDScheduler", steps, eta=eta)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_bounds_of_the_estimate(steps, eta):
    compare("DDIMScheduler", steps, eta=eta)
    compare("DDIMScheduler", steps, eta=eta, clip_sample_range=0.5)
    compare("DDIMScheduler", steps, eta=eta, thresholding=True, sample_max_value=1.2)
    compare("DDPMScheduler", steps, clip_sample_range=0.3)
    compare("DDPMScheduler", steps, beta_schedule="sigmoid")
    compare("HeunDiscreteScheduler", steps, clip_sample=True)
    for name in SOLVERS:
        compare(f"{name}Scheduler", steps, thresholding=True)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize(
    "name",
    [
        *("DDIM", "DDPM", "EulerDiscrete", "HeunDiscrete", "LMSDiscrete", "LCM", "TCD"),
        *SOLVERS,
    ],
)
def test_predictions(name, prediction):
    compare(f"{name}Scheduler", 9, **SD, prediction_type=prediction)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("prk", [True, False])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_pndm(set_alpha_to_one, prk, prediction):
    compare(
        "PNDMScheduler",
        11,
        **SD,
        steps_offset=1,
        skip_prk_steps=not prk,
        set_alpha_to_one=set_alpha_to_one,
        prediction_type=prediction,
    )


@pytest.mark.parametrize(
    "name",
    [
        "DDIM",
        "DDPM",
        "DPMSolverMultistep",
        "EulerDiscrete",
        "EulerAncestralDiscrete",
        "UniPCMultistep",
        "LCM",
        "TCD",
    ],
)
def test_noise_schedules(name):
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    compare(f"{name}Scheduler", 6, **SD, **zero)
    compare(f"{name}Scheduler", 6, beta_schedule="linear")
    betas = [0.001 + 0.01 * i / 499 for i in range(500)]
    compare(f"{name}Scheduler", 6, trained_betas=betas, num_train_timesteps=500)


@pytest.mark.parametrize("name", ["EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete"])
def test_levels_above_4096(name):
    # Theirs are rounded where they are large.
    compare(f"{name}Scheduler", 6, beta_schedule="squaredcos_cap_v2", tolerance=1e-3)


@pytest.mark.parametrize("name", [name for name in COMPARABLE if "trained_betas" in CLASSES[name].defaults])
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_noise_that_drowns_the_picture(name, steps):
    scheduler = CLASSES[name](trained_betas=[0.08] * 1000)
    scheduler.set_timesteps(steps)
    assert all(map(math.isfinite, scheduler.way().times))


def test_levels_of_euler_even_in_their_logarithms():
    settings = {**SD, "interpolation_type": "log_linear"}
    compare("EulerDiscreteScheduler", 7, **settings)
    compare("EulerDiscreteScheduler", 7, **settings, use_karras_sigmas=True)
    compare(
        "EulerDiscreteScheduler", 7, **settings, timestep_spacing="leading", final_sigmas_type="sigma_min"
    )


def test_times_of_euler_that_are_no_training_steps():
    continuous = {**SD, "timestep_type": "continuous"}
    compare("EulerDiscreteScheduler", 7, **continuous)
    compare("EulerDiscreteScheduler", 7, **continuous, prediction_type="v_prediction")
    bent = {"use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 80.0}
    compare("EulerDiscreteScheduler", 7, **continuous, **bent, prediction_type="v_prediction")


@pytest.mark.parametrize(
    ("prediction", "variant", "steps"),
    pairs(["epsilon", "v_prediction", "sample"], ["bh1", "bh2"], [1, 4, 20]),
)
def test_unipc_of_noise_and_without_corrections(prediction, variant, steps):
    own = {**SD, "prediction_type": prediction, "solver_type": variant, "final_sigmas_type": "sigma_min"}
    for order in (1, 2, 3):
        compare("UniPCMultistepScheduler", steps, **own, solver_order=order, predict_x0=False)
        compare("UniPCMultistepScheduler", steps, **own, solver_order=order, disable_corrector=[0, 2, 3])
        compare(
            "UniPCMultistepScheduler",
            *(steps,),
            **{**own, "predict_x0": False, "disable_corrector": [1], "lower_order_final": False},
        )


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_small_log", "fixed_large"])
def test_variances_of_ddpm(kind):
    for steps in (1, 5, 30):
        compare("DDPMScheduler", steps, **SD, variance_type=kind, clip_sample=False)


@pytest.mark.parametrize("bend", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_ends_of_unipc(bend):
    compare("UniPCMultistepScheduler", 8, **SD, **{bend: True}, sigma_min=0.1, sigma_max=10.0)


def test_settings_that_a_class_has_not(caplog, tmp_path):
    for name in COMPARABLE:
        made = CLASSES[name].from_config(SD1, use_karras_sigmas=True)
        assert made.config.get("use_karras_sigmas", False) is ("use_karras_sigmas" in made.defaults)
    assert "DDIMScheduler has no setting 'use_karras_sigmas', which is left out" in caplog.text
    made, unused = compat.DDIMScheduler.from_config(SD1, foo=1, return_unused_kwargs=True)
    assert (type(made), unused) == (compat.DDIMScheduler, {"foo": 1})
    ours, theirs = (
        each.EulerDiscreteScheduler(500, 0.00085, 0.012, "scaled_linear") for each in (compat, diffusers)
    )
    assert ours.config.num_train_timesteps == len(ours) == len(theirs) == 500
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4)
    assert torch.allclose(ours.betas, theirs.betas, rtol=1e-4)
    ours.save_pretrained(tmp_path)
    again = compat.EulerDiscreteScheduler.from_pretrained(tmp_path / "scheduler_config.json")
    assert again.config.beta_end == 0.012
    with pytest.raises(InvalidRequest, match="takes 2 settings without names"):
        compat.FlowMatchEulerDiscreteScheduler(1000, 3.0, True)
    with pytest.raises(AttributeError, match=r"has no 'stepp' here: docs/compat.md"):
        _ = ours.stepp


def test_settings_are_pythons():
    settings = {"beta_start": torch.tensor(0.00085), "num_train_timesteps": np.int64(500)}
    made = compat.DDIMScheduler(**settings, clip_sample=np.bool_(False), steps_offset=torch.tensor(1))
    assert json.loads(json.dumps(made.config))["num_train_timesteps"] == 500
    assert made.config.clip_sample is False
    schedulers = (made, compat.DDIMScheduler.from_config(made.config))
    for each in schedulers:
        each.set_timesteps(5)
    assert torch.equal(*(each.timesteps for each in schedulers))
    trained = torch.linspace(0.001, 0.01, 1000, dtype=torch.float64)
    made = compat.EulerDiscreteScheduler(trained_betas=trained)
    made.set_timesteps(5)
    assert len(made.timesteps) == 5
    assert compat.DDIMScheduler(steps_offset=None).config.steps_offset == 0


def test_ends_of_euler():
    compare("EulerDiscreteScheduler", 8, **SD, final_sigmas_type="sigma_min")
    compare("EulerDiscreteScheduler", 8, **SD, use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0)


@pytest.mark.parametrize("first", COMPARABLE)
def test_settings_handed_on(first):
    """From one scheduler's config to any other's and back: what nobody gave is each class's own default."""
    for begun in (SD1, {}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, ours = (
                getattr(diffusers, first).from_config(dict(begun)),
                CLASSES[first].from_config(begun),
            )
            for second in COMPARABLE:
                expected = getattr(diffusers, second).from_config(theirs.config)
                found = CLASSES[second].from_config(ours.config)
                # What diffusers replaces on creation is here understood where it is used.
                for key in set(found.defaults) - {"algorithm_type", "solver_type"}:
                    assert found.config[key] == expected.config[key], f"{first} to {second}: {key}"
                back = CLASSES[first].from_config(found.config)
                again = getattr(diffusers, first).from_config(expected.config)
                for key in set(back.defaults) - {"algorithm_type", "solver_type"}:
                    assert back.config[key] == again.config[key], f"{first} to {second} and back: {key}"


@pytest.mark.parametrize(
    "first", ["DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"]
)
def test_solvers_made_of_one_another(first):
    for second in (f"{each}Scheduler" for each in SOLVERS):
        theirs = getattr(diffusers, second).from_config(getattr(diffusers, first)(**SD).config)
        ours = CLASSES[second].from_config(CLASSES[first](**SD).config)
        theirs.set_timesteps(7)
        ours.set_timesteps(7)
        assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist())


def test_custom_timesteps_and_sigmas():
    for name in (
        "EulerDiscrete",
        "HeunDiscrete",
        "DDPM",
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "LCM",
        "TCD",
    ):
        theirs, ours = (getattr(each, f"{name}Scheduler")(**SD) for each in (diffusers, compat))
        theirs.set_timesteps(timesteps=[999, 700, 333, 19])
        ours.set_timesteps(timesteps=[999, 700, 333, 19])
        assert ours.timesteps.tolist() == theirs.timesteps.tolist()
        theirs.set_timesteps(timesteps=[999.0, 700.6, 333.2])
        ours.set_timesteps(timesteps=[999.0, 700.6, 333.2])
        assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist())
    theirs, ours = (each.EulerDiscreteScheduler(**SD) for each in (diffusers, compat))
    theirs.set_timesteps(sigmas=[14.0, 5.0, 1.0, 0.0])
    ours.set_timesteps(sigmas=[14.0, 5.0, 1.0, 0.0])
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=1e-3)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist())
    theirs, ours = (each.FlowMatchEulerDiscreteScheduler(shift=3.0) for each in (diffusers, compat))
    for own in (
        {"sigmas": [1.0, 0.6, 0.2]},
        {"timesteps": [1000.0, 700.5, 20.0]},
        {"sigmas": [1.0, 0.6, 0.2], "timesteps": [1000.0, 600.0, 100.0]},
    ):
        theirs.set_timesteps(**own)
        ours.set_timesteps(**own)
        assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), rel=1e-6)
        assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-6)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    theirs, ours = (each.UniPCMultistepScheduler(**flow) for each in (diffusers, compat))
    theirs.set_timesteps(sigmas=np.array([0.99, 0.6, 0.2]))
    ours.set_timesteps(sigmas=[0.99, 0.6, 0.2])
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-6)


def test_flows_shifted_by_size():
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for name, settings in (
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("FlowMatchEulerDiscreteScheduler", {"time_shift_type": "linear"}),
        ("UniPCMultistepScheduler", {**flow, "time_shift_type": "linear", "shift_terminal": 0.1}),
        ("DPMSolverMultistepScheduler", flow),
    ):
        theirs, ours = (
            getattr(each, name)(use_dynamic_shifting=True, **settings) for each in (diffusers, compat)
        )
        theirs.set_timesteps(7, mu=0.9)
        ours.set_timesteps(7, mu=0.9)
        assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), rel=1e-4)
        assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-4)
    with pytest.raises(InvalidRequest, match="no mu was given"):
        ours.set_timesteps(7)


def test_the_stochastic_solver_draws_from_the_generator():
    scheduler = compat.DPMSolverSDEScheduler(**SD)
    scheduler.set_timesteps(4)
    way = scheduler.way()
    assert len(way.times) == 7
    drawn = []
    run = Run(torch.ones(SHAPE), source=lambda draw: drawn.append(draw) or torch.zeros(SHAPE))
    steps = way.sampler(run, way.points)
    x, _ = next(steps)
    for _ in way.times[1:]:
        x, _ = steps.send(Estimate(x))
    assert len(drawn) == 6


def test_files(tmp_path):
    made = compat.EulerDiscreteScheduler(**SD, use_karras_sigmas=True)
    made.save_pretrained(tmp_path / "scheduler")
    peer = diffusers.EulerDiscreteScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert peer.config.use_karras_sigmas is True
    peer.save_pretrained(tmp_path / "theirs")
    again = compat.EulerDiscreteScheduler.from_pretrained(tmp_path / "theirs", timestep_spacing="trailing")
    assert (again.config.beta_end, again.config.timestep_spacing) == (0.012, "trailing")
    assert type(scheduler_of(json.loads((tmp_path / "theirs/scheduler_config.json").read_text()))) is type(
        made
    )
    assert again.config["beta_end"] == dict(**again.config)["beta_end"]


def test_what_is_refused(tmp_path):
    def refused(words, make):
        with pytest.raises((InvalidRequest, ModelError), match=words) as raised:
            make()
        assert "\n" not in str(raised.value)

    refused(
        "no setting 'use_karas_sigmas': did you mean 'use_karras_sigmas'",
        lambda: compat.EulerDiscreteScheduler(use_karas_sigmas=True),
    )
    refused(
        "variance_type 'learned' is not there",
        lambda: compat.DDPMScheduler(variance_type="learned").set_timesteps(3),
    )
    refused(
        "use_flow_sigmas and use_karras_sigmas are both set",
        lambda: compat.DEISMultistepScheduler(use_flow_sigmas=True, use_karras_sigmas=True).set_timesteps(3),
    )
    refused("solver_p = 3 is not there", lambda: compat.UniPCMultistepScheduler(solver_p=3))
    refused(
        "time_shift_type is 'log': known: exponential, linear",
        lambda: compat.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="log"
        ).set_timesteps(3, mu=1.0),
    )
    refused("num_inference_steps is 0", lambda: compat.DDIMScheduler().set_timesteps(0))
    refused("num_inference_steps is 1001", lambda: compat.DDIMScheduler().set_timesteps(1001))
    refused("takes at most original_inference_steps", lambda: compat.LCMScheduler().set_timesteps(51))
    refused("takes no 'timesteps'", lambda: compat.DDIMScheduler().set_timesteps(timesteps=[9, 3]))
    refused("give falling numbers", lambda: compat.DDPMScheduler().set_timesteps(timesteps=[3, 9]))
    refused(
        "both timesteps and sigmas",
        lambda: compat.EulerDiscreteScheduler().set_timesteps(timesteps=[3], sigmas=[1.0]),
    )
    refused(
        "timestep_spacing is 'even'", lambda: compat.DDIMScheduler(timestep_spacing="even").set_timesteps(3)
    )
    refused(
        "more than one of",
        lambda: compat.EulerDiscreteScheduler(use_karras_sigmas=True, use_beta_sigmas=True).set_timesteps(3),
    )
    refused(
        "algorithm_type is 'dpm'",
        lambda: compat.DPMSolverMultistepScheduler(algorithm_type="dpm").set_timesteps(3),
    )
    refused(
        "cannot end without noise",
        lambda: compat.DPMSolverMultistepScheduler(algorithm_type="dpmsolver").set_timesteps(3),
    )
    refused("solver_order is 4", lambda: compat.DPMSolverMultistepScheduler(solver_order=4).set_timesteps(3))
    refused(
        "solver_type is 'bh3'", lambda: compat.UniPCMultistepScheduler(solver_type="bh3").set_timesteps(3)
    )
    refused("leads out of the training", lambda: compat.DDIMScheduler(steps_offset=200).set_timesteps(10))
    refused("leads out of the training", lambda: compat.DDIMScheduler(steps_offset=-5).set_timesteps(10))
    refused(
        "takes no custom timesteps",
        lambda: compat.EulerDiscreteScheduler(
            timestep_type="continuous", prediction_type="v_prediction"
        ).set_timesteps(timesteps=[9, 3]),
    )
    refused(
        "num_train_timesteps is '1000': give a whole",
        lambda: compat.DDIMScheduler(num_train_timesteps="1000"),
    )
    refused("num_train_timesteps is 2.5", lambda: compat.PNDMScheduler(num_train_timesteps=2.5))
    refused("at least 1", lambda: compat.FlowMatchEulerDiscreteScheduler(num_train_timesteps=-3))
    refused("at least 1", lambda: compat.EulerDiscreteScheduler(num_train_timesteps=0))
    refused("clip_sample is 'no': give true or", lambda: compat.DDIMScheduler(clip_sample="no"))
    refused("beta_schedule is 3: give a word", lambda: compat.DDIMScheduler(beta_schedule=3))
    refused("shift is nan: give a number", lambda: compat.FlowMatchEulerDiscreteScheduler(shift=math.nan))
    refused("shift is 0.0: it must be", lambda: compat.FlowMatchEulerDiscreteScheduler(shift=0.0))
    refused("betas from -1.0 to 0.02", lambda: compat.DDIMScheduler(beta_start=-1.0))
    refused("one is 1.5", lambda: compat.DDIMScheduler(trained_betas=[1.5] * 1000))
    refused("leave nothing of a picture", lambda: compat.DDIMScheduler(trained_betas=[0.1] * 1000))
    refused("trained_betas are 10, num_train", lambda: compat.DDIMScheduler(trained_betas=[0.1] * 10))
    refused("trained_betas are 'abc'", lambda: compat.DDIMScheduler(trained_betas="abc"))
    refused(
        "original_inference_steps is 0",
        lambda: compat.LCMScheduler(original_inference_steps=0).set_timesteps(1),
    )
    refused("has no scheduler_config.json", lambda: compat.DDIMScheduler.from_pretrained(tmp_path))
    refused("unknown scheduler 'IPNDMScheduler'", lambda: scheduler_of({"_class_name": "IPNDMScheduler"}))
    refused("use from_pretrained", lambda: compat.DDIMScheduler.from_config("a/folder"))
    config = compat.DDIMScheduler().config
    refused("a config is not changed", lambda: setattr(config, "eta", 1))
    with pytest.raises(AttributeError, match="did you mean 'clip_sample'"):
        _ = config.clip_samples
