"""Foretelling what a picture takes of a machine, and choosing how to use its memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from darkroom.checkpoint.family import Family
from darkroom.checkpoint.load import readers
from darkroom.checkpoint.source import Source
from darkroom.engine.devices import Placement
from darkroom.engine.engine import ROWS
from darkroom.engine.memory import MODES, Memory, as_size, memory_mode, stays_anyway
from darkroom.errors import InvalidRequest
from darkroom.forecast.cost import Cost, cost_of
from darkroom.forecast.speed import Speed
from darkroom.generation.passes import passes
from darkroom.generation.request import Request
from darkroom.networks import VAE, Added, MMDiT, T5Encoder, UNet
from darkroom.networks.roles import Role
from darkroom.prompt.conditioning import T5_LENGTH
from darkroom.weights.mapped import WINDOW

CLIP_LENGTH = 77
# What a GPU holds beside a model's tensors: its context, kernels and their scratch.
_GPU_BASE = 700 << 20
# What Python, torch and Darkroom take, where it cannot be measured.
_CPU_BASE = 450 << 20
# What kernels need of their own while they run, and what lies idle between blocks of memory, as a share of a call's
# tensors.
_SCRATCH = 0.1


class Seat(NamedTuple):
    """A network's place in what makes a picture: its role, in the model of that name ("" the first one)."""

    role: Role
    model: str = ""

    def __str__(self) -> str:
        return f"{self.model} {self.role}".lstrip()


@dataclass(frozen=True)
class Phase:
    """One kind of work: how often it is done for a picture, by which network, and what one call costs. tiled: whether
    that is in tiles; None where it does not matter."""

    name: str
    calls: int
    seat: Seat
    cost: Cost
    tiled: bool | None = None


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
    """Foretells what a model takes on a device for pictures of a settled request; reads its headers alone."""

    def __init__(
        self, source: Source, placement: Placement, request: Request, refiner: Source | None = None
    ) -> None:
        self.placement = placement
        self._base = _base(placement)
        self._networks: dict[Seat, Any] = {}
        self._phases: list[Phase] = []
        self._add("", source, [*source.expert_roles, Role.VAE], request)
        if refiner is not None:
            self._add("refiner", refiner, refiner.expert_roles, request)
        self._sizes = {seat: _nbytes(network) for seat, network in self._networks.items()}
        self.weights = {str(seat): size for seat, size in self._sizes.items()}

    def _add(self, model: str, source: Source, roles: Sequence[Role], request: Request) -> None:
        by_role = readers(source, self.placement.device, self.placement.dtype, roles)
        networks = {role: reader.network for role, reader in by_role.items()}
        self._networks |= {Seat(role, model): network for role, network in networks.items()}
        self._phases += _phases(networks, source.family, request, model)

    def forecast(self, mode: str, speed: Speed | None = None) -> Forecast:
        """What pictures take in a memory mode, by its name."""
        memory = memory_mode(mode)
        phases = [phase for phase in self._phases if phase.tiled in (None, memory.tiled)]
        always = sum(size for seat, size in self._sizes.items() if memory.of(seat.role) == "keep")
        working = {phase.name: self._working(phase) for phase in phases}
        peak = (
            self._base + always + max(self._beside(phase, memory) + working[phase.name] for phase in phases)
        )
        if self.placement.device.type == "cpu":
            peak += WINDOW  # Of the file that weights are read from.
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

    def _beside(self, phase: Phase, memory: Memory) -> int:
        """The weights that are there in a phase besides those that always are."""
        stay, network = memory.of(phase.seat.role), self._networks[phase.seat]
        if stay == "turns":
            return self._sizes[phase.seat]
        # A layer, and its tensor while it is brought into the network's precision.
        return 2 * _largest_layer(network) + stays_anyway(network) if stay == "stream" else 0

    def _working(self, phase: Phase) -> int:
        return int(phase.cost.peak * (1 + _SCRATCH)) + _largest_layer(self._networks[phase.seat])

    def _seconds(self, phase: Phase, memory: Memory, speed: Speed) -> float:
        """One call's, with the time to bring weights that do not stay."""
        brought = self._sizes[phase.seat] if memory.of(phase.seat.role) == "stream" else 0
        return speed.seconds(phase.cost) + 2 * brought / speed.bandwidth


def _phases(networks: Mapping[Role, Any], family: Family, request: Request, model: str) -> list[Phase]:
    """What a picture takes of the model of that name, from text to pixels; `networks` are on the meta device."""
    phases: list[Phase] = []

    def add(name: str, calls: int, role: Role, call: Callable[[], object], tiled: bool | None = None) -> None:
        phases.append(Phase(f"{model} {name}".lstrip(), calls, Seat(role, model), cost_of(call), tiled))

    for role, network in networks.items():
        if role.reads_text:
            length = T5_LENGTH if isinstance(network, T5Encoder) else CLIP_LENGTH
            add(f"encode {role}", 2, role, partial(_encode, network, length))
    denoiser = next(role for role in networks if role.denoises)
    vae: Any = networks.get(Role.VAE)  # A refiner has none of its own.
    ways = () if vae is None else (False, True)
    for number, each in enumerate(passes(request, family)):
        size = f"{each.width}x{each.height}"
        latent = (family.latent_channels, each.height // family.factor, each.width // family.factor)
        for tiled in ways if number else ():
            picture = 3, each.height, each.width
            add(f"prepare {size}", 1, Role.VAE, partial(_prepare, vae, picture, tiled), tiled)
        add(f"denoise {size}", each.calls, denoiser, partial(_denoise, networks[denoiser], latent, family))
        for tiled in ways:
            add(f"decode {size}", 1, Role.VAE, partial(_decode, vae, latent, tiled), tiled)
    return phases


def _encode(network: nn.Module, length: int) -> object:
    return network(torch.zeros(1, length, dtype=torch.long))


def _prepare(vae: VAE, picture: Sequence[int], tiled: bool) -> object:
    return vae.to_latent(torch.zeros(1, *picture), tiled)


def _decode(vae: VAE, latent: Sequence[int], tiled: bool) -> object:
    # The picture leaves as float32 on its way to bytes.
    return vae.from_latent(torch.zeros(1, *latent), tiled).float()


def _denoise(network: UNet | MMDiT, latent: Sequence[int], family: Family) -> object:
    """A call as the engine makes it."""
    x = torch.zeros(ROWS, *latent, dtype=next(network.parameters()).dtype)
    time = torch.zeros(ROWS)
    if isinstance(network, MMDiT):
        context = torch.zeros(ROWS, CLIP_LENGTH + T5_LENGTH, network.config.joint_attention_dim)
        return network(x, time, context, torch.zeros(ROWS, network.config.pooled_projection_dim))
    context = torch.zeros(ROWS, CLIP_LENGTH, network.config.cross_attention_dim)
    if not family.sizes:
        return network(x, time, context)
    numbers = torch.zeros(ROWS, 5 if family.sizes == "refiner" else 6)
    width = (network.config.projection_class_embeddings_input_dim or 0) - numbers[0].numel() * (
        network.config.addition_time_embed_dim or 0
    )
    return network(x, time, context, Added(torch.zeros(ROWS, width), numbers))


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
