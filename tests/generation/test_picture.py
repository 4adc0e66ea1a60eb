"""Pictures on disk: whole or not at all, and with everything needed to make them again."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import InvalidRequest
from darkroom.generation import Picture, open_picture


@pytest.fixture
def picture() -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    request = {"version": 2, "prompt": "a «boat» 🌊", "seed": 5}
    metadata = {"darkroom": "1", "request": request, "model": {"name": "toy"}}
    text = "a «boat» 🌊\nSteps: 5, Sampler: Euler, Seed: 5, Size: 32x24"
    return Picture(Image.fromarray(pixels), 5, metadata, text)


def test_png_keeps_pixels_and_metadata(picture, tmp_path):
    path = picture.save(tmp_path / "deep" / "a.png")
    image, metadata = open_picture(path)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(picture.image))
    assert metadata == picture.metadata
    with Image.open(path) as image:
        assert image.text["parameters"] == picture.parameters


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp"])
def test_other_formats_keep_the_metadata(picture, tmp_path, name):
    path = picture.save(tmp_path / name)
    assert open_picture(path)[1] == picture.metadata
    with Image.open(path) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == picture.parameters


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_without_metadata_the_file_tells_nothing(picture, tmp_path, name):
    path = picture.save(tmp_path / name, metadata=False)
    content = path.read_bytes()
    assert b"boat" not in content
    assert b"darkroom" not in content.lower()
    with pytest.raises(InvalidRequest, match="no Darkroom metadata"):
        open_picture(path)


def test_an_unknown_suffix_is_named(picture, tmp_path):
    with pytest.raises(InvalidRequest, match=r"\.bmpp"):
        picture.save(tmp_path / "a.bmpp")


def test_a_full_disk_leaves_no_part_of_a_file(picture, tmp_path, monkeypatch):
    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InvalidRequest, match="No space left on device"):
        picture.save(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_files_that_are_no_pictures_are_an_error_in_words(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"a\.png"):
        open_picture(path)


def test_a_picture_from_elsewhere_is_told_apart(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x010E] = json.dumps({"something": "else"})
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    with pytest.raises(InvalidRequest, match="no Darkroom metadata"):
        open_picture(path)
