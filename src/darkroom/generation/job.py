"""The one job that makes a picture.

A job is a generator. It yields typed work (`darkroom.generation.work`) and is sent each result;
whoever drives it decides when, beside whose work, and on which device that work is run. A driver in
ten lines:

    job = Job(request, family)
    steps = job.develop()
    work = next(steps)
    try:
        while True:
            work = steps.send(run_on_the_networks(work))
    except StopIteration as finished:
        pixels = finished.value

Dropping a job costs nothing but the step it was in: `Job(request, family, saved=job.snapshot())` goes
on from the top of that step and ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from darkroom.checkpoint.family import Family
from darkroom.diffusion import (
    SAMPLERS,
    ClassifierFree,
    Guidance,
    Point,
    Points,
    Run,
    Sampler,
    SeededNoise,
    Snapshot,
    count_calls,
    points_for,
    tail,
)
from darkroom.generation.request import Request
from darkroom.generation.work import Decode, Denoise, Encode, Pixels, Prepare, Row, Work
from darkroom.prompt.conditioning import Conditioning

# Above this many times the native area a model repeats itself: draw small first, then refine.
_SECOND_PASS_AREA = 2.0


class Saved(NamedTuple):
    """Where a job can go on: the pass it is in and the sampler's state at the top of a step."""

    stage: int
    run: Snapshot


@dataclass(frozen=True)
class Pass:
    """One way from noise to a latent of width x height pixels."""

    width: int
    height: int
    points: Points
    calls: int


class Job:
    """One picture being made.

    `request` must be settled and for one picture. While it runs, `done` of `total` network
    calls are behind it and `denoised` is the latest estimate of the latent (1, C, h, w), or None.

    With a `refiner` two experts share the way: the model goes from noise to `request.refiner_switch`, the refiner from
    there to the picture. Which of them makes a step follows from the point it starts at alone, and samplers know
    nothing of it: what a multistep one remembers are estimates of one and the same latent.
    """

    def __init__(
        self, request: Request, family: Family, saved: Saved | None = None, refiner: Family | None = None
    ) -> None:
        assert request.seed is not None and request.count == 1, "settle the request, then take one picture"
        assert request.width is not None and request.height is not None
        assert request.guidance is not None and request.sampler is not None
        self.request = request
        self.family = family
        self.experts = (family,) if refiner is None else (family, refiner)
        self.guidance = tuple(guidance_of(request, each) for each in self.experts)
        self.sampler: Sampler = SAMPLERS[request.sampler].function
        self.passes = plan(request, family)
        self.total = sum(each.calls for each in self.passes)
        self.done = 0
        self.denoised: Tensor | None = None
        self._resumed = saved
        self._stage = 0
        self._run: Run | None = None

    def snapshot(self) -> Saved | None:
        """Where to go on after a loss; None while no step has begun."""
        if self._run is None or self._run.saved is None:
            return self._resumed
        return Saved(self._stage, self._run.saved)

    def develop(self) -> Generator[Work, Any, Pixels]:
        """Make the picture: (height, width, 3) uint8."""
        prompts: dict[int, dict[str, Conditioning]] = {}
        for number in sorted({self.expert(point) for each in self.passes for point in each.points[:-1]}):
            unsaid = self.experts[number].zero_empty and not self.request.negative
            texts = None if unsaid else self.request.negative, self.request.prompt
            negative, positive = yield Encode(texts, number)
            prompts[number] = {"negative": negative, "positive": positive}
        pixels: Pixels | None = None
        for stage, each in enumerate(self.passes):
            if self._resumed is not None and stage < self._resumed.stage:
                self.done += each.calls
                continue
            run = yield from self._begin(stage, each, pixels)
            self._stage, self._run = stage, run
            yield from self._denoise(run, each, prompts)
            pixels = yield Decode(run.x)
        assert pixels is not None
        return pixels

    def _begin(self, stage: int, each: Pass, smaller: Pixels | None) -> Generator[Work, Any, Run]:
        family = self.family
        shape = (1, family.latent_channels, each.height // family.factor, each.width // family.factor)
        assert self.request.seed is not None
        source = SeededNoise(self.request.seed, shape)
        if self._resumed is not None and self._resumed.stage == stage:
            self.done += count_calls(self.sampler, each.points, steps=self._resumed.run.step)
            return Run.restore(self._resumed.run, source)
        if smaller is None:
            return Run.begin(source, each.points[0])
        enlarged = Image.fromarray(smaller).resize((each.width, each.height), Image.Resampling.LANCZOS)
        latent = yield Prepare(np.asarray(enlarged))
        return Run.begin(source, each.points[0], latent)

    def expert(self, point: Point) -> int:
        """Which expert makes the step that starts at a point: the refiner (1) those of little noise
        (Podell et al. 2023, https://arxiv.org/abs/2307.01952, section 2.5), cut by time as in diffusers."""
        if len(self.experts) == 1:
            return 0
        switch, schedule = self.request.refiner_switch, self.family.schedule
        assert switch is not None, "settle the request for a model with a refiner"
        count = schedule.last - schedule.first + 1
        return int(point.time < round(count - switch * count))

    def _denoise(
        self, run: Run, each: Pass, prompts: dict[int, dict[str, Conditioning]]
    ) -> Generator[Work, Any, None]:
        steps = self.sampler(run, each.points)
        try:
            x, point = next(steps)
            while True:
                # By the whole step, not by the point: a step of two calls is not torn in the middle.
                number = self.expert(each.points[run.step])
                family, guidance, told = self.experts[number], self.guidance[number], prompts[number]
                scaled, time = family.process.network_input(x, point)
                scale = self.request.guidance if family.embeds_guidance else None
                rows = (
                    Row(scaled, time, told[name], sizes(name, self.request, family, each), scale, number)
                    for name in guidance.rows(point)
                )
                outputs = yield Denoise(tuple(rows))
                estimate = guidance.combine(outputs, family.process, x, point)
                self.done += 1
                self.denoised = estimate.denoised
                x, point = steps.send(estimate)
        except StopIteration:
            return


def guidance_of(request: Request, family: Family) -> Guidance:
    """How a request is guided: a network that is told the scale needs no second row."""
    assert request.guidance is not None
    if family.embeds_guidance:
        return ClassifierFree(1.0)
    return ClassifierFree(request.guidance, request.guidance_rescale)


def sizes(name: str, request: Request, family: Family, each: Pass) -> tuple[float, ...]:
    """The numbers that the row `name` of a pass is told beside its text (Podell et al. 2023,
    https://arxiv.org/abs/2307.01952, section 2.2): height before width."""
    if not family.sizes:
        return ()
    original = request.original_height or each.height, request.original_width or each.width
    crop = request.crop_top, request.crop_left
    if family.sizes == "refiner":
        score = request.negative_aesthetic if name == "negative" else request.aesthetic
        return (*original, *crop, score)
    return (*original, *crop, each.height, each.width)


def plan(request: Request, family: Family) -> list[Pass]:
    """The passes a settled request takes: two where it is much larger than the model's native size."""
    assert request.width and request.height and request.steps and request.second_strength
    assert request.sampler and request.schedule
    function = SAMPLERS[request.sampler].function
    points = points_for(family.schedule, request.steps, request.sampler, request.schedule)
    final = Pass(request.width, request.height, points, count_calls(function, points))
    small = native_size(request.width, request.height, family)
    larger = request.width * request.height > _SECOND_PASS_AREA * family.native**2
    if small == (request.width, request.height) or not (
        request.second_pass == "on" or (request.second_pass == "auto" and larger)
    ):
        return [final]
    refining = tail(points, request.second_strength, convention="a1111")
    return [
        Pass(*small, points, final.calls),
        Pass(request.width, request.height, refining, count_calls(function, refining)),
    ]


def native_size(width: int, height: int, family: Family) -> tuple[int, int]:
    """The size nearest the native area with the proportions of width x height, never enlarged."""
    scale = min(1.0, family.native / math.sqrt(width * height))
    unit = family.unit
    return max(unit, round(width * scale / unit) * unit), max(unit, round(height * scale / unit) * unit)
