"""The kinds of work that a job asks for.

A job is a generator: it yields one of these and is sent what came of it. Each kind is a class that knows how it is done
(`run`) and what it may be done together with: works of one `key`, where it is of a kind that shares network calls.
Whoever adds a kind adds a class.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from darkroom.adapters.dose import Dose
from darkroom.diffusion import Without
from darkroom.errors import GenerationError, NotANumber
from darkroom.generation.masks import Found
from darkroom.networks import Conditioning
from darkroom.networks.freeu import FreeU
from darkroom.pixels import Pixels
from darkroom.prompt import Prompt

Note: TypeAlias = Callable[[str], object]
"""Is told, in words, how something was done otherwise than usual."""


def unheard(note: str) -> None:
    """A `Note` that nobody reads."""


class Networks(Protocol):
    """What a model's networks can do."""

    def encode(self, prompts: Sequence[Prompt | None], expert: int = 0) -> list[Conditioning]: ...

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        """ONE network call on any number of rows of one expert, whose shapes are equal; outputs (1, C, h, w)
        float32."""
        ...

    def prepare(
        self, pixels: Pixels | NDArray[np.float32], note: Note = unheard, seamless: str = ""
    ) -> Tensor:
        """seamless: along which axes the edges of the picture meet (`darkroom.networks.seamless`)."""
        ...

    def look(self, pixels: Pixels) -> Looked: ...

    def decode(self, latent: Tensor, note: Note = unheard, seamless: str = "") -> Pixels: ...

    def render(self, latent: Tensor, note: Note = unheard, seamless: str = "") -> Tensor: ...

    def enlarge(
        self, pixels: Pixels, width: int, height: int, by: Enlarger, note: Note = unheard
    ) -> Pixels: ...

    def detect(self, pixels: Pixels, by: Detector) -> list[Found]: ...


class Enlarger(Protocol):
    """Makes pictures larger (`darkroom.upscaling`), by the network of a file."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    def brought(self, pixels: Pixels, width: int, height: int, note: Note = unheard) -> Pixels:
        """Pixels (h, w, 3) uint8 as (height, width, 3), in their proportions: what has no room is cut off."""
        ...


class Detector(Protocol):
    """Finds things in pictures (h, w, 3) uint8, by a network of its own (`darkroom.detection`)."""

    def found(self, pixels: Pixels) -> list[Found]: ...


class Seeker(Protocol):
    """Finds the things of a detail in a finished picture (h, w, 3) uint8, for the job of a request."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    def seek(self, pixels: Pixels, request: Any) -> Generator[Work, Any, list[Found]]: ...


class Work(Protocol):
    """What a job asks for."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for works that may share network calls."""
        ...

    @property
    def rows(self) -> Sequence[Any]:
        """What it has in network calls that it may share; nothing where it has calls of its own."""
        ...

    def run(self, networks: Networks, note: Note = unheard) -> Any:
        """Do it alone. Raises GenerationError where nothing comes of it."""
        ...


class Shared(Work, Protocol):
    """Work that may share network calls with others' of its key."""

    def call(self, networks: Networks, rows: Sequence[Any]) -> list[Tensor]:
        """ONE network call on rows of any works of its key; an output for each."""
        ...

    def made(self, outputs: Sequence[Tensor], when: str = "") -> Any:
        """What came of it, given its own rows' outputs. Raises GenerationError where that is nothing, and says when it
        was."""
        ...


def alone(job: Generator[Work, Any, Any], networks: Networks, note: Note = unheard) -> Any:
    """What comes of a job whose works are done one by one."""
    try:
        work = next(job)
        while True:
            work = job.send(work.run(networks, note))
    except StopIteration as finished:
        return finished.value


class _Single:
    """A kind of work that has network calls of its own."""

    rows: Sequence[Any] = ()


@dataclass(frozen=True)
class Encode(_Single):
    """Prompts to conditionings for an expert (see `Row`), one `Conditioning` each, all of one context length. None says
    nothing at all."""

    prompts: tuple[Prompt | None, ...]
    expert: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        return ("encode", self.expert)

    def run(self, networks: Networks, note: Note = unheard) -> list[Conditioning]:
        found = networks.encode(self.prompts, self.expert)
        if not all(each.finite for each in found):
            raise _no_number("the text encoder's output")
        return found


@dataclass(frozen=True)
class Row:
    """One row of a network call: x (1, C, h, w) float32 as the network wants it, its time, and what it is told.

    `expert` is the network it is for: 0 the model's own, then those of an ensemble, last its refiner's. `seamless` says
    along which axes the edges of its picture meet. `without` and `freeu` say how that network is another one for this
    row (see `darkroom.networks.altered`), `doses` which adapters it has. In these the rows of a call may differ.
    """

    x: Tensor
    time: float
    conditioning: Conditioning
    expert: int = 0
    seamless: str = ""
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
        return ("denoise", row.expert, row.seamless, tuple(row.x.shape), row.conditioning.key)

    def run(self, networks: Networks, note: Note = unheard) -> list[Tensor]:
        return self.made(self.call(networks, self.rows))

    def call(self, networks: Networks, rows: Sequence[Row]) -> list[Tensor]:
        return networks.denoise(rows)

    def made(self, outputs: Sequence[Tensor], when: str = "") -> list[Tensor]:
        if all(bool(output.isfinite().all()) for output in outputs):
            return list(outputs)
        most = max(float(row.x.abs().max()) for row in self.rows)
        raise no_picture(f"what the network is given{when}", most) or _no_number(
            f"the network's output{when}"
        )


@dataclass(frozen=True)
class Prepare(_Single):
    """A picture (height, width, 3), of bytes or of numbers in their range, to its latent (1, C, h, w) float32."""

    pixels: Pixels | NDArray[np.float32]
    seamless: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return ("prepare", self.pixels.shape)

    def run(self, networks: Networks, note: Note = unheard) -> Tensor:
        return networks.prepare(self.pixels, note, self.seamless)


class Looked(NamedTuple):
    """What an image encoder makes of a picture, and the mean and the spread of what it makes of pictures: (1, E)
    float32."""

    embedding: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Look(_Single):
    """A picture (height, width, 3) to what the model's image encoder makes of it."""

    pixels: Pixels

    @property
    def key(self) -> tuple[object, ...]:
        return ("look",)

    def run(self, networks: Networks, note: Note = unheard) -> Looked:
        return networks.look(self.pixels)


@dataclass(frozen=True)
class Decode(_Single):
    """A latent (1, C, h, w) float32 to its picture (height, width, 3) uint8."""

    latent: Tensor
    seamless: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return ("decode", tuple(self.latent.shape))

    def run(self, networks: Networks, note: Note = unheard) -> Pixels:
        return networks.decode(self.latent, note, self.seamless)


@dataclass(frozen=True)
class Render(_Single):
    """A latent (1, C, h, w) float32 to its picture as the autoencoder gives it: (1, 3, height, width) float32, in
    [-1, 1] or slightly beyond."""

    latent: Tensor
    seamless: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return ("render", tuple(self.latent.shape))

    def run(self, networks: Networks, note: Note = unheard) -> Tensor:
        return networks.render(self.latent, note, self.seamless)


@dataclass(frozen=True)
class Enlarge(_Single):
    """A picture (h, w, 3) uint8 made larger by an upscaler: (height, width, 3), in its proportions."""

    pixels: Pixels
    width: int
    height: int
    by: Enlarger

    @property
    def key(self) -> tuple[object, ...]:
        return ("enlarge",)

    def run(self, networks: Networks, note: Note = unheard) -> Pixels:
        return networks.enlarge(self.pixels, self.width, self.height, self.by, note)


@dataclass(frozen=True)
class Detect(_Single):
    """A picture (h, w, 3) uint8 to the things that a detector finds in it."""

    pixels: Pixels
    by: Detector

    @property
    def key(self) -> tuple[object, ...]:
        return ("detect",)

    def run(self, networks: Networks, note: Note = unheard) -> list[Found]:
        return networks.detect(self.pixels, self.by)


def no_picture(what: str, most: float) -> GenerationError | None:
    """What to say of a latent that goes so far from zero that no network can be blamed for what it makes of it; None of
    one that does not. Those of pictures stay within about 15, noise and all."""
    if most < 1e6:
        return None
    return GenerationError(
        f"{what} is no picture's latent, it goes to {most:.0e}: ask for less guidance, or another sampler or schedule"
    )


def _no_number(what: str) -> NotANumber:
    return NotANumber(
        f'{what} is not a number: its weights are damaged or the precision is too low, try `precision="float32"`'
    )
