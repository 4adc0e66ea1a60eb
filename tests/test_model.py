"""The Python face, on a toy model with real architectures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import darkroom
from darkroom.errors import GenerationError, InvalidRequest


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request, toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision=request.param)


SETTINGS = {"steps": 4, "width": 40, "height": 32}


def pixels(picture):
    return np.asarray(picture.image)


def test_a_batch_equals_its_singles(model):
    batch = model.generate("a red boat", seed=7, count=3, **SETTINGS)
    assert [picture.seed for picture in batch] == [7, 8, 9]
    for picture in batch:
        (single,) = model.generate("a red boat", seed=picture.seed, **SETTINGS)
        np.testing.assert_array_equal(pixels(picture), pixels(single))
    assert (pixels(batch[0]) != pixels(batch[1])).any()


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_pictures_do_not_depend_on_who_is_beside_them(model, guidance):
    (alone,) = model.generate("a red boat", seed=7, guidance=guidance, **SETTINGS)
    model.engine.calls = 4
    try:
        together = model.generate("a red boat", seed=4, count=6, guidance=guidance, **SETTINGS)
    finally:
        model.engine.calls = 1
    np.testing.assert_array_equal(pixels(together[3]), pixels(alone))


def test_another_process_makes_the_same_pixels(toy_folder, tmp_path):
    code = (
        "import darkroom, sys; model = darkroom.load(sys.argv[1], device='cpu'); "
        "model.generate('a red boat', seed=7, steps=4, width=40, height=32)[0].save(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, toy_folder, tmp_path / "a.png"], check=True)
    from PIL import Image

    (here,) = darkroom.load(toy_folder, device="cpu").generate("a red boat", seed=7, **SETTINGS)
    with Image.open(tmp_path / "a.png") as there:
        np.testing.assert_array_equal(np.asarray(there), pixels(here))


def test_prompt_negative_guidance_and_seed_all_matter(model):
    base = pixels(model.generate("a red boat", seed=7, **SETTINGS)[0])
    for change in (
        {"prompt": "two green trees"},
        {"negative": "night"},
        {"guidance": 2.0},
        {"seed": 8},
        {"steps": 5},
        {"sampler": "euler_ancestral"},
    ):
        settings = {"prompt": "a red boat", "seed": 7, **SETTINGS, **change}
        assert (pixels(model.generate(**settings)[0]) != base).any(), change


def test_long_prompts_are_not_cut(model):
    words = "a red boat on a calm sea and " * 12
    first, second = (
        model.generate(words + end, seed=7, **SETTINGS)[0] for end in ("two trees", "a grey house")
    )
    assert (pixels(first) != pixels(second)).any()


def test_the_callback_sees_every_step_and_may_stop(model):
    steps = []
    pictures = model.generate("a", seed=1, count=2, callback=steps.append, sampler="euler", **SETTINGS)
    assert len(pictures) == 2
    assert [step.done for step in steps if step.index == 0] == [1, 2, 3, 4]
    assert {step.total for step in steps} == {4}

    def stop(step):
        return step.index == 0

    assert len(model.generate("a", seed=1, count=3, callback=stop, **SETTINGS)) == 1
    assert len(model.generate("a", seed=1, **SETTINGS)) == 1


def test_closing_a_stream_frees_the_model(model):
    stream = model.stream("a", seed=1, count=2, **SETTINGS)
    next(stream)
    stream.close()
    assert not model.engine.tick()
    assert len(model.generate("a", seed=1, **SETTINGS)) == 1


def test_a_closed_model_draws_no_more(toy_folder):
    model = darkroom.load(toy_folder, device="cpu")
    model.close()
    with pytest.raises(InvalidRequest, match="toy was closed: load it again"):
        model.generate("a", seed=1, **SETTINGS)


def test_a_latent_beyond_all_pictures_is_told_as_such(model):
    guides = ["pag:scale=1e30"]
    with pytest.raises(
        GenerationError, match="what the network is given at step 2 of 4 is no picture's latent"
    ):
        model.generate("a", seed=1, guides=guides, **SETTINGS)
    with pytest.raises(
        GenerationError, match=r"the finished latent is no picture's latent|is not a number: ask for"
    ):
        model.generate("a", seed=1, guides=guides, **{**SETTINGS, "steps": 1})


def test_metadata_says_everything(model, toy_folder):
    (picture,) = model.generate("a red boat", seed=7, **SETTINGS)
    request = darkroom.Request.from_dict(picture.metadata["request"])
    assert request.seed == 7
    assert {name for name, value in request.flat().items() if value is None} <= {
        "original_width",
        "original_height",
        "target_width",
        "target_height",
        "second_steps",
        "first_width",
        "first_height",
        *("seamless", "tile", "tile_overlap"),
        *("second_prompt", "second_negative", "second_sampler", "second_schedule", "second_guidance"),
        "refiner_switch",
        "variation_seed",
        "seed_resize_width",
        "seed_resize_height",
        "latents",
        *("image", "frame", "strength", "strength_as", "fit", "noise_multiplier"),
        *("loops", "last_strength", "match_colors", "fill", "only_masked"),
        *("depth", "noise_level", "image_guidance"),
        *("mask", "mask_box", "mask_invert", "mask_grow", "mask_blur", "mask_resize", "mask_padding"),
        "towards",
        *(f"{prompt}_{number}" for prompt in ("prompt", "negative") for number in (2, 3)),
    }
    assert set(picture.metadata["model"]["weights"]) == {"unet", "vae", "text_encoder"}
    assert picture.metadata["numerics"]["precision"] == model.placement.precision
    assert picture.parameters.splitlines()[-1].startswith(
        "Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras,"
    )
    assert "Seed: 7, Size: 40x32" in picture.parameters


def test_large_pictures_take_a_second_pass(model):
    totals = set()
    (large,) = model.generate(
        "a",
        seed=1,
        steps=4,
        width=80,
        height=64,
        sampler="euler",
        callback=lambda step: totals.add(step.total),
    )
    assert large.image.size == (80, 64)
    assert totals == {4 + 3}
    (flat,) = model.generate("a", seed=1, steps=4, width=80, height=64, sampler="euler", second_pass="off")
    assert (pixels(flat) != pixels(large)).any()


def test_a_sampler_of_ones_own_brings_its_schedule(model):
    assert model.settle(darkroom.Request("a")).sampling.schedule == model.family.preferences.schedule
    assert model.settle(darkroom.Request("a", sampler="euler")).sampling.schedule == "simple"
    assert model.settle(darkroom.Request("a", sampler="euler", schedule="beta")).sampling.schedule == "beta"
    assert model.settle(darkroom.Request("a", sampler="DPM++ 2M Karras")).sampling.schedule == "karras"


def test_settings_that_are_no_settings_are_named(model):
    with pytest.raises(InvalidRequest, match="guidance"):
        model.generate("a", guidence=3)


def test_torch_s_own_words_for_device_and_precision(toy_folder):
    model = darkroom.load(toy_folder, device=torch.device("cpu"), precision=torch.float16)
    assert (model.placement.device, model.placement.dtype) == (torch.device("cpu"), torch.float16)
    assert any("float16 many times slower" in note for note in model.notes)
    for wrong, words in (
        ({"device": "gpu"}, "there are cpu"),
        ({"device": 5}, "device is 5"),
        ({"precision": 16}, "16"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            darkroom.load(toy_folder, **wrong)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("guidance_scale", "called guidance here"),
        ("num_inference_steps", "called steps"),
        ("widht", "mean 'width'"),
    ],
)
def test_settings_of_other_programs_are_told_by_our_names(toy_folder, name, words):
    with pytest.raises(InvalidRequest, match=words):
        darkroom.load(toy_folder, device="cpu").generate("a boat", **{name: 3})


def test_a_variant_that_is_not_there_is_said(toy_folder, tmp_path):
    import shutil

    folder = shutil.copytree(toy_folder, tmp_path / "model")
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    notes = " ".join(darkroom.load(folder, device="cpu", variant="bf16").notes)
    assert (
        "no variant bf16 of all its weights: reads unet from diffusion_pytorch_model.fp16.safetensors"
        in notes
    )


def test_settings_beside_a_request_change_it(model):
    request = darkroom.Request(prompt="a", steps=1, seed=1, width=32, height=32)
    assert model.generate(request)[0].seed == 1
    pictures = model.generate(request, seed=5, count=2)
    assert [picture.seed for picture in pictures] == [5, 6]
    assert request == darkroom.Request(prompt="a", steps=1, seed=1, width=32, height=32)


def test_several_prompts_are_several_pictures(model):
    """Each with its own settings and steps, the settings beside them those of all."""
    asked = ["a", darkroom.Request("b", seed=9), "c"]
    steps, pictures = [], []
    for event in model.stream(asked, **{**SETTINGS, "seed": 3, "count": 2}):
        (pictures if isinstance(event, darkroom.Picture) else steps).append(event)
    told = [picture.metadata["request"] for picture in pictures]
    assert [(each["prompt"], each["seed"]) for each in told] == [
        (prompt, seed) for prompt in "abc" for seed in (3, 4)
    ]
    assert {step.index for step in steps} == set(range(6))
    (alone,) = model.generate("c", **{**SETTINGS, "seed": 4})
    assert alone.image.tobytes() == pictures[5].image.tobytes()
    assert model.generate([], **SETTINGS) == []
    with pytest.raises(InvalidRequest, match="prompt is 3: give text"):
        model.generate(["a", 3], **SETTINGS)


def test_options_of_samplers_and_schedules_reach_the_picture(model):
    def made(**settings):
        return model.generate("a", **{**SETTINGS, "seed": 1, **settings})[0]

    noisy = made(sampler="ddim:eta=1")
    assert noisy.image.tobytes() == made(sampler="ddpm").image.tobytes()
    assert noisy.image.tobytes() != made(sampler="ddim").image.tobytes()
    bent = made(sampler="DDIM", schedule="Karras:rho=3")
    assert bent.image.tobytes() != made(sampler="ddim", schedule="karras").image.tobytes()
    assert bent.metadata["request"]["sampling"]["schedule"] == "karras:rho=3"
    assert "Sampler: DDIM, Schedule type: Karras" in bent.parameters
    assert "Schedule rho: 3" in bent.parameters
    assert "Eta DDIM: 1" in noisy.parameters


def test_steps_that_are_kept_show_what_they_showed(toy_folder, tmp_path):
    folder = shutil.copytree(toy_folder, tmp_path / "toy")
    rows = [[0.1] * 4 + [0.0]] * 3
    (folder / "darkroom.json").write_text(json.dumps({"preview": rows}))
    model = darkroom.load(folder, device="cpu", precision="float32")
    kept = [
        (each, each.preview().tobytes())
        for each in model.stream("a boat", seed=1, **SETTINGS)
        if isinstance(each, darkroom.Step)
    ]
    assert len({shown for _, shown in kept}) == len(kept)
    assert all(each.preview().tobytes() == shown for each, shown in kept)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t5": "no"}, "t5 is 'no': give True or False"),
        ({"zero_snr": "no"}, "zero_snr is 'no'"),
        ({"memory": 8}, "memory is 8"),
        ({"memory": None}, "memory is None"),
        ({"vae": 5}, "vae is 5: give a name"),
        ({"refiner": []}, r"refiner is \[\]"),
        ({"others": "clip"}, "others is 'clip': give a list"),
        ({"others": None}, "others is None"),
        ({"ensemble": "pocket:0.5"}, "ensemble is 'pocket:0.5'"),
        ({"ensemble": [5]}, r"ensemble is \[5\]"),
        ({"fuse": "style"}, "fuse is 'style'"),
        ({"precision": []}, r"precision is \[\]"),
        ({"expecting": {"width": 64}, "memory": "8GB"}, "expecting is {'width': 64}: give a Request"),
    ],
)
def test_options_of_another_type(toy_folder, options, words):
    with pytest.raises(InvalidRequest, match=words):
        darkroom.load(toy_folder, device="cpu", **options)


def test_too_little_memory_is_said_in_its_unit(toy_folder):
    with pytest.raises(InvalidRequest, match=r"^1\.0 MB of memory .* takes \d+\.\d [MG]B"):
        darkroom.load(toy_folder, device="cpu", memory="1MB")


def test_what_is_no_adapter_is_told_where_it_belongs(toy_folder):
    model = darkroom.load(toy_folder, device="cpu")
    for file, option in (
        ("vae/diffusion_pytorch_model.safetensors", "`vae=`"),
        ("unet/diffusion_pytorch_model.safetensors", "`model=`"),
        ("text_encoder/model.safetensors", "`others=`"),
    ):
        with pytest.raises(darkroom.ModelError, match=f"is no adapter but .*{option}"):
            model.generate("a boat", adapters=[str(toy_folder / file)])
