"""A1111's seeds in requests: sources of noise, variations, other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.adapters.test_requests import SETTINGS, pixels

import darkroom
from darkroom.cli import main
from darkroom.engine import Engine
from darkroom.errors import InvalidRequest
from darkroom.generation import Request
from darkroom.generation.job import Job
from darkroom.model import Model


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return darkroom.load(toy_folder, device="cpu", precision="float32")


def test_each_setting_matters(model: Model) -> None:
    ancestral: dict[str, Any] = {"sampler": "euler_ancestral"}
    plain = pixels(model, **ancestral)
    found = [
        plain,
        pixels(model, noise_source="nv", **ancestral),
        pixels(model, ensd=31337, **ancestral),
        pixels(model, variation_seed=9, variation_strength=0.3, **ancestral),
        pixels(model, seed_resize_width=16, seed_resize_height=24, **ancestral),
    ]
    assert len({each.tobytes() for each in found}) == len(found)
    np.testing.assert_array_equal(pixels(model, variation_seed=9, **ancestral), plain)
    np.testing.assert_array_equal(pixels(model, ensd=5, sampler="euler"), pixels(model, sampler="euler"))


def test_variations_count_up(model: Model) -> None:
    """With a strength the seed stays and the variations' counts up, as in A1111."""
    settings = {**SETTINGS, "count": 3, "variation_seed": 9, "variation_strength": 0.3}
    several = model.generate("a red boat", **settings)
    asked = [each.metadata["request"] for each in several]
    assert [(each["seed"], each["noise"]["variation_seed"]) for each in asked] == [(3, 9), (3, 10), (3, 11)]
    alone = pixels(model, variation_seed=11, variation_strength=0.3)
    np.testing.assert_array_equal(np.asarray(several[2].image), alone)
    drawn = model.settle(Request(prompt="", variation_strength=0.2))
    assert drawn.noise.variation_seed is not None
    assert model.settle(Request(prompt="")).noise.variation_seed is None


def test_a1111_is_told_how_noise_came_of_the_seed(model: Model) -> None:
    asked = {
        "noise_source": "nv",
        "ensd": 31337,
        "variation_seed": 9,
        "variation_strength": 0.25,
        "clip_skip": 2,
    }
    size = {"seed_resize_width": 64, "seed_resize_height": 32}
    (picture,) = model.generate("a red boat", **SETTINGS, **asked, **size)
    for words in (
        "RNG: NV",
        "ENSD: 31337",
        "Variation seed: 9",
        "Variation seed strength: 0.25",
        "Seed resize from: 64x32",
        "Clip skip: 2",
    ):
        assert words in picture.parameters.split("\n")[-1].split(", ")
    (plain,) = model.generate("a red boat", **SETTINGS)
    assert "RNG: CPU" in plain.parameters
    assert "ariation" not in plain.parameters


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_a_path_survives_a_loss(model: Model, sampler: str) -> None:
    request = model.settle(
        Request.from_dict({"prompt": "a", **SETTINGS, "sampler": sampler, "noise_source": "nv"})
    )

    def run(job: Job, ticks: int | None = None) -> Any:
        engine = Engine(model._networks)
        task = engine.submit(job)
        for _ in range(10**6 if ticks is None else ticks):
            if task.finished:
                break
            engine.tick()
        return task

    whole = run(Job(request, model.family)).result()
    for ticks in (2, 4, 5):
        begun = Job(request, model.family)
        run(begun, ticks)
        np.testing.assert_array_equal(run(Job(request, model.family, begun.snapshot())).result(), whole)


def test_made_again(model: Model, toy_folder: Path, tmp_path: Path) -> None:
    settings = {
        "noise_source": "nv",
        "ensd": 7,
        "variation_seed": 2,
        "variation_strength": 0.5,
        "sampler": "dpmpp_sde",
    }
    picture = model.generate("a boat", **{**SETTINGS, **settings})[0]
    file = picture.save(tmp_path / "it.png")
    assert main(["again", str(file), "--model", str(toy_folder), "--precision", "float32"]) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"noise_source": "gpu"}, "noise_source is gpu, but .* is on cpu: nv gives"),
        ({"noise_source": "dice"}, "noise_source is 'dice'"),
        ({"variation_strength": 1.5}, "variation_strength is 1.5"),
        ({"seed_resize_width": 64}, "go together"),
        ({"ensd": 2**40}, "ensd is"),
    ],
)
def test_mistakes(model: Model, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        model.generate("a boat", **{**SETTINGS, **settings})
