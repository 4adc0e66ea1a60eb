"""Files of upscalers: the same numbers as spandrel's networks make, whoever wrote the file and however."""

from __future__ import annotations

import re
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from darkroom.checkpoint.upscalers import upscaler_in
from darkroom.engine.devices import Placement
from darkroom.errors import ModelError, UnsupportedModel
from darkroom.library.describe import describe
from darkroom.library.kinds import identify
from darkroom.networks.configs import CompactConfig, RRDBNetConfig
from darkroom.networks.upscaler import Compact, RRDBNet
from darkroom.upscaling.reading import read_upscaler

HERE = Placement(torch.device("cpu"), torch.float32, "in tests")


@pytest.fixture(scope="module")
def spandrel():
    """Without torchvision, which two of its networks ask for and none that is used here."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    hollow = {name: types.ModuleType(name) for name in names}
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(hollow[names[-1]], name, object)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in hollow.items():
            patch.setitem(sys.modules, name, module)
        return pytest.importorskip("spandrel")


def filled(network, seed=0):
    """A network with weights by which something comes out of all its layers."""
    generator = torch.Generator().manual_seed(seed)
    for each in network.parameters():
        each.data = torch.randn(each.shape, generator=generator) * 0.1
    return network.eval()


def same(enlarging, peer, channels=3, size=(13, 18)):
    x = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = peer(x)
    found = enlarging.run(x)
    assert found.shape == wanted.shape
    assert float((found - wanted).norm() / wanted.norm()) <= 1e-5


@pytest.mark.peer
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"scale": 1},
        {"scale": 2, "num_blocks": 1},
        {"scale": 8, "num_filters": 8},
        {"plus": True},
        {"in_nc": 12, "shuffle_factor": 2},
        {"in_nc": 48, "shuffle_factor": 4},
        {"in_nc": 1, "out_nc": 1},
    ],
    ids=str,
)
def test_rrdbnet(spandrel, own, tmp_path):
    from spandrel.architectures.ESRGAN import ESRGAN

    peer = filled(ESRGAN(**{"num_filters": 16, "num_blocks": 2, **own}))
    torch.save(peer.state_dict(), tmp_path / "old.pth")
    found = read_upscaler(tmp_path / "old.pth", HERE)
    same(found, peer, found.in_channels)
    same(found, peer, found.in_channels, (8, 8))
    assert found.scale == own.get("scale", 4) // own.get("shuffle_factor", 1)


@pytest.mark.peer
@pytest.mark.parametrize(
    "own", [{"upscale": scale} for scale in (1, 2, 3, 4)] + [{"num_in_ch": 1, "num_out_ch": 1}], ids=str
)
def test_compact(spandrel, own, tmp_path):
    from spandrel.architectures.Compact import Compact as Theirs

    peer = filled(Theirs(**{"num_feat": 8, "num_conv": 3, **own}))
    torch.save({"params": peer.state_dict()}, tmp_path / "compact.pth")
    found = read_upscaler(tmp_path / "compact.pth", HERE)
    same(found, peer, found.in_channels)
    assert found.scale == own.get("upscale", 4)


def renamed(state, layout):
    """Our tensors by the names that others' files have."""
    if layout == "trunk":
        for ours, theirs in (
            (r"^body\.(\d+)\.rdb", r"RRDB_trunk.\1.RDB"),
            ("^conv_body", "trunk_conv"),
            ("^conv_up", "upconv"),
            ("^conv_hr", "HRconv"),
        ):
            state = {re.sub(ours, theirs, name): each for name, each in state.items()}
    return state


@pytest.mark.parametrize("layout", ["ours", "trunk"])
@pytest.mark.parametrize(
    "config",
    [
        RRDBNetConfig(features=8, blocks=2, growth=4, scale=2),
        RRDBNetConfig(features=8, blocks=1, unshuffle=2, scale=2),
    ],
)
def test_names_and_wrappings(layout, config, tmp_path):
    """As Real-ESRGAN and BSRGAN write them, with averaged weights beside others, from several devices, converted."""
    network = filled(RRDBNet(config))
    state = renamed(network.state_dict(), layout)
    other = {name: each * 0 for name, each in state.items()}
    files = {
        "plain.pth": state,
        "both.pth": {"params": other, "params_ema": state, "iter": 400_000},
        "devices.pth": {f"module.{name}": each for name, each in state.items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    save_file(state, tmp_path / "converted.safetensors")
    save_file({f"params_ema.{name}": each for name, each in state.items()}, tmp_path / "whole.safetensors")
    for name in (*files, "converted.safetensors", "whole.safetensors"):
        found = read_upscaler(tmp_path / name, HERE)
        same(found, network)
        assert identify(tmp_path / name).kind == "upscaler"
        (told,) = describe(tmp_path / name).networks
        assert (told.what, told.precisions) == (found.described, ("float32",))


def test_half_precision_is_read(tmp_path):
    network = filled(Compact(CompactConfig(features=8, layers=1, scale=2))).half()
    save_file(network.state_dict(), tmp_path / "half.safetensors")
    same(read_upscaler(tmp_path / "half.safetensors", HERE), network.float())


def test_damaged_files(tmp_path):
    state = filled(RRDBNet(RRDBNetConfig(features=8, blocks=1, growth=4))).state_dict()

    def refused(changes, message, error=ModelError):
        content = {name: each for name, each in {**state, **changes}.items() if each is not None}
        torch.save(content, tmp_path / "damaged.pth")
        with pytest.raises(error, match=message):
            read_upscaler(tmp_path / "damaged.pth", HERE)

    refused({"conv_hr.weight": None}, "lacks conv_hr.weight")
    refused({"conv_body.weight": torch.zeros(9, 8, 3, 3)}, r"conv_body.weight is \(9, 8, 3, 3\)")
    refused({"conv_last.weight": None}, "conv_last.weight is missing")
    body = {"body.0.weight": torch.zeros(8, 3, 3, 3), "body.2.weight": torch.zeros(12, 8, 3, 3)}
    assert upscaler_in({name: tuple(each.shape) for name, each in state.items()}) is not None
    with pytest.raises(ModelError, match="take turns"):
        upscaler_in({**{name: tuple(each.shape) for name, each in body.items()}, "body.1.weight": (8, 8)})


@pytest.mark.parametrize(
    "shapes",
    [
        {"body.0.weight": ()},
        {"body.0.weight": (8,)},
        {"body.0.weight": (8, 0, 3, 3), "body.1.weight": (8,), "body.2.weight": (12, 8, 3, 3)},
        {"body.0.rdb1.conv1.weight": (4, 8, 3, 3)},
        {"body.0.rdb1.conv1.weight": (4,), "conv_first.weight": (8,), "conv_last.weight": (3, 8, 3, 3)},
        {"model.1.sub.0.RDB1.conv1.0.weight": (4, 8, 3, 3), "model.0.weight": (8, 3, 3, 3)},
        {
            "model.1.sub.0.RDB1.conv1.0.weight": (4, 8, 3, 3),
            "model.0.weight": (8, 3),
            "model.x.weight": (8, 3),
        },
        {
            **{"model.1.sub.0.RDB1.conv1.0.weight": (4, 8, 3, 3), "model.0.weight": (8, 3, 3, 3)},
            **{f"model.{n}.weight": () for n in (99, 999_999)},
        },
    ],
    ids=str,
)
def test_shapes_that_make_no_network(shapes):
    with pytest.raises(ModelError):
        upscaler_in(shapes)


@pytest.mark.peer
def test_other_networks_are_spandrels(spandrel, tmp_path, monkeypatch):
    """Of a sort that is none of ours, and of one that begins as ours do."""
    from spandrel.architectures.SPAN import SPAN

    peer = filled(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2))
    torch.save(peer.state_dict(), tmp_path / "span.pth")
    found = read_upscaler(tmp_path / "span.pth", HERE)
    assert (found.scale, found.described) == (2, "SPAN, x2 (by spandrel)")
    assert found.run(torch.rand(1, 3, 12, 16)).shape == (1, 3, 24, 32)
    torch.save({"something.weight": torch.zeros(3)}, tmp_path / "none.pth")
    with pytest.raises(
        UnsupportedModel, match=r"none.pth holds no upscaler that Darkroom or spandrel .* knows"
    ):
        read_upscaler(tmp_path / "none.pth", HERE)
    more = {
        **filled(RRDBNet(RRDBNetConfig(features=8, blocks=1))).state_dict(),
        "gradient.weight": torch.zeros(3),
    }
    torch.save(more, tmp_path / "more.pth")
    assert read_upscaler(tmp_path / "more.pth", HERE).described == "ESRGAN, x4 (by spandrel)"
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UnsupportedModel, match=r"pip install 'darkroom\[upscalers\]'"):
        read_upscaler(tmp_path / "span.pth", HERE)
