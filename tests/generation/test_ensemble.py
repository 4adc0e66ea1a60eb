"""Several models on one way: averaged, in turn, one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.adapters.test_requests import pixels, write_lora
from tests.toys import write_model

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation.ensemble import Member, parse_member, shares
from darkroom.model import Model


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return write_model(root / "a"), write_model(root / "b", seed=7)


def load(path: Path, *ensemble: str) -> Model:
    return darkroom.load(path, device="cpu", precision="float32", ensemble=ensemble)


def test_who_makes_a_step() -> None:
    member = parse_member("inks:0.25:start=0.5")
    assert member == Member("inks", 0.25, 0.5)
    assert [shares([member], step, 4) for step in (1, 2)] == [((0, 1.0),), ((0, 0.75), (1, 0.25))]
    turns = [parse_member("inks:1:every=2"), parse_member("oils:1:every=3:stop=0.6")]
    made = [[number for number, _ in shares(turns, step, 5)] for step in range(5)]
    assert made == [[0], [1], [2], [1], [0]]


def test_a_share_of_nothing_and_of_all(two: tuple[Path, Path]) -> None:
    a, b = two
    alone, other = pixels(load(a)), pixels(load(b))
    np.testing.assert_array_equal(pixels(load(a, f"{b}:0")), alone)
    np.testing.assert_array_equal(pixels(load(a, f"{b}:1:start=1")), alone)
    # The autoencoder is the first one's.
    whole = darkroom.load(b, device="cpu", precision="float32", vae=a / "vae")
    np.testing.assert_array_equal(pixels(load(a, f"{b}:1")), pixels(whole))
    assert not np.array_equal(alone, other)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "euler_ancestral"])
def test_a_model_with_itself(two: tuple[Path, Path], sampler: str) -> None:
    """The average of two equal estimates is the estimate, whatever the sampler."""
    a, _ = two
    alone = pixels(load(a), sampler=sampler).astype(int)
    assert np.abs(pixels(load(a, f"{a}:0.3"), sampler=sampler).astype(int) - alone).max() <= 1


def test_both_matter(two: tuple[Path, Path]) -> None:
    a, b = two
    found = [
        pixels(load(a, text))
        for text in (f"{b}:0", f"{b}:0.5", f"{b}:1:start=0.5", f"{b}:1:every=2", f"{b}:1")
    ]
    assert len({each.tobytes() for each in found}) == len(found)


def test_adapters_are_for_all(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = two
    model = load(a)
    lora = write_lora(tmp_path / "ink.safetensors", model)
    alone = pixels(model, adapters=[str(lora)]).astype(int)
    assert np.abs(pixels(load(a, f"{a}:0.5"), adapters=[str(lora)]).astype(int) - alone).max() <= 1


def test_made_again(two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two
    monkeypatch.chdir(tmp_path)
    words = ["generate", "a boat", "--model", str(a), "--ensemble", f"{b}:0.4", "--steps", "3", "--seed", "1"]
    assert main([*words, "--quiet", "--name", "it"]) == 0
    assert main(["again", "out/it.png", "--model", str(a)]) == 0


def test_guidance_remembers_for_each(two: tuple[Path, Path]) -> None:
    """Momentum is of one model's differences: a model with itself is as alone."""
    a, _ = two
    settings: dict[str, Any] = {"guides": ["apg:momentum=-0.5"]}
    alone = pixels(load(a), **settings).astype(int)
    assert np.abs(pixels(load(a, f"{a}:0.5"), **settings).astype(int) - alone).max() <= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b:x", "'x' of the model 'b:x' is no number"),
        ("b:when=2", "'when=2' of the model 'b:when=2' is not understood"),
        (":0.5", "names no model"),
        ("b:every=0", "names no model and its part"),
        ("b:start=0.7:stop=0.2", "choose 0 to 1"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_member(text)


def test_models_that_do_not_fit(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", prediction="epsilon")
    with pytest.raises(ModelError, match=r"makes no picture with .* differ in noise schedule"):
        load(two[0], f"{other}:0.5")
