"""Requests: what is allowed, what is said of what is not, and how gaps are filled."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from darkroom.errors import InvalidRequest
from darkroom.generation import Request, open_picture
from darkroom.generation.checks import called
from darkroom.generation.parts import XL, Canvas, Guidance, Noise, Sampling, Text
from darkroom.generation.request import MAX_SEED, PARTS, SETTINGS, Settings, flattened
from darkroom.model import Model, load


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 100}, ["width", "100", "multiple of 8", "96 or 104"]),
        ({"height": 4}, ["height", "4", "8"]),
        ({"width": 10**6}, ["width", "1000000"]),
        ({"width": 64.0}, ["width", "64.0", "whole number"]),
        ({"steps": 0}, ["steps", "0", "1,000"]),
        ({"steps": 1001}, ["steps", "1001"]),
        ({"steps": True}, ["steps", "True"]),
        ({"guidance": float("nan")}, ["guidance", "NaN"]),
        ({"guidance": float("inf")}, ["guidance", "Infinity"]),
        ({"guidance": -1.0}, ["guidance", "-1"]),
        ({"guidance": "7"}, ["guidance", '"7"', "number"]),
        ({"second_strength": 0}, ["second_strength", "above 0"]),
        ({"second_pass": "maybe"}, ["second_pass", "maybe", "auto"]),
        ({"sampler": "dpmp_2m"}, ["sampler", "dpmp_2m", "dpmpp_2m"]),
        ({"sampler": 3}, ["sampler", "3"]),
        ({"schedule": "kerras"}, ["schedule", "kerras", "karras"]),
        ({"seed": -2}, ["seed", "-2"]),
        ({"seed": MAX_SEED, "count": 2}, ["seed", str(MAX_SEED)]),
        ({"count": 0}, ["count", "0"]),
        ({"count": None}, ["count", "None"]),
        ({"prompt": "x" * 20_001}, ["prompt", "20,001", "20,000"]),
        ({"prompt": "a\x07b"}, ["prompt", "U+0007", "position 1"]),
        ({"prompt": "a\ud800b"}, ["prompt", "U+D800"]),
        ({"negative": 5}, ["negative", "5"]),
        ({"widht": 64}, ["widht", "width"]),
        ({"eta": 0.5}, ["eta", "option of the sampler", "euler_ancestral:eta=1"]),
        ({"rho": 5}, ["rho", "option of the schedule", "karras:rho=7"]),
        ({"momentum": 5}, ["option of the guide", "apg:momentum=-0.5"]),
        ({"size": 64}, ["it is called width and height here"]),
        ({"sampler": "euler:eta=1"}, ["sampler euler", "eta", "s_churn"]),
        ({"schedule": "karras:rho=0"}, ["schedule karras", "rho is 0.0", "0.1 to 100"]),
        ({"canvas": 4}, ["canvas is 4", "object of settings", "Canvas"]),
        ({"canvas": Noise()}, ["canvas is Noise", "Canvas"]),
        ({"canvas": {"wdith": 64}}, ["'wdith' in canvas", "width"]),
        ({"canvas": {"width": 64}, "width": 64}, ["width is given twice"]),
        ({"noise": {"noise_source": "cpu"}}, ["'noise_source' in noise", "source"]),
        ({"version": 3}, ["version 3", "up to 2", "update"]),
        ({"version": "2"}, ["version '2'"]),
    ],
)
def test_what_cannot_be_honoured_is_named_with_the_remedy(settings, words):
    with pytest.raises(InvalidRequest) as raised:
        Request.from_dict({"prompt": "a boat", **settings}).checked()
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("prompt", ["", "日本語 🌊", "two\nlines\tand a tab", "x" * 20_000])
def test_any_honest_text_is_a_prompt(prompt):
    assert Request(prompt).checked().prompt == prompt


def test_names_of_other_tools_become_ours():
    checked = Request("a", sampler="DPM++ 2M Karras").checked()
    assert (checked.sampling.sampler, checked.sampling.schedule) == ("dpmpp_2m", "karras")
    assert Request("a", sampler="Euler a").checked().sampling.sampler == "euler_ancestral"


def test_settling_fills_gaps_and_keeps_what_was_asked():
    settled = Request("a", steps=7).settled(steps=20, width=64, sampler="euler", schedule="karras")
    assert settled.sampling == Sampling("euler", "karras", 7)
    assert settled.canvas.width == 64
    assert settled.seed is not None


def test_random_seeds_differ_and_leave_room_for_the_count():
    seeds = {Request("a", seed=seed, count=3).settled().seed for seed in (None, -1) for _ in range(8)}
    assert len(seeds) > 10
    assert all(seed is not None and 0 <= seed < 2**32 - 3 for seed in seeds)


def test_requests_travel_through_json():
    request = Request("a «boat»", negative="rain", guidance=3.5, seed=2**40).settled(width=64)
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    for given in ({"prompt_2": ""}, {"negative_3": ""}, {"styles": []}):  # None is the prompt, "" is none.
        request = Request("a boat", **given)
        assert Request.from_dict(request.to_dict()).checked() == request.checked()


def test_single_requests_count_the_seed_up():
    request = Request("a", seed=7, count=4)
    assert [request.single(i).seed for i in range(4)] == [7, 8, 9, 10]
    assert dataclasses.replace(request.single(2), seed=7, count=4) == request


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("variation_strength", 1.0000000000000002, "1.0000000000000002: choose 0 to 1"),
        ("steps", 10**5000, "1e5000: choose 1 to 1,000"),
        ("steps", -(10**5000), "-1e5000: choose"),
        ("guidance", 1e300, "1e300: choose 0 to 1000"),
        ("guidance", -0.5, "-0.5: choose"),
        ("compose", np.array(["own"]), "choose one of native, own"),
        ("dialect", np.array(["comfy", "a1111"]), "choose one of a1111"),
    ],
    ids=range(7),
)
def test_values_are_shown_as_they_are(setting, value, shown):
    with pytest.raises(InvalidRequest, match=re.escape(shown)):
        Request("a", **{setting: value}).checked()


# Parts


def test_every_setting_may_stand_in_its_part_or_beside_it():
    flat = Request("a", steps=7, width=64, guidance=3, noise_source="nv", clip_skip=2, aesthetic=5)
    parts = Request(
        "a",
        sampling=Sampling(steps=7),
        canvas=Canvas(width=64),
        guidance=Guidance(scale=3),
        noise=Noise(source="nv"),
        text=Text(clip_skip=2),
        xl=XL(aesthetic=5),
    )
    assert flat == parts
    assert hash(flat.checked()) == hash(parts.checked())
    assert Request("a", canvas=Canvas(width=64, height=32), width=8).canvas == Canvas(8, 32)
    assert Request("a", guidance={"scale": 3, "rescale": 0.5}).guidance == Guidance(3, 0.5)


def test_a_request_with_other_settings_keeps_the_rest():
    request = Request("a", steps=7, guides=["pag"], guidance_rescale=0.5)
    assert request.replace(guidance=4, prompt="b") == Request(
        "b", steps=7, guides=["pag"], guidance=4, guidance_rescale=0.5
    )
    assert request.replace(guidance=Guidance()) == Request("a", steps=7)
    assert dataclasses.replace(request, steps=9) == request.replace(steps=9)
    assert Request(**request.flat()) == request


def test_requests_in_json_have_parts():
    request = Request("a", steps=7, guides=["pag"], negative="rain").settled(
        width=64, guidance=4.0, sampler="euler", schedule="karras"
    )
    told = request.to_dict()
    assert told == json.loads(json.dumps(told))
    assert told["version"] == 2
    assert told["sampling"] == {"sampler": "euler", "schedule": "karras", "steps": 7}
    assert told["guidance"] == {"scale": 4.0, "rescale": 0.0, "guides": ["pag"]}
    assert "embeddings" not in told["text"]
    assert Request.from_dict(told) == request
    beside = {name: list(each) if isinstance(each, tuple) else each for name, each in request.flat().items()}
    assert Request.from_dict({**beside, "version": 1}) == request


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "prompt"])
def test_every_setting_is_a_keyword_with_a_help_text(name):
    """What type checkers are told (`Settings`) is what there is."""
    hints = get_type_hints(Settings)
    assert hints.keys() == (SETTINGS.keys() | PARTS.keys()) - {"prompt"}
    for function in (Model.generate, Model.stream):
        assert inspect.signature(function).parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert len(SETTINGS[name].metadata["help"]) > 10
    assert called(SETTINGS[name]) == name


def test_the_page_of_requests_lists_them_all():
    page = (Path(__file__).parents[2] / "docs" / "requests.md").read_text("utf-8")
    table = page[page.index("## Settings") : page.index("## In JSON")]
    assert set(re.findall(r"`(\w+)`", table)) >= SETTINGS.keys() | PARTS.keys()
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    asked = Request.from_dict(json.loads(example)).checked()
    assert asked.sampling == Sampling("euler:s_churn=10", "karras:rho=5", 20)


def test_pictures_of_the_time_before_parts_are_made_again():
    """A picture that was made by 072a322, of every setting that a command line had: its request is read as it was, and
    comes to the same picture, but for what another processor rounds."""
    image, metadata = open_picture(Path(__file__).with_name("of_version_1.png"))
    assert metadata["request"]["version"] == 1
    request = Request.from_dict(metadata["request"])
    told = flattened(metadata["request"])
    assert {name: request.flat()[name] for name in told} == told
    assert request.guidance == Guidance(3.5, 0.4, ("pag:scale=2,stop=0.8", "apg"))
    assert request.noise == Noise("nv", 31337, 5, 0.2, 128, 64)
    (picture,) = load("pocket", device="cpu", precision="float32").generate(request)
    gap = np.abs(np.asarray(picture.image, np.int16) - np.asarray(image, np.int16))
    assert gap.max() <= 8
