"""Pipelines that begin with pictures, run by diffusers and with the import line changed."""

from __future__ import annotations

from functools import cache

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tests.compat.test_pipelines import OTHER, PROMPT, TOLERANCE, pytestmark, scheduled, seeded  # noqa: F401
from tests.families import absent, peer, relative_error

from darkroom.compat import diffusers as compat
from darkroom.compat.diffusers.schedulers import CLASSES
from darkroom.errors import InvalidRequest, ModelError

KINDS = {
    "sd1": "StableDiffusionImg2ImgPipeline",
    "sd2": "StableDiffusionImg2ImgPipeline",
    "lcm": "StableDiffusionImg2ImgPipeline",
    "sdxl": "StableDiffusionXLImg2ImgPipeline",
    "refiner": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline",
}
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 51, 3), np.uint8)) for seed in range(4)
]


@cache
def theirs(path, kind):
    loaded = peer(path)
    known = {name: loaded.config[name] for name in ("force_zeros_for_empty_prompt",) if name in loaded.config}
    if path.name == "refiner":
        known["requires_aesthetics_score"] = True
    pipe = getattr(diffusers, kind)(**loaded.components, **known)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def ours(path, kind="AutoPipelineForImage2Image"):
    pipe = getattr(compat, kind).from_pretrained(path, local_files_only=True, **absent(path))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def both(pipes, change, seeds, **settings):
    """What the same call gives of diffusers' pipeline and of ours, each with a scheduler of its own."""
    made = []
    for pipe, library in zip(pipes, (diffusers, compat), strict=True):
        kept = pipe.scheduler
        pipe.scheduler = type(kept).from_config(kept.config)
        change(pipe, library)
        made.append(pipe(generator=seeded(*seeds), **settings).images)
        pipe.scheduler = kept
    return made


def equal(made):
    """Ours, which is theirs to single precision."""
    expected, found = (torch.as_tensor(np.asarray(each)) for each in made)
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= TOLERANCE
    return found


def compare(folder, name, change=lambda pipe, library: None, seeds=(42,), output_type="latent", **settings):
    """What the same call gives of both, which is equal to single precision."""
    path, kind = folder(name), KINDS[name]
    sizes = {"width": 48, "height": 64} if name == "sd3" else {}
    settings = {"prompt": PROMPT, "image": PICTURES[0], "num_inference_steps": 3, **sizes, **settings}
    pipes = theirs(path, kind), ours(path)
    assert all(type(pipe).__name__ == kind for pipe in pipes)
    return equal(both(pipes, change, seeds, output_type=output_type, **settings))


@pytest.mark.parametrize("name", KINDS)
def test_strengths_pictures_and_prompts(folder, name):
    for strength in (0.35, 1.0):
        compare(folder, name, strength=strength, negative_prompt=OTHER, guidance_scale=4.0)
    two = {"prompt": [PROMPT, OTHER], "image": PICTURES[:2], "num_images_per_prompt": 2, "strength": 0.6}
    compare(folder, name, **two)
    # diffusers' SD 3 then wants as many pictures as there will be.
    compare(folder, name, **{**two, "image": PICTURES}, seeds=(1, 2, 3, 4))


def test_pictures_in_every_form(folder):
    array = np.asarray(PICTURES[0], np.float32)[:64, :48] / 255
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    same = [
        compare(folder, "sd1", image=each) for each in (array, tensor, tensor[None], [tensor], tensor * 2 - 1)
    ]
    assert all(torch.equal(each, same[0]) for each in same[:4])
    compare(folder, "sd1", image=torch.rand(3, 70, 51, generator=torch.manual_seed(1)))
    compare(folder, "sd1", image=torch.randn(1, 4, 8, 6, generator=torch.manual_seed(1)))
    compare(
        folder, "sd3", image=torch.rand(2, 3, 40, 40, generator=torch.manual_seed(1)), prompt=[PROMPT, OTHER]
    )
    compare(folder, "sd1", output_type="np")


@pytest.mark.parametrize(
    "name", sorted(set(CLASSES) - {"DPMSolverSDEScheduler", "FlowMatchHeunDiscreteScheduler"})
)
def test_schedulers(folder, name):
    model = "sd3" if name.startswith("FlowMatch") else "sd1"
    own = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    compare(folder, model, scheduled(name, **own), strength=0.7, num_inference_steps=4)


def test_an_ensemble_of_experts(folder):
    """The base stops midway, the refiner goes on from there, with noise of its own where it is to."""
    latents = torch.randn(1, 4, 8, 6, generator=torch.manual_seed(3))
    for start in (0.3, 0.75):
        compare(folder, "refiner", image=latents, denoising_start=start, num_inference_steps=8)
    compare(folder, "refiner", image=latents, denoising_start=0.3, denoising_end=0.8, num_inference_steps=8)
    heun = scheduled("HeunDiscreteScheduler")
    compare(folder, "refiner", heun, image=latents, denoising_start=0.5, num_inference_steps=6)
    compare(folder, "refiner", aesthetic_score=3.0, negative_aesthetic_score=7.0, strength=0.5)
    sizes = {"original_size": (100, 90), "target_size": (60, 50), "crops_coords_top_left": (4, 8)}
    sizes |= {"negative_original_size": (20, 10), "negative_target_size": (30, 40)}
    compare(folder, "sdxl", **sizes, negative_crops_coords_top_left=(1, 2), strength=0.5)
    compare(folder, "sdxl", latents=latents, strength=0.5)


def test_callbacks_see_the_same(folder):
    told = []

    def heard(pipe, step, time, tensors):
        told.append((step, float(time), tensors["latents"].float().abs().mean().item()))
        return {"latents": tensors["latents"] * 0.98}

    for name in ("DDIMScheduler", "EulerDiscreteScheduler"):
        told.clear()
        compare(
            folder, "sd1", scheduled(name), strength=0.5, num_inference_steps=6, callback_on_step_end=heard
        )
        half = len(told) // 2
        assert half
        for one, other in zip(told[:half], told[half:], strict=True):
            assert one == pytest.approx(other, rel=1e-4)


def test_pipes_of_pipes(folder):
    text = compat.AutoPipelineForText2Image.from_pretrained(folder("sd1"))
    image = compat.AutoPipelineForImage2Image.from_pipe(text)
    assert type(image) is compat.StableDiffusionImg2ImgPipeline
    assert image.unet is text.unet
    assert type(compat.AutoPipelineForText2Image.from_pipe(image)) is compat.StableDiffusionPipeline
    with pytest.raises(ModelError, match="use StableDiffusionXLImg2ImgPipeline"):
        compat.StableDiffusionImg2ImgPipeline.from_pretrained(folder("sdxl"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": None}, "image is None"),
        ({"image": "boat.png"}, r"image is \['str'\]"),
        ({"image": []}, "image is empty"),
        ({"image": PICTURES[:2]}, "image is 2 pictures, for 1"),
        ({"image": Image.new("RGB", (5, 9))}, "image is of 5x9"),
        ({"image": torch.zeros(2, 16, 16)}, "give 3 channels"),
        ({"strength": 1.2}, "strength is 1.2"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": 0.1}, "strength 0.1 of 5 steps leaves none"),
        ({"width": 64}, "takes no 'width'"),
    ],
)
def test_mistakes(folder, given, said):
    with pytest.raises(InvalidRequest, match=said):
        ours(folder("sd1"))(**{"prompt": PROMPT, "image": PICTURES[0], "num_inference_steps": 5, **given})
