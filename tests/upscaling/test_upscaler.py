"""Upscalers at work: sizes, parts, what is transparent, and what files say afterwards."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from tests.upscaling.test_reading import filled

import darkroom
from darkroom.errors import GenerationError, InvalidRequest, ModelError
from darkroom.generation.picture import metadata_of, texts_of
from darkroom.networks.configs import CompactConfig, RRDBNetConfig
from darkroom.networks.upscaler import Compact, RRDBNet
from darkroom.upscaling.upscaler import repeated

HERE = {"device": "cpu", "precision": "float32"}
PHOTO = np.random.default_rng(3).integers(0, 256, (21, 34, 3), np.uint8)


def repeating(channels=3, scale=2):
    """A network that repeats pixels and no more."""
    network = filled(Compact(CompactConfig(channels, channels, 8, 1, scale)))
    for each in network.parameters():
        each.data.zero_()
    return network


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The file of an upscaler by a name."""
    folder = tmp_path_factory.mktemp("upscalers")
    networks = {
        "x2": repeating(),
        "x4": repeating(scale=4),
        "x1": repeating(scale=1),
        "grey": repeating(1),
        "rgba": repeating(4),
        "two": repeating(2),
        "learned": filled(Compact(CompactConfig(features=8, layers=3, scale=2))),
        "deep": filled(RRDBNet(RRDBNetConfig(features=8, blocks=1, growth=4, scale=2))),
    }
    for name, network in networks.items():
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    return lambda name: folder / f"{name}.safetensors"


def enlarged(upscaler, image=PHOTO, *args, **settings):
    return np.asarray(upscaler.upscale(image, *args, **settings).image)


@pytest.mark.parametrize("name", ["lanczos", "nearest"])
def test_filters_are_pillows(name):
    by = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}[name]
    upscaler = darkroom.load_upscaler(name)
    assert (upscaler.scale, upscaler.usual) == (None, 2)
    for times in (1, 2, 2.5, 16):
        size = round(34 * times), round(21 * times)
        assert (enlarged(upscaler, PHOTO, times) == np.asarray(Image.fromarray(PHOTO).resize(size, by))).all()


def test_sizes(made):
    four = darkroom.load_upscaler(made("x4"), **HERE)
    assert (four.scale, four.usual) == (4, 4)
    assert (enlarged(four) == PHOTO.repeat(4, 0).repeat(4, 1)).all()
    # As often as it takes, and then smaller.
    assert (enlarged(four, PHOTO, 16) == PHOTO.repeat(16, 0).repeat(16, 1)).all()
    smaller = Image.fromarray(PHOTO.repeat(4, 0).repeat(4, 1)).resize((68, 42), Image.Resampling.LANCZOS)
    assert (enlarged(four, PHOTO, 2) == np.asarray(smaller)).all()
    assert enlarged(four, PHOTO, 5).shape == (105, 170, 3)
    assert enlarged(four, PHOTO, width=68).shape == (42, 68, 3)
    assert enlarged(four, PHOTO, height=42).shape == (42, 68, 3)
    cut = enlarged(four, PHOTO, width=84, height=84)
    assert cut.shape == (84, 84, 3)
    assert (enlarged(darkroom.load_upscaler(made("x1"), **HERE)) == PHOTO).all()
    one = np.zeros((1, 1, 3), np.uint8)
    assert enlarged(four, one, 3).shape == (3, 3, 3)
    assert enlarged(darkroom.load_upscaler(made("deep"), **HERE), one).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": 0.5}, "by is 0.5"),
        ({"by": 17}, "by is 17"),
        ({"by": float("nan")}, "by is NaN"),
        ({"by": "large"}, 'by is "large"'),
        ({"by": 2, "width": 64}, "leave one of the two out"),
        ({"width": 20}, "a picture of 34x21 would be of 20x12"),
        ({"height": 21 * 17}, "give another size"),
        ({"width": 0}, "width is 0"),
        ({"width": 34, "height": 22.5}, "height is 22.5"),
        ({"frame": 2}, "frame is 2"),
    ],
)
def test_sizes_that_cannot_be(settings, message):
    with pytest.raises(InvalidRequest, match=message):
        darkroom.load_upscaler().upscale(PHOTO, **settings)


def test_pictures_too_large_are_refused_before_anything_is_made(made):
    large = np.zeros((1100, 1100, 3), np.uint8)
    with pytest.raises(InvalidRequest, match=r"17600x17600: 178,956,970 pixels are the most"):
        darkroom.load_upscaler().upscale(large, 16)
    four = darkroom.load_upscaler(made("x4"), **HERE)
    with pytest.raises(InvalidRequest, match="on its way to 5500x5500 the picture would be of 17600x17600"):
        four.upscale(large, 5)


@pytest.mark.parametrize(
    ("given", "message", "error"),
    [
        ("nothing-like-it", "there is no upscaler 'nothing-like-it'", ModelError),
        ("two", "sees 2 channels", ModelError),
        ("", "the name of the upscaler is empty", ModelError),
    ],
)
def test_upscalers_that_are_none(given, message, error, made):
    with pytest.raises(error, match=message):
        darkroom.load_upscaler(made(given) if given == "two" else given, **HERE)
    with pytest.raises(InvalidRequest, match="tile is 16"):
        darkroom.load_upscaler(made("x2"), tile=16)


@pytest.mark.parametrize("name", ["learned", "deep"])
def test_parts_are_as_the_whole(made, name):
    """Tiles differ from the whole picture by what lies beyond what they overlap: nothing, of a shallow network."""
    photo = np.random.default_rng(4).integers(0, 256, (150, 217, 3), np.uint8)
    whole = enlarged(darkroom.load_upscaler(made(name), tile=0, **HERE), photo)
    told = []
    upscaler = darkroom.load_upscaler(made(name), tile=64, **HERE)
    parts = enlarged(upscaler, photo, progress=lambda *each: told.append(each))
    apart = np.abs(parts.astype(int) - whole).max()
    assert apart <= (1 if name == "learned" else 4)
    count = 4 * 6
    assert told == [(number, count) for number in range(1, count + 1)]


def test_what_is_transparent(made):
    """It is enlarged as the colours are, and what lies under what is not seen does not show at the edges."""
    alpha = np.zeros((21, 34), np.uint8)
    alpha[4:12, 6:20] = 255
    colours = np.where(alpha[..., None] > 0, np.uint8(200), np.uint8(0)).repeat(3, 2)
    image = Image.fromarray(np.dstack([colours, alpha]))
    for name in ("x2", "rgba", "grey"):
        found = enlarged(darkroom.load_upscaler(made(name), **HERE), image)
        assert (found[..., 3] == alpha.repeat(2, 0).repeat(2, 1)).all(), name
        assert (found[..., :3][found[..., 3] > 0] == 200).all(), name
    smooth = enlarged(darkroom.load_upscaler(), image, 3)
    assert set(np.unique(smooth[..., :3][smooth[..., 3] > 0])) <= {199, 200, 201}
    assert len(np.unique(smooth[..., 3])) > 2
    none = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert (enlarged(darkroom.load_upscaler(), none, 2) == (10, 20, 30, 0)).all()
    picture = darkroom.load_upscaler().upscale(image, 2)
    with pytest.raises(InvalidRequest, match="JPEG files cannot be: write PNG or WebP"):
        picture.encoded("jpeg")
    assert Image.open(io.BytesIO(picture.encoded("webp"))).mode == "RGBA"


def test_grey_networks_make_grey_pictures(made):
    found = enlarged(darkroom.load_upscaler(made("grey"), **HERE))
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    assert (found == grey.repeat(2, 0).repeat(2, 1)[..., None]).all()


def test_less_memory(made, monkeypatch):
    """Where a part is too large for the memory that there is, smaller ones are made, and that is told."""
    upscaler = darkroom.load_upscaler(made("learned"), **HERE)
    photo = np.random.default_rng(4).integers(0, 256, (150, 217, 3), np.uint8)
    whole, network, notes = enlarged(upscaler, photo), upscaler._network, []

    def run(x):
        if max(x.shape) > 120:
            raise torch.OutOfMemoryError("no room")
        return network.run(x)

    monkeypatch.setattr(upscaler, "_network", type(network)(**{**vars(network), "run": run}))
    small = enlarged(upscaler, photo, note=notes.append)
    assert np.abs(small.astype(int) - whole).max() <= 1
    assert notes == ["enlarged in parts of 108 pixels: memory did not suffice for larger ones"]
    monkeypatch.setattr(
        upscaler, "_network", type(network)(**{**vars(network), "run": lambda x: x * torch.nan})
    )
    with pytest.raises(GenerationError, match=r'not a number.*`precision="float32"`'):
        upscaler.upscale(photo)


def test_what_files_say(made, tmp_path, toy_folder):
    """A picture's recipe stays in it, and what was done with it is said beside, for us and for A1111's readers."""
    model = darkroom.load(toy_folder, **HERE)
    (picture,) = model.generate("a boat", seed=7, steps=2, width=48, height=32)
    upscaler = darkroom.load_upscaler(made("learned"), **HERE)
    large = upscaler.upscale(picture.save(tmp_path / "boat.png"))
    larger = darkroom.load_upscaler().upscale(large, 1.5)
    assert (large.seed, larger.seed, larger.image.size) == (7, 7, (144, 96))
    path = larger.save(tmp_path / "larger.png")
    found = metadata_of(path)
    assert found["request"] == picture.metadata["request"]
    assert [each["upscaler"] for each in found["after"]] == ["learned", "lanczos"]
    assert found["after"][0]["of"]["path"] == str(tmp_path / "boat.png")
    assert len(found["after"][0]["sha256"]) == 64
    texts = texts_of(path, ())[1]
    assert texts["parameters"] == picture.parameters
    assert texts["postprocessing"] == (
        "Postprocess upscale by: 2, Postprocess upscaler: learned, "
        "Postprocess upscale by: 1.5, Postprocess upscaler: lanczos"
    )
    again = repeated(picture, found["after"])
    assert (np.asarray(again.image) == np.asarray(larger.image)).all()
    assert larger.save(tmp_path / "larger.webp").exists()
    assert metadata_of(tmp_path / "larger.webp")["after"] == found["after"]
    with pytest.raises(InvalidRequest, match="no upscaler is named"):
        repeated(picture, [{"by": 2}])


def test_what_other_programs_said_is_kept(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a boat\nSteps: 20, Sampler: Euler")
    text.add_text("workflow", '{"nodes": []}')
    Image.fromarray(PHOTO).save(tmp_path / "theirs.png", pnginfo=text)
    for given in (
        tmp_path / "theirs.png",
        (tmp_path / "theirs.png").read_bytes(),
        Image.open(tmp_path / "theirs.png"),
    ):
        picture = darkroom.load_upscaler().upscale(given, 2)
        found = texts_of(picture.save(tmp_path / "larger.png"), ())[1]
        assert found["parameters"] == "a boat\nSteps: 20, Sampler: Euler"
        assert found["workflow"] == '{"nodes": []}'
        assert found["postprocessing"] == "Postprocess upscale by: 2, Postprocess upscaler: lanczos"
    plain = darkroom.load_upscaler().upscale(PHOTO).save(tmp_path / "plain.png", metadata=False)
    assert texts_of(plain, ())[1] == {"comment": ""}
