"""Files are there whole, or as they were before."""

from __future__ import annotations

import json
import os

import pytest

from darkroom.errors import InvalidRequest, ModelError
from darkroom.files import replacing, write_bytes, write_json


def test_folders_on_the_way_are_made(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"name": "Blühende Wiese", "numbers": [1, 2]})
    assert "Blühende Wiese" in path.read_text("utf-8")
    assert json.loads(path.read_text("utf-8")) == {"name": "Blühende Wiese", "numbers": [1, 2]}
    assert os.listdir(path.parent) == ["b.json"]


def broken_off(path, error):
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")]
)
def test_what_was_there_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "kept"
    write_bytes(path, b"before")
    wanted = InvalidRequest if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted):
        broken_off(path, error)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        broken_off(temporary / "unet" / "config.json", RuntimeError())
    assert not os.listdir(tmp_path)
    with replacing(path) as temporary:
        write_bytes(temporary / "unet" / "config.json", b"{}")
    assert (path / "unet" / "config.json").read_bytes() == b"{}"
    assert os.listdir(tmp_path) == ["model"]


def test_the_reason_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"cannot write .*file/below: .+") as caught:
        write_bytes(tmp_path / "file" / "below", b"")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot write"):
        write_json(tmp_path / "file" / "below", {}, ModelError)


def test_the_longest_names_can_be_written(tmp_path):
    write_bytes(tmp_path / ("ü" * 120 + ".png"), b"x")
    assert len(os.listdir(tmp_path)) == 1
