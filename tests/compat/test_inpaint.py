"""Pipelines that paint a part of a picture anew, run by diffusers and with the import line changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tests.compat.test_image2image import PICTURES, both, equal, ours, theirs
from tests.compat.test_pipelines import OTHER, PROMPT, pytestmark, scheduled  # noqa: F401
from tests.families import write_sd1

from darkroom.compat import diffusers as compat
from darkroom.compat.diffusers.schedulers import CLASSES
from darkroom.errors import InvalidRequest, ModelError

KINDS = {
    "sd1": "StableDiffusionInpaintPipeline",
    "sdxl": "StableDiffusionXLInpaintPipeline",
    "sd3": "StableDiffusion3InpaintPipeline",
    "nine": "StableDiffusionInpaintPipeline",
}
MASKS = [Image.new("L", (51, 70)) for _ in PICTURES]
for number, mask in enumerate(MASKS):
    ImageDraw.Draw(mask).ellipse((5 + number, 9, 40, 50 - 3 * number), fill=255)


@pytest.fixture(scope="module")
def places(folder, tmp_path_factory):
    nine = write_sd1(tmp_path_factory.mktemp("nine") / "sd1", 70, in_channels=9)
    return lambda name: nine if name == "nine" else folder(name)


def compare(places, name, change=lambda pipe, library: None, seeds=(42,), output_type="latent", **settings):
    """What the same call gives of both, which is equal to single precision."""
    path, kind = places(name), KINDS[name]
    settings = {
        "prompt": PROMPT,
        "image": PICTURES[0],
        "mask_image": MASKS[0],
        "width": 48,
        "height": 64,
        "strength": 0.7,
        "num_inference_steps": 3,
        **settings,
    }
    pipes = theirs(path, kind), ours(path, "AutoPipelineForInpainting")
    assert all(type(pipe).__name__ == kind for pipe in pipes)
    made = both(pipes, change, seeds, output_type=output_type, **settings)
    if output_type == "pil":
        return [[np.asarray(each) for each in images] for images in made]
    return equal(made)


@pytest.mark.parametrize("name", KINDS)
def test_strengths_pictures_and_prompts(places, name):
    for strength in (0.4, 1.0):
        compare(places, name, strength=strength, negative_prompt=OTHER, guidance_scale=4.0)
    two = {
        "prompt": [PROMPT, OTHER],
        "image": PICTURES[:2],
        "mask_image": MASKS[:2],
        "num_images_per_prompt": 2,
    }
    compare(places, name, **two)
    if name != "sd3":  # diffusers' draws of the masked picture fail there.
        compare(places, name, **{**two, "image": PICTURES, "mask_image": MASKS}, seeds=(1, 2, 3, 4))


# Of two calls a step: what is put back between them is put back after the step here.
TWO_CALLS = {
    f"{name}Scheduler" for name in ("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE")
}
TWO_CALLS |= {"FlowMatchHeunDiscreteScheduler", "PNDMScheduler"}


@pytest.mark.parametrize("name", sorted(set(CLASSES) - TWO_CALLS))
def test_schedulers(places, name):
    model = "sd3" if name.startswith("FlowMatch") else "sd1"
    compare(places, model, scheduled(name), num_inference_steps=4)


@pytest.mark.parametrize(
    "name", sorted(TWO_CALLS - {"DPMSolverSDEScheduler", "FlowMatchHeunDiscreteScheduler"})
)
def test_schedulers_of_two_calls_a_step(places, name):
    own = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    compare(places, "nine", scheduled(name, **own), num_inference_steps=4, strength=1.0)


def test_what_else_a_call_takes(places):
    latents = torch.randn(1, 4, 8, 6, generator=torch.manual_seed(3))
    compare(places, "sd1", latents=latents, strength=1.0)
    compare(places, "sd1", masked_image_latents=latents)
    compare(places, "nine", masked_image_latents=latents)
    compare(places, "sdxl", image=latents)
    compare(places, "sdxl", image=latents, denoising_start=0.3, denoising_end=0.8, num_inference_steps=8)
    compare(places, "sd1", output_type="np")
    tensor = torch.rand(1, 3, 64, 48, generator=torch.manual_seed(1))
    flat = torch.zeros(64, 48)
    flat[8:40, 8:24] = 1
    of_bytes = flat.numpy().astype(np.uint8)
    for each in (flat, flat[None], flat[None, None], flat.numpy(), of_bytes, of_bytes * 255):
        compare(places, "sd1", image=tensor if isinstance(each, torch.Tensor) else tensor[0].permute(1, 2, 0).numpy(),
                mask_image=each)  # fmt: skip


@pytest.mark.parametrize("padding", [0, 8, 500])
def test_only_what_is_around_the_mask(places, padding):
    for box in ((5, 9, 20, 14), (30, 40, 50, 69), (0, 0, 3, 60)):
        mask = Image.new("L", (51, 70))
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        settings = {"mask_image": mask, "padding_mask_crop": padding, "output_type": "pil"}
        (expected,), (found,) = compare(places, "sd1", **settings)
        assert np.abs(found.astype(int) - expected[..., :3]).max() <= 2
        assert (found[np.asarray(mask) == 0] == np.asarray(PICTURES[0])[np.asarray(mask) == 0]).all()


def test_pipes_of_pipes(places):
    text = compat.AutoPipelineForText2Image.from_pretrained(places("sd1"))
    inpainting = compat.AutoPipelineForInpainting.from_pipe(text)
    assert type(inpainting) is compat.StableDiffusionInpaintPipeline
    image = compat.AutoPipelineForImage2Image.from_pipe(inpainting)
    assert type(image) is compat.StableDiffusionImg2ImgPipeline
    with pytest.raises(ModelError, match="use StableDiffusionXLInpaintPipeline"):
        compat.StableDiffusionInpaintPipeline.from_pretrained(places("sdxl"))
    with pytest.raises(InvalidRequest, match="needs a picture and a mask"):
        compat.StableDiffusionImg2ImgPipeline.from_pretrained(places("nine"))(PROMPT, image=PICTURES[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask_image": None}, "mask_image is None"),
        ({"image": None}, "image is None"),
        ({"mask_image": "mask.png"}, "mask_image is str"),
        ({"mask_image": MASKS[:2]}, "mask_image is 2 pictures, for 1"),
        ({"padding_mask_crop": 4, "output_type": "np"}, "padding_mask_crop is for one picture"),
        ({"padding_mask_crop": 4, "mask_image": Image.new("L", (51, 70))}, "mask_image covers nothing"),
        ({"padding_mask_crop": 4, "mask_image": Image.new("L", (9, 9))}, "give both of one size"),
        ({"padding_mask_crop": -1}, "padding_mask_crop is -1"),
    ],
)
def test_mistakes(places, given, said):
    asked = {"prompt": PROMPT, "image": PICTURES[0], "mask_image": MASKS[0], "num_inference_steps": 5}
    with pytest.raises(InvalidRequest, match=said):
        ours(places("sd1"), "AutoPipelineForInpainting")(**{**asked, "width": 48, "height": 64, **given})
