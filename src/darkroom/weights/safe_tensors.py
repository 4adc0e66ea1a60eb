"""Reading safetensors: eight bytes of length, a JSON header, the numbers.

The format is described at https://github.com/huggingface/safetensors (README, "Format"). Every rule in it is checked
here before anything is used: the numbers are exactly covered by the tensors, without overlaps or holes.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

from numpy.typing import NDArray

from darkroom.errors import UnsupportedModel
from darkroom.weights.dtypes import SIZES
from darkroom.weights.mapped import MOST_TENSORS, Entry, Mapped, WeightsFile, count, short, whole

LONGEST_HEADER = 100_000_000
"""What the format allows. Those of real models stay below a megabyte, but trainers' notes may be long."""
_MOST_PARTS = 500_000

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
_UNREAD = ("F4", "F6_E2M3", "F6_E3M2")


def read_safetensors(file: Mapped) -> WeightsFile:
    """The tensors of a safetensors file. Raises ModelError that names the rule it breaks."""
    length = int.from_bytes(file.read(0, min(8, file.size)), "little")
    if length > LONGEST_HEADER:
        raise file.error(
            f"claims a header of {length} bytes: it is damaged or no safetensors file, fetch it anew"
        )
    begin = 8 + length
    if begin > file.size:
        raise file.error("ends within its header: the download is incomplete, fetch it anew")
    try:
        header = json_object(file.read(8, length), notes=True)
        metadata = header.pop("__metadata__", None) or {}  # Some write null.
        _check_metadata(metadata)
        if len(header) > MOST_TENSORS:
            raise ValueError(f"{len(header)} tensors")
        entries, starts, end = _tensors(header)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{file.path} {error}: get the model in float16 or bfloat16") from None
    except ValueError as error:
        raise file.error(f"has a damaged safetensors header ({error}): fetch it anew") from error
    missing = begin + end - file.size
    if missing > 0:
        raise file.error(f"lacks its last {missing} bytes: the download is incomplete, fetch it anew")
    if missing < 0:
        raise file.error(f"has {-missing} bytes that belong to no tensor: it is damaged, fetch it anew")

    def read(entry: Entry) -> NDArray[Any]:
        return file.array(begin + starts[entry.name], entry.dtype, entry.shape)

    return WeightsFile(file.path, "safetensors", entries, (file,), read, metadata)


def json_object(raw: bytes, notes: bool = False) -> dict[str, Any]:
    """A JSON object of bounded size in which no name stands twice, unless it is that of `notes` that are texts;
    ValueError where it is none."""
    # A list of nothing takes three bytes of JSON and ninety of memory. What stands within texts is no part.
    if _parts(raw) > _MOST_PARTS and _parts(_TEXT.sub(b"", raw)) > _MOST_PARTS:
        raise ValueError(f"more than {_MOST_PARTS} parts")
    if raw[:1] != b"{":
        raise ValueError("no JSON object")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_but_notes if notes else _unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    assert isinstance(value, dict)
    return value


_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.S)


def _parts(raw: bytes) -> int:
    return sum(raw.count(sign) for sign in (b",", b"[", b"{"))


def _unique_but_notes(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of notes the last of several counts, as in the reference."""
    return dict(pairs) if all(isinstance(value, str) for _, value in pairs) else _unique(pairs)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{short(name)} stands twice")
        found[name] = value
    return found


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ holds more than text")
    for words in chain.from_iterable(metadata.items()):
        words.encode("utf-8")  # JSON can spell what no text is: half a surrogate pair.


def _tensors(header: dict[str, Any]) -> tuple[dict[str, Entry], dict[str, int], int]:
    """The tensors, where each begins after the header, and where the last ends."""
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, value in header.items():
        name.encode("utf-8")
        match value:
            case {"dtype": str(kind), "shape": list(shape), "data_offsets": [start, stop]}:
                pass
            case _:
                raise ValueError(f"{short(name)} has no dtype, shape and data_offsets")
        if kind in _UNREAD:
            raise UnsupportedModel(
                f"holds {short(name)} in {kind}, floats of {kind[1]} bits, which Darkroom does not read"
            )
        if kind not in DTYPES:
            raise ValueError(f"{short(name)} is of the unknown type {short(kind)}")
        nbytes = count(shape) * SIZES[DTYPES[kind]]
        if not (whole(start) and whole(stop) and stop - start == nbytes):
            raise ValueError(f"{short(name)} of {nbytes} bytes lies from {short(start)} to {short(stop)}")
        entries[name] = Entry(name, DTYPES[kind], tuple(shape), nbytes)
        spans.append((start, stop, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise ValueError(f"{short(name)} begins at {start}, where {end} is due")
        end = stop
    return entries, {name: start for start, _, name in spans}, end
