"""Things in pictures by their names: what a name is, where the model reads it, and what is done there."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tests.families import write_sd1

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest
from darkroom.generation import Request
from darkroom.generation.masks import ALPHA, Thing
from darkroom.generation.named import along_edges
from darkroom.generation.picture import metadata_of
from darkroom.generation.sources import Source
from darkroom.generation.work import alone

PHOTO = np.full((37, 51, 3), (30, 60, 120), np.uint8)
PHOTO[8:30, 10:36] = 220, 60, 40
SETTINGS = {"steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


def masked(**settings):
    return Request("a boat", image=PHOTO, **settings).checked().inpaint.mask


def test_what_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "the shape").write_bytes(b"")
    for text in ("the boat", "boat", "a red boat!", "x" * 400):
        assert masked(mask=text) == Thing(text)
    for text in ("mask.png", "masks/1", "~/mask", r"masks\1", "the shape"):
        assert masked(mask=text) == Source(text)
    assert masked(mask=ALPHA) == ALPHA
    with pytest.raises(InvalidRequest, match="mask is empty"):
        masked(mask="")


def test_a_name_is_plain_data():
    request = Request("a boat", image="boat.png", mask="the boat").checked()
    said = json.loads(json.dumps(request.to_dict()))
    assert said["inpaint"] == {"mask": {"thing": "the boat"}}
    assert Request.from_dict(said).checked() == request


@pytest.mark.parametrize("reach", [1, 3, 40])
def test_along_edges(reach):
    """He et al.'s filter, place by place as their algorithm has it."""
    rng = np.random.default_rng(2)
    soft, pixels = rng.random((9, 12)), rng.integers(0, 256, (9, 12, 3), np.uint8)
    colors = pixels / 255
    slopes, offsets = np.zeros((9, 12, 3)), np.zeros((9, 12))

    def window(y, x):
        return slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1)

    for y, x in np.ndindex(9, 12):
        near, level = colors[window(y, x)].reshape(-1, 3), soft[window(y, x)].ravel()
        mean = near.mean(axis=0)
        spread = (near - mean).T @ (near - mean) / len(near)
        together = (near - mean).T @ (level - level.mean()) / len(near)
        slopes[y, x] = np.linalg.solve(spread + 1e-3 * np.eye(3), together)
        offsets[y, x] = level.mean() - slopes[y, x] @ mean
    expected = np.zeros((9, 12))
    for y, x in np.ndindex(9, 12):
        slope, offset = slopes[window(y, x)].reshape(-1, 3).mean(axis=0), offsets[window(y, x)].mean()
        expected[y, x] = slope @ colors[y, x] + offset
    assert np.allclose(along_edges(soft, pixels, reach), expected, atol=1e-9)


def test_a_soft_map_comes_to_the_edge():
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[10:30, 14:40] = (200, 40, 60)
    y, x = np.mgrid[:48, :48]
    soft = np.exp(-(((y - 20) / 12) ** 2 + ((x - 26) / 14) ** 2))
    assert ((along_edges(soft, pixels, 24) > 0.5) == (pixels[..., 0] > 0)).all()


def read_in(model):
    """Where a model reads a word; random weights have nowhere in particular."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    return alone(model._find._look(pixels, "the boat", Request("")), model._networks).of("boat")


@pytest.mark.parametrize("name", ["refiner", "sd3", "lcm"])
def test_every_family_reads_names(folder, name):
    found = read_in(darkroom.load(folder(name), device="cpu", precision="float32"))
    assert found.shape == (4, 6)
    assert (found > 0).all()
    assert found.std() > 0


def test_models_that_see_a_picture(folder, tmp_path):
    nine = darkroom.load(write_sd1(tmp_path / "nine", in_channels=9), device="cpu", precision="float32")
    assert read_in(nine).shape == (4, 6)
    with pytest.raises(
        InvalidRequest, match=r"mask is 'the boat', but pix2pix.* does not say where things are"
    ):
        darkroom.load(folder("pix2pix"), device="cpu").mask_of(PHOTO, "the boat")


def test_what_is_painted_is_where_it_is(model):
    mask = np.asarray(model.mask_of(PHOTO, "the red tree")) > 0
    (picture,) = model.edit(PHOTO, "a house", mask="the red tree", mask_grow=0, **SETTINGS)
    assert (np.asarray(picture.image)[~mask] == PHOTO[~mask]).all()
    said = f"'the red tree' is taken to be in {mask.mean():.0%} of the picture, where the model reads it"
    assert said in picture.metadata["notes"]
    (usual,) = model.edit(PHOTO, "a house", mask="the red tree", **SETTINGS)
    assert usual.metadata["request"]["inpaint"]["grow"] == 4
    for more in ({"only_masked": True}, {"mask_invert": True, "mask_blur": 1.0}, {"extend_right": 8}):
        (picture,) = model.edit(PHOTO, "a house", mask="the red tree", **more, **SETTINGS)
        assert picture.image.height == 37


def test_which_text_it_is_read_in(model, monkeypatch):
    """The prompt of a picture of ours, else the request's, else the name; names with or without an article."""
    half = np.linspace(0, 1, 32)[:, None] * np.ones((32, 32))
    monkeypatch.setattr("darkroom.generation.named.along_edges", lambda *_: half)
    read = []
    look = type(model._find)._look
    monkeypatch.setattr(
        type(model._find),
        "_look",
        lambda self, pixels, text, *more: read.append(text) or look(self, pixels, text, *more),
    )
    (own,) = model.generate("a red boat and a tree", **SETTINGS, width=32, height=32)
    pixels = np.asarray(own.image)
    for given, thing, prompt, text in (
        (own.encoded("png"), "The Boat", "a house", "a red boat and a tree"),
        (own.encoded("png"), "a house", "a house", "a house"),
        (pixels, "the red boat", "the red boat at sea", "the red boat at sea"),
        (pixels, "the boat", "the boats at sea", "the boat"),
    ):
        read.clear()
        model.mask_of(given, thing, prompt)
        assert read == [text]
    model.mask_of(pixels, "the boat", "the boats at sea")
    assert read == ["the boat"]  # It is known by now.


def test_mistakes(model):
    with pytest.raises(InvalidRequest, match="mask is '!': name a thing"):
        model.mask_of(PHOTO, "!")
    with pytest.raises(InvalidRequest, match="mask is 'the boat', which toy reads all over the picture"):
        model.mask_of(PHOTO, "the boat")
    with pytest.raises(InvalidRequest, match="there is a mask, but no picture"):
        model.settle(Request("a boat", mask="the boat"))


def test_on_the_command_line(run, toy_folder, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    quick = "--model", toy_folder, "--device", "cpu", "--precision", "float32", "--quiet"
    status, out, err = run("mask", tmp_path / "photo.png", "the red tree", *quick)
    assert (status, out.strip()) == (0, str(tmp_path / "photo-mask.png")), err
    named = "edit", tmp_path / "photo.png", "a house", "--steps", "2", "--seed", "1", *quick
    status, out, err = run(*named, "--mask", "the red tree", "-o", tmp_path / "named.png")
    assert status == 0, err
    assert metadata_of(tmp_path / "named.png")["request"]["inpaint"]["mask"] == {"thing": "the red tree"}
    drawn = "--mask", tmp_path / "photo-mask.png", "--mask-grow", "4"
    status, out, err = run(*named, *drawn, "-o", tmp_path / "filed.png")
    assert status == 0, err
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("named", "filed")]
    assert (pictures[0] == pictures[1]).all()
    status, out, err = run("again", tmp_path / "named.png")
    assert (status, "the same, pixel for pixel" in out) == (0, True), err
    assert main(["mask", str(tmp_path / "photo.png"), "the red tree", "-o", str(tmp_path / "mask.jpg")]) == 2
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("one", "two"):
        shutil.copy(tmp_path / "photo.png", folder / f"{name}.png")
    status, out, err = run("mask", folder, "the red tree", "-o", tmp_path / "masks/", *quick)
    assert (status, out.split()) == (
        0,
        [str(tmp_path / f"masks/{name}-mask.png") for name in ("one", "two")],
    ), err
    status, _, err = run("mask", folder, "the red tree", "-o", tmp_path / "mask.png", *quick)
    assert (status, "is one file: name a folder" in err) == (2, True)
