"""Detectors that were pickled whole: what Ultralytics' own code says of the same pictures, and nothing is run."""

from __future__ import annotations

import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.detection.detectors import Detectors
from darkroom.detection.yolo import YoloNetwork
from darkroom.errors import GenerationError, ModelError, UnsupportedModel
from darkroom.weights.modules import open_module

DATA = Path(__file__).parent / "data"
PICTURE = runpy.run_path(str(DATA / "make.py"))["picture"]()
NAMES = ("detect", "segment", "v10", "newest")


def network(path):
    return YoloNetwork(path, torch.device("cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_ultralytics_says(name):
    found, said = network(DATA / f"{name}.pt"), np.load(DATA / f"{name}.npz")
    with torch.no_grad():
        made = found._network(PICTURE)
    assert np.abs(made["rows"][0].numpy() - said["rows"]).max() < 1e-4
    assert ("prototypes" in made) == ("prototypes" in said) == (name in ("segment", "newest"))
    if "prototypes" in made:
        assert np.abs(made["prototypes"][0].numpy() - said["prototypes"]).max() < 1e-5
    assert found.labels == dict(enumerate(("cat", "dog")[: 1 if name == "segment" else 2]))


@pytest.mark.parametrize("name", NAMES)
def test_things_in_a_picture(name):
    pixels = (PICTURE[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    found, seen = network(DATA / f"{name}.pt").found(pixels, 0.4)
    assert seen.size == (64, 96)
    assert len(found.boxes) > 0
    assert (found.scores >= 0.4).all()
    assert (np.diff(found.scores) <= 0).all()
    things = Detectors(lambda thing: None, torch.device("cpu"))(str(DATA / f"{name}.pt")).found(pixels)
    assert {each.label for each in things} <= {"cat", "dog"}
    for each in things:
        assert 0 <= each.box.left < each.box.left + each.box.width <= 96
        assert 0 <= each.box.top < each.box.top + each.box.height <= 64
        if each.share is not None:
            assert each.share.shape == (each.box.height, each.box.width)


@pytest.mark.parametrize("whole", [(640, 480), (33, 1000), (97, 31)])
def test_what_is_seen(whole):
    """As long as it learned to see, in its proportions, and as little as there may be around it."""
    _, seen = network(DATA / "segment.pt").found(np.zeros((*whole, 3), np.uint8), 0.9)
    assert max(seen.size) == 96
    assert all(side % 16 == 0 for side in seen.size)
    assert 0 <= min(seen.size) - min(seen.within.width, seen.within.height) < 16


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("echo this must not run > /tmp/evil",)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"model": {"a": torch.zeros(3)}}, "holds no network that was saved whole"),
        ([1, 2], "holds no network that was saved whole"),
        ({"model": torch.nn.Linear(2, 2)}, "holds a Linear, which finds no things"),
        ({"model": torch.nn.Sequential(torch.nn.Linear(2, 2))}, "holds a Sequential, which finds no things"),
    ],
)
def test_other_files(tmp_path, held, message):
    torch.save(held, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=message):
        network(tmp_path / "other.pt")


def test_nothing_is_run(tmp_path):
    for name in ("evil", "stale"):
        torch.save({"model": torch.nn.Linear(2, 2), "other": Evil()}, tmp_path / f"{name}.pt")
        with pytest.raises(ModelError, match=r"posix\.system|os\.system"):
            network(tmp_path / f"{name}.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError):
        network(tmp_path / "plain.pt")


def test_a_module_within_itself_ends(tmp_path):
    outer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    outer._modules["again"] = outer
    torch.save({"model": outer}, tmp_path / "loop.pt")
    with pytest.raises(ModelError, match="more parts than any network"):
        network(tmp_path / "loop.pt")


def test_what_is_said_a_million_times_is_refused(tmp_path):
    """A file of some kilobytes can hold one list of lists so often that reading it would never end."""
    said = ["x"]
    for _ in range(8):
        said = [said] * 30
    torch.save({"model": torch.nn.Linear(2, 2), "more": said}, tmp_path / "more.pt")
    outer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    outer.facts = said
    torch.save({"model": outer}, tmp_path / "facts.pt")
    for name in ("more", "facts"):
        with pytest.raises(ModelError, match="it says more than any network"):
            network(tmp_path / f"{name}.pt")


def damaged(tmp_path, change):
    """A detector's file whose head is changed, written by torch as it is read: classes by their names alone."""
    import sys
    import types

    names = (
        "ultralytics",
        "ultralytics.nn",
        "ultralytics.nn.tasks",
        *(f"ultralytics.nn.modules{end}" for end in ENDS),
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            made = types.ModuleType(name)
            made.__getattr__ = lambda cls, name=name: _class(name, cls)
            patch.setitem(sys.modules, name, made)
        held = torch.load(DATA / "segment.pt", weights_only=False)
        change(held, held["ema"].model[-1])
        torch.save(held, tmp_path / "damaged.pt")
    return tmp_path / "damaged.pt"


ENDS = ("", ".block", ".conv", ".head")
KNOWN: dict[tuple[str, str], type] = {}


def _class(module, name):
    if name.startswith("__"):
        raise AttributeError(name)
    import sys

    if (module, name) not in KNOWN:
        KNOWN[module, name] = type(name, (torch.nn.Module,), {"__module__": module})
    setattr(sys.modules[module], name, KNOWN[module, name])
    return KNOWN[module, name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stride", torch.tensor([float("inf"), 8.0])),
        ("stride", torch.tensor([0.0, 0.0])),
        ("stride", torch.tensor([])),
        ("nc", 0),
        ("nc", "many"),
        ("f", "x"),
    ],
)
def test_facts_that_cannot_be(tmp_path, name, value):
    with pytest.raises(ModelError, match=r"damaged.pt holds a damaged network"):
        network(damaged(tmp_path, lambda _, head: setattr(head, name, value)))


@pytest.mark.parametrize("said", [["a", 3], "x", 10**9, None, {}])
def test_sizes_that_cannot_be(tmp_path, said):
    found = network(damaged(tmp_path, lambda held, _: held["train_args"].update(imgsz=said)))
    assert found._side == 640


def test_numbers_that_do_not_fit_fail_in_one_line(tmp_path):
    def change(_, head):
        head.nc = 40

    path = damaged(tmp_path, change)
    found = network(path)
    boxes, _ = found.found(np.zeros((64, 96, 3), np.uint8), 0.5)
    assert len(boxes.boxes) >= 0

    def worse(_, head):
        head.reg_max = 7

    with pytest.raises(GenerationError, match=r"damaged.pt fails .*: it is damaged"):
        network(damaged(tmp_path, worse)).found(np.zeros((64, 96, 3), np.uint8), 0.5)


@pytest.mark.parametrize("cut", [0.2, 0.9])
def test_a_damaged_file(tmp_path, cut):
    content = (DATA / "segment.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(ModelError, match=r"cut\.pt"):
        network(tmp_path / "cut.pt")


def test_layers_that_nobody_knows(tmp_path, monkeypatch):
    from darkroom.detection import layers, yolo

    monkeypatch.setattr(
        yolo, "FORWARDS", {name: each for name, each in layers.FORWARDS.items() if name != "C2f"}
    )
    with pytest.raises(
        UnsupportedModel, match=r"segment.pt: it has layers of the kind ultralytics.*C2f, which"
    ):
        network(DATA / "segment.pt")


def test_the_file_may_go(tmp_path):
    """Numbers are copied: what becomes of the file is nobody's concern."""
    shutil.copy(DATA / "segment.pt", tmp_path / "face.pt")
    found = network(tmp_path / "face.pt")
    before = found.found(np.zeros((64, 96, 3), np.uint8), 0.1)[0]
    (tmp_path / "face.pt").write_bytes(b"")
    after = found.found(np.zeros((64, 96, 3), np.uint8), 0.1)[0]
    np.testing.assert_array_equal(before.boxes, after.boxes)


def test_what_is_read_of_a_module():
    weights, stored = open_module(DATA / "detect.pt")
    with weights:
        assert stored.name == "DetectionModel"
        assert stored.facts["names"] == {0: "cat", 1: "dog"}
        assert weights.extra["train_args"] == {"imgsz": 96}
        head = [*stored.modules["model"].modules.values()][-1]
        assert (head.name, head.facts["f"], head.facts["nc"]) == ("Detect", [26, 23, 17], 2)
        assert weights.get(head.tensors["stride"]).tolist() == [8, 16, 32]
