"""Foretelling what a picture takes of a machine, and choosing how to use its memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from darkroom.assembly import Opened
from darkroom.checkpoint.load import readers
from darkroom.checkpoint.source import Source
from darkroom.checkpoint.upscalers import upscaler_in
from darkroom.engine.devices import KEPT_BLOCK, Placement
from darkroom.engine.memory import MODES, Memory, Stay, memory_mode, stays_anyway
from darkroom.errors import InvalidRequest
from darkroom.forecast.speed import Speed
from darkroom.forecast.walk import UPSCALER, Blank, BlankUpscaler, Phase, Seat, phases_of
from darkroom.generation.frames import by_network
from darkroom.generation.request import Request
from darkroom.library.locate import locate
from darkroom.networks.roles import Role
from darkroom.numeric import as_size
from darkroom.weights.mapped import WINDOW
from darkroom.weights.opening import open_weights

# What a GPU holds beside a model's tensors: its context, kernels and their scratch.
_GPU_BASE = 700 << 20
# What Python, torch and Darkroom take, where it cannot be measured.
_CPU_BASE = 450 << 20
# What kernels need of their own while they run, and what lies idle between blocks of memory, as a share of a call's
# tensors.
_SCRATCH = 0.1
# What lies idle on a CPU where freed blocks are kept for the next ones: as much as a call's tensors, but large ones.
_KEPT = 4 * KEPT_BLOCK
# What Python takes for a token of a vocabulary.
_TOKEN = 512


@dataclass(frozen=True)
class Forecast:
    """What pictures of a request take in a memory mode.

    `peak` is the most memory in bytes: of the whole process on a CPU, of the device elsewhere. `weights` are the bytes
    of each network, `working` those of each phase's tensors. `seconds` are those of each phase for one picture; empty
    where no speed was given.
    """

    mode: str
    peak: int
    weights: Mapping[str, int]
    working: Mapping[str, int]
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(vars(self))


class Forecaster:
    """Foretells what a model takes on a device for pictures of a settled request, with its refiner and with others on
    its way; reads their headers alone."""

    def __init__(
        self,
        opened: Opened,
        placement: Placement,
        request: Request,
    ) -> None:
        source, refiner, members = opened.source, opened.refiner, opened.members
        self.placement = placement
        self._base = _base(placement)
        others = [(member.name, other) for other, member in members]
        others += [] if refiner is None else [("refiner", refiner)]
        experts = [
            Blank(name, each.family, self._unfilled(each, each.expert_roles if name else each.roles))
            for name, each in [("", source), *others]
        ]
        self._networks = {
            Seat(role, each.name): network for each in experts for role, network in each.networks.items()
        }
        upscaler = blank_upscaler(request.canvas.upscaler, placement.dtype)
        if upscaler is not None:
            self._networks[UPSCALER] = upscaler.network
        several = [member for _, member in members]
        self._phases = phases_of(experts, request, several, refiner is not None, upscaler)
        if all(phase.seat != UPSCALER for phase in self._phases):
            self._networks.pop(UPSCALER, None)  # It is not needed.
        self._sizes = {seat: _nbytes(network) for seat, network in self._networks.items()}
        self.weights = {str(seat): size for seat, size in self._sizes.items()}

    def _unfilled(self, source: Source, roles: Sequence[Role]) -> dict[Role, Any]:
        by_role = readers(source, self.placement.device, self.placement.dtype, roles)
        return {role: reader.network for role, reader in by_role.items()}

    def forecast(self, mode: str, speed: Speed | None = None) -> Forecast:
        """What pictures take in a memory mode, by its name."""
        memory = memory_mode(mode)
        phases = [phase for phase in self._phases if phase.parts in (None, memory.parts)]
        always = sum(size for seat, size in self._sizes.items() if _stay(seat, memory) == "keep")
        working = {phase.name: self._working(phase) for phase in phases}
        peak = (
            self._base + always + max(self._beside(phase, memory) + working[phase.name] for phase in phases)
        )
        if self.placement.device.type == "cpu":
            peak += self._on_the_cpu(memory, max(phase.cost.peak for phase in phases))
        seconds = {} if speed is None else {p.name: p.calls * self._seconds(p, memory, speed) for p in phases}
        return Forecast(mode, peak, self.weights, working, seconds)

    def fitting(self, limit: int) -> Forecast:
        """The forecast of the fastest mode that fits into `limit` bytes. Raises InvalidRequest if none does."""
        for mode in MODES:
            found = self.forecast(mode)
            if found.peak <= limit:
                return found
        raise InvalidRequest(
            f"{as_size(limit)} of memory do not suffice: even in mode {mode!r} this takes "
            f"{as_size(found.peak)}, ask for a smaller picture or a lower precision"
        )

    def _on_the_cpu(self, memory: Memory, most: int) -> int:
        """What there is beside weights and tensors, `most` of them at once, in the memory of the process: vocabularies,
        what is mapped of the files that weights are read from, what is kept of freed blocks."""
        streams = self._streamed(memory)
        mapped = max(WINDOW, sum(min(self._sizes[seat], WINDOW) for seat in streams))
        words = sum(getattr(each.config, "vocab_size", 0) for each in self._networks.values())
        # glibc keeps some by itself, and where layers come and go nothing.
        idle = 0 if streams else min(most, _KEPT) // (2 if memory.comes_and_goes else 1)
        return mapped + words * _TOKEN + idle

    def _streamed(self, memory: Memory) -> list[Seat]:
        return [seat for seat in self._networks if _stay(seat, memory) == "stream"]

    def _beside(self, phase: Phase, memory: Memory) -> int:
        """The weights that are there in a phase besides those that are kept."""
        stay, network = _stay(phase.seat, memory), self._networks[phase.seat]
        small = sum(stays_anyway(self._networks[seat]) for seat in self._streamed(memory))
        if stay == "turns":
            return self._sizes[phase.seat] + small
        # A layer, and its tensor while it is brought into the network's precision.
        return small + (2 * _largest_layer(network) if stay == "stream" else 0)

    def _working(self, phase: Phase) -> int:
        return int(phase.cost.peak * (1 + _SCRATCH)) + _largest_layer(self._networks[phase.seat])

    def _seconds(self, phase: Phase, memory: Memory, speed: Speed) -> float:
        """One call's, with the time to bring weights that do not stay."""
        brought = self._sizes[phase.seat] if _stay(phase.seat, memory) == "stream" else 0
        return speed.seconds(phase.cost) + 2 * brought / speed.bandwidth


def _stay(seat: Seat, memory: Memory) -> Stay:
    """Of an upscaler, which is no part of the model: it is kept."""
    return "keep" if seat.role == "upscaler" else memory.of(seat.role)


def blank_upscaler(name: str | None, dtype: torch.dtype) -> BlankUpscaler | None:
    """The network of an upscaler without its numbers; None for a filter, and for one that spandrel has."""
    if name is None or not by_network(name):
        return None
    path = locate(name, kind="upscaler")
    with open_weights(path) as weights:
        found = upscaler_in(weights.shapes)
    return None if found is None else BlankUpscaler(name, path, found.build().to(dtype))


def _nbytes(network: nn.Module) -> int:
    return sum(int(tensor.nbytes) for tensor in network.state_dict().values())


def _largest_layer(network: nn.Module) -> int:
    return max((tensor.nbytes for tensor in network.state_dict().values()), default=0)


@cache
def _base_cpu() -> int:
    """What this process takes with everything imported and each kind of kernel used once, before any weights."""
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            image = torch.rand(1, 32, 8, 8).to(dtype)
            F.conv2d(image, image[:, :, :3, :3].expand(32, -1, -1, -1))
            F.linear(image, image[0, 0])
            F.scaled_dot_product_attention(image, image, image)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _base(placement: Placement) -> int:
    if placement.device.type != "cpu":
        return _GPU_BASE
    try:
        return _base_cpu()
    except OSError:  # Where there is no /proc.
        return _CPU_BASE
