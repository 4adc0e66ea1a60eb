"""Writing safetensors, larger than memory if need be: the format is described in `darkroom.weights.safe_tensors`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.files import replacing
from darkroom.weights.dtypes import dtype_name
from darkroom.weights.safe_tensors import DTYPES

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are written."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Pending:
    """A tensor to be written: its name, shape and type, and how to get it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_safetensors(
    path: Path,
    tensors: Iterable[Pending],
    metadata: Mapping[str, str],
    progress: Progress | None = None,
    new: bool = False,
) -> None:
    """Write a safetensors file, one tensor in memory at a time, whole or not at all. Raises InvalidRequest with the
    system's reason where that fails, or where it is to be `new` and is there already."""
    rows = sorted(tensors, key=lambda row: (-row.dtype.itemsize, row.name))  # Aligned, as the format advises.
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for row in rows:
        offsets = [at, at + row.nbytes]
        header[row.name] = {
            "dtype": _NAMES[dtype_name(row.dtype)],
            "shape": list(row.shape),
            "data_offsets": offsets,
        }
        at += row.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, new=new) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        done = 0
        for row in rows:
            tensor = row.make().to(row.dtype).contiguous()
            if tensor.numel():  # Of none torch cannot look at the bytes.
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            done += row.nbytes
            if progress is not None:
                progress(done, at)
