"""`darkroom upscale`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from tests.upscaling.test_reading import filled

from darkroom.generation.picture import texts_of
from darkroom.networks.configs import CompactConfig
from darkroom.networks.upscaler import Compact

HERE = ("--device", "cpu", "--precision", "float32")


def size_of(path):
    return texts_of(path, ())[0]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("tall", (12, 20)), ("wide", (30, 10))):
        Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 50).convert("RGB").save(folder / f"{name}.png")
    return folder


@pytest.fixture
def network(tmp_path):
    save_file(filled(Compact(CompactConfig(features=8, layers=1))).state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_folder_of_pictures(run, photos):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    status, out, err = run("upscale", photos, "--by", "2.5")
    assert status == 0, err
    assert out.split() == ["out/tall-x2.5.png", "out/wide-x2.5.png"]
    assert [size_of(path) for path in out.split()] == [(30, 50), (75, 25)]
    assert "12x20 to 30x50 by lanczos" in err
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    # Nothing is written over.
    assert run("upscale", photos / "tall.png", "--by", "2.5", "--quiet")[1] == "out/tall-x2.5-2.png\n"


def test_networks_by_name_and_by_file(run, photos, network):
    status, out, err = run("upscale", photos / "wide.png", "--upscaler", network, "--json", *HERE)
    assert status == 0, err
    told = json.loads(out)
    assert size_of(told["path"]) == (120, 40)
    assert (told["metadata"]["after"][0]["upscaler"], told["path"]) == ("net", "out/wide-x4.png")
    assert "compact (Real-ESRGAN), x4, 1 layers" in err
    assert run("models", "add", network)[0] == 0
    asked = ("--upscaler", "net", "--width", "60", "-o", "made/big.webp", "--quiet", *HERE)
    assert run("upscale", photos / "wide.png", *asked)[:2] == (0, "made/big.webp\n")
    assert size_of("made/big.webp") == (60, 20)
    status, out, _ = run("inspect", network)
    assert (status, "compact (Real-ESRGAN), x4" in out) == (0, True)


def test_settings_that_are_always_to_be_so(run, photos, network, monkeypatch):
    monkeypatch.setenv("DARKROOM_UPSCALER", str(network))
    assert run("upscale", photos / "wide.png", "--quiet", *HERE)[1] == "out/wide-x4.png\n"
    assert run("upscale", photos / "wide.png", "--upscaler", "nearest", "--quiet")[1] == "out/wide-x2.png\n"
    monkeypatch.setenv("DARKROOM_UPSCALER", "latent")
    assert run("upscale", photos / "tall.png", "--quiet")[1] == "out/tall-x2.png\n"
    status, _, err = run("upscale", photos / "tall.png", "--upscaler", "latent")
    assert (status, "there is no upscaler 'latent'" in err) == (1, True)


def test_again(run, photos, network, toy_folder):
    made = run("generate", "a boat", "--model", toy_folder, "--steps", "2", "--size", "32", "--quiet", *HERE)[
        1
    ].strip()
    large = run("upscale", made, "--upscaler", network, "--by", "3", "--quiet", *HERE)[1].strip()
    assert size_of(large) == (96, 96)
    status, out, err = run("again", large)
    assert (status, out) == (0, f"{large}: the same, pixel for pixel\n"), err
    # What is made of it in turn begins with it as it is.
    edited = run("edit", large, "--strength", "0.4", "--quiet", *HERE)[1].strip()
    assert size_of(edited) == (96, 96)
    network.unlink()
    status, _, err = run("again", large)
    assert (status, "there is no upscaler 'net'" in err) == (1, True)


def test_mistakes_are_told_before_anything_is_made(run, photos):
    see_through = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(see_through).save(photos / "glass.png")
    (photos / "broken.png").write_bytes(b"nothing")
    status, out, err = run("upscale", photos, "--by", "3", "--format", "jpeg")
    assert (status, out) == (2, "")
    assert "glass.png is transparent in places" in err
    assert "broken.png" in err
    for arguments, message in (
        ((photos / "tall.png", "--by", "0.2"), "by is 0.2"),
        ((photos / "tall.png", "--by", "2", "--width", "40"), "leave one of the two out"),
        ((photos / "gone.png",), "no file"),
        ((photos / "tall.png", "--tile", "9", "--upscaler", "lanczos"), "tile is 9"),
    ):
        status, out, err = run("upscale", *arguments)
        assert (status, out, message in err) == (2, "", True), err
    status, _, err = run("upscale", photos / "tall.png", "--upscaler", "nearst")
    assert (status, "did you mean 'nearest'?" in err) == (1, True), err


def test_photographs_are_made_larger_again(run, photos, network, tmp_path):
    made = tmp_path / "made.png"
    assert run("upscale", photos / "wide.png", "--upscaler", network, "-o", made, *HERE)[0] == 0
    assert run("upscale", made, "--by", "1.5", "-o", tmp_path / "more.png")[0] == 0
    for path in (made, tmp_path / "more.png"):
        status, out, err = run("again", path)
        assert status == 0, err
        assert "the same, pixel for pixel" in out
    told = json.loads(run("info", tmp_path / "more.png")[1])
    assert [each["upscaler"] for each in told["after"]] == ["net", "lanczos"]
    moved = (photos / "wide.png").rename(tmp_path / "moved.png")
    status, out, err = run("again", made)
    assert (status, "the same" in out, f"its image is {moved} now" in err) == (0, True, True)
    hidden = tmp_path / "elsewhere"
    hidden.mkdir()
    moved = moved.rename(hidden / "moved.png")
    status, _, err = run("again", made)
    assert status == 2
    assert "SHA-256" in err
    assert run("again", made, "--image", moved)[0] == 0
    status, out, err = run("again", made, "--image", photos / "tall.png")
    assert status != 0
    assert "its image was another picture" in err


def test_a_frame_is_made_larger_again(run, tmp_path):
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    made = tmp_path / "made.png"
    assert run("upscale", tmp_path / "moving.png", "--frame", "2", "-o", made)[0] == 0
    for given in ((), ("--image", tmp_path / "moving.png")):
        status, out, err = run("again", made, *given)
        assert (status, "the same, pixel for pixel" in out) == (0, True), err


def test_a_picture_of_another_program_is_made_larger_again(run, photos, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a boat\nSteps: 2, Sampler: Euler, Seed: 1, Size: 64x64, Model: pocket")
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB").save(
        tmp_path / "theirs.png", pnginfo=text
    )
    made = tmp_path / "made.png"
    assert run("upscale", tmp_path / "theirs.png", "--by", "2", "-o", made)[0] == 0
    status, out, err = run("again", made)
    assert (status, "the same, pixel for pixel" in out) == (0, True), err


def test_what_a_camera_left_is_not_kept(run, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif.get_ifd(0x8825)[1] = "N"
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>a place</x:xmpmeta>")
    text.add_text("Raw profile type exif", "\nexif\n 8\n4d4d002a")
    text.add_text("exif:GPSLatitude", "52, 31, 0")
    text.add_text("parameters", "a boat\nSteps: 2")
    text.add_text("Software", "NovelAI")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png", pnginfo=text, exif=exif)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.tif", exif=exif, compression="tiff_lzw")
    for name in ("photo.png", "photo.tif"):
        assert run("upscale", tmp_path / name, "-o", tmp_path / f"{name}-larger.png")[0] == 0
        with Image.open(tmp_path / f"{name}-larger.png") as larger:
            kept = {"parameters", "Software"} if name == "photo.png" else set()
            assert set(larger.text) - {"darkroom", "postprocessing", "parameters"} == kept - {"parameters"}
            assert not larger.getexif()
    with Image.open(tmp_path / "photo.png-larger.png") as larger:
        assert larger.text["parameters"] == "a boat\nSteps: 2"
