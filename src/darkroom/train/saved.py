"""Checkpoints: one safetensors file with every tensor of a run, its numbers as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from darkroom.errors import ModelError
from darkroom.files import replacing

NAME = "checkpoint.safetensors"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Write both, all or nothing: a crash in the middle leaves the file that was there."""
    ready = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as file:
        save_file(ready, file, metadata={"darkroom": json.dumps(dict(numbers))})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the numbers of a checkpoint. Raises ModelError where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["darkroom"])
            return {name: file.get_tensor(name) for name in file.keys()}, numbers  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error}") from error
