"""Whole pipelines against diffusers, on the same folder, weights and noise, in float32.

Tolerances are on decoded pixels (0 to 255): rounding may move one by a level or two.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import darkroom
from darkroom.diffusion import SeededNoise

pytestmark = pytest.mark.peer


def theirs(folder, seed, sigma_start, scheduler=None, **settings):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipeline.scheduler = scheduler(pipeline.scheduler.config)
    noise = SeededNoise(seed, (1, 4, settings["height"] // 8, settings["width"] // 8))(0)
    # diffusers scales what it is handed by its scheduler's own first sigma.
    latents = noise * sigma_start
    image = pipeline(latents=latents, output_type="np", **settings).images[0]
    return np.round(image * 255)


def ours(folder, seed, **settings):
    model = darkroom.load(folder, device="cpu", precision="float32")
    return np.asarray(model.generate(seed=seed, second_pass="off", **settings)[0].image).astype(float)


@pytest.fixture(scope="module")
def epsilon_folder(tmp_path_factory):
    from toys import write_model

    return write_model(tmp_path_factory.mktemp("epsilon") / "toy", "epsilon")


@pytest.mark.parametrize(("width", "height", "guidance"), [(32, 32, 5.0), (48, 40, 1.0)])
def test_ddim_on_an_epsilon_model(epsilon_folder, width, height, guidance):
    from diffusers import DDIMScheduler

    size = {"width": width, "height": height}
    expected = theirs(
        epsilon_folder,
        5,
        1.0,
        lambda config: DDIMScheduler.from_config(config, timestep_spacing="leading"),
        prompt="a red boat",
        negative_prompt="night",
        num_inference_steps=5,
        guidance_scale=guidance,
        **size,
    )
    found = ours(
        epsilon_folder,
        5,
        prompt="a red boat",
        negative="night",
        steps=5,
        guidance=guidance,
        sampler="ddim",
        schedule="leading",
        **size,
    )
    # diffusers starts from noise of unit spread, Darkroom from alpha * 0 + sigma * noise.
    assert np.abs(found - expected).mean() < 1.0


def test_the_folders_own_scheduler_on_a_flow_model(toy_folder):
    settings = {"prompt": "two green trees", "width": 32, "height": 32}
    expected = theirs(toy_folder, 3, 1.0, num_inference_steps=8, guidance_scale=4.0, **settings)
    found = ours(toy_folder, 3, steps=8, guidance=4.0, sampler="dpmpp_2m", schedule="simple", **settings)
    # diffusers starts its flow at t = 0.999, Darkroom at 1.
    assert np.abs(found - expected).mean() < 2.0


def test_torch_default_generator_is_left_alone(toy_folder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ours(toy_folder, 3, prompt="a", steps=2, width=32, height=32, sampler="euler_ancestral")
    assert torch.equal(before, torch.get_rng_state())
