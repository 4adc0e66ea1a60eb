"""A pipeline's call as a job of the engine: all its pictures are stepped together, as one batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from darkroom.adapters.dose import Dose
from darkroom.compat.diffusers.schedulers.base import Way
from darkroom.diffusion import Estimate, Point, Question, Run, estimate, guidance_from
from darkroom.generation.work import Decode, Denoise, Render, Row, Work
from darkroom.prompt import Conditioning

log = logging.getLogger(__name__)

Output = Literal["pixels", "image", "latent"]


@dataclass
class Told:
    """What the network is told, which callbacks may change between steps.

    Tensors of one row a picture; with guidance, the rows of the negative prompt come before those of the prompt.
    `scale` 1 and below is without guidance; `embedded` is the scale for networks that are told it; `doses` are LoRAs.
    """

    prompt_embeds: Tensor
    pooled: Tensor | None
    time_ids: Tensor | None
    scale: float
    rescale: float = 0.0
    embedded: float | None = None
    doses: tuple[Dose, ...] = ()

    @property
    def guided(self) -> bool:
        return self.scale > 1 and self.embedded is None

    def rows(self, x: Tensor, time: float) -> list[Row]:
        """The rows for pictures x (n, C, h, w), each one's beside one another: with guidance that of the negative
        prompt, then that of the prompt."""
        each = [x[number : number + 1] for number in range(len(x)) for _ in range(1 + self.guided)]
        return [self._row(number, one, time) for number, one in zip(self._numbers(len(x)), each, strict=True)]

    def _numbers(self, count: int) -> list[int]:
        """Counted from the end, so that tensors which still have the negative prompt's rows may do so unguided."""
        if not self.guided:
            return list(range(-count, 0))
        return [number - half for number in range(-count, 0) for half in (count, 0)]

    def _row(self, number: int, x: Tensor, time: float) -> Row:
        conditioning = Conditioning(
            self.prompt_embeds[number][None], None if self.pooled is None else self.pooled[number][None]
        )
        sizes = () if self.time_ids is None else tuple(self.time_ids[number].tolist())
        return Row(x, time, conditioning, sizes, self.embedded, doses=self.doses)


class Raised(Exception):
    """What a callback raised that cannot go through a generator."""


class Batch:
    """Pictures on their way from `latents` (n, C, h, w), in diffusers' convention.

    `noise` draws fresh noise of that shape. `stepped` is told of every network call: its number, the time that the
    network was told, and the latents after it; it returns those that take their place, and whether to go on.
    `output`: pixels (height, width, 3) uint8 a picture, image tensors (3, height, width), or latents.
    """

    def __init__(
        self,
        way: Way,
        latents: Tensor,
        told: Told,
        noise: Callable[[], Tensor],
        stepped: Callable[[int, float, Tensor], tuple[Tensor, bool]],
        output: Output,
    ) -> None:
        self.way, self.latents, self.told = way, latents, told
        self._noise, self._stepped, self._output = noise, stepped, output
        self.total = len(way.times)
        self.done = 0
        self._time = 0.0
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
        run = Run(way.begin(self.latents), source=lambda draw: self._noise(), finished=self._finished)
        steps = way.sampler(run, way.points)
        try:
            x, point = next(steps)
            while not self._stopped:
                answer = yield from self._ask(x, point)
                before, self._time = run.step, point.time
                x, point = steps.send(answer)
                if run.step == before and self._tell(x / way.scale(point)):
                    log.warning(
                        "latents changed between two calls of one step are as they were: change them after"
                    )
        except StopIteration:
            return

    def _ask(self, x: Tensor, point: Point) -> Generator[Work, Any, Estimate]:
        way, told, process = self.way, self.told, self.way.process
        outputs = yield Denoise(tuple(told.rows(*process.network_input(x, point))))
        parts = [torch.cat(outputs[half :: 1 + told.guided]) for half in range(1 + told.guided)]
        guidance = guidance_from(told.scale if told.guided else 1.0, told.rescale)
        answer = estimate(guidance, parts, Question(x, point, process))
        if way.limit is not None:
            answer = answer._replace(denoised=way.limit(answer.denoised))
        return answer

    def _finished(self, run: Run) -> None:
        scale = self.way.scale(self.way.points.end(run.step - 1))
        if self._tell(run.x / scale):
            run.x = self.latents * scale

    def _tell(self, latents: Tensor) -> bool:
        """Tell of a call; whether the latents are others now, be it in their place or by a change of these."""
        before = latents.clone()
        self.done += 1
        try:
            self.latents, goes_on = self._stepped(self.done - 1, self._time, latents)
        except StopIteration as error:  # Would end the generators around, as if the picture were finished.
            raise Raised(error) from error
        self._stopped = not goes_on
        return not torch.equal(self.latents, before)
