"""A pipeline's call as a job of the engine: all its pictures are stepped together, as one batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from darkroom.adapters.dose import Dose
from darkroom.compat.diffusers.schedulers.way import Way
from darkroom.diffusion import NEGATIVE, Ask, Estimate, Point, Run, Snapshot, guidance_from
from darkroom.generation.path import Turn, path
from darkroom.generation.work import Decode, Render, Row, Work
from darkroom.networks import Conditioning

log = logging.getLogger(__name__)

Output = Literal["pixels", "image", "latent"]


@dataclass
class Told:
    """What the network is told, which callbacks may change between steps.

    Tensors of one row a picture; with guidance, the rows of the negative prompt come before those of the prompt.
    `scale` 1 and below is without guidance; `embedded` is the scale for networks that are told it; `doses` are LoRAs;
    `beside` is what networks of more channels see beside the latents, (n, c, h, w), `picture` how much that counts
    where it is a picture to be changed, `labels` (n or 2n, ...) what they are told of it.
    """

    prompt_embeds: Tensor
    pooled: Tensor | None
    time_ids: Tensor | None
    scale: float
    rescale: float = 0.0
    embedded: float | None = None
    doses: tuple[Dose, ...] = ()
    beside: Tensor | None = None
    picture: float = 1.0
    labels: Tensor | None = None

    @property
    def guided(self) -> bool:
        return self.scale > 1 and self.embedded is None and self.picture >= 1

    def rows(self, ask: Ask, x: Tensor, time: float) -> list[Row]:
        """The rows of the prompt, or of the negative one, for pictures x (n, C, h, w).

        Counted from the end, so that tensors which still have the negative prompt's rows may do so unguided.
        """
        first = -(1 + (ask.prompt == NEGATIVE.prompt)) * len(x)
        if (beside := self.beside) is not None:
            x = torch.cat([x, beside if ask.without is None else torch.zeros_like(beside)], dim=1)
        return [self._row(number, each, time) for number, each in enumerate(torch.split(x, 1), first)]

    def _row(self, number: int, x: Tensor, time: float) -> Row:
        conditioning = Conditioning(
            self.prompt_embeds[number][None],
            None if self.pooled is None else self.pooled[number][None],
            None if self.time_ids is None else self.time_ids[number][None].to("cpu", torch.float32),
            labels=None if self.labels is None else self.labels[number][None],
            guidance=None if self.embedded is None else torch.tensor([self.embedded - 1]),
        )
        return Row(x, time, conditioning, doses=self.doses)


class Raised(Exception):
    """What a callback raised that cannot go through a generator."""


@dataclass(frozen=True)
class Beginning:
    """What a call begins with: latents (n, C, h, w), in diffusers' convention, and where on the way that is, if it is
    midway. `kept` is told latents and how many calls of how many are behind them, and puts back what of them stays as
    it was; `beside` and `labels` are as in `Told`."""

    latents: Tensor
    begun: Snapshot | None = None
    kept: Callable[[Tensor, int, int], Tensor] | None = None
    beside: Tensor | None = None
    labels: Tensor | None = None


class Batch:
    """Pictures on their way from a beginning.

    `noise` draws fresh noise of that shape. `stepped` is told of every network call: its number, the time that the
    network was told, and the latents after it, which it leaves as they are; it returns those that take their place, or
    these, and whether to go on.
    `output`: pixels (height, width, 3) uint8 a picture, image tensors (3, height, width), or latents. There are `total`
    calls.
    """

    def __init__(
        self,
        way: Way,
        beginning: Beginning,
        told: Told,
        noise: Callable[[], Tensor],
        stepped: Callable[[int, float, Tensor], tuple[Tensor, bool]],
        output: Output,
        total: int,
    ) -> None:
        self.way, self.latents, self.told = way, beginning.latents, told
        self._noise, self._stepped, self._output = noise, stepped, output
        self._beginning = beginning
        self.total = total
        self.done = 0
        self._time = 0.0
        self._untold = False  # Whether a call was made of which nobody was told yet.
        self._stopped = False

    def develop(self) -> Generator[Work, Any, list[Any]]:
        """Make the pictures, or what is asked for in their place."""
        yield from self._denoise()
        if self._output == "latent":
            return list(self.latents)
        kind = Decode if self._output == "pixels" else Render
        pictures = []
        for latent in self.latents:
            pictures.append((yield kind(latent[None])))
        return pictures

    def _denoise(self) -> Generator[Work, Any, None]:
        way = self.way
        begun = self._beginning.begun or Snapshot(way.begin(self.latents), 0, (), 0)
        run = Run.restore(begun, lambda draw: self._noise())
        run.finished = self._finished
        yield from path(way.sampler, run, way.points, self._turns, self._limited)

    def _turns(self, x: Tensor, point: Point) -> list[Turn]:
        told, way = self.told, self.way
        if self._untold and self._tell(x / way.scale(point)):
            log.warning("latents changed between two calls of one step are as they were: change them after")
        if self._stopped:
            return []
        self._untold, self._time = True, point.time
        if told.guided:
            guidance = guidance_from(told.scale, told.rescale, picture=told.picture)
        else:
            guidance = guidance_from(1.0, told.rescale)
        return [Turn(way.process, guidance, told.rows)]

    def _limited(self, answer: Estimate) -> Estimate:
        limit = self.way.limit
        return answer if limit is None else answer._replace(denoised=limit(answer.denoised))

    def _finished(self, run: Run) -> None:
        scale, kept = self.way.scale(self.way.points[run.step]), self._beginning.kept
        latents = run.x / scale
        if kept is not None:
            latents = kept(latents, self.done + 1, self.total)
        if self._tell(latents) or kept is not None:
            run.x = self.latents * scale

    def _tell(self, latents: Tensor) -> bool:
        """Tell of a call; whether the latents are others now."""
        self.done += 1
        self._untold = False
        try:
            self.latents, goes_on = self._stepped(self.done - 1, self._time, latents)
        except StopIteration as error:  # Would end the generators around, as if the picture were finished.
            raise Raised(error) from error
        self._stopped = not goes_on
        return self.latents is not latents
