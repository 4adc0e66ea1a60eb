"""From a model on disk to networks in memory: one tensor at a time, never two copies of any network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.checkpoint.rules import Rule
from darkroom.checkpoint.source import Part, Source
from darkroom.errors import ModelError
from darkroom.networks.roles import Role

Progress = Callable[[str, int, int], None]
"""Told (role, bytes read so far, bytes in all) as tensors are read."""


class Reader:
    """Reads a part's tensors as its network keeps them: its names and shapes, a device, a precision.

    `network` is that network, still empty, of that precision. Raises ModelError naming what the file lacks.
    """

    def __init__(self, part: Part, device: torch.device, dtype: torch.dtype) -> None:
        self.part, self.device, self.dtype = part, device, dtype
        self.network = part.build().requires_grad_(False).eval().to(dtype)
        self.rules = part.rules(self.network)
        self.nbytes = sum(self._nbytes(rule) for rule in self.rules)
        """What they take in the file."""
        self._rule_of = {name: rule for rule in self.rules for name in rule.ours}
        self._expected = self.network.state_dict()

    def state(
        self, names: Iterable[str] | None = None, progress: Callable[[int], None] | None = None
    ) -> dict[str, Tensor]:
        """The network's tensors by name, all or those named; as copies, for files change.

        `progress` is told the bytes read so far. Raises ModelError for a tensor of the wrong shape.
        """
        wanted = self._expected.keys() if names is None else set(names)
        rules = {rule.theirs: rule for name in wanted if (rule := self._rule_of.get(name))}
        found = {name: self._computed(name) for name in wanted - self._rule_of.keys()}
        done = 0
        for rule in rules.values():
            for name, tensor in self.part.read(rule).items():
                if name in wanted:
                    found[name] = self._placed(name, tensor)
            done += self._nbytes(rule)
            self.part.weights.spend(self._nbytes(rule))
            if progress is not None:
                progress(done)
        return found

    def fill(self, progress: Callable[[int], None] | None = None) -> nn.Module:
        """The network with its weights."""
        self.network.load_state_dict(self.state(progress=progress), strict=True, assign=True)
        return self.network

    def _computed(self, name: str) -> Tensor:
        """A tensor that the file lacks and may lack (`Part.rules`)."""
        module: Any = self.network.get_submodule(name.rpartition(".")[0])
        made: Tensor = module.computed(self.dtype)
        return made.to(self.device)

    def _nbytes(self, rule: Rule) -> int:
        return self.part.weights.entries[self.part.prefix + rule.theirs].nbytes

    def _placed(self, name: str, tensor: Tensor) -> Tensor:
        expected = self._expected[name]
        if expected.is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(
                f"{self.part.weights.path} holds {name} as {kind}, whole numbers in "
                "a way that Darkroom does not read: get the model in float16, bfloat16, 8-bit floats or as GGUF"
            )
        if tensor.shape != expected.shape:
            if tensor.numel() != expected.numel():
                raise ModelError(
                    f"{self.part.weights.path}: {name} is {tuple(tensor.shape)}, "
                    f"its {self.part.role} needs {tuple(expected.shape)}"
                )
            # Old linear layers stored as 1x1 convolutions, and the reverse.
            tensor = tensor.reshape(expected.shape)
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        wanted = self.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.device, wanted, memory_format=layout, copy=True)


def readers(
    source: Source, device: torch.device, dtype: torch.dtype, roles: Iterable[Role] | None = None
) -> dict[Role, Reader]:
    """A reader for each network of a model, or for those of some roles; text encoders first, as they are needed first.

    In float16 an autoencoder that overflows there (`force_upcast`) is read in float32. Raises ModelError where a
    network is missing, or a file lacks a tensor.
    """
    wanted = list(source.parts if roles is None else roles)
    if missing := [role for role in wanted if role not in source.parts]:
        place = "vae" if missing == [Role.VAE] else "others"
        raise ModelError(f"{source.path} holds no {', '.join(missing)}: give the file that does (`{place}=`)")
    found: dict[Role, Reader] = {}
    for role in sorted(source.parts, key=lambda role: (not role.reads_text, role)):
        if role not in wanted:
            continue
        part = source.parts[role]
        upcast = dtype == torch.float16 and getattr(part.config, "force_upcast", False)
        found[role] = Reader(part, device, torch.float32 if upcast else dtype)
    return found


def fill(by_role: Mapping[Role, Reader], progress: Progress | None = None) -> dict[Role, nn.Module]:
    """The networks of some readers, filled: two at a time, so that one is read while another is converted."""
    told = threading.Lock()
    for reader in by_role.values():
        reader.part.weights.prefetch()

    def one(role: Role, reader: Reader) -> nn.Module:
        def read(done: int) -> None:
            if progress is not None:
                with told:
                    progress(role, done, reader.nbytes)

        return reader.fill(read)

    pool = ThreadPoolExecutor(2)
    try:
        waiting = {role: pool.submit(one, role, reader) for role, reader in by_role.items()}
        return {role: future.result() for role, future in waiting.items()}
    finally:
        # Whatever has gone wrong with one is told at once: the others need not be read to their ends.
        pool.shutdown(wait=True, cancel_futures=True)
