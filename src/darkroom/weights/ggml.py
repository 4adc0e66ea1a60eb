"""The quantisations of GGUF files: blocks of small integers with scales, as float32.

The blocks are those of ggml-quants.c in https://github.com/ggml-org/ggml (`dequantize_row_*`). A number is its integer
times a scale, less a minimum or plus an offset in some kinds; K-quants scale groups of 16 or 32 numbers within a
block of 256 by six-bit factors of the block's own scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[Any]
Floats = NDArray[np.float32]

_CHUNK = 1 << 14  # Blocks turned into floats at a time, to keep the scratch memory small.


@dataclass(frozen=True)
class Quantisation:
    """A quantisation: what a block holds, how many numbers it stands for, and those numbers (blocks, size)."""

    name: str
    size: int
    block: np.dtype[Any]
    floats: Callable[[Blocks], Floats]


def dequantised(blocks: Blocks, quantisation: Quantisation) -> Floats:
    """Blocks (n,) as float32 (n, size)."""
    out = np.empty((len(blocks), quantisation.size), np.float32)
    with np.errstate(all="ignore"):  # Scales that are no number are for `verify` to find.
        for at in range(0, len(blocks), _CHUNK):
            out[at : at + _CHUNK] = quantisation.floats(blocks[at : at + _CHUNK])
    return out


def _fields(raw: Blocks, run: int, bits: int) -> Blocks:
    """Small integers (n, k * 8 / bits) out of bytes (n, k): of `run` bytes all lowest bits, then the next."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = (raw.reshape(len(raw), -1, 1, run) >> shifts) & ((1 << bits) - 1)
    return parts.reshape(len(raw), -1)


def _float(halves: Blocks) -> Floats:
    return halves.astype(np.float32)


def _scaled(integers: Blocks, scale: Blocks, minimum: Blocks | None = None) -> Floats:
    """scale * integers - minimum, a scale (n, groups) for each group of integers (n, size)."""
    grouped = integers.reshape(*scale.shape, -1) * scale[..., None]
    if minimum is not None:
        grouped -= minimum[..., None]
    return grouped.reshape(len(integers), -1)


def _q4_0(b: Blocks) -> Floats:
    return _scaled(_fields(b["low"], 16, 4).astype(np.int8) - 8, _float(b["d"]))


def _q4_1(b: Blocks) -> Floats:
    return _scaled(_fields(b["low"], 16, 4), _float(b["d"]), -_float(b["m"]))


def _five_bits(b: Blocks) -> Blocks:
    integers: Blocks = _fields(b["low"], 16, 4) | _fields(b["high"], 1, 1) << 4
    return integers


def _q5_0(b: Blocks) -> Floats:
    return _scaled(_five_bits(b).astype(np.int8) - 16, _float(b["d"]))


def _q5_1(b: Blocks) -> Floats:
    return _scaled(_five_bits(b), _float(b["d"]), -_float(b["m"]))


def _q8_0(b: Blocks) -> Floats:
    return _scaled(b["low"], _float(b["d"]))


def _q2_k(b: Blocks) -> Floats:
    scales, minima = _float(b["d"]) * (b["scales"] & 15), _float(b["m"]) * (b["scales"] >> 4)
    return _scaled(_fields(b["low"], 32, 2), scales, minima)


def _q3_k(b: Blocks) -> Floats:
    scales = _fields(b["scales"][:, :8], 8, 4) | _fields(b["scales"][:, 8:], 4, 2) << 4
    integers = _fields(b["low"], 32, 2) | _fields(b["high"], 32, 1) << 2
    return _scaled(integers.astype(np.int8) - 4, _float(b["d"]) * (scales.astype(np.int8) - 32))


def _six_bits(b: Blocks) -> tuple[Floats, Floats]:
    """Eight scales and eight minima (n, 8), which are six bits each in twelve bytes."""
    first, second, low = np.split(b["scales"], 3, axis=1)
    scales = np.concatenate([first & 63, low & 15 | first >> 6 << 4], 1)
    minima = np.concatenate([second & 63, low >> 4 | second >> 6 << 4], 1)
    return _float(b["d"]) * scales, _float(b["m"]) * minima


def _q4_k(b: Blocks) -> Floats:
    return _scaled(_fields(b["low"], 32, 4), *_six_bits(b))


def _q5_k(b: Blocks) -> Floats:
    return _scaled(_fields(b["low"], 32, 4) | _fields(b["high"], 32, 1) << 4, *_six_bits(b))


def _q6_k(b: Blocks) -> Floats:
    integers = _fields(b["low"], 64, 4) | _fields(b["high"], 32, 2) << 4
    return _scaled(integers.astype(np.int8) - 32, _float(b["d"]) * b["scales"])


def _kind(name: str, size: int, block: str, floats: Callable[[Blocks], Floats]) -> Quantisation:
    """`block` lists what a block holds in order, as name:type:length; d is its scale, m its minimum."""
    parts = [part.split(":") for part in block.split()]
    return Quantisation(
        name, size, np.dtype([(key, form, (int(width),)) for key, form, width in parts]), floats
    )


# By the number that a file gives for each.
QUANTISATIONS = {
    2: _kind("Q4_0", 32, "d:<f2:1 low:u1:16", _q4_0),
    3: _kind("Q4_1", 32, "d:<f2:1 m:<f2:1 low:u1:16", _q4_1),
    6: _kind("Q5_0", 32, "d:<f2:1 high:u1:4 low:u1:16", _q5_0),
    7: _kind("Q5_1", 32, "d:<f2:1 m:<f2:1 high:u1:4 low:u1:16", _q5_1),
    8: _kind("Q8_0", 32, "d:<f2:1 low:i1:32", _q8_0),
    10: _kind("Q2_K", 256, "scales:u1:16 low:u1:64 d:<f2:1 m:<f2:1", _q2_k),
    11: _kind("Q3_K", 256, "high:u1:32 low:u1:64 scales:u1:12 d:<f2:1", _q3_k),
    12: _kind("Q4_K", 256, "d:<f2:1 m:<f2:1 scales:u1:12 low:u1:128", _q4_k),
    13: _kind("Q5_K", 256, "d:<f2:1 m:<f2:1 scales:u1:12 high:u1:32 low:u1:128", _q5_k),
    14: _kind("Q6_K", 256, "low:u1:128 high:u1:64 scales:i1:16 d:<f2:1", _q6_k),
}
BY_NAME = {quantisation.name: quantisation for quantisation in QUANTISATIONS.values()}
