"""Torch's files: what honest writers put there comes out bit for bit, and what attackers put there does nothing."""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import pickle
import pickletools
import struct
import sys
import types
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from tests.weights import canaries
from tests.weights.canaries import bounded_memory, refused, text
from torch import nn

from darkroom.errors import ModelError
from darkroom.weights.dtypes import dtype_name
from darkroom.weights.opening import open_weights

# What honest writers write.


def bits(tensor):
    """The numbers as bytes: equal also where they are no numbers."""
    return tensor.detach().contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor


def same(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert torch.equal(bits(ours), bits(theirs))


def every_kind(seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(7, 11, generator=generator)
    flat = torch.randn(60, generator=generator)
    return {
        "dense": base,
        "transposed": base.t(),
        "column": base[:, 3],
        "strided": base[1::2, ::3],
        "shared.a": flat[:24].view(2, 3, 4),
        "shared.b": flat[12:36],
        "expanded": torch.arange(5).expand(3, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "nan": torch.tensor([float("nan"), float("-inf"), -0.0]),
        "parameter": nn.Parameter(torch.randn(3, 2, generator=generator)),
        "parameter.same": nn.Parameter(base),
        "double": base.double(),
        "half": base.half()[2:],
        "bfloat16": base.bfloat16().t(),
        "fp8.e4m3": base.to(torch.float8_e4m3fn),
        "fp8.e5m2": base.to(torch.float8_e5m2)[1:, 2:],
        "bool": base > 0,
        "int8": (base * 9).to(torch.int8),
        "uint8": (base * 9).to(torch.uint8),
        "int16": (base * 9).to(torch.int16),
        "uint16": (base.abs() * 9).to(torch.uint16),
        "int32": (base * 9).int(),
        "int64": (base * 9).long(),
        "complex": torch.complex(base, -base),
    }


@pytest.mark.peer
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_tensors_are_those_of_torch_load(tmp_path, protocol, new):
    path = tmp_path / "model.ckpt"
    tensors = every_kind(protocol)
    if not new:  # What torch cannot read has a test of its own.
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(("fp8", "uint16"))}
    torch.save(tensors, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    theirs = torch.load(path, weights_only=False)  # Its safe reader does not know protocol 1.
    with open_weights(path) as file:
        assert file.format == ("torch" if new else "torch-legacy")
        assert list(file.entries) == list(theirs)
        for name, tensor in theirs.items():
            same(file.get(name), tensor)
            entry = file.entries[name]
            assert (entry.dtype, entry.shape) == (dtype_name(tensor.dtype), tuple(tensor.shape))
            assert entry.nbytes == tensor.numel() * tensor.itemsize
            assert not file.get(name).requires_grad


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16])
def test_what_torch_writes_in_its_old_format_and_cannot_read(tmp_path, kind):
    saved = (torch.arange(12.0) * 3).to(kind).view(3, 4)[:, 1:]
    torch.save({"w": saved}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with open_weights(tmp_path / "a.pt") as file:
        same(file.get("w"), saved)


def test_zip_tensors_are_views_and_outlive_the_file(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(4, 5), "b": torch.ones(3)}, path)
    with open_weights(path) as file:
        first, again = file.get("a"), file.get("a")
    assert first.data_ptr() == again.data_ptr()
    again[0, 0] = 7
    assert first[0, 0] == 7
    assert torch.load(path)["a"][0, 0] == 1, "the file was written to"
    with pytest.raises(ModelError, match="closed"):
        file.get("a")


@pytest.mark.peer
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_state_dict_of_a_module(tmp_path, new):
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 2).half())
    path = tmp_path / "model.bin"
    state = network.state_dict()
    assert state._metadata
    torch.save(state, path, _use_new_zipfile_serialization=new)
    with open_weights(path) as file:
        for name, tensor in state.items():
            same(file.get(name), tensor)
        assert len(file.entries) == len(state)


@pytest.fixture
def lightning(monkeypatch):
    """Modules as PyTorch Lightning and OmegaConf have them, gone again when the file is read."""
    made = {}
    for module, name in (
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
        ("pytorch_lightning.utilities.parsing", "AttributeDict"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.base", "ContainerMetadata"),
        ("ldm.models.diffusion.ddpm", "LatentDiffusion"),
    ):
        base = dict if name == "AttributeDict" else object
        made[name] = type(name, (base,), {"__module__": module})
        parts = module.split(".")
        for end in range(1, len(parts)):
            parent = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))
        holder = types.ModuleType(module)
        setattr(holder, name, made[name])
        monkeypatch.setitem(sys.modules, module, holder)
    return made


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_lightning_checkpoint(tmp_path, lightning, monkeypatch, protocol, new):
    config = lightning["DictConfig"]()
    config.__dict__ = {
        "_metadata": lightning["ContainerMetadata"](),
        "_content": {"lr": 1e-4},
        "_parent": None,
    }
    network = nn.Linear(3, 4)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    checkpoint = {
        "epoch": 12,
        "global_step": 470_000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": OrderedDict({**network.state_dict(), "model_ema.decay": torch.tensor(0.9999)}),
        "callbacks": {
            lightning["ModelCheckpoint"]: {
                "monitor": "val/loss",
                "best_model_score": torch.tensor(0.1),
                "best_model_path": PurePosixPath("/runs/last.ckpt"),
                "current_score": np.float64(0.25),
                "history": np.arange(3.0),
            }
        },
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": lightning["AttributeDict"](config=config, lr=1e-4, args=argparse.Namespace(a=1)),
        "loops": defaultdict(list, {"fit": [1, 2]}),
        "seen": {"b"},
        "counts": Counter("aab"),
        "key": b"\x00\xff",
    }
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    monkeypatch.undo()
    with open_weights(path) as file:
        assert set(file.entries) == set(checkpoint["state_dict"])
        for name, tensor in checkpoint["state_dict"].items():
            same(file.get(name), tensor)
        assert file.extra["epoch"] == 12
        assert file.extra["global_step"] == 470_000
        assert "state_dict" not in file.extra
        callback = file.extra["callbacks"]["<pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint>"]
        assert callback["monitor"] == "val/loss"
        assert callback["current_score"] == 0.25
        assert file.extra["hyper_parameters"]["lr"] == 1e-4
        assert "omegaconf.dictconfig.DictConfig" in file.extra["hyper_parameters"]["config"]
        assert file.extra["loops"] == {"fit": [1, 2]}
        assert file.extra["counts"] == {"a": 2, "b": 1}
        assert file.extra["seen"] == ["b"]
    assert "omegaconf.dictconfig" not in sys.modules


@pytest.mark.parametrize("token", [265, torch.tensor(265)], ids=["number", "tensor"])
@pytest.mark.parametrize("wrapped", [dict, nn.ParameterDict])
def test_textual_inversion(tmp_path, wrapped, token):
    path = tmp_path / "style.pt"
    vectors = nn.Parameter(torch.randn(3, 8))
    saved = {
        "string_to_token": {"*": token},
        "string_to_param": wrapped({"*": vectors}),
        "name": "style",
        "step": 900,
    }
    torch.save(saved, path)
    with open_weights(path) as file:
        assert list(file.entries) == ["*"]
        same(file.get("*"), vectors)
        shown = token if isinstance(token, int) else "<a tensor of shape ()>"
        assert file.extra == {"string_to_token": {"*": shown}, "name": "style", "step": 900}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (lambda t: {"params": t, "params_ema": {"w": t["w"] + 1}}, 1),
        (lambda t: {"model": {"state_dict": t}, "optimizer": {"state": {0: {"w": t["w"] + 1}}}}, 0),
        (lambda t: {"a": {"w": t["w"] + 1}, "module": {**t, "v": t["w"]}}, 0),
        (lambda t: {**t, "epoch": 3}, 0),
    ],
)
def test_the_weights_are_found_among_the_rest(tmp_path, layout, expected):
    tensors = {"w": torch.arange(4.0)}
    torch.save(layout(tensors), tmp_path / "a.pt")
    with open_weights(tmp_path / "a.pt") as file:
        same(file.get("w"), tensors["w"] + expected)


class Style(enum.Enum):
    """Python 3.11 pickles its members by getattr, later ones by their value."""

    WATERCOLOUR = 1


class Settings:
    class Options:
        """Protocols before 4 find it by getattr."""

    def describe(self):
        """And this by getattr in every protocol."""


@pytest.mark.parametrize("protocol", [2, 4])
def test_honest_names_with_dots(tmp_path, protocol):
    values = {"style": Style.WATERCOLOUR, "options": Settings.Options, "method": Settings().describe}
    torch.save({"w": torch.ones(1), "values": values}, tmp_path / "a.pt", pickle_protocol=protocol)
    with open_weights(tmp_path / "a.pt") as file:
        assert list(file.entries) == ["w"]
        assert "Style" in file.extra["values"]["style"]
        assert file.extra["values"]["options"].endswith("Settings.Options>")


def test_tensors_with_attributes_and_of_other_kinds(tmp_path):
    marked = torch.ones(2)
    marked.remark = "kept by torch, left out here"
    sparse = torch.eye(3).to_sparse()
    torch.save({"marked": marked, "sparse": sparse, "plain": torch.zeros(3)}, tmp_path / "a.pt")
    with open_weights(tmp_path / "a.pt") as file:
        assert list(file.entries) == ["marked", "plain"]
        same(file.get("marked"), torch.ones(2))


def test_python_2_wrote_texts_and_bytes_alike(tmp_path):
    """Protocol 2 by Python 2 has SHORT_BINSTRING where today's has BINUNICODE."""
    torch.save({"w": torch.arange(3.0)}, tmp_path / "new.pt", pickle_protocol=2)
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            raw = new.read(name)
            if name.endswith("data.pkl"):
                for opcode, value, _ in pickletools.genops(raw):
                    if opcode.name == "BINUNICODE":
                        raw = raw.replace(text(value), b"U" + bytes([len(value)]) + value.encode())
                assert b"U" in raw
            old.writestr(name, raw)
    with open_weights(tmp_path / "old.pt") as file:
        same(file.get("w"), torch.arange(3.0))


def test_large_directories_of_zip64(tmp_path):
    """Sizes beyond 32 bits, as in every checkpoint of more than 4 GB; the file is a hole but for its ends."""
    path = tmp_path / "large.ckpt"
    buffer = io.BytesIO()
    torch.save({"first": torch.ones(2), "second": torch.arange(3.0)}, buffer)
    size = 5 << 30
    with zipfile.ZipFile(buffer) as small:
        pickled = small.read("archive/data.pkl").replace(
            b"K\x02tq", b"\x8a\x05" + struct.pack("<q", size // 4)[:5] + b"tq"
        )
        assert len(pickled) > len(small.read("archive/data.pkl"))
        second = small.read("archive/data/1")
    members = {"archive/data.pkl": pickled, "archive/data/0": None, "archive/data/1": second}
    directory = b""
    with path.open("wb") as out:
        for name, raw in members.items():
            start, length = out.tell(), size if raw is None else len(raw)
            out.write(
                struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name.encode()
            )
            out.write(raw or b"")
            out.seek(start + 30 + len(name) + length)
            extra = struct.pack("<HHQQQ", 1, 24, length, length, start)
            directory += struct.pack(
                "<4s6H3I5H2I",
                b"PK\1\2",
                45,
                45,
                0,
                0,
                0,
                0,
                0,
                *[2**32 - 1] * 2,
                len(name),
                28,
                0,
                0,
                0,
                0,
                2**32 - 1,
            )
            directory += name.encode() + extra
        start = out.tell()
        out.write(directory)
        end = out.tell()
        out.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 3, 3, len(directory), start))
        out.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        out.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 3, 3, *[2**32 - 1] * 2, 0))
    with bounded_memory(20), open_weights(path) as file:
        same(file.get("second"), torch.arange(3.0))
        assert file.get("first").tolist() == [0, 0]


# What attackers write.


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something was executed"


@pytest.mark.parametrize("attack", sorted(canaries.BITING))
def test_the_canaries_would_sing(tmp_path, attack):
    """Python's own reader runs these: they are real attacks."""
    path = tmp_path / "canary"
    raw = canaries.PICKLES[attack](f"touch {path}")
    with contextlib.suppress(Exception):  # What they return is of no kind the next opcode expects.
        pickle.loads(raw)
    assert path.exists()


@pytest.mark.parametrize("wrap", canaries.WRAPPERS)
@pytest.mark.parametrize("attack", canaries.PICKLES)
def test_no_attack_runs(tmp_path, canary, attack, wrap):
    path = wrap(canaries.PICKLES[attack](f"touch {canary}"), tmp_path / "model.ckpt")
    message = refused(path)
    if wrap in (canaries.in_file, canaries.in_zip, canaries.in_deflated_zip, canaries.in_legacy):
        assert "refused" in message or "extension" in attack


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_dict_that_reduces_to_a_call(tmp_path, canary, new):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": canaries.Reducing(f"touch {canary}")}, path, _use_new_zipfile_serialization=new)
    refused(path, "posix.system")


@pytest.mark.parametrize("protocol", [2, 4])
def test_setstate_is_never_called(tmp_path, canary, protocol):
    path = tmp_path / "model.ckpt"
    saved = {"w": torch.ones(3), "object": canaries.Restoring(str(canary))}
    torch.save(saved, path, pickle_protocol=protocol)
    with open_weights(path) as file:
        same(file.get("w"), torch.ones(3))
        assert "Restoring" in file.extra["object"]


def test_pickles_among_the_numbers_are_never_read(tmp_path, canary):
    path = tmp_path / "model.pt"
    evil = canaries.PICKLES["global posix"](f"touch {canary}")
    evil += bytes(-len(evil) % 4)
    torch.save({"w": torch.frombuffer(bytearray(evil), dtype=torch.uint8)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/extra.pkl", evil)
    with open_weights(path) as file:
        assert bytes(file.get("w").numpy()) == evil


def flood(head, piece, size=4_000_000):
    """A pickle of a piece over and over."""
    return b"\x80\x04" + head + piece * (size // len(piece)) + b"."


def memos(number=800_000):
    return b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", i) for i in range(number)) + b"."


def keyed(keys, item=b"N"):
    return b"\x80\x04}(" + b"".join(key + item for key in keys) + b"u."


def long_integer(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


BOMBS = {
    "nested tuples": lambda: flood(b")", b"\x85", 100_000_000),
    "marks": lambda: flood(b"", b"("),
    "sets": lambda: flood(b"", b"\x8f"),
    "dicts": lambda: flood(b"", b"}"),
    "names": lambda: flood(b"", b"ca\nb\n"),
    "objects": lambda: flood(b"ca\nb\n\x940", b"h\x00)R"),
    "idle opcodes": lambda: flood(b"", b"N0"),
    "memo": memos,
    "copies of a list": lambda: flood(
        b"]\x94(" + b"N" * 100_000 + b"e0ccollections\nOrderedDict\n\x940cbuiltins\nset\n\x940", b"h\x02h\x00\x85R0"
    ),
    "names that are a megabyte long": lambda: flood(text("a" * 1_000_000) + b"\x94", b"h\x00h\x00\x93", 10_000_000),
    "names that grow": lambda: (
        b"\x80\x02cbuiltins\ngetattr\nq\x00ca\nb\n"
        + b"".join(b"r" + struct.pack("<I", i) + b"0h\x00j" + struct.pack("<I", i) + text("b") + b"\x86R"
                   for i in range(1, 100_000))
    ),
    "the signs of a text": lambda: flood(
        b"cbuiltins\nset\n\x94" + text("".join(map(chr, range(1000, 50_000)))) + b"\x94", b"h\x00h\x01\x85R", 10**6
    ),
    "texts in four bytes a sign": lambda: flood(b"", text("\U0001f600" + "a" * 1_000_000), 60_000_000),
    "copies of bytes": lambda: flood(
        b"c_codecs\nencode\n\x940" + text("a" * 1_000_000) + b"\x940", b"h\x00h\x01\x85R"
    ),
    "a key that takes for ever to hash": lambda: keyed([b")" + b"2\x86" * 100]),
    "a key too deep to hash": lambda: keyed([b")" + b"\x85" * 500_000]),
    "keys that collide": lambda: keyed([long_integer(i * (2**61 - 1)) for i in range(30_000)]),
    "tuples that collide": lambda: keyed(
        [b"(" + bytes.join(b"", [b"J" + struct.pack("<i", -1 - (i >> b & 1)) for b in range(14)]) + b"t"
         for i in range(2**13)]
    ),
    "a text longer than the file": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"abc.",
    "a frame longer than the file": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "an integer of a megabyte": lambda: b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\1" * 10**6 + b".",
    "a line without end": lambda: b"\x80\x02c" + b"a" * 10**6,
    "an empty stack": lambda: b"\x80\x02R.",
    "a memo that is not there": lambda: b"\x80\x02h\x07.",
    "no end": lambda: b"\x80\x02}",
    "nothing": lambda: b"",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_bomb_goes_off(tmp_path, bomb):
    """Files of both kinds are read by the same reader of pickles: they take turns."""
    wrap = (canaries.in_zip, canaries.in_legacy)[list(BOMBS).index(bomb) % 2]
    refused(wrap(BOMBS[bomb](), tmp_path / "model.ckpt"))


def test_what_is_shown_does_not_unfold(tmp_path):
    """Lists of two lists of two lists ..., which take no room until somebody prints them."""
    deep: list = []
    for _ in range(60):
        deep = [deep, deep]
    wide: list = []
    wide.extend([wide] * 2000)
    torch.save({"w": torch.ones(1), "deep": deep, "wide": wide}, tmp_path / "a.pt")
    with bounded_memory(), open_weights(tmp_path / "a.pt") as file:
        assert len(repr(file.extra)) < 1_000_000


def reference(kind=b"ctorch\nFloatStorage\n", key="0", number=b"K\x04"):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number + b"tQ"


def tensor(storage=None, offset=b"K\x00", shape=b"K\x02K\x02\x86", strides=b"K\x02K\x01\x86"):
    arguments = (storage or reference()) + offset + shape + strides + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"Rs."


LARGE = b"\x8a\x08" + struct.pack("<q", 2**62)
NEGATIVE = b"J" + struct.pack("<i", -1)


@pytest.mark.parametrize(
    "pickled",
    [
        tensor(offset=b"K\x01"),
        tensor(offset=NEGATIVE),
        tensor(offset=LARGE),
        tensor(offset=b"\x88"),
        tensor(shape=b"K\x02K\x03\x86"),
        tensor(shape=LARGE + b"K\x04\x86"),
        tensor(shape=NEGATIVE + NEGATIVE + b"\x86"),
        tensor(shape=b"K\x02\x85"),
        tensor(shape=b"N"),
        tensor(shape=b"M\x10\x27M\x10\x27\x86", strides=b"K\x00K\x00\x86"),
        tensor(shape=b"K\x00" + LARGE + LARGE + b"\x87", strides=b"K\x01K\x01K\x01\x87"),
        tensor(strides=b"K\x02" + LARGE + b"\x86"),
        tensor(strides=b"K\x02" + NEGATIVE + b"\x86"),
        tensor(reference(number=b"K\x05")),
        tensor(reference(number=LARGE)),
        tensor(reference(number=NEGATIVE)),
        tensor(reference(key="1")),
        tensor(reference(key="../../data.pkl")),
        tensor(reference(kind=b"ctorch\nDoubleStorage\n")),
        tensor(reference(kind=b"N")),
        tensor(b"N"),
        tensor().replace(b"Q", b""),
    ],
)
def test_tensors_lie_within_their_storage(tmp_path, pickled):
    """The honest one, with four floats in the archive, loads; none of these does."""
    path = tmp_path / "model.pt"

    def write(raw):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", raw)
            archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
        return path

    with open_weights(write(tensor())) as file:
        assert file.get("w").tolist() == [[1, 2], [3, 4]]
    refused(write(pickled))


def patched(path, change):
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(40, 50), "b": torch.ones(3)}, path)
    return path


@pytest.fixture
def legacy(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(40, 50), "b": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_cut_short(saved, legacy, kept):
    for path in (saved, legacy):
        refused(patched(path, lambda raw: raw[: int(len(raw) * kept)]))


def test_bytes_that_belong_to_nothing(legacy):
    refused(patched(legacy, lambda raw: raw + b"1234"), "4 bytes", "no tensor")


def test_a_storage_of_another_size_than_promised(legacy):
    path = patched(legacy, lambda raw: raw.replace(struct.pack("<q", 2000), struct.pack("<q", 1999)))
    with open_weights(path) as file, pytest.raises(ModelError, match="contradicts itself"):
        file.get("a")


def test_bytes_behind_the_pickle(tmp_path):
    refused(canaries.in_zip(b"\x80\x02}.N.", tmp_path / "a.pt"), "behind the end")


@pytest.mark.parametrize(
    ("write", "word"),
    [
        (lambda z: z.writestr("archive/../../data.pkl", b"\x80\x02}."), "name"),
        (lambda z: z.writestr("/archive/data.pkl", b"\x80\x02}."), "name"),
        (lambda z: z.writestr("readme.txt", b"hello"), "unpack it"),
        (
            lambda z: (z.writestr("a/data.pkl", b"\x80\x02}."), z.writestr("b/data.pkl", b"\x80\x02}.")),
            "data.pkl",
        ),
        (lambda z: z.writestr("a/data.pkl", b"\x80\x02}.", zipfile.ZIP_BZIP2), "method 12"),
        (
            lambda z: (z.writestr("a/data.pkl", b"\x80\x02}."), z.writestr("a/constants.pkl", b"")),
            "TorchScript",
        ),
        (
            lambda z: (z.writestr("a/data.pkl", b"\x80\x02}."), z.writestr("a/byteorder", b"big")),
            "big-endian",
        ),
    ],
)
def test_odd_archives(tmp_path, write, word):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        write(archive)
    refused(path, word)


def test_a_small_member_that_is_packed_into_gigabytes(tmp_path):
    """The file is a hole but for its ends."""
    name, packed = b"a/data.pkl", 3_000_000_000
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, packed, 100, len(name), 0) + name
    entry = (b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, packed, 100, len(name), 0, 0, 0, 0, 0, 0)
    directory = struct.pack("<4s6H3I5H2I", *entry) + name
    path = tmp_path / "bomb.ckpt"
    with path.open("wb") as file:
        file.write(local)
        start = file.seek(packed, io.SEEK_CUR)
        file.write(directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), start, 0))
    refused(path, str(packed), most=20)


@pytest.mark.parametrize("size", [60_000_000, 2_000_000_000])
def test_zip_bombs(tmp_path, size):
    """A pickle of zeros that unpacks to a thousand times its size, or claims to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(min(size, 60_000_000))) + packer.flush()
    name = b"a/data.pkl"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(packed), size, len(name), 0) + name
    entry = (b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(packed), size, len(name), 0, 0, 0, 0, 0, 0)
    directory = struct.pack("<4s6H3I5H2I", *entry) + name
    start = len(local) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), start, 0)
    path = tmp_path / "bomb.ckpt"
    path.write_bytes(local + packed + directory + end)
    refused(path, str(size))


def directory_of(raw):
    """Where the entries of an archive's directory begin."""
    found, at = [], raw.find(b"PK\1\2")
    while at >= 0:
        found.append(at)
        at = raw.find(b"PK\1\2", at + 4)
    return found


@pytest.mark.parametrize(
    ("offset", "form", "value", "word"),
    [
        (8, "<H", 1, "encrypted"),
        (42, "<I", 0, "overlaps"),
        (20, "<I", 100_000_000, "zip"),
        (24, "<I", 2**32 - 1, "zip"),
        (0, "<I", 0, "zip"),
    ],
)
def test_directories_that_lie(saved, offset, form, value, word):
    def lie(raw):
        changed = bytearray(raw)
        struct.pack_into(form, changed, directory_of(raw)[-1] + offset, value)
        return bytes(changed)

    refused(patched(saved, lie), word)


def test_members_that_are_not_where_the_directory_says(saved):
    """Seen when the tensor is asked for: opening reads the directory alone."""
    path = patched(saved, lambda raw: raw.replace(b"model/data/0", b"model/data/9", 1))
    with open_weights(path) as file, pytest.raises(ModelError, match="damaged zip member"):
        file.get("a")


def test_compressed_numbers(tmp_path, saved):
    with (
        zipfile.ZipFile(saved) as old,
        zipfile.ZipFile(tmp_path / "new.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(tmp_path / "new.pt", "zip it with -0")


def test_a_whole_object_instead_of_weights(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "torch.nn.modules.container.Sequential", "state_dict")


def test_names_cannot_break_the_line(tmp_path):
    raw = b"\x80\x04" + canaries.named("os\nINFO: all is well\x1b[2K", "system") + b")R."
    refused(canaries.in_zip(raw, tmp_path / "a.pt"))
    refused(
        canaries.in_zip(b"\x80\x04" + canaries.named("os", "system\n\x1b[2K") + b")R.", tmp_path / "a.pt")
    )


def test_random_damage_is_an_error_or_nothing(saved, legacy):
    """Bits flipped anywhere but in the numbers: no exception but ModelError, no crash."""
    generator = np.random.default_rng(0)
    for path in (saved, legacy):
        raw = path.read_bytes()
        for _ in range(150):
            broken = bytearray(raw)
            for at in generator.integers(0, len(raw), 3):
                broken[at if at < 1500 else len(raw) - at % 1500 - 1] ^= 1 << int(generator.integers(8))
            path.write_bytes(broken)
            with contextlib.suppress(ModelError), open_weights(path) as file:
                for name in file.entries:
                    file.get(name).float().sum()
