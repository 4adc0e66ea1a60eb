"""Safetensors, sets of them, and files that are something else than their name says."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.weights.canaries import bounded_memory, refused

from darkroom.errors import ModelError
from darkroom.weights.dtypes import FLOATS, SIZES, dtype_name, torch_dtype
from darkroom.weights.mapped import Entry
from darkroom.weights.opening import open_shards, open_weights
from darkroom.weights.safe_tensors import LONGEST_HEADER

KINDS = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


def write(path, header, data=b"", length=None):
    """A file with a header as given, JSON or bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def described(start, stop, shape=(2,), kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.peer
def test_tensors_are_those_of_the_library(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{kind}.{i}": (torch.randn(shape, generator=generator) * 9).abs().to(kind)
        for kind in KINDS
        for i, shape in enumerate([(3, 5), (7,), (), (0, 4)])
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt", "ä": "ö"})
    theirs = load_file(tmp_path / "a.safetensors")
    with open_weights(tmp_path / "a.safetensors") as file:
        assert file.format == "safetensors"
        assert file.metadata == {"format": "pt", "ä": "ö"}
        assert set(file.entries) == set(theirs)
        for name, tensor in theirs.items():
            got = file.get(name)
            assert file.entries[name] == Entry(
                name, dtype_name(tensor.dtype), tuple(tensor.shape), tensor.nbytes
            )
            assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(got.flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))


def test_tensors_at_odd_places(tmp_path):
    """Old writers did not pad the header, and the format does not ask for it."""
    data = b"\1" + struct.pack("<3f", 1, 2, 3)
    header = {"a": described(0, 1, [1], "U8"), "b": described(1, 13, [3])}
    with open_weights(write(tmp_path / "a.safetensors", header, data)) as file:
        assert file.get("b").tolist() == [1, 2, 3]
        assert file.get("b").data_ptr() % 4 == 0


def test_tensors_are_views_which_outlive_the_file_and_never_write_to_it(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(64, 64)}, path)
    with open_weights(path) as file:
        one, other = file.get("w"), file.get("w")
    one[0] = 5
    assert torch.equal(one, other)
    assert load_file(path)["w"].sum() == 0


def test_the_name_does_not_matter(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.ckpt")
    torch.save({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    for name, kind in (("model.ckpt", "safetensors"), ("model.safetensors", "torch")):
        with open_weights(tmp_path / name) as file:
            assert file.format == kind
            assert file.get("w").tolist() == [1, 1]


def test_opening_reads_the_header_alone(tmp_path):
    """A file larger than most memories, which is a hole behind its header."""
    path = tmp_path / "large.safetensors"
    size = 40_000_000_000
    spans = {
        f"w{i}": described(i * size // 1000, (i + 1) * size // 1000, [size // 4000]) for i in range(1000)
    }
    header = json.dumps(spans).encode()
    write(path, header + b" " * (-len(header) % 8))
    os.truncate(path, path.stat().st_size + size)
    with bounded_memory(20), open_weights(path) as file:
        assert len(file.entries) == 1000
        assert file.get("w999")[-1] == 0


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        ({"a": described(0, 8)}, b"1234567", "lacks its last 1 bytes"),
        ({"a": described(0, 10**10, [25 * 10**8])}, b"", "incomplete"),
        ({"a": described(0, 8)}, b"123456789", "1 bytes"),
        ({"a": described(0, 8), "b": described(4, 12)}, bytes(12), "b begins at 4"),
        ({"a": described(0, 8), "b": described(0, 8)}, bytes(8), "b begins at 0"),
        ({"a": described(0, 8), "b": described(12, 20)}, bytes(20), "b begins at 12"),
        ({"a": described(4, 12)}, bytes(12), "a begins at 4"),
        ({"a": described(0, 8, [3])}, bytes(8), "12 bytes"),
        ({"a": described(8, 0)}, bytes(8), "from 8 to 0"),
        ({"a": described(-8, 0)}, bytes(8), "from -8"),
        ({"a": described(0, 8, [-2])}, bytes(8), "impossible"),
        ({"a": described(0, 8, [2.0])}, bytes(8), "impossible"),
        ({"a": described(0, 8, [True, 2])}, bytes(8), "impossible"),
        ({"a": described(0, 8, ["2"])}, bytes(8), "impossible"),
        ({"a": described(0, 0, [0, 2**62, 2**62])}, b"", "too large"),
        ({"a": described(0, 8, [2**62, 2])}, bytes(8), "too large"),
        ({"a": described(0, 8, [1] * 40 + [2])}, bytes(8), "impossible"),
        ({"a": described(0, 8, [2], "F33")}, bytes(8), "F33"),
        ({"a": described(0, 8, [2], ["F32"])}, bytes(8), "no dtype"),
        ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "no dtype"),
        ({"a": {**described(0, 8), "data_offsets": [0, 4, 8]}}, bytes(8), "no dtype"),
        ({"a": 3}, b"", "no dtype"),
        ({"__metadata__": {"a": 1}}, b"", "more than text"),
        ({"__metadata__": ["a"]}, b"", "more than text"),
        ({"__metadata__": {"a": "\ud800"}}, b"", "surrogate"),
        (b'{"a": {}, "a": {}}', b"", "a stands twice"),
        (b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', bytes(8), "twice"),
        (b'{"a": ' + b"[" * 200_000 + b"}", b"", "header"),
        (b'{"a": [' + b"[]," * 2_000_000 + b"[]]}", b"", "500000 parts"),
        (b"{" + b",".join(b'"%d":{"a":1}' % i for i in range(240_000)) + b"}", b"", "240000 tensors"),
        (b'{"\xf0\x9f\x98\x80":"' + b"a" * 15_000_000 + b'"}', b"", "no dtype"),
        (b'{"a": [' + b"9" * 5000 + b"]}", b"", "header"),
        (b'{"\xff": 1}', b"", "header"),
        (b"{", b"", "header"),
    ],
)
def test_damaged_headers(tmp_path, header, data, word):
    refused(write(tmp_path / "a.safetensors", header, data), word)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, LONGEST_HEADER + 1, 10_000, 0])
def test_lengths_of_headers(tmp_path, length):
    refused(write(tmp_path / "a.safetensors", {}, b" " * 99, length))


@pytest.mark.parametrize("kept", [1, 7, 8, 9, 50, 0.5, 0.999])
def test_cut_short(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(40, 50), "b": torch.ones(3)}, path)
    raw = path.read_bytes()
    path.write_bytes(raw[: kept if isinstance(kept, int) else int(len(raw) * kept)])
    refused(path)


def swapped(path):
    save_file({"w": torch.ones(5000)}, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def written_to(path):
    before = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"1234")
    os.utime(path, ns=(before, before + 1))


@pytest.mark.parametrize(
    "change", [swapped, written_to, lambda p: os.truncate(p, 4000), lambda p: p.unlink()]
)
def test_files_that_change_while_they_are_read(tmp_path, change):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(5000)}, path)
    with open_weights(path) as file:
        file.check()
        change(path)
        with pytest.raises(ModelError, match="has changed"):
            file.get("w")
        with pytest.raises(ModelError, match="has changed"):
            file.check()


def test_a_tensor_that_is_not_there(tmp_path):
    save_file({"w": torch.zeros(5)}, tmp_path / "a.safetensors")
    with open_weights(tmp_path / "a.safetensors") as file, pytest.raises(ModelError, match="no tensor v"):
        file.get("v")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 4265380512\n"


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "empty"),
        (LFS, "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "web page"),
        (b"\n  <html lang='en'>", "web page"),
        (b'{"error": "Access to this model is restricted"}', "JSON"),
        (b"Entry not found", "'Entry not found'"),
        (gzip.compress(b"hello", mtime=0), "unpack"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "picture"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "Keras"),
        (b"PK\5\6" + bytes(18), "empty zip"),
        (b"lmgg\1\0\0\0" + bytes(60), "GGUF"),
        (bytes(4096), "incomplete"),
        (b"\xa5" + b"\xfe\xff\xfd" * 50, "none of the formats"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "model"])
def test_what_a_file_is_instead(tmp_path, raw, word, name):
    if word == "none of the formats" and name.endswith("safetensors"):
        word = "header"
    (tmp_path / name).write_bytes(raw)
    refused(tmp_path / name, word)


def test_places_where_no_file_is(tmp_path):
    refused(tmp_path / "nothing.ckpt", "no such file")
    refused(tmp_path, "folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")
    with pytest.raises(ModelError, match="cannot be read"):
        open_weights("a\0b")


def test_names_cannot_break_the_line(tmp_path):
    header = {"a\nERROR: rm -rf\x1b[2K\u2028": 3}
    refused(write(tmp_path / "a.safetensors", header), "a?ERROR")


# Sets of files.


@pytest.fixture
def shards(tmp_path):
    """Two files and their index."""
    save_file(
        {"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "model-1.safetensors", metadata={"format": "pt"}
    )
    torch.save({"c": torch.zeros(4)}, tmp_path / "model-2.bin")
    return indexed(tmp_path, {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.bin"})


def indexed(folder, names):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": names}))
    return path


def test_shards_are_one_file(shards):
    with open_shards(shards) as file:
        assert file.path == shards
        assert set(file.entries) == {"a", "b", "c"}
        assert file.metadata == {"format": "pt"}
        assert file.get("b").tolist() == [1, 1, 1]
        assert file.get("c").tolist() == [0, 0, 0, 0]
        swapped(shards.parent / "model-1.safetensors")
        with pytest.raises(ModelError, match="has changed"):
            file.get("a")


def test_shards_may_be_links_as_in_a_cache(shards, tmp_path_factory):
    blobs, snapshot = tmp_path_factory.mktemp("blobs"), tmp_path_factory.mktemp("snapshot")
    for i, path in enumerate(sorted(shards.parent.iterdir())):
        os.replace(path, blobs / f"{i}")
        (snapshot / path.name).symlink_to(blobs / f"{i}")
    with open_shards(snapshot / shards.name) as file:
        assert file.get("a").tolist() == [1, 1]


@pytest.mark.parametrize(
    "name",
    [
        "../a.safetensors",
        "/etc/passwd",
        "x/../../a",
        "sub/a.safetensors",
        "..",
        ".",
        "",
        "a\\b",
        "C:a",
        "a\0",
        3,
        None,
    ],
)
def test_shards_stay_in_their_folder(shards, name):
    index = indexed(shards.parent, {"a": "model-1.safetensors", "b": name})
    refused(index, "not beside it", opened=open_shards)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"{}", "weight_map"),
        (b'{"weight_map": {}}', "weight_map"),
        (b'{"weight_map": []}', "weight_map"),
        (b"[]", "no index"),
        (b'{"weight_map": {"a": "b", "a": "c"}}', "twice"),
        (b"{" * 300_000, "no index"),
        (LFS, "no index"),
        (b"", "empty"),
    ],
)
def test_damaged_indices(tmp_path, raw, word):
    (tmp_path / "a.index.json").write_bytes(raw)
    refused(tmp_path / "a.index.json", word, opened=open_shards)


def test_shards_that_do_not_fit(shards):
    refused(indexed(shards.parent, {"z": "model-1.safetensors"}), "lacks it", opened=open_shards)
    index = indexed(shards.parent, {"a": "model-1.safetensors", "c": "model-3.bin"})
    with pytest.raises(ModelError, match=r"model-3\.bin: there is no such file"):
        open_shards(index)


def test_refusals_leave_no_file_open(shards, tmp_path):
    """ResourceWarning is an error in this suite, but only where the collector comes by: count instead."""
    code = f"""
import os, sys
from darkroom.weights.opening import open_shards, open_weights
from darkroom.errors import ModelError
for opened, path in ((open_weights, {str(tmp_path / "bad.ckpt")!r}), (open_shards, {str(shards)!r})):
    before = len(os.listdir("/proc/self/fd"))
    try:
        opened(path)
    except ModelError:
        pass
    assert len(os.listdir("/proc/self/fd")) == before, path
"""
    with zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\n.")
    indexed(shards.parent, {"a": "model-1.safetensors", "z": "model-2.bin"})
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_types_of_numbers_are_torch_s():
    for name, size in SIZES.items():
        assert torch_dtype(name).itemsize == size
        assert dtype_name(torch_dtype(name)) == name
        assert torch_dtype(name).is_floating_point == (name in FLOATS)


@pytest.mark.parametrize("name", FLOATS)
def test_numbers_as_floats_are_what_torch_makes_of_them(name, tmp_path):
    tensor = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(torch_dtype(name))
    save_file({"w": tensor}, tmp_path / "a.safetensors")
    with open_weights(tmp_path / "a.safetensors") as file:
        assert np.array_equal(file.floats("w"), tensor.float().numpy())


def rewritten(path, change):
    """A file with another header."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    text = change(json.loads(raw[8 : 8 + size])).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


@pytest.mark.parametrize(
    "notes",
    [
        "null",
        "{}",
        '{"a": "1", "a": "2"}',
        json.dumps({"ss_tag_frequency": "x" * 17_000_000}),
        json.dumps({"ss_tag_frequency": '{"a": [1, 2]}, ' * 200_000}),
    ],
)
def test_headers_that_the_reference_reads(tmp_path, notes):
    from safetensors import safe_open

    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(6.0)}, path)
    rewritten(path, lambda header: '{"__metadata__": ' + notes + ", " + json.dumps(header)[1:])
    with safe_open(path, "pt") as theirs, open_weights(path) as ours:
        assert [*ours.entries] == [*theirs.keys()]
        assert ours.metadata == (theirs.metadata() or {})
        assert torch.equal(ours.get("a"), torch.arange(6.0))


def test_types_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(6, dtype=torch.uint8)}, path)
    rewritten(path, lambda header: json.dumps(header).replace('"U8"', '"F4"'))
    with pytest.raises(ModelError, match="F4, floats of 4 bits"):
        open_weights(path)
