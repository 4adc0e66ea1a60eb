"""The second pass of larger pictures: told and sampled otherwise, on what is made larger by any means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import darkroom
from darkroom.cli import main
from darkroom.diffusion import Run, schedule_for
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation.canvas import FromLatent
from darkroom.generation.parts import LATENT
from darkroom.generation.picture import open_picture
from darkroom.generation.settle import settle, upscaler_of

FIRST = {"steps": 4, "seed": 3, "guidance": 3.0, "negative": "rain"}
TWO = {"first_width": 32, "first_height": 24, "width": 64, "height": 48, "second_strength": 0.6}


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


def pixels(picture):
    return np.asarray(picture.image)


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"second_prompt": "a blue house", "second_negative": "fog"},
        {"second_prompt": "a house AND a [boat:cat:0.5]", "second_guidance": 6.5},
        {"second_sampler": "heun", "second_schedule": "karras"},
        {"second_sampler": "euler_a", "second_steps": 5},
        {"second_guidance": 1.0, "upscaler": "nearest"},
        {"second_prompt": "a house", "upscaler": "NETWORK"},
    ],
    ids=str,
)
def test_it_is_what_an_edit_of_the_first_picture_is(model, network, second):
    """A picture in two passes, and the two made one after the other by hand."""
    second = {name: str(network) if each == "NETWORK" else each for name, each in second.items()}
    (whole,) = model.generate("a boat", **FIRST, **TWO, **second)
    (first,) = model.generate("a boat", **FIRST, width=32, height=24)
    upscaler = darkroom.load_upscaler(second.get("upscaler", "lanczos"), device="cpu", precision="float32")
    between = upscaler.upscale(first, 2)
    own = {name.removeprefix("second_"): each for name, each in second.items() if name.startswith("second_")}
    told = {**FIRST, "prompt": own.pop("prompt", "a boat"), **own}
    kept = {"strength": 0.6, "strength_as": "comfy" if "steps" in own else "a1111", "like": False}
    prompt = told.pop("prompt")
    if "[" in prompt:  # What goes by steps counts on from the first pass: half of it was over then.
        prompt = prompt.replace("[boat:cat:0.5]", "cat")
    (edited,) = model.edit(between, prompt, **told, **kept)
    settled = darkroom.Request.from_dict(whole.metadata["request"])
    assert settled.second.prompt == second.get("second_prompt")
    assert pixels(whole).shape == (48, 64, 3)
    assert (pixels(whole) == pixels(edited)).all()


@pytest.mark.parametrize("way", LATENT)
def test_latents_are_made_larger_as_a1111_makes_them(way):
    latent = torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(1))
    words = way.split("-")[1:]
    antialias = "antialiased" in words
    mode = "-".join(word for word in words if word != "antialiased") or "bilinear"
    wanted = F.interpolate(latent, (9, 12), mode=mode, antialias=antialias)
    canvas = FromLatent(96, 72, (9, 12), way)

    class Point:
        alpha, sigma = 1.0, 0.0

    with pytest.raises(StopIteration) as ended:
        next(canvas.begin(lambda draw: torch.zeros(1, 4, 9, 12), Point, latent))
    run = ended.value.value
    assert isinstance(run, Run)
    assert torch.equal(run.x, wanted)


def test_latents_are_not_decoded_in_between(model, monkeypatch):
    made = []
    networks = type(model.engine.networks)
    decode = networks.decode
    monkeypatch.setattr(networks, "decode", lambda *given: made.append(given[1]) or decode(*given))
    (picture,) = model.generate("a boat", **FIRST, **TWO, upscaler="latent")
    assert [tuple(latent.shape[2:]) for latent in made] == [(6, 8)]
    (other,) = model.generate("a boat", **FIRST, **TWO, upscaler="latent-nearest-exact")
    assert (pixels(picture) != pixels(other)).any()
    with pytest.raises(
        InvalidRequest, match='drawn at the native size and continued: choose `compose="own"`'
    ):
        model.generate("a boat", **FIRST, width=512, height=512, compose="native", upscaler="latent")


def test_what_is_drawn_small_is_enlarged_by_it(model, network):
    """A picture that is drawn at the native size and is to be larger, by one pass."""
    side = 2 * model.family.native
    asked = {**FIRST, "compose": "native", "width": side, "height": side}
    (small,) = model.generate("a boat", **{**asked, "width": side // 2, "height": side // 2})
    for name in ("nearest", "lanczos", str(network)):
        (picture,) = model.generate("a boat", **asked, upscaler=name)
        enlarged = darkroom.load_upscaler(name, device="cpu", precision="float32").upscale(small, 2)
        assert (pixels(picture) == pixels(enlarged)).all(), name
    # Nothing is read that is not needed.
    (picture,) = model.generate("a boat", **FIRST, upscaler=str(network))
    assert "upscaler sharp" not in picture.metadata["model"]["weights"]


def test_what_is_not_used_is_said(model):
    (picture,) = model.generate("a boat", **FIRST, second_prompt="a house", second_guidance=2)
    assert any("second_prompt, second_guidance: not used" in note for note in picture.metadata["notes"])
    with pytest.raises(ModelError, match="there is no upscaler 'nothing'"):
        model.generate("a boat", **FIRST, upscaler="nothing")
    with pytest.raises(InvalidRequest, match="second_sampler"):
        model.generate("a boat", **FIRST, second_sampler=3)
    with pytest.raises(InvalidRequest, match="second_guidance is -1"):
        model.generate("a boat", **FIRST, second_guidance=-1)


def test_a_sampler_of_its_own_brings_its_schedule(model):
    def settled(**settings):
        return model.settle(darkroom.Request("a", **settings)).second

    assert settled(second_sampler="lcm").schedule == schedule_for(model.family.schedule, "lcm")
    assert settled(second_sampler="DPM++ 2M Karras") == type(settled())(sampler="dpmpp_2m", schedule="karras")
    assert settled(second_schedule="exponential").sampler is None
    assert settled(second_guidance=2) == type(settled())(guidance=2.0)


def test_again_and_plan(model, network, toy_folder, tmp_path, capsys):
    told = {**TWO, "second_prompt": "a house", "second_sampler": "euler_a", "upscaler": str(network)}
    (picture,) = model.generate("a boat", **FIRST, **told)
    assert len(picture.metadata["model"]["weights"]["upscaler sharp"]) == 64
    for said in ("Hires upscaler", "Hires prompt: a house", "Hires sampler: Euler a", "Hires resize: 64x48"):
        assert said in picture.parameters
    path = picture.save(tmp_path / "boat.png")
    assert main(["again", str(path)]) == 0
    capsys.readouterr()
    where = ["--model", str(toy_folder), "--device", "cpu", "--precision", "float32"]
    size = ["--first-width", "32", "--first-height", "24", "--size", "64x48", "--steps", "4"]
    assert main(["plan", "a boat", *where, *size, "--upscaler", str(network)]) == 0
    out = capsys.readouterr().out
    assert "enlarge 32x24" in out
    assert "upscaler 0.00" in out
    assert main(["plan", "a boat", *where[:-1], "bfloat16", *size, "--upscaler", str(network)]) == 0
    assert "enlarge 32x24" in capsys.readouterr().out
    assert main(["plan", "a boat", *where, "--upscaler", str(network)]) == 0
    assert "upscaler" not in capsys.readouterr().out
    given = ["--image", str(path), "--size", "128x96", "--upscaler", str(network)]
    assert main(["plan", "a boat", *where, *given]) == 0
    assert "enlarge 64x48" in capsys.readouterr().out


def test_what_a_model_prefers(monkeypatch):
    from dataclasses import replace

    from darkroom.checkpoint.families import SD1
    from darkroom.generation import settle as module

    family = replace(SD1, preferences=replace(SD1.preferences, upscaler="its-own"))
    assert upscaler_of(family.preferences) == "lanczos"  # It is not here.
    monkeypatch.setattr(module, "installed", lambda kind: {"its-own": "there"})
    assert settle(darkroom.Request("a", seed=1), family, "it").canvas.upscaler == "its-own"
    assert (
        settle(darkroom.Request("a", seed=1, upscaler="nearest"), family, "it").canvas.upscaler == "nearest"
    )


def test_pictures_of_the_time_before_are_made_as_they_were(model, tmp_path):
    import json

    from PIL import PngImagePlugin

    (picture,) = model.generate("a boat", **FIRST)
    before = json.loads(json.dumps(picture.metadata))
    before["numerics"]["version"] = 4
    del before["request"]["canvas"]["upscaler"]
    text = PngImagePlugin.PngInfo()
    text.add_itxt("darkroom", json.dumps(before))
    Image.fromarray(pixels(picture)).save(tmp_path / "old.png", pnginfo=text)
    request = darkroom.Request.from_dict(open_picture(tmp_path / "old.png")[1]["request"])
    assert request.canvas.upscaler == "lanczos"


@pytest.mark.parametrize(
    "asked",
    [
        {"width": 96, "height": 72},
        {"width": 96, "height": 96},
        {"width": 96, "height": 64, "fit": "pad"},
        {"width": 64, "height": 96, "fit": "stretch"},
        {"width": 96, "height": 72, "mask_box": (4, 4, 12, 9)},
        {"width": 96, "height": 72, "loops": 2, "match_colors": True},
    ],
    ids=str,
)
def test_a_picture_that_is_given_is_made_larger_by_it(model, network, asked):
    """An edit on a larger canvas, and one of the picture that the upscaler has made larger before."""
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (24, 32, 3), np.uint8))
    settings = {**FIRST, "strength": 0.6, **asked}
    (found,) = model.edit(picture, "a boat", **settings, upscaler=str(network))
    scale = max(asked["width"] / 32, asked["height"] / 24)
    scale = min(asked["width"] / 32, asked["height"] / 24) if asked.get("fit") == "pad" else scale
    larger = darkroom.load_upscaler(network, device="cpu", precision="float32").upscale(
        picture, width=round(32 * scale), height=round(24 * scale)
    )
    if box := settings.pop("mask_box", None):
        settings["mask_box"] = [round(scale * each) for each in box]
    (expected,) = model.edit(larger.image, "a boat", **settings, upscaler="lanczos")
    apart = np.abs(pixels(found).astype(int) - pixels(expected))
    assert np.median(apart) == 0 if box else not apart.any()
    (plain,) = model.edit(picture, "a boat", **{**FIRST, "strength": 0.6, **asked}, upscaler="nearest")
    (other,) = model.edit(picture, "a boat", **{**FIRST, "strength": 0.6, **asked})
    assert len({each.image.tobytes() for each in (found, plain, other)}) == 3


def test_an_upscaler_that_a_given_picture_does_not_need(model, tmp_path):
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (48, 64, 3), np.uint8))
    damaged = tmp_path / "none.safetensors"
    damaged.write_bytes(b"no weights")
    for needless in ({}, {"width": 48}, {"width": 128, "strength": 1.0, "second_pass": "off"}):
        asked = {**FIRST, "strength": 0.5, **needless, "upscaler": str(damaged)}
        assert model.edit(picture, "a boat", **asked)
    with pytest.raises(ModelError, match="none"):
        model.edit(picture, "a boat", **FIRST, strength=0.5, width=128, upscaler=str(damaged))


def test_pictures_of_before_are_made_again_as_they_were(tmp_path, model, network):
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (24, 32, 3), np.uint8))
    (made,) = model.edit(picture, "a boat", **FIRST, strength=0.6, width=64, upscaler=str(network))
    made.metadata["numerics"]["version"] = 5
    made.save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png")[1]["request"]["canvas"]["upscaler"] == "lanczos"
