"""Calls side by side, within one another and in threads, and the small print that callbacks rely on."""

from __future__ import annotations

import copy
import pickle
import threading
from contextlib import suppress

import diffusers
import numpy as np
import pytest
import torch
from tests.compat.test_schedulers import compare

import darkroom
from darkroom.compat.diffusers import AutoPipelineForText2Image, DiffusionPipeline, StableDiffusionPipeline
from darkroom.compat.diffusers.schedulers import CLASSES
from darkroom.errors import InvalidRequest


@pytest.fixture(scope="module")
def pipe(toy_folder):
    """Of a model as small as can be; each test has the scheduler that it wants."""
    pipe = StableDiffusionPipeline.from_pretrained(toy_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, seed=1, **settings):
    settings = {"num_inference_steps": 4, "output_type": "latent", "width": 32, "height": 32, **settings}
    return pipe("a boat", generator=torch.Generator().manual_seed(seed), **settings).images


# Callbacks


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_latents_changed_in_place_are_changed(pipe, scheduler):
    pipe.scheduler = CLASSES[scheduler]()

    def new(pipe, index, time, values):
        return {"latents": values["latents"] * 0.9 if index % 2 else values["latents"]}

    def in_place(pipe, index, time, values):
        values["latents"].mul_(0.9 if index % 2 else 1.0)
        return values

    def nothing_back(pipe, index, time, values):
        in_place(pipe, index, time, values)

    expected = draw(pipe, callback_on_step_end=new)
    assert not torch.equal(expected, draw(pipe))
    for each in (in_place, nothing_back):
        assert torch.equal(draw(pipe, callback_on_step_end=each), expected)
    # As diffusers' older callbacks could.
    assert not torch.equal(draw(pipe, callback=lambda index, time, latents: latents.zero_()), draw(pipe))


def test_the_preview_of_diffusers_users(pipe):
    pipe.scheduler = CLASSES["EulerDiscreteScheduler"]()
    seen = []

    def preview(pipe, index, time, values):
        z = values["latents"] / pipe.vae.config.scaling_factor
        tuples = pipe.vae.decode(z, return_dict=False)
        output = pipe.vae.decode(z)
        assert torch.equal(tuples[0], output.sample)
        assert torch.equal(output[0], output["sample"])
        seen.extend(pipe.image_processor.postprocess(output.sample, output_type="pil"))
        return values

    draw(pipe, num_images_per_prompt=2, callback_on_step_end=preview)
    assert len(seen) == 8
    final = draw(pipe, num_images_per_prompt=2, output_type="pil")
    for ours, theirs in zip(seen[-2:], final, strict=True):
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_the_autoencoder_s_other_ways(pipe):
    vae, image = pipe.vae, torch.rand(2, 3, 32, 32) * 2 - 1
    found = vae.encode(image)
    assert torch.equal(found.latent_dist.mode(), vae.encode(image, return_dict=False)[0].mean)
    assert torch.equal(found.latents, found.latent_dist.mean)
    one, other = (found.latent_dist.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, found.latent_dist.mean)
    assert torch.allclose(found.latent_dist.std**2, found.latent_dist.var)
    assert (vae.dtype, str(vae.device)) == (torch.float32, "cpu")
    assert {*vae.state_dict()} == {*pipe._networks().vae.state_dict()}
    vae.enable_tiling()
    assert pipe._tiled
    vae.disable_tiling()
    before = draw(pipe, output_type="np")
    pipe.vae.decode = lambda *_: None  # As people do who compile it.
    pipe.vae = pipe.vae
    assert np.array_equal(draw(pipe, output_type="np"), before)
    with pytest.raises(InvalidRequest, match="AutoencoderKL"):
        pipe.vae = torch.nn.Linear(1, 1)


def test_pictures_in_every_form(pipe):
    processor, image = pipe.image_processor, torch.rand(2, 3, 16, 24) * 2 - 1
    pictures = processor.postprocess(image)
    assert [picture.size for picture in pictures] == [(24, 16)] * 2
    assert processor.postprocess(image, "np").shape == (2, 16, 24, 3)
    assert torch.equal(processor.postprocess(image, "latent"), image)
    assert torch.allclose(processor.postprocess(image, "pt") * 2 - 1, image, atol=1e-6)
    assert (processor.preprocess(pictures) - image).abs().max() <= 1 / 127
    assert processor.preprocess(pictures[0], 32, 40).shape == (1, 3, 32, 40)
    assert torch.allclose(processor.preprocess(processor.postprocess(image, "np")), image, atol=1e-6)
    with pytest.raises(InvalidRequest, match="pil, np, pt or latent"):
        processor.postprocess(image, "png")


def test_pocket_is_a_stable_diffusion_pipeline():
    for each in (StableDiffusionPipeline, DiffusionPipeline, AutoPipelineForText2Image):
        assert type(each.from_pretrained("pocket")) is StableDiffusionPipeline


# Timesteps


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("name", sorted({*CLASSES} - {"DPMSolverSDEScheduler"}))
def test_times_are_whole_where_diffusers_are(name):
    ours, theirs = CLASSES[name](), getattr(diffusers, name)()
    ours.set_timesteps(4)
    theirs.set_timesteps(4)
    assert ours.timesteps.is_floating_point() == theirs.timesteps.is_floating_point()
    if not theirs.timesteps.is_floating_point():
        assert ours.timesteps.dtype == torch.int64
        assert [*range(1000)][ours.timesteps[0]] == theirs.timesteps[0]


def test_a_callback_s_time_is_of_their_type(pipe):
    for name, kind in (("DDIMScheduler", torch.int64), ("EulerDiscreteScheduler", torch.float32)):
        pipe.scheduler, told = CLASSES[name](), []
        draw(pipe, callback_on_step_end=lambda pipe, index, time, values, told=told: told.append(time) or {})
        assert {time.dtype for time in told} == {kind}
        assert [float(time) for time in told] == pipe.scheduler.timesteps.tolist()


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [4, 5, 7, 10, 25])
def test_the_runge_kutta_start_of_pndm(spacing, steps):
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    compare("PNDMScheduler", steps, timestep_spacing=spacing, **settings)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_many_steps_and_bent_levels_are_never_a_division_by_zero(name):
    from darkroom.diffusion import Estimate, Run

    settings: list[dict[str, object]] = [{}, {"beta_schedule": "squaredcos_cap_v2"}]
    bends = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "rescale_betas_zero_snr")
    settings += [{"beta_schedule": "squaredcos_cap_v2", bend: True} for bend in bends]
    for given in settings:
        if not given.keys() <= CLASSES[name].defaults.keys():
            continue
        scheduler = CLASSES[name](**given)
        for steps in (7, 50) if len(given) == 2 else (7, 50, 1000):
            extra = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}
            try:
                scheduler.set_timesteps(steps, **extra)
            except InvalidRequest:
                continue
            way, noise = scheduler.way(), torch.ones(1, 1, 1, 1)
            run = Run(way.begin(noise), source=lambda draw, noise=noise: noise)
            stepping = way.sampler(run, way.points)
            x, _ = next(stepping)
            with suppress(StopIteration):
                while True:
                    x, _ = stepping.send(Estimate(x * 0.5))
            assert run.x.isfinite().all()


# Copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_schedulers_and_pipelines_are_copied(toy_folder, pipe, copied):
    scheduler = CLASSES["EulerDiscreteScheduler"](use_karras_sigmas=True)
    scheduler.set_timesteps(5)
    other = copied(scheduler)
    assert other.config == scheduler.config == copied(scheduler.config)
    assert torch.equal(other.timesteps, scheduler.timesteps)
    with pytest.raises(InvalidRequest, match="not changed"):
        copied(scheduler.config)["beta_end"] = 1.0
    pipe.scheduler = scheduler
    whole = copied(pipe)
    assert torch.equal(draw(whole), draw(pipe))
    whole.scheduler = CLASSES["DDIMScheduler"]()
    assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"


# Many at once


def test_threads_have_pictures_and_states_of_their_own(pipe):
    pipe.scheduler = CLASSES["EulerDiscreteScheduler"]()
    scales = (1.0, 2.0, 5.0, 7.5)

    def late(pipe, index, time, values):
        if index == 1:
            pipe._guidance_scale = pipe.guidance_scale * 0.5
        return values

    alone = [
        draw(pipe, seed, guidance_scale=scale, callback_on_step_end=late) for seed, scale in enumerate(scales)
    ]
    together, seen = [None] * 4, [[] for _ in scales]
    meet = threading.Barrier(4)

    def watching(number):
        def callback(pipe, index, time, values):
            meet.wait(60)  # All are in the midst of theirs.
            late(pipe, index, time, values)
            seen[number].append((pipe.guidance_scale, pipe.num_timesteps, len(pipe.scheduler.timesteps)))
            return values

        return callback

    def work(number):
        together[number] = draw(
            pipe, number, guidance_scale=scales[number], callback_on_step_end=watching(number)
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for number, scale in enumerate(scales):
        assert torch.equal(together[number], alone[number])
        assert seen[number] == [(scale, 4, 4), *[(scale / 2, 4, 4)] * 3]


def test_a_call_within_a_callback(pipe):
    pipe.scheduler = CLASSES["EulerDiscreteScheduler"]()
    alone, inner = draw(pipe, guidance_scale=3.0), []

    def callback(pipe, index, time, values):
        inner.append(draw(pipe, 2, num_inference_steps=2, guidance_scale=5.0))
        assert (pipe.guidance_scale, pipe.num_timesteps) == (3.0, 4)
        return values

    assert torch.equal(draw(pipe, guidance_scale=3.0, callback_on_step_end=callback), alone)
    assert all(torch.equal(each, inner[0]) for each in inner)
    assert (pipe.guidance_scale, pipe.num_timesteps, pipe.interrupt) == (3.0, 4, False)


def test_a_button_in_another_thread_interrupts(pipe):
    calls = []

    def press():
        pipe._interrupt = True

    def callback(pipe, index, time, values):
        calls.append(index)
        if index == 1:
            button = threading.Thread(target=press)
            button.start()
            button.join()
        return values

    draw(pipe, callback_on_step_end=callback)
    assert calls == [0, 1]
    assert torch.equal(draw(pipe), draw(pipe))


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu")


SETTINGS = {"steps": 3, "width": 32, "height": 32}


def bytes_of(model, prompt, seed=1):
    return model.generate(prompt, seed=seed, **SETTINGS)[0].image.tobytes()


def test_two_streams_in_one_thread(model):
    expected = [bytes_of(model, "a red boat"), bytes_of(model, "a blue boat")]
    streams = [model.stream(prompt, seed=1, **SETTINGS) for prompt in ("a red boat", "a blue boat")]
    rows = [*zip(*streams, strict=True)]
    assert [each.image.tobytes() for each in rows[-1]] == expected
    assert [tuple(step.done for step in row) for row in rows[:-1]] == [(n, n) for n in range(1, len(rows))]


def test_generate_within_a_stream_and_a_callback(model):
    expected = bytes_of(model, "a red boat")
    stream = model.stream("a red boat", seed=1, **SETTINGS)
    next(stream)
    other = bytes_of(model, "another")
    assert [*stream][-1].image.tobytes() == expected
    inner = []
    (picture,) = model.generate(
        "a red boat", seed=1, callback=lambda step: inner.append(bytes_of(model, "another")), **SETTINGS
    )
    assert picture.image.tobytes() == expected
    assert {*inner} == {other}


def test_weights_do_not_change_under_a_stream(model):
    stream = model.stream("a red boat", seed=1, **SETTINGS)
    next(stream)
    with pytest.raises(InvalidRequest, match="is making pictures"):
        model.unfuse()
    stream.close()
    model.unfuse()


def test_threads_of_one_model(model):
    prompts = [f"a boat, number {number}" for number in range(4)]
    expected = [bytes_of(model, prompt, seed) for seed, prompt in enumerate(prompts)]
    found = [b""] * 4

    def work(number):
        found[number] = bytes_of(model, prompts[number], number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == expected


def test_tiles_of_the_preview(pipe):
    pipe.scheduler = CLASSES["EulerDiscreteScheduler"]()
    z, image = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 32, 32) * 2 - 1
    plain = pipe.vae.decode(z).sample, pipe.vae.encode(image).latents
    pipe.vae.enable_tiling()
    try:
        assert torch.allclose(pipe.vae.decode(z).sample, plain[0], atol=1e-5)
        assert torch.allclose(pipe.vae.encode(image).latents, plain[1], atol=1e-5)
    finally:
        pipe.vae.disable_tiling()


def test_numbers_of_others_in_calls(pipe):
    from decimal import Decimal
    from fractions import Fraction

    pipe.scheduler = CLASSES["EulerDiscreteScheduler"]()
    expected = draw(pipe, guidance_scale=3.0, guidance_rescale=0.5)
    for three, half in (
        (Decimal(3), Fraction(1, 2)),
        (np.array(3.0), np.float16(0.5)),
        (torch.tensor(3), 0.5),
    ):
        assert torch.equal(draw(pipe, guidance_scale=three, guidance_rescale=half), expected)
    times = draw(pipe, timesteps=[900, 500, 100])
    for given in (np.array([900, 500, 100]), torch.tensor([900, 500, 100]), iter([900, 500, 100])):
        assert torch.equal(draw(pipe, timesteps=given), times)
    for name in ("timesteps", "sigmas"):
        for wrong in ("999", 5, [float("nan"), 1], [None, 1], [], [[1, 2]]):
            with pytest.raises(InvalidRequest, match=f"{name} are"):
                draw(pipe, **{name: wrong})


@pytest.mark.parametrize("back", [{"latents": None}, {"latents": torch.zeros(1)}, ("latents",)])
def test_what_a_callback_returns_is_checked(pipe, back):
    with pytest.raises(InvalidRequest, match="callback_on_step_end returned"):
        draw(pipe, callback_on_step_end=lambda *_: back)
