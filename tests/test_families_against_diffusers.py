"""Every family end to end against its pipeline in diffusers: one folder, one noise, one schedule, latents in float32.

What is compared is the latent after five steps, before the autoencoder. diffusers is handed a noise that, times its
scheduler's first sigma, is the latent that Darkroom begins with.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests import families
from tests.families import peer, relative_error
from tests.tables import pairs

import darkroom
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.cli import main
from darkroom.diffusion import SeededNoise, points_for
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation import open_picture
from darkroom.generation.passes import native_size

pytestmark = pytest.mark.peer

TOLERANCE = 2e-5
STEPS = 5
PROMPT = "a red boat on a calm sea, 3 grey houses"


class Undecoded:
    """A model's networks whose autoencoder keeps what it is given."""

    def __init__(self, networks: Any) -> None:
        self.networks = networks
        self.latents: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.networks, name)

    def decode(self, latent: torch.Tensor, *_: Any) -> np.ndarray:
        self.latents.append(latent.clone())
        return np.zeros((8, 8, 3), np.uint8)


@lru_cache(maxsize=16)
def undecoded(path, refiner):
    model = darkroom.load(path, device="cpu", precision="float32", refiner=refiner)
    model.engine.networks = Undecoded(model.engine.networks)
    return model


def ours(path, prompt=PROMPT, *, refiner=None, **settings):
    """The latents (n, C, h, w) that Darkroom makes."""
    model = undecoded(path, refiner)
    model.engine.networks.latents.clear()
    settings = {"steps": STEPS, "seed": 5, "second_pass": "off", **settings}
    model.generate(prompt, **settings)
    return torch.cat(model.engine.networks.latents)


def noise_for(loaded, scheduler, points, seeds, shape):
    """What to hand to diffusers as latents: it multiplies by its scheduler's first sigma, and some schedulers work on
    x / alpha."""
    first = points[0]
    scheduler.set_timesteps(len(points) - 1)
    exploding = type(scheduler).__name__.startswith("Euler")
    scale = (
        first.sigma / (first.alpha if exploding else 1.0) / float(getattr(scheduler, "init_noise_sigma", 1.0))
    )
    return torch.cat([scale * SeededNoise(seed, shape)(0) for seed in seeds])


def theirs(
    path, schedule, sampler="euler", prompt=PROMPT, *, negative=None, scheduler=None, seeds=(5,), **settings
):
    """The latents that diffusers makes, from the noise of Darkroom's seeds."""
    loaded = peer(path)
    loaded.scheduler = scheduler or loaded.scheduler
    with open_source(path) as source:
        points = points_for(
            source.family.schedule, settings.get("num_inference_steps", STEPS), sampler, schedule
        )
    channels = (loaded.transformer if hasattr(loaded, "transformer") else loaded.unet).config.in_channels
    shape = (1, channels, settings["height"] // 8, settings["width"] // 8)
    noise = noise_for(loaded, loaded.scheduler, points, seeds, shape)
    generator = torch.Generator().manual_seed(seeds[0])
    torch.randn(shape, generator=generator)  # Darkroom's draw 0 is the latent.
    return loaded(
        prompt=[prompt] * len(seeds),
        negative_prompt=None if negative is None else [negative] * len(seeds),
        latents=noise,
        generator=generator,
        output_type="latent",
        **{"num_inference_steps": STEPS, **settings},
    ).images


# Per family: our sampler and schedule, for the scheduler in its folder.
SAME = {
    "sd1": ("ddim", "leading"),
    "sd2": ("ddim", "leading"),
    "sdxl": ("euler", "ddim_uniform"),  # Leading, but to no noise at all, as Euler's scheduler always does.
    "sdxl-said": ("euler", "ddim_uniform"),
    "sd3": ("euler", "normal"),
    "sd3-clips": ("euler", "normal"),
    "sd35-medium": ("euler", "normal"),
    "sd35-large": ("euler", "normal"),
}


TOLD = [(64, 64, "night, rain", 5.0), (48, 96, "", 7.5), (96, 80, "night", 1.0)]


@pytest.mark.parametrize(("name", "told"), pairs(list(SAME), TOLD))
def test_text_to_image(folder, name, told):
    width, height, negative, guidance = told
    sampler, schedule = SAME[name]
    size = {"width": width, "height": height}
    expected = theirs(
        folder(name),
        schedule,
        sampler,
        guidance_scale=guidance,
        negative=negative or None,
        **size,
    )
    found = ours(
        folder(name), guidance=guidance, negative=negative, sampler=sampler, schedule=schedule, **size
    )
    error = relative_error(found, expected)
    print(f"{name} {width}x{height}: relative error {error:.1e}")
    assert error <= TOLERANCE


@pytest.mark.parametrize("name", SAME)
def test_the_text_matters(folder, name):
    """What the comparisons above could not see: weights that make nothing of the prompt."""
    sampler, schedule = SAME[name]
    settings = {"width": 64, "height": 64, "sampler": sampler, "schedule": schedule, "guidance": 5.0}
    base = ours(folder(name), **settings)
    for change in ({"prompt": "two green trees at night"}, {"negative": "rain"}, {"guidance": 2.0}):
        assert relative_error(ours(folder(name), **settings | change), base) > 10 * TOLERANCE, change


def test_a_batch_is_as_many_pictures(folder):
    """Each picture of a count has the noise of its own seed, as diffusers' list of generators would give it."""
    size = {"width": 64, "height": 48}
    expected = theirs(
        folder("sdxl"), "ddim_uniform", seeds=(5, 6, 7), guidance_scale=4.0, negative="rain", **size
    )
    found = ours(
        folder("sdxl"),
        count=3,
        guidance=4.0,
        negative="rain",
        sampler="euler",
        schedule="ddim_uniform",
        **size,
    )
    assert relative_error(found, expected) <= TOLERANCE


def test_the_longest_prompt_that_is_not_cut_and_one_that_is(folder):
    """75 tokens fill a chunk exactly. Of more, diffusers keeps the first; Darkroom reads them all."""
    size = {"width": 64, "height": 64}
    whole = " ".join(["boat", "sea", "house"] * 25)
    settings = {"guidance": 4.0, "sampler": "euler", "schedule": "ddim_uniform", **size}
    expected = theirs(folder("sdxl"), "ddim_uniform", prompt=whole, guidance_scale=4.0, **size)
    found = ours(folder("sdxl"), whole, **settings)
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(ours(folder("sdxl"), whole + " night", **settings), expected) > 10 * TOLERANCE


@pytest.mark.parametrize("crop", [(0, 0), (24, 8)])
def test_sizes_that_sdxl_is_told(folder, crop):
    size = {"width": 64, "height": 96}
    top, left = crop
    expected = theirs(
        folder("sdxl"),
        "ddim_uniform",
        guidance_scale=5.0,
        original_size=(512, 768),
        crops_coords_top_left=(top, left),
        target_size=(128, 64),
        **size,
    )
    settings = {"guidance": 5.0, "sampler": "euler", "schedule": "ddim_uniform", **size}
    told = {"original_height": 512, "original_width": 768, "crop_top": top, "crop_left": left}
    told |= {"target_height": 128, "target_width": 64}
    assert relative_error(ours(folder("sdxl"), **settings, **told), expected) <= TOLERANCE
    assert relative_error(ours(folder("sdxl"), **settings), expected) > 10 * TOLERANCE


def refined(base, refiner, switch, steps, scores, scheduler=None, **settings):
    """Latents of diffusers' two pipelines, one after the other."""
    begun = theirs(base, "ddim_uniform", denoising_end=switch, num_inference_steps=steps, **settings)
    negative = settings.get("negative")
    return peer(refiner)(
        prompt=PROMPT,
        negative_prompt=negative,
        image=begun,
        denoising_start=switch,
        num_inference_steps=steps,
        guidance_scale=settings["guidance_scale"],
        aesthetic_score=scores[0],
        negative_aesthetic_score=scores[1],
        output_type="latent",
    ).images


@pytest.mark.parametrize("switch", [0.4, 0.8])
@pytest.mark.parametrize("negative", ["night, rain", None])
def test_base_and_refiner(folder, switch, negative):
    size = {"width": 64, "height": 80}
    expected = refined(
        folder("sdxl"),
        folder("refiner"),
        switch,
        10,
        (7.0, 1.5),
        negative=negative,
        guidance_scale=5.0,
        **size,
    )
    settings = {
        "steps": 10,
        "negative": negative or "",
        "guidance": 5.0,
        "sampler": "euler",
        "schedule": "ddim_uniform",
        "aesthetic": 7.0,
        "negative_aesthetic": 1.5,
        **size,
    }
    found = ours(folder("sdxl"), refiner=folder("refiner"), refiner_switch=switch, **settings)
    error = relative_error(found, expected)
    print(f"switch {switch}: relative error {error:.1e}")
    assert error <= TOLERANCE
    alone = ours(folder("sdxl"), **settings)
    assert relative_error(alone, expected) > 100 * TOLERANCE
    # A switch at the very end leaves everything to the base.
    never = ours(folder("sdxl"), refiner=folder("refiner"), refiner_switch=1.0, **settings)
    assert torch.equal(never, alone)
    other = ours(
        folder("sdxl"),
        refiner=folder("refiner"),
        refiner_switch=switch,
        **settings | {"aesthetic": 3.0},
    )
    assert relative_error(other, found) > 5 * TOLERANCE


def test_a_refiner_alone_draws_from_noise(folder):
    """diffusers has no pipeline for it, but begins anywhere: at its first step, with pure noise as the picture."""
    refiner, size = folder("refiner"), {"width": 64, "height": 80}
    loaded = peer(refiner)
    with open_source(refiner) as source:
        points = points_for(source.family.schedule, STEPS, "euler", "ddim_uniform")
    noise = noise_for(loaded, loaded.scheduler, points, (5,), (1, 4, 10, 8)) * float(
        loaded.scheduler.init_noise_sigma
    )
    expected = loaded(
        prompt=PROMPT,
        image=noise,
        denoising_start=0.001,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        output_type="latent",
    ).images
    found = ours(refiner, guidance=5.0, sampler="euler", schedule="ddim_uniform", **size)
    assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize(
    "name", ["sd1", "sd2", "sdxl", "sdxl-said", "refiner", "sd3-clips", "sd35-medium", "lcm"]
)
def test_a_single_file_makes_what_its_folder_makes(folder, name, tmp_path):
    sampler, schedule = SAME.get(name, ("euler", "ddim_uniform"))
    with open_source(folder(name)) as source:
        convert(source, tmp_path / "model.safetensors")
    settings = {"width": 64, "height": 80, "sampler": sampler, "schedule": schedule, "steps": 2}
    assert torch.equal(ours(tmp_path / "model.safetensors", **settings), ours(folder(name), **settings))


@pytest.mark.parametrize("name", ["sd1", "sdxl", "refiner", "lcm"])
def test_a_single_file_is_told_by_its_shapes_alone(folder, name, tmp_path):
    sampler, schedule = SAME.get(name, ("euler", "ddim_uniform"))
    with open_source(folder(name)) as source:
        convert(source, tmp_path / "said.safetensors")
    save_file(load_file(tmp_path / "said.safetensors"), tmp_path / "model.safetensors")
    settings = {
        "width": 64,
        "height": 80,
        "guidance": 5.0,
        "sampler": sampler,
        "schedule": schedule,
        "steps": 2,
    }
    found = ours(tmp_path / "model.safetensors", **settings)
    assert torch.equal(found, ours(folder(name), **settings))


@pytest.mark.parametrize(("layers", "used"), [(23, -1), (24, -2)])
def test_which_layer_of_stable_diffusion_2s_encoder_a_file_means(tmp_path, layers, used):
    """Its authors' files have all 24, those that diffusers' script makes of folders leave out the last."""
    with open_source(families.write_sd2(tmp_path / "folder", layers=layers)) as source:
        convert(source, tmp_path / "said.safetensors")
    save_file(load_file(tmp_path / "said.safetensors"), tmp_path / "model.safetensors")
    with open_source(tmp_path / "model.safetensors") as source:
        assert source.family.name == "Stable Diffusion 2"
        assert source.family.text["text_encoder"].layer == used


# Distilled models


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ["turbo", "sd1"])
def test_trailing(folder, name, steps):
    """What Turbo and Lightning are run with: few steps, evenly down from pure noise, without guidance."""
    scheduler = diffusers.EulerDiscreteScheduler(**families.NOISE, timestep_spacing="trailing")
    size = {"width": 64, "height": 80}
    expected = theirs(
        folder(name),
        "trailing",
        scheduler=scheduler,
        guidance_scale=0.0,
        num_inference_steps=steps,
        **size,
    )
    found = ours(folder(name), steps=steps, guidance=1.0, sampler="euler", schedule="trailing", **size)
    assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    ("name", "sampler", "scheduler", "schedule"),
    [
        ("turbo", "euler_ancestral", "EulerAncestralDiscreteScheduler", "trailing"),
        ("turbo", "lcm", "LCMScheduler", "lcm"),
        ("turbo", "tcd", "TCDScheduler", "lcm"),
        ("sd1", "lcm", "LCMScheduler", "lcm"),
        ("sd1", "tcd", "TCDScheduler", "lcm"),
    ],
)
def test_samplers_of_distilled_models(folder, name, sampler, scheduler, schedule, steps):
    """Their fresh noise included: both draw it from one generator, after the latent."""
    options = {"timestep_spacing": "trailing"} if schedule == "trailing" else {}
    eta = {"eta": 0.3} if sampler == "tcd" else {}  # The pipelines say 0, the scheduler and Darkroom 0.3.
    size = {"width": 64, "height": 64}
    expected = theirs(
        folder(name),
        schedule,
        sampler,
        scheduler=getattr(diffusers, scheduler)(**families.NOISE, **options),
        guidance_scale=1.0,
        num_inference_steps=steps,
        **eta,
        **size,
    )
    found = ours(folder(name), steps=steps, guidance=1.0, sampler=sampler, schedule=schedule, **size)
    assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize("guidance", [8.5, 2.0])
def test_a_network_that_is_told_the_guidance_scale(folder, guidance):
    size = {"width": 64, "height": 80}
    settings = {"guidance_scale": guidance, "num_inference_steps": 4, **size}
    expected = theirs(folder("lcm"), "lcm", "lcm", **settings)
    found = ours(folder("lcm"), steps=4, guidance=guidance, sampler="lcm", schedule="lcm", **size)
    assert relative_error(found, expected) <= TOLERANCE
    other = ours(folder("lcm"), steps=4, guidance=guidance + 1, sampler="lcm", schedule="lcm", **size)
    assert relative_error(other, expected) > 10 * TOLERANCE


def test_distilled_folders_are_told_by_their_names_and_schedulers(folder):
    def preferred(path):
        with open_source(path) as source:
            return source.family.preferences

    turbo = preferred(folder("turbo"))
    assert (turbo.steps, turbo.guidance, turbo.sampler, turbo.schedule) == (
        1,
        1.0,
        "euler_ancestral",
        "trailing",
    )
    told = preferred(folder("lcm"))
    assert (told.steps, told.guidance, told.sampler, told.schedule) == (4, 8.5, "lcm", "lcm")
    assert preferred(folder("sdxl")).steps > 10


# The command line


def test_a_refined_picture_is_made_again(folder, tmp_path, monkeypatch, capsys):
    base, refiner = folder("sdxl"), folder("refiner")
    monkeypatch.setenv("DARKROOM_MODELS", str(base.parent))
    monkeypatch.chdir(tmp_path)
    given = ("--steps", "4", "--seed", "7", "--width", "64", "--height", "64", "--device", "cpu", "--quiet")
    assert main(["generate", "a boat", "--model", str(base), "--refiner", str(refiner), *given]) == 0
    picture = tmp_path / "out/7-a-boat.png"
    image, metadata = open_picture(picture)
    assert metadata["request"]["xl"]["refiner_switch"] == 0.8
    assert metadata["model"]["refiner"] == "refiner"
    assert set(metadata["model"]["weights"]) == {
        *("unet", "text_encoder", "text_encoder_2", "vae"),
        *("refiner unet", "refiner text_encoder_2"),
    }
    with Image.open(picture) as file:
        assert ", Refiner: refiner [" in file.text["parameters"]
        assert "], Refiner switch at: 0.8" in file.text["parameters"]
    assert main(["again", str(picture)]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
    assert main(["generate", "a boat", "--model", str(base), "--output", "alone", *given]) == 0
    assert (
        np.asarray(open_picture(tmp_path / "alone/7-a-boat.png")[0]).tobytes() != np.asarray(image).tobytes()
    )
    capsys.readouterr()
    for wrong, status in (
        (("--refiner", str(folder("sd1"))), 1),
        (("--refiner-switch", "0.5"), 2),
        (("--refiner", str(refiner), "--refiner-switch", "1.5"), 2),
    ):
        assert main(["generate", "a boat", "--model", str(base), *wrong, *given]) == status
        error = capsys.readouterr().err
        assert "refine" in error
        assert "Traceback" not in error


# Refusals


def test_refiners_that_do_not_fit_are_named(folder, tmp_path):
    def refused(base, refiner, words):
        with pytest.raises(ModelError, match=words) as raised:
            darkroom.load(folder(base), refiner=refiner, device="cpu", precision="float32")
        assert "\n" not in str(raised.value)

    refused("sd1", folder("refiner"), "Stable Diffusion 1: a refiner goes with")
    refused("sd3", folder("refiner"), "Stable Diffusion 3 medium: a refiner goes with")
    refused("refiner", folder("refiner"), "XL refiner: a refiner goes with")
    refused("sdxl", folder("sd1"), "Stable Diffusion 1: it cannot refine")
    refused("sdxl", tmp_path / "nothing", "nothing")
    wide = families.write_refiner(tmp_path / "wide", in_channels=16, out_channels=16)
    refused("sdxl", wide, "works on 16 channels")
    with pytest.raises(InvalidRequest, match=r"refiner_switch is 0.5, but sdxl was loaded without"):
        ours(folder("sdxl"), refiner_switch=0.5)
    for switch in (0.0, 1.5, "late"):
        with pytest.raises(InvalidRequest, match="refiner_switch is"):
            ours(folder("sdxl"), refiner=folder("refiner"), refiner_switch=switch)


def test_sizes_that_a_model_cannot_draw_are_named(folder):
    for width, words in ((72, "width is 72: .* multiples of 16, such as 64"), (208, "draws up to 192")):
        with pytest.raises(InvalidRequest, match=words):
            ours(folder("sd3"), width=width, height=64)
    # Of a large picture the first pass is small, and a multiple too.
    small = native_size(192, 112, darkroom.load(folder("sd3"), device="cpu").family)
    assert small == (80, 48)
