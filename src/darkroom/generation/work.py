"""The kinds of work a job asks its engine for.

A job is a generator: it yields one of these and is sent the result. The engine is free to run the
work of many jobs in one network call, because equal `key`s mean equal shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from darkroom.adapters.dose import Dose
from darkroom.diffusion import Without
from darkroom.networks.freeu import FreeU
from darkroom.pixels import Pixels
from darkroom.prompt.conditioning import Conditioning, Prompt


@dataclass(frozen=True)
class Encode:
    """Prompts to conditionings for an expert (see `Row`), one `Conditioning` each, all of one context length. None says
    nothing at all."""

    prompts: tuple[Prompt | None, ...]
    expert: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        return ("encode", self.expert)


@dataclass(frozen=True)
class Row:
    """One row of a network call: x (1, C, h, w) float32 as the network wants it, its time, its text, and what some
    networks are told beside it: numbers (see `Family.sizes`), the guidance scale (`Family.embeds_guidance`).

    `expert` is the network it is for: 0 the model's own, then those of an ensemble, last its refiner's. `without` and
    `freeu` say how that network is another one for this row (see `darkroom.networks.altered`), `doses` which adapters
    it has.
    """

    x: Tensor
    time: float
    conditioning: Conditioning
    sizes: tuple[float, ...] = ()
    guidance: float | None = None
    expert: int = 0
    without: Without | None = None
    freeu: FreeU | None = None
    doses: tuple[Dose, ...] = ()


@dataclass(frozen=True)
class Denoise:
    """Rows of one expert to its network's raw outputs, each (1, C, h, w) float32 in the order of the rows."""

    rows: tuple[Row, ...]

    @property
    def key(self) -> tuple[object, ...]:
        row = self.rows[0]
        return ("denoise", row.expert, tuple(row.x.shape), *row.conditioning.shape)


@dataclass(frozen=True)
class Prepare:
    """A picture (height, width, 3) uint8 to its latent (1, C, h, w) float32."""

    pixels: Pixels

    @property
    def key(self) -> tuple[object, ...]:
        return ("prepare", self.pixels.shape)


@dataclass(frozen=True)
class Decode:
    """A latent (1, C, h, w) float32 to its picture (height, width, 3) uint8."""

    latent: Tensor

    @property
    def key(self) -> tuple[object, ...]:
        return ("decode", tuple(self.latent.shape))


@dataclass(frozen=True)
class Render:
    """A latent (1, C, h, w) float32 to its picture as the autoencoder gives it: (1, 3, height, width) float32, in
    [-1, 1] or slightly beyond."""

    latent: Tensor

    @property
    def key(self) -> tuple[object, ...]:
        return ("render", tuple(self.latent.shape))


Work: TypeAlias = Encode | Prepare | Denoise | Decode | Render
