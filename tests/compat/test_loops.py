"""Loops of users' own, in diffusers' words, with diffusers' classes and with ours: the same latents."""

from __future__ import annotations

import copy
import inspect
import pickle

import diffusers
import pytest
import torch
from PIL import Image
from tests.compat.test_pipelines import PROMPT, pipes, relative_error
from tests.compat.test_schedulers import COMPARABLE, SD, SHAPE, SOLVERS, compare, denoised, relative

from darkroom.compat import diffusers as compat
from darkroom.compat.diffusers.schedulers import CLASSES
from darkroom.errors import InvalidRequest

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # diffusers', of numpy
]

NO_SUCH = {"num_train_timesteps"}  # Of set_timesteps: how many the config says, here.
TRAINED = {name: SD if "trained_betas" in CLASSES[name].defaults else {} for name in COMPARABLE}
# These take the levels of training steps in the wrong order before anything is laid out.
REVERSED = {f"{name}Scheduler" for name in SOLVERS}


def named(method, *without):
    found = inspect.signature(method).parameters.values()
    return {each.name: each.default for each in found if each.name not in ("self", "kwargs", *without)}


def plain(defaults):
    return {name: [*each] if isinstance(each, tuple) else each for name, each in defaults.items()}


# Signatures


@pytest.mark.parametrize("name", COMPARABLE)
def test_signatures_of_schedulers_are_diffusers(name):
    ours, theirs = CLASSES[name], getattr(diffusers, name)
    # KDPM2's is replaced by conftest.
    for method, without in (("step", ()), ("set_timesteps", NO_SUCH))[: 1 if "KDPM2" in name else 2]:
        found, expected = named(getattr(ours, method)), named(getattr(theirs, method), *without)
        assert [*found] == [*expected]
        assert method == "set_timesteps" or found == expected


@pytest.mark.parametrize(
    "name", [name for name in compat.__all__ if name.endswith("Pipeline") and name[:6] == "Stable"]
)
def test_signatures_of_pipelines_are_diffusers(name):
    ours, theirs = getattr(compat, name), getattr(diffusers, name)
    expected = named(theirs.__call__)
    found = named(ours.__call__, *({"callback", "callback_steps"} - {*expected}))
    assert plain(found) == plain(expected)
    assert [*found] == [*expected]
    if hasattr(theirs, "encode_prompt"):  # InstructPix2Pix has none.
        assert [*named(ours.encode_prompt)] == [*named(theirs.encode_prompt)]


# One step after the other


@pytest.mark.parametrize("name", COMPARABLE)
def test_a_loop_may_begin_midway_and_change_latents(name):
    order, own = CLASSES[name].order, {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    for begin in (0, 3, 5, 6):
        compare(name, 7, **TRAINED[name], **own, begin=begin * order, between=lambda x: x.mul_(0.97))
    compare(name, 7, **TRAINED[name], **own, begin=2 * order, announced=True)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_a_step_takes(prediction):
    own = {**SD, "prediction_type": prediction}
    compare("EulerDiscreteScheduler", 9, **own, extra={"s_noise": 1.01})
    if prediction == "epsilon":  # Of velocities diffusers takes the level without the churn.
        churn = {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 8.0, "s_noise": 1.01}
        compare("EulerDiscreteScheduler", 9, **own, extra=churn)
    compare("LMSDiscreteScheduler", 9, **own, extra={"order": 2})
    clipped = {"clip_sample": True, "clip_sample_range": 0.7}
    compare("DDIMScheduler", 9, **own, **clipped, extra={"eta": 0.5, "use_clipped_model_output": True})
    compare("TCDScheduler", 4, **own, extra={"eta": 0.7})
    compare("TCDScheduler", 4, **own)


def test_noise_may_be_given():
    noise = torch.randn(SHAPE)
    given = {"generator": None, "variance_noise": noise}
    compare("DDIMScheduler", 5, **SD, extra={"eta": 1.0, **given})
    compare("DPMSolverMultistepScheduler", 5, **SD, algorithm_type="sde-dpmsolver++", extra=given)


def test_shares_of_distilled_models():
    for given in (
        {"strength": 0.5},
        {"original_inference_steps": 25, "strength": 0.8},
        {"num_inference_steps": None, "timesteps": [999, 779, 499, 259], "strength": 0.5},
    ):
        ours, theirs = (each.LCMScheduler(**SD) for each in (compat, diffusers))
        for each in (ours, theirs):
            each.set_timesteps(**{"num_inference_steps": 4, **given})
        assert ours.timesteps.tolist() == theirs.timesteps.tolist()


def test_ddim_steps_from_wherever_it_is_asked_to():
    ours, theirs = (each.DDIMScheduler(**SD, clip_sample=False) for each in (compat, diffusers))
    sample, output = torch.randn(SHAPE), torch.randn(SHAPE)
    for each in (ours, theirs):
        each.set_timesteps(10)
    for time in (500, 37, 123, 3, 900, 900, 800):
        found, expected = (each.step(output, time, sample) for each in (ours, theirs))
        assert relative(found.prev_sample, expected.prev_sample) <= 1e-5
        assert relative(found.pred_original_sample, expected.pred_original_sample) <= 1e-5


@pytest.mark.parametrize("name", COMPARABLE)
def test_noise_is_added_as_much_as_there_is_at_a_time(name):
    ours, theirs = CLASSES[name](**TRAINED[name]), getattr(diffusers, name)(**TRAINED[name])
    adds = "add_noise" if hasattr(theirs, "add_noise") else "scale_noise"
    sample, noise = torch.randn(3, 4, 6, 5), torch.randn(3, 4, 6, 5)

    def compared(times):
        values = (sample, noise, times) if adds == "add_noise" else (sample, times, noise)
        # Theirs of a whole batch of times take as many as there are samples.
        expected = getattr(theirs, adds)(*values[:1], *(values[1:]))
        assert relative(getattr(ours, adds)(*values), expected) <= 1e-4
        if hasattr(theirs, "get_velocity") and name != "EulerDiscreteScheduler":
            assert relative(ours.get_velocity(sample, noise, times), theirs.get_velocity(*values)) <= 1e-4

    if adds == "add_noise" and name not in REVERSED and "KDPM2" not in name:
        compared(torch.tensor([3, 500, 997]))  # As training has it, before anything is laid out.
    for each in (ours, theirs):
        each.set_timesteps(8)
    times = theirs.timesteps[[0, 4, -1]]
    ours_at = ours.timesteps[[0, 4, -1]]
    assert torch.allclose(ours_at.float(), times.float(), atol=2e-3)
    if name == "FlowMatchHeunDiscreteScheduler":  # Theirs takes one time.
        compared(times[1])
        return
    compared(times)
    compared(times[1:2].expand(3))
    with pytest.raises(InvalidRequest, match="timesteps are 2 for 3 samples"):
        ours.add_noise(sample, noise, times[:2])


@pytest.mark.parametrize("name", sorted({*COMPARABLE} & {*dir(compat)}))
def test_levels_are_diffusers(name):
    ours, theirs = CLASSES[name](**TRAINED[name]), getattr(diffusers, name)(**TRAINED[name])
    for each in (ours, theirs):
        each.set_timesteps(6)
    if hasattr(theirs, "sigmas"):
        # KDPM2's have the end three times.
        expected = theirs.sigmas.tolist()[: len(ours.sigmas)]
        assert ours.sigmas.tolist() == pytest.approx(expected, rel=1e-4)


# What is of the loop alone


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
@pytest.mark.parametrize(
    "name", ["DPMSolverSDEScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"]
)
def test_a_loop_goes_on_in_a_copy(name, copied):
    scheduler = CLASSES[name](**SD)
    scheduler.set_timesteps(4)

    def went(scheduler, x, start):
        for number in range(start, len(scheduler.timesteps)):
            time = scheduler.timesteps[number]
            generator = torch.Generator().manual_seed(number)
            given = {"generator": generator} if "generator" in named(scheduler.step) else {}
            output = torch.tanh(scheduler.scale_model_input(x, time))
            x = scheduler.step(output, time, x, **given).prev_sample
            yield x

    whole = [*went(scheduler, torch.ones(SHAPE), 0)]
    assert scheduler.step_index == len(scheduler.timesteps)
    assert all(torch.equal(*pair) for pair in zip(whole, went(scheduler, torch.ones(SHAPE), 0), strict=True))
    for stop in (1, 2, 3):
        scheduler.set_timesteps(4)
        begun = went(scheduler, torch.ones(SHAPE), 0)
        *_, x = (next(begun) for _ in range(stop))
        other = copied(scheduler)
        assert torch.equal([*went(other, x, stop)][-1], whole[-1])
        assert scheduler.step_index == stop


def test_half_precision_is_kept_between_steps_nobody_changes():
    scheduler = compat.EulerDiscreteScheduler(**SD)
    scheduler.set_timesteps(20)
    x = torch.ones(SHAPE, dtype=torch.float16)
    for time in scheduler.timesteps:
        point = scheduler.schedule.told(float(time))
        given = scheduler.scale_model_input(x, time)
        noise = (
            given.float() - point.alpha * denoised(given.float(), point.alpha, point.sigma)
        ) / point.sigma
        found = scheduler.step(noise.half(), time, x)
        x = found.prev_sample
        assert (x.dtype, found.pred_original_sample.dtype) == (torch.float16, torch.float16)
    assert x.isfinite().all()
    assert scheduler.step(noise.half(), scheduler.timesteps[0], x, return_dict=False)[0].shape == x.shape


def test_latents_between_two_calls_of_a_step_stay(caplog):
    scheduler = compat.HeunDiscreteScheduler(**SD)
    found = []
    for factor in (1.0, 0.5):
        scheduler.set_timesteps(3)
        x = scheduler.step(torch.zeros(SHAPE), scheduler.timesteps[0], torch.ones(SHAPE)).prev_sample
        found.append(scheduler.step(torch.ones(SHAPE), scheduler.timesteps[1], x * factor).prev_sample)
    assert torch.equal(*found)
    assert "latents changed between two calls of one step" in caplog.text


def test_what_is_refused():
    x = torch.ones(SHAPE)

    def refused(words, make):
        with pytest.raises(InvalidRequest, match=words) as raised:
            make()
        assert "\n" not in str(raised.value)

    euler, flow = compat.EulerDiscreteScheduler(**SD), compat.FlowMatchEulerDiscreteScheduler()
    refused("EulerDiscreteScheduler has no steps yet: call set_timesteps", lambda: euler.step(x, 999, x))
    refused("call set_timesteps", lambda: euler.sigmas)
    euler.set_timesteps(5)
    flow.set_timesteps(5)
    refused("timestep is 998: give those of the scheduler's", lambda: euler.step(x, 998, x))
    refused("step takes no 'generater': did you mean", lambda: euler.step(x, 999, x, generater=None))
    refused("step takes 9 arguments without names, not 10", lambda: euler.step(*[x] * 10))
    refused("give one for all samples", lambda: euler.step(x, torch.tensor([999, 749]), x))
    refused("step is given sample twice", lambda: euler.step(x, 999, x, sample=x))
    refused("step needs sample: give it", lambda: euler.step(x, 999))
    refused("model_output has the shape", lambda: euler.step(x[:1], 999, x))
    refused("generator has 3 entries for 2 pictures", lambda: euler.step(x, 999, x, generator=[None] * 3))
    refused("s_churn is -1", lambda: euler.step(x, 999, x, s_churn=-1.0))
    refused("scale_model_input needs timestep", lambda: euler.scale_model_input(x))
    refused("with s_churn is not there", lambda: flow.step(x, 1000.0, x, s_churn=1.0))
    refused("per_token_timesteps is not there", lambda: flow.step(x, 1000.0, x, per_token_timesteps=x))
    refused("scale_noise needs noise", lambda: flow.scale_noise(x, torch.tensor([1000.0])))
    refused("eta is 2", lambda: stepped_tcd(x))
    refused("set_timesteps takes no 'sigmas'", lambda: compat.LCMScheduler().set_timesteps(sigmas=[1.0]))
    refused("mu is 'x': give a number", lambda: flow.set_timesteps(4, mu="x"))
    refused(
        "steps is 'x': give a whole",
        lambda: compat.LCMScheduler().set_timesteps(4, original_inference_steps="x"),
    )
    refused("strength is 0", lambda: compat.LCMScheduler().set_timesteps(4, strength=0))
    refused("25 at strength 0.5", lambda: compat.LCMScheduler().set_timesteps(26, strength=0.5))
    refused(
        "give as many of both", lambda: flow.set_timesteps(sigmas=[1.0, 0.5], timesteps=[1000.0, 700.0, 3.0])
    )


def stepped_tcd(x):
    scheduler = compat.TCDScheduler()
    scheduler.set_timesteps(4)
    scheduler.step(x, scheduler.timesteps[0], x, eta=2.0)


# Whole loops, with networks


def begun(pipe, steps, strength, like):
    """Image to image in the words of diffusers' own pipelines: the times that are left, and the latents there."""
    scheduler = pipe.scheduler
    scheduler.set_timesteps(steps)
    first = int(steps - steps * strength) * scheduler.order
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(5))
    times = scheduler.timesteps[first:]
    adds = getattr(scheduler, "add_noise", None) or (lambda x, e, t: scheduler.scale_noise(x, t, e))
    return times, adds(like, noise, times[:1])


def guided(output, scale):
    without, told = output.chunk(2)
    return without + scale * (told - without)


@torch.no_grad()
def unet_loop(pipe, scale=5.0):
    like = torch.randn(1, 4, 8, 10, generator=torch.Generator().manual_seed(4))
    times, x = begun(pipe, 4, 0.75, like)
    embeds = pipe.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    added = {}
    if len(embeds) > 2:
        sizes = torch.tensor([[80.0, 64.0, 0, 0, 80, 64]] * 2)
        added = {"added_cond_kwargs": {"text_embeds": torch.cat([embeds[3], embeds[2]]), "time_ids": sizes}}
    states = torch.cat([embeds[1], embeds[0]])
    for time in times:
        given = pipe.scheduler.scale_model_input(torch.cat([x] * 2), time)
        output = pipe.unet(given, time, encoder_hidden_states=states, **added).sample
        x = pipe.scheduler.step(guided(output, scale), time, x, return_dict=False)[0]
    return x, pipe.vae.decode(x / pipe.vae.config.scaling_factor, return_dict=False)[0]


@torch.no_grad()
def transformer_loop(pipe, scale=5.0):
    like = torch.randn(1, 16, 8, 10, generator=torch.Generator().manual_seed(4))
    times, x = begun(pipe, 4, 0.5, like)
    told, without, pooled, other = pipe.encode_prompt(PROMPT, None, None, negative_prompt="bad")
    for time in times:
        output = pipe.transformer(
            hidden_states=torch.cat([x] * 2),
            timestep=time.expand(2),
            encoder_hidden_states=torch.cat([without, told]),
            pooled_projections=torch.cat([other, pooled]),
            return_dict=False,
        )[0]
        x = pipe.scheduler.step(guided(output, scale), time, x, return_dict=False)[0]
    return (x,)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sd3"])
def test_a_whole_loop(folder, name):
    theirs, ours = pipes(folder(name))
    kinds = ["HeunDiscreteScheduler", "UniPCMultistepScheduler"] if name == "sd1" else ["DDIMScheduler"]
    for kind in ["FlowMatchEulerDiscreteScheduler"] if name == "sd3" else kinds:
        results = []
        for pipe, library in ((theirs, diffusers), (ours, compat)):
            pipe.scheduler = getattr(library, kind).from_config(pipe.scheduler.config)
            results.append((transformer_loop if name == "sd3" else unet_loop)(pipe))
        for expected, found in zip(*results, strict=True):
            assert relative_error(found, expected) <= 1e-4


def a_lora(pipe):
    """A LoRA that changes the first layer of a pipeline's U-Net that makes queries."""
    weights = pipe.unet.state_dict()
    name = next(name for name in weights if name.endswith("to_q.weight"))
    rows, columns = weights[name].shape
    place = f"unet.{name.removesuffix('.weight')}"
    return {
        f"{place}.lora_A.weight": torch.ones(1, columns),
        f"{place}.lora_B.weight": torch.ones(rows, 1),
    }


def test_a_network_has_its_pipeline_s_loras(folder):
    _, ours = pipes(folder("sd1"), own=True)
    ours.load_lora_weights(a_lora(ours))
    x, states = torch.randn(2, 4, 8, 8), ours.encode_prompt([PROMPT] * 2, None, 1, False)[0]
    with torch.no_grad():
        adapted, half, without = (
            ours.unet(x, 500, states, cross_attention_kwargs={"scale": scale}).sample
            for scale in (1.0, 0.5, 0.0)
        )
        assert torch.equal(ours.unet(x, torch.tensor([500, 500]), states)[0], adapted)
    ours.disable_lora()
    with torch.no_grad():
        assert torch.equal(ours.unet(x, 500, states).sample, without)
    assert not torch.equal(adapted, half)
    assert not torch.equal(half, without)
    with pytest.raises(InvalidRequest, match="attention_mask is not there: leave it out"):
        ours.unet(x, 500, states, attention_mask=x)
    with pytest.raises(InvalidRequest, match=r"settings \['gligen'\] are not there"):
        ours.unet(x, 500, states, cross_attention_kwargs={"gligen": 1})


@pytest.mark.parametrize(
    ("kind", "schedulers"),
    [
        ("StableDiffusionImg2ImgPipeline", ("PNDM", "LMSDiscrete", "EulerAncestralDiscrete", "TCD")),
        ("StableDiffusionInpaintPipeline", ("DDIM", "KDPM2Discrete", "DPMSolverMultistep")),
    ],
)
def test_diffusers_own_pipelines_run_on_our_schedulers(folder, kind, schedulers):
    theirs, _ = pipes(folder("sd1"))
    pipe = getattr(diffusers, kind)(**theirs.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.effect_noise((64, 80), 90).convert("RGB")
    given = {"image": picture, "strength": 0.6, "num_inference_steps": 6, "output_type": "latent"}
    if "Inpaint" in kind:
        given |= {"mask_image": Image.linear_gradient("L").resize((64, 80)), "width": 64, "height": 80}
    for name in schedulers:
        made = []
        for library in (diffusers, compat):
            own = {"skip_prk_steps": True} if name == "PNDM" else {}
            pipe.scheduler = getattr(library, f"{name}Scheduler").from_config(theirs.scheduler.config, **own)
            made.append(pipe(PROMPT, generator=torch.Generator().manual_seed(1), **given).images)
        assert relative_error(made[1], made[0]) <= 1e-4, name
