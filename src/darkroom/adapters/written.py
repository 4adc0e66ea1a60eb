"""LoRA files in the making."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from darkroom.adapters.truncated import Size, truncated
from darkroom.errors import InvalidRequest
from darkroom.networks.roles import Role
from darkroom.weights.writing import Pending, write_safetensors

Progress = Callable[[int, int], object]
"""Told how many layers of how many are done."""

_PREFIX = {
    Role.UNET: "lora_unet_",
    Role.TRANSFORMER: "lora_transformer_",
    "denoiser": "lora_unet_",
    Role.TEXT_ENCODER: "lora_te_",
    Role.TEXT_ENCODER_2: "lora_te2_",
    Role.TEXT_ENCODER_3: "lora_te3_",
}
"""What kohya's files, which every program reads, have before a layer's name."""


def prefix_of(role: str, roles: Set[str]) -> str:
    """What a layer of that network is called before its name, in a file for networks of these roles."""
    if role == Role.TEXT_ENCODER and roles & {Role.TEXT_ENCODER_2, Role.TEXT_ENCODER_3}:
        return "lora_te1_"
    return _PREFIX[role]


@dataclass
class Written:
    """A LoRA file in the making: its tensors by name; `notes` say what it is not made of. `wanted` and `missed` are
    squared lengths of all that was to be in it and of what is not."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    ranks: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: float = 0.0
    missed: float = 0.0

    @property
    def error(self) -> float:
        """The share of the change that is lost."""
        return math.sqrt(self.missed / self.wanted) if self.wanted else 0.0

    def add(self, key: str, up: Tensor, down: Tensor, kernel: Sequence[int]) -> None:
        """A layer's factors; `kernel` is a convolution's, () a linear layer's."""
        rank = up.shape[1]
        self.ranks.append(rank)
        ones = (1,) * len(kernel)
        self.tensors[f"{key}.lora_up.weight"] = up.reshape(-1, rank, *ones)
        self.tensors[f"{key}.lora_down.weight"] = down.reshape(rank, -1, *kernel)
        self.tensors[f"{key}.alpha"] = torch.tensor(float(rank))

    def add_nearest(self, key: str, change: Tensor, size: Size) -> None:
        """The factors that come nearest to what is added to a layer's weight."""
        flat = change.flatten(1)
        up, down = truncated(flat, size)
        self.wanted += float(flat.pow(2).sum())
        self.missed += float((flat - up @ down).pow(2).sum())
        self.add(key, up.cpu(), down.cpu(), change.shape[2:])

    def leave_out(self, change: Tensor) -> None:
        """Keep account of what is added to a layer's weight and is not to be in the file."""
        lost = float(change.pow(2).sum())
        self.wanted += lost
        self.missed += lost

    def save(self, path: Path, dtype: torch.dtype) -> None:
        """Raises InvalidRequest where it cannot be written, or is there already."""
        if path.suffix != ".safetensors":
            raise InvalidRequest(f"{path.name}: LoRAs are written as .safetensors files, name one")
        if path.exists():
            raise InvalidRequest(f"{path} is there already: choose another name")
        rank = str(max(self.ranks, default=0))
        metadata = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
        rows = [
            Pending(name, tuple(tensor.shape), dtype, partial(tensor.to, "cpu", dtype))
            for name, tensor in self.tensors.items()
        ]
        write_safetensors(path, rows, {**self.metadata, **metadata})
