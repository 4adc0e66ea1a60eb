"""GGUF files against the package that defines them."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from tests.weights.canaries import bounded_memory

from darkroom.errors import ModelError
from darkroom.weights.opening import open_weights

WRITTEN = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]  # What the package can quantise.
K = [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K]


def finite_blocks(kind, shape, seed):
    """Random bits as blocks of a quantisation, those of its half-precision scales made finite."""
    size, nbytes = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(seed).integers(0, 256, (int(np.prod(shape)) // size, nbytes), np.uint8)
    # Where the scales lie, from the end or the beginning of a block: sixty exponents are fewer than infinity's.
    for at in {Type.Q2_K: [-3, -1], Type.Q3_K: [-1], Type.Q6_K: [-1]}.get(kind, [1, 3]):
        raw[:, at] &= 0xBF
    return raw.reshape(*shape[:-1], -1)


def save(path, tensors, arch="sd1", **facts):
    writer = gguf.GGUFWriter(path, arch)
    for name, value in facts.items():
        getattr(writer, f"add_{name}")(*value)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.peer
@pytest.mark.parametrize("kind", WRITTEN + K, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("shape", "seed"), [((3, 256), 0), ((5, 7, 512), 1), ((1, 768), 2)])
def test_quantisations(tmp_path, kind, shape, seed):
    if kind in WRITTEN:
        values = np.random.default_rng(seed).standard_normal(shape, np.float32)
        blocks = gguf.quantize(values, kind)
    else:
        blocks = finite_blocks(kind, shape, seed)
    expected = gguf.dequantize(blocks, kind)
    path = save(tmp_path / "a.gguf", {"first": (np.ones(3, np.float32), None), "w": (blocks, kind)})
    with open_weights(path) as file:
        entry = file.entries["w"]
        assert (entry.dtype, entry.shape, entry.nbytes) == (kind.name, shape, blocks.nbytes)
        got = file.get("w")
        assert got.dtype == torch.float32
        assert np.isfinite(expected).all()
        assert np.abs(got.numpy() - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.peer
def test_plain_numbers_and_facts(tmp_path):
    generator = np.random.default_rng(3)
    arrays = {
        "f32": generator.standard_normal((3, 5)).astype(np.float32),
        "f16": generator.standard_normal((2, 3, 4)).astype(np.float16),
        "f64": generator.standard_normal(7),
        "i8": generator.integers(-9, 9, (3, 3), np.int8),
        "i32": generator.integers(-9, 9, (2, 2), np.int32),
    }
    halves = torch.randn(4, 6).bfloat16()
    path = save(
        tmp_path / "a.gguf",
        {name: (array, None) for name, array in arrays.items()}
        | {"bf16": (halves.view(torch.uint8).numpy(), Type.BF16)},
        name=("a model",),
        bool=("yes", True),
        float32=("scale", 0.5),
        array=("words", ["a", "b"]),
        token_list=([f"word {i}" for i in range(1000)],),
    )
    with open_weights(path) as file:
        assert file.format == "gguf"
        assert file.metadata["general.architecture"] == "sd1"
        assert file.metadata["general.name"] == "a model"
        assert file.metadata["yes"] == "True"
        assert file.metadata["scale"] == "0.5"
        for name, array in arrays.items():
            assert file.entries[name].shape == array.shape
            assert torch.equal(file.get(name), torch.from_numpy(array))
        assert torch.equal(file.get("bf16"), halves)


def test_shapes_that_ggml_has_no_dimensions_for(tmp_path):
    array = np.arange(96, dtype=np.float32).reshape(3, 32)
    path = save(
        tmp_path / "a.gguf",
        {"w": (array, None), "q": (gguf.quantize(array, Type.Q8_0), Type.Q8_0)},
        array=("comfy.gguf.orig_shape.w", [2, 3, 1, 4, 4]),
    )
    with open_weights(path) as file:
        assert file.entries["w"].shape == (2, 3, 1, 4, 4)
        assert torch.equal(file.get("w").flatten(), torch.arange(96.0))
        assert file.entries["q"].shape == (3, 32)


def test_large_tensors_need_little_scratch_memory(tmp_path):
    """64 MB of float32 out of 18 MB of blocks; the difference to their sum is scratch."""
    blocks = np.zeros((4096, 4096 // 32 * 18), np.uint8)
    path = save(tmp_path / "a.gguf", {"w": (blocks, Type.Q4_0)})
    with open_weights(path) as file, bounded_memory(120):
        assert file.get("w").shape == (4096, 4096)


def header(*tensors, version=3, facts=b"", count=None, fact_count=0):
    number = len(tensors) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, number, fact_count) + facts + b"".join(tensors)


def listed(name, dims, kind, offset):
    raw = name.encode()
    return (
        struct.pack("<Q", len(raw)) + raw + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    )


def fact(name, kind, raw):
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + raw


def padded(raw, data):
    return raw + bytes(-len(raw) % 32) + data


DATA = bytes(range(64))
FIFTEEN = fact("comfy.gguf.orig_shape.a", 9, struct.pack("<IQI", 4, 1, 15))


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (header(version=1), "version 1"),
        (header(version=2**31), "version"),
        (header(count=2**63), "tensors"),
        (header(fact_count=2**62), "facts"),
        (header(count=3), "header"),
        (b"GGUF", "header"),
        (padded(header(listed("a", [16], 0, 0)), DATA[:-1]), "lacks its last 1 bytes"),
        (padded(header(listed("a", [25 * 10**8], 0, 0)), b""), "incomplete"),
        (padded(header(listed("a", [16], 0, 2**62)), DATA), "incomplete"),
        (padded(header(listed("a", [16], 0, 2**63)), DATA), "shape"),
        (padded(header(listed("a", [8], 0, 4)), DATA), "lies in another"),
        (padded(header(listed("a", [16], 0, 0), listed("b", [8], 0, 32)), DATA), "b lies in another"),
        (padded(header(listed("a", [8], 0, 0), listed("a", [8], 0, 32)), DATA), "a lies in another"),
        (padded(header(listed("a", [2**62, 2], 0, 0)), DATA), "too large"),
        (padded(header(listed("a", [2**63], 0, 0)), DATA), "impossible"),
        (padded(header(listed("a", [2] * 9, 0, 0)), DATA), "9 dimensions"),
        (padded(header(listed("a", [16], 99, 0)), DATA), "type 99"),
        (padded(header(listed("a", [16], 16, 0)), DATA), "type 16"),
        (padded(header(listed("a", [33], 8, 0)), DATA), "Q8_0"),
        (padded(header(listed("a", [], 8, 0)), DATA), "Q8_0"),
        (header(struct.pack("<Q", 2**63) + b"abc", count=1), "text"),
        (header(struct.pack("<Q", 2) + b"\xff\xfe", count=1), "header"),
        (header(facts=fact("a", 77, b""), fact_count=1), "type 77"),
        (header(facts=fact("a", 9, struct.pack("<IQ", 9, 1)), fact_count=1), "type 9"),
        (header(facts=fact("a", 9, struct.pack("<IQ", 8, 2**63)), fact_count=1), "header"),
        (header(facts=fact("a", 9, struct.pack("<IQ", 4, 2**63)), fact_count=2), "longer than the file"),
        (header(facts=fact("a", 9, struct.pack("<IQ", 4, 2**63)), fact_count=1), "incomplete"),
        (header(facts=fact("a", 0, b"\1") * 2, fact_count=2), "twice"),
        (header(facts=fact("general.alignment", 4, b"\0\0\0\0"), fact_count=1), "alignment"),
        (header(facts=fact("general.alignment", 4, b"\x21\0\0\0"), fact_count=1), "alignment"),
        (header(facts=fact("general.alignment", 9, struct.pack("<IQ", 4, 0)), fact_count=1), "alignment"),
        (padded(header(listed("a", [16], 0, 0), facts=FIFTEEN, fact_count=1), DATA), "shape"),
        (header(facts=fact("a", 9, struct.pack("<IQ", 8, 10**7) + bytes(8) * 10**7), fact_count=1), "text"),
    ],
)  # fmt: skip
def test_damaged_headers(tmp_path, raw, word):
    (tmp_path / "a.gguf").write_bytes(raw)
    with bounded_memory(), pytest.raises(ModelError) as raised:
        open_weights(tmp_path / "a.gguf")
    message = str(raised.value)
    assert str(tmp_path / "a.gguf") in message
    assert word in message
    assert "\n" not in message


def test_the_smallest_file(tmp_path):
    """The header of these tests is sound where nothing in it is wrong."""
    (tmp_path / "a.gguf").write_bytes(padded(header(listed("a", [8, 2], 0, 0)), DATA))
    with open_weights(tmp_path / "a.gguf") as file:
        assert torch.equal(file.get("a").flatten().view(torch.uint8), torch.arange(64, dtype=torch.uint8))


def test_numbers_that_are_none_pass_without_a_warning(tmp_path):
    """Finding them is the task of `verify` and of the first step."""
    block = np.frombuffer(struct.pack("<H", 0x7C00) + bytes(32), np.uint8).reshape(1, 34)
    path = save(tmp_path / "a.gguf", {"w": (block, Type.Q8_0)})
    with open_weights(path) as file:
        assert file.get("w").isnan().all()
