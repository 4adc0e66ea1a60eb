"""Models that are shown the picture they draw over: InstructPix2Pix, depth, the x4 upscaler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.families import peer, relative_error

import darkroom
from darkroom.generation.shown import _APART

PROMPT = "make it a red boat"
SETTINGS = {
    **{"negative": "night", "steps": 5, "seed": 9, "sampler": "ddim", "schedule": "leading"},
    "full_noise": True,
}


def picture_of(width, height, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def model(folder):
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = darkroom.load(folder(name), device="cpu", precision="float32")
        return loaded[name]

    return get


def theirs(path, **call):
    """What diffusers' pipeline makes of the same."""
    pipe = peer(path)
    call = {"prompt": PROMPT, "negative_prompt": "night", "num_inference_steps": 5, **call}
    return pipe(output_type="latent", **call).images


def seeded(seed=9):
    return torch.Generator().manual_seed(seed)


# Against diffusers: the latent after five steps, in float32


@pytest.mark.peer
@pytest.mark.parametrize(
    ("size", "guidance", "image_guidance"),
    [((64, 48), 4.0, 1.5), ((48, 80), 7.5, 1.0), ((40, 64), 2.0, 3.0)],
)
def test_instruct_pix2pix(folder, model, size, guidance, image_guidance):
    image = picture_of(*size)
    expected = theirs(
        folder("pix2pix"),
        image=Image.fromarray(image),
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
        generator=seeded(),
    )
    (found,) = model("pix2pix").edit(
        image, PROMPT, guidance=guidance, image_guidance=image_guidance, **SETTINGS
    )
    assert relative_error(found.latents, expected) <= 1e-4


@pytest.mark.peer
@pytest.mark.parametrize(("size", "strength"), [((64, 48), 0.6), ((48, 80), 1.0)])
def test_depth(folder, model, size, strength, monkeypatch):
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    image, depth = picture_of(*size), picture_of(*size, seed=2)[..., 0]
    expected = theirs(
        folder("depth"),
        image=Image.fromarray(image),
        depth_map=torch.from_numpy(depth)[None].float(),
        strength=strength,
        guidance_scale=4.0,
        generator=seeded(),
    )
    asked = {"strength": strength, "strength_as": "diffusers", "guidance": 4.0}
    asked = {**SETTINGS, **asked, "full_noise": False}
    (found,) = model("depth").edit(image, PROMPT, depth=depth, **asked)
    assert relative_error(found.latents, expected) <= 1e-4


@pytest.mark.peer
@pytest.mark.parametrize(("size", "level", "guidance"), [((64, 48), 0, 4.0), ((40, 56), 300, 1.0)])
def test_unclip(folder, model, size, level, guidance):
    image = picture_of(*size)
    expected = theirs(
        folder("unclip"),
        image=Image.fromarray(image),
        noise_level=level,
        guidance_scale=guidance,
        width=size[0],
        height=size[1],
        latents=torch.randn(1, 4, size[1] // 8, size[0] // 8, generator=seeded()),
        generator=seeded(9 + _APART),
    )
    asked = {**SETTINGS, "guidance": guidance, "noise_level": level}
    (found,) = model("unclip").edit(image, PROMPT, **asked)
    assert relative_error(found.latents, expected) <= 1e-4


@pytest.mark.peer
@pytest.mark.parametrize(("size", "level"), [((16, 12), 20), ((8, 20), 0), ((12, 16), 350)])
def test_upscaler(folder, model, size, level):
    image = picture_of(*size)
    expected = theirs(
        folder("upscaler"),
        image=Image.fromarray(image),
        noise_level=level,
        guidance_scale=4.0,
        latents=torch.randn(1, 4, *size[::-1], generator=seeded()),
        generator=seeded(9 + _APART),
    )
    asked = {**SETTINGS, "schedule": "leading:steps_offset=0", "guidance": 4.0}
    (found,) = model("upscaler").edit(image, PROMPT, noise_level=level, **asked)
    assert found.image.size == (4 * size[0], 4 * size[1])
    assert relative_error(found.latents, expected) <= 1e-4
