"""From a model on disk to networks in memory: one component, one tensor at a time, never two copies of any."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from darkroom.checkpoint.source import Part, Source, leftovers
from darkroom.errors import ModelError

Progress = Callable[[str, int, int], None]
"""Told (role, bytes read so far, bytes in all) as tensors are read."""


def load_part(
    part: Part, device: torch.device, dtype: torch.dtype, progress: Progress | None = None
) -> tuple[nn.Module, set[str]]:
    """A network with its weights on a device, and the names of the file's tensors it took.

    It is built on the meta device; tensors go straight from the memory-mapped file to their place and precision.
    Raises ModelError naming a tensor that is missing or of the wrong shape.
    """
    network = part.build()
    rules = part.rules(network)
    expected = network.state_dict()
    total = sum(part.weights.entries[part.prefix + rule.theirs].nbytes for rule in rules)
    state: dict[str, Tensor] = {}
    done = 0
    for rule in rules:
        for name, tensor in part.read(rule).items():
            state[name] = _placed(part, name, tensor, expected[name], device, dtype)
        if progress is not None:
            done += part.weights.entries[part.prefix + rule.theirs].nbytes
            progress(part.role, done, total)
    network.load_state_dict(state, strict=True, assign=True)
    return network.requires_grad_(False).eval(), {part.prefix + rule.theirs for rule in rules}


def _placed(
    part: Part, name: str, tensor: Tensor, expected: Tensor, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """A tensor in the network's shape, on its device and in its precision, as a copy: the file may change."""
    if tensor.shape != expected.shape:
        if tensor.numel() != expected.numel():
            raise ModelError(
                f"{part.weights.path}: {name} is {tuple(tensor.shape)}, its {part.role} needs {tuple(expected.shape)}"
            )
        tensor = tensor.reshape(
            expected.shape
        )  # Old linear layers stored as 1x1 convolutions, and the reverse.
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(device, wanted, memory_format=layout, copy=True)


def load_parts(
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    roles: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, nn.Module]:
    """The networks of a model by role, text encoders first. Raises ModelError where a tensor belongs to none."""
    wanted = source.parts.keys() if roles is None else set(roles) & source.parts.keys()
    networks: dict[str, nn.Module] = {}
    claimed: dict[Path, set[str]] = {}
    for role in sorted(wanted, key=lambda role: (not role.startswith("text_encoder"), role)):
        part = source.parts[role]
        networks[role], names = load_part(part, device, dtype, progress)
        claimed.setdefault(part.weights.path, set()).update(names)
    for role in source.parts.keys() - wanted:
        part = source.parts[role]
        names = {part.prefix + rule.theirs for rule in part.rules(part.build())}
        claimed.setdefault(part.weights.path, set()).update(names)
    leftovers(source, claimed)
    return networks
