"""What a model is loaded with: one record, for every door."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import darkroom
from darkroom.assembly import open_model
from darkroom.errors import InvalidRequest
from darkroom.generation import open_picture
from darkroom.loading import LOADING, Loading, Options
from darkroom.model import load
from darkroom.provenance import loading_of
from darkroom.shelf import Shelf


def test_it_is_plain_data_once_checked(tmp_path):
    asked = Loading.of(
        tmp_path,
        device=torch.device("cpu"),
        precision=torch.bfloat16,
        others=[Path("clip.safetensors")],
        ensemble=["inks:0.3"],
        vae=Path("vae"),
    )
    assert Loading(**json.loads(json.dumps(asdict(asked)))).checked() == asked
    assert (asked.model, asked.device, asked.precision) == (str(tmp_path), "cpu", "bfloat16")
    assert hash(asked) == hash(Loading.of(asked))
    assert Loading.of(asked, vae=None, memory="low") == Loading.of(
        tmp_path,
        device="cpu",
        precision="bfloat16",
        others=["clip.safetensors"],
        ensemble=["inks:0.3"],
        memory="low",
    )


def test_every_option_is_a_keyword_with_a_help_text():
    assert Options.__annotations__.keys() == LOADING.keys() - {"model"}
    for function in (load, Shelf.get):
        assert set(inspect.signature(function).parameters) >= LOADING.keys()
    assert all(len(each.metadata["help"]) > 10 for each in LOADING.values())


def test_what_there_is_not_is_told_with_the_nearest():
    with pytest.raises(
        InvalidRequest, match="unknown option 'precison' of loading: did you mean 'precision'"
    ):
        load("pocket", precison="float32")
    with pytest.raises(InvalidRequest, match="unknown option 'vea'"):
        Shelf("1GB").get("pocket", vea="x")


def test_a_record_loads_what_its_options_do(toy_folder):
    loading = Loading(toy_folder, device="cpu", precision="float32")
    model, other = load(loading), load(toy_folder, device="cpu", precision="float32")
    asked = {"seed": 1, "steps": 1, "width": 32, "height": 32}
    ours, theirs = model.generate("a", **asked)[0], other.generate("a", **asked)[0]
    assert ours.image.tobytes() == theirs.image.tobytes()
    assert ours.metadata == theirs.metadata
    assert load(loading, precision="bfloat16").placement.precision == "bfloat16"
    with open_model(loading) as opened:
        assert opened.name == model.name
    shelf = Shelf("1TB")
    first = shelf.get(loading)
    assert shelf.get(str(toy_folder), device=torch.device("cpu"), precision=torch.float32) is first


def test_a_picture_s_file_says_what_to_load(toy_folder, tmp_path):
    loading = Loading.of(
        toy_folder, device="cpu", precision="float32", prediction="v_prediction", variant=None
    )
    (picture,) = load(loading).generate("a", seed=1, steps=1, width=32, height=32)
    _, metadata = open_picture(picture.save(tmp_path / "a.png"))
    assert loading_of(metadata, tmp_path / "a.png") == loading
    assert loading_of(metadata, tmp_path / "a.png", model="other", vae="x").vae == "x"
    provenance = load(loading).provenance
    assert provenance.weights() == metadata["model"]["weights"]
    assert provenance.numerics() == metadata["numerics"]
    for damaged, words in (
        ({"model": {"name": 5}}, "model, name"),
        ({"model": {"name": "a", "fuse": [3]}}, "model, fuse"),
        ({"model": {"name": "a"}, "numerics": []}, None),
        ({"model": {"name": "a"}, "numerics": 5}, "numerics is 5"),
        ({}, "does not say which model"),
    ):
        if words is None:
            assert loading_of(damaged, tmp_path).model == "a"
            continue
        with pytest.raises(InvalidRequest, match=words):
            loading_of(damaged, tmp_path)


def test_evaluations_take_what_generations_take(run, toy_folder, tmp_path):
    """Whatever a model may be loaded with, memory modes and other parts too."""
    arguments = [
        "--prompts",
        "1",
        "--tasks",
        "single",
        "--steps",
        "1",
        "--size",
        "32",
        "--output",
        "e",
        "--json",
    ]
    options = [
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--memory",
        "low",
        "--vae",
        str(toy_folder / "vae"),
    ]
    status, out, err = run("evaluate", "toy", *arguments, *options)
    assert status == 0, err
    assert json.loads(out)["numerics"]["decoded_in"] == "bands"
    (path,) = (tmp_path / "e" / "pictures").iterdir()
    assert open_picture(path)[1]["model"]["vae"] == "vae"
    assert run("evaluate", "toy", "--vae", "", "--device", "cpu")[0] == 2


def test_the_python_face_has_it():
    assert darkroom.Loading is Loading
