"""Detectors by what they are called: files, the oracle, things; and what is wrong with them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom
from darkroom.detection.detectors import Detectors, file_of
from darkroom.detection.onnx import OnnxNetwork
from darkroom.errors import ModelError, UnsupportedModel
from darkroom.oracle.judging import Thing
from darkroom.oracle.oracle import Oracle
from darkroom.world import render, sample_scene

DATA = Path(__file__).parent / "data"
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def found(detectors, detail, pixels):
    return detectors(detail).found(pixels)


@pytest.fixture
def detectors():
    return Detectors(lambda name: f"the thing {name}", torch.device("cpu"))


@pytest.mark.parametrize(("seed", "size"), [(3, 128), (4, 128), (5, 300)])
def test_a_file_finds_what_it_knows(detectors, world_file, seed, size):
    """The same network, as people's files have theirs: the same things, their boxes as it says them."""
    pixels = render(sample_scene(np.random.default_rng(seed)), size)
    wanted = sorted(found(detectors, "oracle", pixels), key=lambda each: each.box)
    things = [each for each in found(detectors, str(world_file), pixels) if each.confidence >= 0.4]
    things = sorted(things, key=lambda each: each.box)
    clear = [each for each in things if any(_near(each.box, other.box) for other in wanted)]
    assert [each.label for each in clear] == [each.label.split()[-1] for each in wanted]
    for each, other in zip(clear, wanted, strict=True):
        assert abs(each.confidence - other.confidence) < 0.1


def _near(box, other):
    return max(abs(a - b) for a, b in zip(box, other, strict=True)) <= 0.03 * 300


def test_what_is_called_how(detectors, world_file, monkeypatch, tmp_path):
    assert detectors("the boat:strength=0.3") == "the thing the boat"
    assert detectors("oracle").path is None
    assert detectors(f"{world_file}:only=cat") is detectors(str(world_file))
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / "pets_v2.onnx").write_bytes(world_file.read_bytes())
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path))
    assert detectors("pets_v2").name == "pets_v2"
    assert detectors("pets_v2.onnx") is detectors("pets_v2")
    assert file_of("pets") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("face_yolov8n.pt", "there is no (detector|file or folder)"),
        ("models/face.safetensors", "is no detector that is read here: give a .pt file of the YOLO family"),
        (
            "face_yolov8n",
            "there is no detector 'face_yolov8n': give a .pt or .onnx file, or a thing by its name",
        ),
        ("nowhere.onnx", "there is no detector 'nowhere.onnx'"),
        ("/nowhere/face.onnx", "there is no file or folder /nowhere/face.onnx"),
    ],
)
def test_what_is_not_here(detectors, name, message):
    with pytest.raises(ModelError, match=message):
        detectors(name)


def test_a_damaged_file(detectors, tmp_path, world_file):
    for name, content in (("empty", b""), ("text", b"no model"), ("short", world_file.read_bytes()[:5000])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=f"cannot read the detector {path}"):
            detectors(str(path))


def graph(path, shape, kind=onnx.TensorProto.FLOAT):
    """A file that gives back what it is given."""
    given, made = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y"))
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [given], [made]), opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_other_networks(detectors, tmp_path):
    for shape in ([1, 10], [1, 1, 32, 32], [1, 32, 32, 3]):
        with pytest.raises(UnsupportedModel, match="a detector sees pictures, 1x3xHEIGHTxWIDTH"):
            detectors(str(graph(tmp_path / "other.onnx", shape)))
    whole = graph(tmp_path / "whole.onnx", [1, 3, 32, 32])
    with pytest.raises(UnsupportedModel, match=r"whole.onnx: its outputs \(y 1x3x32x32\) are in no form"):
        found(detectors, str(whole), np.zeros((20, 30, 3), np.uint8))


def test_what_it_is_given(tmp_path):
    """The picture in the middle, in its proportions, in [0, 1]; half precision and sizes that are left open."""
    for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        network = OnnxNetwork(graph(tmp_path / "x.onnx", [1, 3, "height", "width"], kind), 1)
        assert network.size == (640, 640)
        assert network.labels == {}


def test_other_tasks_and_sizes(tmp_path, world_file):
    model = onnx.load(world_file)
    for task in ("obb", "classify"):
        onnx.helper.set_model_props(model, {"task": task})
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(UnsupportedModel, match=f"other.onnx is for the task '{task}'"):
            OnnxNetwork(tmp_path / "other.onnx", 1)
    with pytest.raises(UnsupportedModel, match="sees pictures of 9000 pixels a side"):
        OnnxNetwork(graph(tmp_path / "large.onnx", [1, 3, 9000, 32]), 1)
    for said in ("['a', 'b']", "[-5, 3]", "7", "[1e9, 1e9]", "{"):
        open_size = onnx.load(graph(tmp_path / "open.onnx", [1, 3, "height", "width"]))
        onnx.helper.set_model_props(open_size, {"imgsz": said})
        onnx.save(open_size, tmp_path / "open.onnx")
        height, width = OnnxNetwork(tmp_path / "open.onnx", 1).size
        assert 1 <= height <= 4096
        assert 1 <= width <= 4096


def test_numbers_beside_the_file_are_not_read(tmp_path, world_file):
    """As ONNX files may name them: anything of the disk."""
    model = onnx.load(world_file)
    onnx.save_model(
        model, tmp_path / "split.onnx", save_as_external_data=True, location="numbers", size_threshold=0
    )
    with pytest.raises(ModelError, match="cannot read the detector"):
        OnnxNetwork(tmp_path / "split.onnx", 1)


def test_without_onnxruntime(detectors, world_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnsupportedModel, match=r"pip install 'darkroom\[detectors\]'"):
        detectors(str(world_file))


def test_names_that_are_no_data(tmp_path, world_file):
    """What stands in a file's metadata is read as data alone."""
    model = onnx.load(world_file)
    for names, labels in (
        ("['a', 'b']", {0: "a", 1: "b"}),
        ("__import__('os').abort()", {}),
        ("{'x", {}),
        ("7", {}),
        ("{'x': 'a', 2: 'b', 3: 4, None: 'c'}", {2: "b"}),
        (
            "{0: 'a <lora:x:1> (dog:1.2) AND BREAK [SEP]\\x1b{b|c}'}",
            {0: "a lora x 1 dog 1 2 and break sep b c"},
        ),
        (f"{{0: '{'cat ' * 5000}'}}", {0: ("cat " * 15).strip()}),
    ):
        onnx.helper.set_model_props(model, {"names": names})
        onnx.save(model, tmp_path / "n.onnx")
        assert OnnxNetwork(tmp_path / "n.onnx", 1).labels == labels


def test_end_to_end(world_file, tmp_path, monkeypatch):
    """A picture of pocket's whose things a file finds, drawn over: all else stays, and it is made again the same."""
    model = darkroom.load("pocket", precision="float32")
    settings = {"seed": 3, "steps": 6, "width": 128, "height": 128}
    plain = model.generate("a red boat on a calm sea", **settings)[0]
    plain.save(tmp_path / "plain.png")
    (made,) = model.detail(tmp_path / "plain.png", f"{world_file}:most=1", seed=4)
    changed = (np.asarray(made.image) != np.asarray(plain.image)).any(axis=2)
    (thing,) = Oracle.load()([plain.image])[0].things
    assert isinstance(thing, Thing)
    assert changed.any()
    outside = changed.copy()
    outside[
        int(128 * thing.y0) - 8 : int(128 * thing.y1) + 9, int(128 * thing.x0) - 8 : int(128 * thing.x1) + 9
    ] = 0
    assert not outside.any()
    assert made.metadata["notes"] == [f"{world_file}:most=1: found boat"]
    made.save(tmp_path / "made.png")
    monkeypatch.chdir(tmp_path)
    from darkroom.cli import main

    assert main(["again", "made.png", "-o", "again.png"]) == 0
    with Image.open("again.png") as again:
        assert (np.asarray(again) == np.asarray(made.image)).all()


def test_the_library_knows_them(detectors, world_file, monkeypatch, tmp_path):
    """As they lie in A1111's and ComfyUI's folders; told by what they are, wherever they are."""
    from darkroom.cli import main
    from darkroom.library.describe import describe
    from darkroom.library.kinds import identify

    data = DATA / "segment.pt"
    for place in ("models/adetailer/face.pt", "models/ultralytics/segm/person.pt", "other/hand.pt"):
        (tmp_path / "webui" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data, tmp_path / "webui" / place)
    shutil.copy(world_file, tmp_path / "webui/models/adetailer/world.onnx")
    shutil.copy(world_file, tmp_path / "webui/other/tagger.onnx")
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    with pytest.raises(ModelError, match="there is no detector"):
        detectors("some_face")
    assert main(["models", "scan", str(tmp_path / "webui")]) == 0
    assert detectors("face").path == tmp_path / "webui/models/adetailer/face.pt"
    assert {detectors(name).name for name in ("person", "hand", "world")} == {"person", "hand", "world"}
    assert detectors("tagger") == "the thing tagger"
    assert (identify(data).kind, identify(data).files) == ("detector", ("segment.pt",))
    said = describe(data)
    assert (said.form, said.networks[0].what) == ("detector (torch)", "SegmentationModel of cat")
    assert describe(world_file, hashes=True).to_dict()["form"] == "detector (ONNX)"
    assert main(["inspect", str(data)]) == 0
