"""Models that are shown the picture they draw over: InstructPix2Pix, depth, the x4 upscaler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.families import peer, relative_error, write_sdxl, write_upscaler

import darkroom
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.engine import Engine
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation.edits import subject_of
from darkroom.generation.infotext import infotext
from darkroom.generation.job import Job
from darkroom.generation.saved import Saved
from darkroom.generation.settle import settle
from darkroom.generation.shown import _APART
from darkroom.generation.wording import Extras

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
def test_instruct_pix2pix_xl(tmp_path):
    import diffusers

    path, image = write_sdxl(tmp_path / "xl", 80, in_channels=8), picture_of(64, 48)
    known = {name: part for name, part in peer(path).components.items() if part is not None}
    pipe = diffusers.StableDiffusionXLInstructPix2PixPipeline(**known)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPT,
        image=Image.fromarray(image),
        height=48,
        width=64,
        negative_prompt="night",
        guidance_scale=4.0,
        image_guidance_scale=1.7,
        num_inference_steps=5,
        generator=seeded(),
        output_type="latent",
    ).images
    loaded = darkroom.load(path, device="cpu", precision="float32")
    asked = {**SETTINGS, "sampler": "euler", "schedule": "ddim_uniform"}
    (found,) = loaded.edit(image, PROMPT, guidance=4.0, image_guidance=1.7, **asked)
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


# In whatever form they are on disk


@pytest.mark.parametrize("name", ["pix2pix", "depth", "upscaler", "unclip"])
def test_single_files_and_back(folder, model, tmp_path, name):
    image = picture_of(16, 8)
    depth = {"depth": picture_of(20, 12, seed=2)} if name == "depth" else {}
    asked = {"seed": 1, "steps": 2, **depth}
    (expected,) = model(name).edit(image, PROMPT, **asked)
    single, whole = tmp_path / "single.safetensors", tmp_path / "whole"
    with open_source(folder(name)) as source:
        convert(source, single)
    with open_source(single) as source:
        convert(source, whole)
    for path in (single, whole):
        loaded = darkroom.load(path, device="cpu", precision="float32")
        assert loaded.family.needs == model(name).family.needs
        assert loaded.family.augmentation == model(name).family.augmentation
        (found,) = loaded.edit(image, PROMPT, **asked)
        assert (np.asarray(found.image) == np.asarray(expected.image)).all()


def test_noise_that_a_folder_describes(tmp_path):
    path = write_upscaler(tmp_path / "model", most=100, beta_end=0.05)
    with open_source(path) as source:
        augmentation = source.family.augmentation
        assert (augmentation.most, augmentation.usual) == (100, 20)
        assert augmentation.schedule.betas[-1] == pytest.approx(0.05)
    (path / "model_index.json").write_text(
        (path / "model_index.json").read_text().replace('"max_noise_level": 100', '"max_noise_level": 1000')
    )
    with pytest.raises(ModelError, match=r"max_noise_level is 1000, of a DDPMScheduler"):
        open_source(path)


# What is made of it


def test_what_is_left_open(model):
    picture = picture_of(20, 12)
    asked = {
        name: model(name).settle(darkroom.Request("a", image=picture))
        for name in ("pix2pix", "upscaler", "unclip")
    }
    assert asked["pix2pix"].seen.image_guidance == 1.5
    assert "Image CFG scale: 1.5" in infotext(asked["pix2pix"].single(0), "pix2pix", "0" * 64, "1")
    assert asked["upscaler"].seen.noise_level == 20
    assert asked["unclip"].seen.noise_level == 0
    assert all(each.edit.strength == 1 for each in asked.values())
    assert (asked["upscaler"].canvas.width, asked["upscaler"].canvas.height) == (80, 48)
    deep = model("depth").settle(darkroom.Request("a", image=picture, depth=picture))
    assert deep.edit.strength == 0.75
    large = settle(darkroom.Request("a", image=picture_of(3000, 2)), model("upscaler").family, "it")
    assert large.canvas.width == 8192


def test_a_larger_picture_of_another_size(model):
    (picture,) = model("upscaler").edit(picture_of(20, 12), PROMPT, width=48, height=40, steps=1)
    assert picture.image.size == (48, 40)


def test_part_of_what_it_sees(model):
    """What a mask leaves is the picture, enlarged where the model does that."""
    image = picture_of(24, 16)
    (same,) = model("pix2pix").edit(image, PROMPT, mask_box=(8, 0, 16, 16), steps=2)
    assert (np.asarray(same.image)[:, :8] == image[:, :8]).all()
    (larger,) = model("upscaler").edit(image, PROMPT, mask_box=(8, 0, 16, 16), steps=2)
    expected = np.asarray(Image.fromarray(image).resize((96, 64), Image.Resampling.LANCZOS))
    assert (np.asarray(larger.image)[:, :28] == expected[:, :28]).all()


def test_loops_change_what_the_last_one_made(model):
    one, two = (
        model("pix2pix").edit(picture_of(16, 16), PROMPT, loops=n, steps=2, seed=3)[0] for n in (1, 2)
    )
    (again,) = model("pix2pix").edit(one.image, PROMPT, steps=2, seed=4)
    assert relative_error(two.latents, again.latents) <= 1e-5


def test_further_ones_and_their_depth(model):
    """Depth goes on with the picture, and is brought to its size whatever its own."""
    image, depth = picture_of(24, 16), picture_of(48, 32, seed=2)
    (found,) = model("depth").edit(image, PROMPT, depth=depth, extend_right=8, steps=1)
    assert found.image.size == (32, 16)
    assert (np.asarray(found.image)[:, :24] == image).all()
    flat = np.full((16, 24, 3), 90, np.uint8)
    (found,) = model("depth").edit(image, PROMPT, depth=flat, steps=1)
    assert bool(found.latents.isfinite().all())


@pytest.mark.parametrize("name", ["pix2pix", "upscaler", "unclip"])
def test_goes_on_after_a_loss(model, name):
    loaded = model(name)
    request = loaded.settle(darkroom.Request("a", image=picture_of(16, 16), seed=1, steps=3, guidance=2.0))
    extras = Extras(subject=subject_of(request)[1])
    engine = Engine(loaded.engine.networks)
    whole = engine.submit(Job(request, loaded.family, extras=extras))
    engine.tick()
    states = []
    while engine.tick():
        if (state := whole.job.snapshot()) is not None:
            states.append(Saved.from_bytes(state.to_bytes()))
    again = engine.submit(Job(request, loaded.family, states[-1], extras=extras))
    engine.run()
    assert states[-1].run.step == 2
    assert (again.result() == whole.result()).all()


def test_memory_that_is_short(folder, model):
    for name, memory in (("unclip", "low"), ("unclip", "lowest"), ("pix2pix", "8GB")):
        loaded = darkroom.load(folder(name), device="cpu", precision="float32", memory=memory)
        found, expected = (
            each.edit(picture_of(16, 16), PROMPT, seed=1, steps=1)[0] for each in (loaded, model(name))
        )
        assert relative_error(found.latents, expected.latents) <= 1e-5


def test_mistakes(model, toy_folder):
    toy, picture = darkroom.load(toy_folder), picture_of(16, 16)
    for loaded, asked, said in (
        (model("pix2pix"), {}, r"needs a picture: give it as `image=`"),
        (model("unclip"), {}, r"needs a picture to vary: give it as `image=`"),
        (model("depth"), {"image": picture}, r"needs a picture and its depth: give it as `depth=`"),
        (model("pix2pix"), {"image": picture, "depth": picture}, r"depth means nothing to pix2pix0? "),
        (model("upscaler"), {"image": picture, "image_guidance": 2}, r"image_guidance means nothing to"),
        (model("upscaler"), {"image": picture, "noise_level": 351}, r"noise_level is 351: .* on 0 to 350"),
        (model("upscaler"), {"image": picture, "fit": "own"}, r"fit is own, but .* draws larger pictures"),
        (toy, {"image": picture, "noise_level": 1}, r"noise_level means nothing to"),
        (toy, {"depth": picture}, r"depth means nothing to toy"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            loaded.settle(darkroom.Request("a", **asked))


def test_on_the_command_line(folder, run, tmp_path):
    for name, at in (("photo.png", 1), ("depth.png", 2)):
        Image.fromarray(picture_of(24, 16, at)).save(tmp_path / name)
    quick = "--device", "cpu", "--precision", "float32", "--quiet", "--steps", "1"
    asked = "edit", tmp_path / "photo.png", "a boat", "--model", folder("depth"), *quick
    status, out, err = run(*asked, "--depth", tmp_path / "depth.png", "-o", tmp_path / "made.png")
    assert status == 0, err
    (tmp_path / "depth.png").rename(tmp_path / "moved.png")
    status, out, err = run("again", tmp_path / "made.png")
    assert (status, "its depth is" in err) == (0, True), err
    (tmp_path / "moved.png").rename(tmp_path.parent / "elsewhere.png")
    status, out, err = run("again", tmp_path / "made.png", "--depth", tmp_path.parent / "elsewhere.png")
    assert status == 0, err
    assert "the same, pixel for pixel" in out
    status, out, err = run(*asked)
    assert (status, "give it as --depth" in err) == (2, True)
