"""Requests: what is allowed, what is said of what is not, and how gaps are filled."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from darkroom.errors import InvalidRequest
from darkroom.generation import Request
from darkroom.generation.request import MAX_SEED


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
    assert (checked.sampler, checked.schedule) == ("dpmpp_2m", "karras")
    assert Request("a", sampler="Euler a").checked().sampler == "euler_ancestral"


def test_settling_fills_gaps_and_keeps_what_was_asked():
    settled = Request("a", steps=7).settled(steps=20, width=64, sampler="euler", schedule="karras")
    assert (settled.steps, settled.width, settled.schedule) == (7, 64, "karras")
    assert settled.seed is not None


def test_random_seeds_differ_and_leave_room_for_the_count():
    seeds = {Request("a", seed=seed, count=3).settled().seed for seed in (None, -1) for _ in range(8)}
    assert len(seeds) > 10
    assert all(seed is not None and 0 <= seed < 2**32 - 3 for seed in seeds)


def test_requests_travel_through_json():
    request = Request("a «boat»", negative="rain", guidance=3.5, seed=2**40).settled(width=64)
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


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
