"""Pipelines of models that are shown the picture they draw over, run by diffusers and with the import line changed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.compat.test_image2image import both, equal, ours
from tests.compat.test_pipelines import OTHER, PROMPT, pytestmark, scheduled  # noqa: F401
from tests.families import absent, peer

from darkroom.compat import diffusers as compat
from darkroom.errors import InvalidRequest, ModelError

KINDS = {
    "pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "depth": "StableDiffusionDepth2ImgPipeline",
    "upscaler": "StableDiffusionUpscalePipeline",
    "unclip": "StableUnCLIPImg2ImgPipeline",
}
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (49, 34, 3), np.uint8)) for seed in range(4)
]
DEPTHS = torch.rand(4, 30, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def compare(folder):
    def run(name, change=lambda pipe, library: None, seeds=(42,), output_type="latent", **settings):
        """What the same call gives of both, which is equal to single precision."""
        pipes = peer(folder(name)), ours(folder(name), "DiffusionPipeline")
        assert all(type(pipe).__name__ == KINDS[name] for pipe in pipes)
        own = {"depth": {"depth_map": DEPTHS[:1]}, "unclip": {"width": 48, "height": 40}}.get(name, {})
        settings = {"prompt": PROMPT, "image": PICTURES[0], "num_inference_steps": 2, **own, **settings}
        return equal(both(pipes, change, seeds, output_type=output_type, **settings))

    return run


def tensors(count):
    return torch.cat(
        [torch.from_numpy(np.array(each)).permute(2, 0, 1)[None] / 255 for each in PICTURES[:count]]
    )


@pytest.mark.parametrize("name", KINDS)
def test_prompts_pictures_and_numbers_of_them(compare, name):
    compare(name, negative_prompt=OTHER, guidance_scale=3.0)
    compare(name, guidance_scale=1.0, num_images_per_prompt=2, seeds=(1, 2))
    two = {"prompt": [PROMPT, OTHER], "image": PICTURES[:2], "negative_prompt": [OTHER, ""]}
    compare(name, **two, num_images_per_prompt=2 if name != "pix2pix" else 1)
    compare(name, image=tensors(1)[:, :, :32, :32], output_type="pt")


def test_how_much_the_picture_counts(compare):
    for scale in (0.5, 1.0, 2.5):
        compare("pix2pix", image_guidance_scale=scale, guidance_scale=4.0)
    compare("pix2pix", image=torch.randn(1, 4, 5, 6), latents=torch.randn(1, 4, 5, 6))


def test_how_deep_it_is(compare):
    for strength in (0.5, 1.0):
        compare("depth", strength=strength)
    compare(
        "depth", prompt=[PROMPT, OTHER], image=PICTURES[:2], depth_map=DEPTHS[:2], num_images_per_prompt=2
    )


def test_depth_that_is_measured(compare):
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    settings = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    settings |= {
        "image_size": 32,
        "patch_size": 8,
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
    }
    torch.manual_seed(3)
    network = DPTForDepthEstimation(DPTConfig(backbone_out_indices=[0, 1, 2, 3], **settings)).eval()
    processor = DPTImageProcessor(size={"height": 32, "width": 32})

    def change(pipe, library):
        pipe.depth_estimator, pipe.feature_extractor = network, processor

    compare("depth", change, depth_map=None)


def test_how_much_noise_is_over_it(compare):
    for level in (0, 350):
        compare("upscaler", noise_level=level)
    compare("upscaler", latents=torch.randn(1, 4, 48, 32))


def test_what_is_varied(compare, folder):
    compare("unclip", prompt=None, noise_level=700)
    compare("unclip", prompt=None, image=PICTURES[:2], num_images_per_prompt=2, seeds=(1, 2, 3, 4))
    embeds = torch.randn(1, 64, generator=torch.Generator().manual_seed(2))
    compare("unclip", image=None, image_embeds=embeds, num_images_per_prompt=2)
    found = ours(folder("unclip"), KINDS["unclip"]).noise_image_embeddings(embeds, 5, noise=embeds)
    expected = peer(folder("unclip")).noise_image_embeddings(embeds, 5, noise=embeds)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("model", KINDS)
def test_schedulers(compare, model, name):
    compare(model, scheduled(name))


def test_what_callbacks_change(compare):
    def change(pipe, step, time, told):
        assert set(told) == {"latents"}
        pipe._guidance_scale = 2.0 + step
        return {"latents": told["latents"] * 0.9}

    compare("pix2pix", callback_on_step_end=change)


def test_mistakes(folder):
    pix2pix, depth, upscaler, unclip = (partial(ours(folder(name), kind)) for name, kind in KINDS.items())
    pix2pix, depth, upscaler = (partial(each, PROMPT) for each in (pix2pix, depth, upscaler))
    for call, named in (
        (partial(pix2pix, None), "image is None: give the picture that is changed"),
        (partial(depth, PICTURES[0]), "depth_map is None"),
        (partial(depth, PICTURES[0], np.zeros((1, 3, 3))), "depth_map is no tensor"),
        (partial(upscaler, None), "image is None: give the picture that is enlarged"),
        (partial(upscaler, PICTURES[0], noise_level=351), "noise_level is 351: give 350 at most"),
        (partial(upscaler, PICTURES[0], noise_level=-1), "noise_level is -1"),
        (partial(pix2pix, PICTURES[0], image_guidance_scale="x"), "image_guidance_scale is 'x'"),
        (partial(pix2pix, PICTURES[:2]), "image is 2 pictures, for 1"),
        (partial(unclip), "give either image or image_embeds"),
        (partial(unclip, PICTURES[0], noise_level=1000), "noise_level is 1000: give 999 at most"),
        (partial(unclip, PICTURES[:2], ""), "image is 2 pictures, for 1"),
    ):
        with pytest.raises(InvalidRequest, match=named):
            call(num_inference_steps=1)
    with pytest.raises(ModelError, match="none that needs a picture: use StableDiffusionPipeline"):
        compat.StableDiffusionInstructPix2PixPipeline.from_pretrained(folder("sd1"))


def test_what_it_says_of_itself(folder, tmp_path):
    import diffusers

    pipe = ours(folder("upscaler"), "StableDiffusionUpscalePipeline")
    assert pipe.config.max_noise_level == 350
    assert type(pipe.low_res_scheduler).__name__ == "DDPMScheduler"
    assert pipe.low_res_scheduler.config.beta_end == 0.02
    for name, kind in KINDS.items():
        ours(folder(name), kind).save_pretrained(tmp_path / name)
        gone = absent(tmp_path / name)
        parts = {each: part for each, part in peer(folder(name)).components.items() if "tokenizer" in each}
        again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / name, **gone | parts)
        assert type(again).__name__ == kind
