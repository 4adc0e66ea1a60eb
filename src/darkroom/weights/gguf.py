"""Reading GGUF, the quantised files of stable-diffusion.cpp and ComfyUI-GGUF.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: facts about the model, the list of its
tensors, their blocks. What the blocks mean is in `ggml`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from darkroom.weights.dtypes import SIZES
from darkroom.weights.ggml import BY_NAME, QUANTISATIONS, dequantised
from darkroom.weights.mapped import MOST_TENSORS, Entry, Mapped, WeightsFile, count, short, whole

_MOST_TEXT = 64_000_000  # In bytes as Python keeps them: a tokenizer's vocabulary of a million words.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _ARRAY = 8, 9
_PLAIN = {
    0: "float32",
    1: "float16",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    30: "bfloat16",
}


def read_gguf(file: Mapped) -> WeightsFile:
    """The tensors of a GGUF file, shapes in torch's order. Raises ModelError where it is damaged."""
    reader = _Reader(file)
    with _named(file):
        metadata, tensors = reader.facts()
        found = [reader.tensor(metadata) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment not in {1 << bit for bit in range(3, 20)}:
        raise file.error(f"has a damaged GGUF header (alignment {short(alignment)}): fetch it anew")
    begin = -(-reader.at // alignment) * alignment
    starts: dict[str, int] = {}
    end = 0
    for start, entry in sorted(found, key=lambda pair: (pair[0], pair[1].nbytes)):
        if entry.name in starts or start % alignment or start < end:
            raise file.error(
                f"has a damaged GGUF header ({short(entry.name)} lies in another): fetch it anew"
            )
        starts[entry.name] = begin + start
        end = start + entry.nbytes
    if begin + end > file.size:
        raise file.error(
            f"lacks its last {begin + end - file.size} bytes: the download is incomplete, fetch it anew"
        )

    def read(entry: Entry) -> NDArray[Any]:
        if entry.dtype not in BY_NAME:
            return file.array(starts[entry.name], entry.dtype, entry.shape)
        quantisation = BY_NAME[entry.dtype]
        raw = file.array(starts[entry.name], "uint8", (entry.nbytes,))
        return dequantised(raw.view(quantisation.block), quantisation).reshape(entry.shape)

    words = {key: str(value) for key, value in metadata.items() if not isinstance(value, tuple | None)}
    return WeightsFile(file.path, "gguf", {entry.name: entry for _, entry in found}, (file,), read, words)


def gguf_facts(path: Path) -> dict[str, Any]:
    """All that a GGUF file says of its model, lists included as tuples. Raises ModelError where it is damaged."""
    file = Mapped(path)
    try:
        with _named(file):
            return _Reader(file, lists=True).facts()[0]
    finally:
        file.close()


@contextmanager
def _named(file: Mapped) -> Iterator[None]:
    """Within which a damaged header is an error that names the file."""
    try:
        yield
    except (ValueError, struct.error) as error:
        raise file.error(f"has a damaged GGUF header ({error}): fetch it anew") from error


class _Reader:
    """Reads the header from its beginning; struct.error or ValueError where it is damaged. `lists`: whether long ones
    are kept."""

    def __init__(self, file: Mapped, lists: bool = False) -> None:
        self.file = file
        self.lists = lists
        self.at = 0
        self.left = _MOST_TEXT

    def facts(self) -> tuple[dict[str, Any], int]:
        """What the file says of the model, and how many tensors are described after that."""
        version, tensors, facts = self.numbers("<4xIQQ")
        if version not in (2, 3):
            raise self.file.error(
                f"is GGUF of version {short(version)}, versions 2 and 3 are supported: convert it anew"
            )
        if max(tensors, facts) > MOST_TENSORS:
            raise ValueError(f"{tensors} tensors and {facts} facts about them")
        metadata = {self.text(): self.value() for _ in range(facts)}
        if len(metadata) != facts:
            raise ValueError("a fact stands twice")
        return metadata, tensors

    def numbers(self, form: str) -> tuple[Any, ...]:
        if self.at > self.file.size:
            raise ValueError("a list longer than the file")
        found = struct.unpack_from(form, self.file.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self) -> str:
        (size,) = self.numbers("<Q")
        self.left -= 64 + size
        if self.left < 0 or size > self.file.size - self.at:
            raise ValueError(f"a text of {size} bytes")
        self.at += size
        return self.file.data[self.at - size : self.at].decode("utf-8")

    def value(self) -> Any:
        """A fact about the model: a number, a text, a tuple of a few numbers, or None for other lists that are not
        to be kept."""
        (kind,) = self.numbers("<I")
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(f"<{_scalar(kind)}")[0]
        kind, size = self.numbers("<IQ")
        if kind == _TEXT:
            texts = (self.text() for _ in range(size))
            if self.lists:
                return tuple(texts)
            for _ in texts:
                pass
        elif self.lists or size <= 16:
            return self.numbers(f"<{size}{_scalar(kind)}")
        else:
            self.at += size * struct.calcsize(f"<{_scalar(kind)}")
        return None

    def tensor(self, metadata: dict[str, Any]) -> tuple[int, Entry]:
        """A tensor, and where it begins after the header."""
        name = self.text()
        (rank,) = self.numbers("<I")
        if rank > 8:
            raise ValueError(f"{short(name)} of {rank} dimensions")
        *sizes, kind, start = self.numbers(f"<{rank}QIQ")
        shape = tuple(reversed(sizes))
        number = count(shape)
        # ComfyUI-GGUF flattens what ggml has no dimensions for, and writes down what it was.
        original = metadata.get(f"comfy.gguf.orig_shape.{name}", shape)
        if not isinstance(original, tuple) or count(original) != number or not whole(start):
            raise ValueError(f"{short(name)} of shape {short(shape)}")
        if kind in _PLAIN:
            return start, Entry(name, _PLAIN[kind], original, number * SIZES[_PLAIN[kind]])
        if kind not in QUANTISATIONS:
            raise self.file.error(
                f"has {short(name)} in GGUF's type {kind}, which is not supported: get it as Q8_0, Q5_K or Q4_K"
            )
        quantisation = QUANTISATIONS[kind]
        if not sizes or sizes[0] % quantisation.size:
            raise ValueError(f"{short(name)} of shape {short(shape)} in {quantisation.name}")
        nbytes = number // quantisation.size * quantisation.block.itemsize
        return start, Entry(name, quantisation.name, original, nbytes)


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"a value of type {kind}")
    return _SCALARS[kind]
