"""Networks that come and go: how a model runs in less memory than its weights take.

A network's weights are either on the device for good, or they rest elsewhere (in their file, or in the machine's memory
beside a GPU) and come when a forward pass reaches them. What comes together and leaves together is a *unit*: a whole
network, which leaves when another one needs the room, or a single layer, which leaves as soon as it is done. The
networks know nothing of this: a unit hangs on the modules it belongs to from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from darkroom.checkpoint.load import Progress, Reader, fill
from darkroom.engine.devices import give_back_memory
from darkroom.errors import InvalidRequest, nearest
from darkroom.networks.roles import Role
from darkroom.networks.vae import Parts

Stay = Literal["keep", "turns", "stream"]
"""Always there; there until another network needs the room; there layer by layer."""

# Smaller tensors stay: together they weigh little, and some are read without calling the module that holds them.
_SMALL = 1 << 18


@dataclass(frozen=True)
class Memory:
    """How a model uses memory: the stay of its text encoders and autoencoder and of its denoiser, and how much of a
    picture its autoencoder works on at once. Attention needs no mode: torch's own never holds a whole matrix of
    scores."""

    others: Stay = "keep"
    denoiser: Stay = "keep"
    parts: Parts = "whole"

    def of(self, role: Role) -> Stay:
        """The stay of the network of that role."""
        if role == Role.IMAGE_NORMALIZER:  # A few numbers, which no call brings.
            return "keep"
        return self.denoiser if role.denoises else self.others

    @property
    def comes_and_goes(self) -> bool:
        """Whether some weights are read again and again."""
        return self.others != "keep" or self.denoiser != "keep"


MODES: Mapping[str, Memory] = {
    "full": Memory(),
    "medium": Memory(others="turns"),
    "low": Memory(others="turns", denoiser="turns", parts="bands"),
    "lowest": Memory(others="stream", denoiser="stream", parts="tiles"),
}
"""By name, from the fastest to the smallest."""


def memory_mode(name: str) -> Memory:
    """The mode of that name. Raises InvalidRequest for another."""
    if name not in MODES:
        raise InvalidRequest(f"unknown memory mode {name!r}: {nearest(name, MODES)}")
    return MODES[name]


Fetch = Callable[[Iterable[str]], Mapping[str, Tensor]]
"""Gives a network's tensors of some names, on the device."""


class Unit:
    """Tensors of a network that come and leave together."""

    def __init__(self, network: nn.Module, names: Iterable[str], fetch: Fetch) -> None:
        self.network, self._fetch = network, fetch
        self._holders = {name: _holder(network, name) for name in names}
        self._empty = {name: getattr(*at).to("meta") for name, at in self._holders.items()}
        self.here = False

    def bring(self) -> None:
        """Have the weights on the device."""
        if not self.here:
            self._assign(self._fetch(self._holders))
            self.here = True

    def leave(self) -> None:
        """Let go of them."""
        if self.here:
            self._assign(self._empty)
            self.here = False

    def _assign(self, tensors: Mapping[str, Tensor]) -> None:
        for name, (module, leaf) in self._holders.items():
            if leaf in module._parameters:
                module._parameters[leaf] = nn.Parameter(tensors[name], requires_grad=False)
            else:
                module._buffers[leaf] = tensors[name]


class Room:
    """Whole networks that take turns: whichever is needed comes, and the others leave."""

    def __init__(self) -> None:
        self._units: list[Unit] = []

    def enter(self, unit: Unit) -> None:
        """Have a unit come whenever one of its network's modules is called."""
        self._units.append(unit)
        for child in unit.network.children():
            child.register_forward_pre_hook(lambda *_: self._bring(unit))

    def _bring(self, unit: Unit) -> None:
        if unit.here:
            return
        for other in self._units:
            other.leave()
        give_back_memory()
        unit.bring()


def seated(
    by_role: Mapping[Role, Reader], memory: Memory, room: Room, progress: Progress | None = None
) -> dict[Role, nn.Module]:
    """The networks of some readers, with the weights that are to be kept; the others come when they are needed.

    On a GPU those rest in the machine's memory; on the CPU in their files, which must stay open.
    """
    stays = {role: memory.of(role) for role in by_role}
    networks = fill({role: reader for role, reader in by_role.items() if stays[role] == "keep"}, progress)
    for role, reader in by_role.items():
        if stays[role] == "turns":
            room.enter(Unit(reader.network, reader.network.state_dict(), _fetch(reader)))
        elif stays[role] == "stream":
            _stream(reader.network, _fetch(reader))
    return {role: networks.get(role, reader.network) for role, reader in by_role.items()}


def _stream(network: nn.Module, fetch: Fetch) -> None:
    kept: list[str] = []
    for prefix, module in network.named_modules():
        own = dict(module.named_parameters(prefix, recurse=False)) | dict(
            module.named_buffers(prefix, recurse=False)
        )
        large = [name for name, tensor in own.items() if tensor.numel() > _SMALL]
        kept += own.keys() - large
        if large:
            unit = Unit(network, large, fetch)
            module.register_forward_pre_hook(lambda *_, unit=unit: unit.bring())
            module.register_forward_hook(lambda *_, unit=unit: unit.leave())
    Unit(network, kept, fetch).bring()


def resident_nbytes(networks: Iterable[nn.Module]) -> int:
    """The bytes of the weights that are in memory now; those that two networks share count once."""
    tensors = {id(t): t for network in networks for t in network.state_dict(keep_vars=True).values()}
    return sum(int(tensor.nbytes) for tensor in tensors.values() if not tensor.is_meta)


def stays_anyway(network: nn.Module) -> int:
    """The bytes of a network that comes layer by layer which are always there."""
    return sum(tensor.nbytes for tensor in network.state_dict().values() if tensor.numel() <= _SMALL)


def _fetch(reader: Reader) -> Fetch:
    if reader.device.type == "cpu":
        return reader.state
    device, reader.device = reader.device, torch.device("cpu")
    pinned = device.type == "cuda"  # From where copies need not wait for the processor.
    resting = {name: tensor.pin_memory() if pinned else tensor for name, tensor in reader.state().items()}
    return lambda names: {name: resting[name].to(device, non_blocking=True) for name in names}


def _holder(network: nn.Module, name: str) -> tuple[Any, str]:
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf
