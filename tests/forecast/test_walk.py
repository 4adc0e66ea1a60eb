"""What is foretold of a picture is what is then done for it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pytest
from PIL import Image
from tests import families

import darkroom
from darkroom.assembly import open_model
from darkroom.engine.devices import place
from darkroom.forecast.forecast import Forecaster
from darkroom.generation import Request

SETTINGS = {"prompt": "a red boat", "steps": 5, "seed": 1, "width": 64, "height": 48}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model like "sd1", of other weights."""
    return families.write_sd1(tmp_path_factory.mktemp("models") / "other", seed=5)


@pytest.fixture(scope="module")
def model(folder):
    """A model of one of the families, and how often its networks were asked for what since one looked last."""

    @lru_cache
    def loaded(name, **options):
        made = darkroom.load(folder(name), device="cpu", precision="float32", **dict(options))
        return made, watched(made)

    return loaded


def watched(model):
    asked = Counter()
    networks = model.engine.networks

    class Watched:
        def __getattr__(self, name):
            return getattr(networks, name)

        def encode(self, prompts, expert=0):
            asked["encode"] += len(prompts) * len(networks.experts[expert].text.encoders)
            return networks.encode(prompts, expert)

        def denoise(self, rows):
            asked["denoise"] += 1
            asked[f"expert {rows[0].expert}"] += 1
            return networks.denoise(rows)

        def prepare(self, pixels, *how):
            asked["prepare"] += 1
            return networks.prepare(pixels, *how)

        def decode(self, latent, *how):
            asked["decode"] += 1
            return networks.decode(latent, *how)

    model.engine.networks = Watched()
    return asked


def foretold(path, settings, **options):
    with open_model(path, **options) as opened:
        request = opened.settle(Request.from_dict(settings))
        found = Forecaster(opened, place("cpu", "float32"), request)
    calls = Counter()
    for phase in found._phases:
        if phase.parts in (None, "whole"):
            calls[phase.name.removeprefix(f"{phase.seat.model} ").split()[0]] += phase.calls
            if phase.seat.role.denoises:
                calls[phase.seat.model] += phase.calls
    return found, calls


def agree(model, asked, calls, settings):
    asked.clear()
    model.generate(Request.from_dict(settings))
    for kind in ("encode", "denoise", "prepare", "decode"):
        assert calls[kind] == asked[kind], kind
    assert calls["denoise"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name in ("sd1", "sdxl", "refiner", "sd3", "lcm")),
        ("sdxl", {"negative": "rain", "second_pass": "on", "width": 128, "height": 96}),
        ("sd3", {"guides": ("slg:blocks=1,stop=1",)}),
    ],
)
def test_every_family(name, more, folder, model):
    settings = SETTINGS | more
    _, calls = foretold(folder(name), settings)
    agree(*model(name), calls, settings)


@pytest.mark.parametrize("name", ["pix2pix", "depth", "upscaler", "unclip"])
def test_models_that_see_a_picture(name, folder, model, tmp_path):
    path, deep = tmp_path / "photo.png", {"depth": str(tmp_path / "photo.png")} if name == "depth" else {}
    Image.new("RGB", (16, 8), "red").save(path)
    settings = {"prompt": "a boat", "steps": 3, "seed": 1, "image": str(path), **deep}
    found, calls = foretold(folder(name), settings)
    agree(*model(name), calls, settings)
    assert calls["look"] == (name == "unclip")
    assert ("image_encoder" in found.weights) == (name == "unclip")


@pytest.mark.parametrize(
    "more",
    [
        {"guidance": 1.0},
        {"prompt": "a boat AND a [cat:dog:0.5]", "negative": "rain"},
        {"guides": ("pag:scale=2",)},
        {"guides": ("interval:start=0.5",), "sampler": "heun"},
        {"compose": "native", "width": 128, "height": 64},
        *({"sampler": name} for name in ("dpm_2", "pndm", "plms", "restart", "dpmpp_2m_cfgpp")),
    ],
)
def test_every_kind_of_request(more, folder, model):
    settings = SETTINGS | more
    _, calls = foretold(folder("sd1"), settings)
    agree(*model("sd1"), calls, settings)


def test_details_are_foretold_as_one_thing_each(folder):
    settings = SETTINGS | {"steps": 4, "width": 64, "height": 64}
    _, plain = foretold(folder("sd1"), settings)
    options = "strength=0.5:size=64:padding=8"
    _, calls = foretold(
        folder("sd1"),
        settings | {"details": (f"the boat:{options}", f"oracle:only=cat:largest=0.01:{options}")},
    )
    assert calls["denoise"] == plain["denoise"] + 2 * 2
    assert calls["decode"] == plain["decode"] + 2


def test_adaptive_ones_are_guessed(folder):
    _, calls = foretold(folder("sd1"), SETTINGS | {"sampler": "dpm_adaptive"})
    assert 5 < calls["denoise"] < 200


@pytest.mark.parametrize("switch", [0.3, 0.8])
def test_a_refiner(switch, folder):
    settings = SETTINGS | {"refiner_switch": switch, "steps": 10}
    found, calls = foretold(folder("sdxl"), settings, refiner=folder("refiner"))
    model = darkroom.load(folder("sdxl"), device="cpu", precision="float32", refiner=folder("refiner"))
    asked = watched(model)
    agree(model, asked, calls, settings)
    assert (calls[""], calls["refiner"]) == (asked["expert 0"], asked["expert 1"])
    assert {"unet", "refiner unet", "refiner text_encoder_2"} <= set(found.weights)


def test_an_ensemble(folder, other):
    options = {"ensemble": [f"{other}:1:every=2"]}
    found, calls = foretold(folder("sd1"), SETTINGS, **options)
    model = darkroom.load(folder("sd1"), device="cpu", precision="float32", **options)
    asked = watched(model)
    agree(model, asked, calls, SETTINGS)
    assert calls[""] == asked["expert 0"] == 3
    assert found.forecast("full").peak > foretold(folder("sd1"), SETTINGS)[0].forecast("full").peak


def test_what_a_request_names_is_not_read(folder):
    _, calls = foretold(folder("sd1"), SETTINGS | {"prompt": "a boat <lora:nowhere:0.5>"})
    assert calls == foretold(folder("sd1"), SETTINGS)[1]


def test_memory_for_an_ensemble(folder, other):
    model = darkroom.load(folder("sd1"), ensemble=[str(other)], memory="4GB")
    (picture,) = model.generate(Request.from_dict(SETTINGS))
    assert picture.metadata["model"]["ensemble"] == [str(other)]
