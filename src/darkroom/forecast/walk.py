"""What making a picture comes to: its very job, on networks that make nothing and keep account of what is asked of
them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.checkpoint.family import Family
from darkroom.engine.devices import Placement
from darkroom.engine.engine import ROWS
from darkroom.engine.networks import called
from darkroom.forecast.cost import Cost, cost_of
from darkroom.generation.details import parse_detail
from darkroom.generation.edits import subject_of
from darkroom.generation.ensemble import Member
from darkroom.generation.job import Job
from darkroom.generation.masks import Box, Found
from darkroom.generation.request import Request
from darkroom.generation.templates import completed, pictures
from darkroom.generation.wording import Extras
from darkroom.generation.work import Detector, Enlarger, Looked, Note, Row, Work, alone, unheard
from darkroom.networks import Conditioning, Denoiser, T5Encoder
from darkroom.networks.roles import Role
from darkroom.networks.tiles import snug, tile_count
from darkroom.networks.vae import Parts
from darkroom.pixels import Pixels
from darkroom.prompt import Prompt
from darkroom.prompt.conditioning import T5_LENGTH
from darkroom.upscaling.upscaler import OVERLAP, TILE, stages

CLIP_LENGTH = 77


class Seat(NamedTuple):
    """A network's place in what makes a picture: its role, in the model of that name ("" the first one), or an
    upscaler's beside it."""

    role: Role | Literal["upscaler"]
    model: str = ""

    def __str__(self) -> str:
        return f"{self.model} {self.role}".lstrip()


@dataclass
class Phase:
    """One kind of work: how often it is done for a picture, by which network, and what one call costs. parts: of
    what parts of a picture (`darkroom.networks.vae.Parts`); None where it does not matter."""

    name: str
    calls: int
    seat: Seat
    cost: Cost
    parts: Parts | None = None


@dataclass(frozen=True)
class Blank:
    """A model of that name without numbers: its networks are on the meta device."""

    name: str
    family: Family
    networks: Mapping[Role, Any]

    @property
    def denoiser(self) -> Denoiser:
        network: Denoiser = next(network for role, network in self.networks.items() if role.denoises)
        return network


UPSCALER = Seat("upscaler")


@dataclass(frozen=True)
class BlankUpscaler:
    """An upscaler's network without numbers (`darkroom.generation.work.Enlarger`)."""

    name: str
    path: Path | None
    network: Any

    def brought(self, pixels: Pixels, width: int, height: int, note: Note = unheard) -> Pixels:
        return np.zeros((height, width, 3), np.uint8)


def phases_of(
    experts: Sequence[Blank],
    request: Request,
    members: Sequence[Member] = (),
    refined: bool = False,
    upscaler: BlankUpscaler | None = None,
) -> list[Phase]:
    """What the first picture of a settled request takes, from text to pixels. `experts` are the model, those of an
    ensemble with their parts as `members`, and a refiner if it is to be `refined`; `upscaler` is what its pictures are
    made larger by, if that is a network."""
    single, subject = subject_of(next(pictures(completed(request))).replace(noise_source="cpu"))
    others = [(each.family, member) for each, member in zip(experts[1:], members, strict=False)]
    refiner = experts[-1].family if refined else None
    walked = _Walked(experts)
    seekers = {each: _One(each) for each in single.detail.details}
    extras = Extras(_Unread(), subject=subject, upscaler=upscaler, seekers=seekers)
    alone(Job(single, experts[0].family, None, refiner, extras, others).develop(), walked)
    return list(walked.phases.values())


class _Unread(dict[Any, Any]):
    """Adapters of any name: what they take beside a model is little."""

    def __missing__(self, name: object) -> None:
        return None


@dataclass(frozen=True)
class _One:
    """Finds one thing for a detail (`darkroom.generation.work.Seeker`), a quarter as wide and as high as the picture if
    that is no other than is looked for: how many there will be nobody knows."""

    name: str
    path: Path | None = None

    def seek(self, pixels: Pixels, request: Request) -> Generator[Work, Any, list[Found]]:
        yield from ()
        detail, (height, width) = parse_detail(self.name), pixels.shape[:2]
        share = min(max(1 / 16, detail.smallest), detail.largest) ** 0.5
        high, wide = max(int(height * share), 1), max(int(width * share), 1)
        box = Box((width - wide) // 2, (height - high) // 2, wide, high)
        return [Found(next(iter(detail.only), self.name), 1.0, box)]


class _Walked:
    """Networks (`darkroom.generation.work.Networks`) that keep account. A phase's cost is that of its dearest call."""

    def __init__(self, experts: Sequence[Blank]) -> None:
        self.experts = experts
        self.phases: dict[tuple[str, Parts | None], Phase] = {}
        self._costs: dict[object, Cost] = {}

    def encode(self, prompts: Sequence[Prompt | None], expert: int = 0) -> list[Conditioning]:
        model = self.experts[expert]
        for role, network in model.networks.items():
            if role.reads_text:
                self._add(
                    "encode", Seat(role, model.name), str(role), partial(_encode, network), len(prompts)
                )
        denoiser = model.denoiser
        return [denoiser.blank(CLIP_LENGTH + T5_LENGTH * denoiser.joint, model.family.numbers)] * len(prompts)

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        model = self.experts[rows[0].expert]
        denoiser, seat = model.denoiser, Seat(model.denoiser.role, model.name)
        for at in range(0, len(rows), ROWS):
            batch = [replace(row, doses=()) for row in rows[at : at + ROWS]]
            batch += [batch[-1]] * (ROWS - len(batch))
            size = self._size(batch[0].x)
            self._add("denoise", seat, size, partial(_denoise, denoiser, batch), kind=batch)
        # Not zeros, of which some guidances and samplers cannot tell a direction.
        channels = denoiser.config.out_channels
        return [row.x[:, :channels] * (1 + number / 100) for number, row in enumerate(rows)]

    def prepare(
        self, pixels: Pixels | NDArray[np.float32], note: Note = unheard, seamless: str = ""
    ) -> Tensor:
        height, width = pixels.shape[:2]
        for parts in get_args(Parts):
            run = partial(_prepare, self._vae, (3, height, width), parts, seamless)
            self._add("prepare", Seat(Role.VAE), f"{width}x{height}", run, parts=parts)
        family = self.experts[0].family
        return torch.zeros(1, family.latent_channels, height // family.factor, width // family.factor)

    def look(self, pixels: Pixels) -> Looked:
        encoder = self.experts[0].networks[Role.IMAGE_ENCODER]
        side, width = encoder.config.image_size, encoder.config.projection_dim
        run = partial(_look, encoder, (1, encoder.config.num_channels, side, side))
        self._add("look", Seat(Role.IMAGE_ENCODER), f"{side}x{side}", run)
        return Looked(torch.zeros(1, width), torch.zeros(1, width), torch.ones(1, width))

    def decode(self, latent: Tensor, note: Note = unheard, seamless: str = "") -> Pixels:
        for parts in get_args(Parts):
            run = partial(_decode, self._vae, tuple(latent.shape[1:]), parts, seamless)
            self._add("decode", Seat(Role.VAE), self._size(latent), run, parts=parts)
        factor = self.experts[0].family.factor
        return np.zeros((latent.shape[-2] * factor, latent.shape[-1] * factor, 3), np.uint8)

    def render(self, latent: Tensor, note: Note = unheard, seamless: str = "") -> Tensor:
        return torch.from_numpy(self.decode(latent, note, seamless)).permute(2, 0, 1)[None].float()

    def detect(self, pixels: Pixels, by: Detector) -> list[Found]:
        return by.found(pixels)

    def enlarge(self, pixels: Pixels, width: int, height: int, by: Enlarger, note: Note = unheard) -> Pixels:
        assert isinstance(by, BlankUpscaler)
        config = by.network.config
        for high, wide in stages(pixels.shape[:2], (height, width), config.scale):
            sides = snug(high, TILE, OVERLAP), snug(wide, TILE, OVERLAP)
            run = partial(_enlarge, by.network, (1, config.in_channels, *sides))
            count = tile_count(high, wide, TILE, OVERLAP)
            self._add("enlarge", UPSCALER, f"{wide}x{high}", run, count)
        return by.brought(pixels, width, height)

    @property
    def _vae(self) -> Any:
        return self.experts[0].networks[Role.VAE]

    def _size(self, latent: Tensor) -> str:
        factor = self.experts[0].family.factor
        return f"{latent.shape[-1] * factor}x{latent.shape[-2] * factor}"

    def _add(
        self,
        what: str,
        seat: Seat,
        of: str,
        call: Callable[[], object],
        count: int = 1,
        parts: Parts | None = None,
        kind: Sequence[Row] = (),
    ) -> None:
        name = f"{seat.model} {what} {of}".lstrip()
        altered = tuple((row.without, row.freeu, row.conditioning.key) for row in kind)
        if (cost := self._costs.get((name, parts, altered))) is None:
            cost = self._costs[name, parts, altered] = cost_of(call)
        phase = self.phases.setdefault((name, parts), Phase(name, 0, seat, cost, parts))
        phase.calls += count
        phase.cost = max(phase.cost, cost, key=lambda each: each.peak)


def _enlarge(network: nn.Module, picture: Sequence[int]) -> object:
    dtype = next(network.parameters()).dtype
    return network(torch.zeros(*picture, dtype=dtype)).float()


def _encode(network: nn.Module) -> object:
    length = T5_LENGTH if isinstance(network, T5Encoder) else CLIP_LENGTH
    return network(torch.zeros(1, length, dtype=torch.long))


def _denoise(network: Denoiser, rows: Sequence[Row]) -> object:
    dtype = next(network.parameters()).dtype
    return called(network, rows, Placement(torch.device("meta"), dtype, "no numbers"))


def _prepare(vae: Any, picture: Sequence[int], parts: Parts, seamless: str) -> object:
    return vae.to_latent(torch.zeros(1, *picture), parts, seamless)


def _decode(vae: Any, latent: Sequence[int], parts: Parts, seamless: str) -> object:
    # The picture leaves as float32 on its way to bytes.
    return vae.from_latent(torch.zeros(1, *latent), parts, seamless).float()


def _look(encoder: Any, picture: Sequence[int]) -> object:
    return encoder(torch.zeros(*picture))
