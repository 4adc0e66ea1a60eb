"""The one job that makes a picture.

A job is a generator. It yields typed work (`darkroom.generation.work`) and is sent each result;
whoever drives it decides when, beside whose work, and on which device that work is run. A driver in
ten lines:

    job = Job(request, family)
    steps = job.develop()
    work = next(steps)
    try:
        while True:
            work = steps.send(work.run(networks))
    except StopIteration as finished:
        pixels = finished.value

Dropping a job costs nothing but the step it was in: `Job(request, family, saved=job.snapshot())` goes
on from the top of that step and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from darkroom.checkpoint.family import Family
from darkroom.diffusion import (
    Ask,
    Estimate,
    Point,
    Points,
    Run,
    SeededNoise,
    Seeding,
    parse_guides,
    positives,
    sampler,
)
from darkroom.errors import InvalidRequest
from darkroom.generation.attention import Observer
from darkroom.generation.canvas import Canvas
from darkroom.generation.edits import (
    Subject,
    brought,
    detailed,
    enlarged,
    enlarged_size,
    finished,
    put_in_larger,
)
from darkroom.generation.ensemble import Member, shares
from darkroom.generation.frames import filter_of, fitted
from darkroom.generation.latents import latents_array
from darkroom.generation.manner import Manner
from darkroom.generation.parts import next_seed
from darkroom.generation.passes import Pass, draws_over, passes
from darkroom.generation.path import Turn, path
from darkroom.generation.redrawing import Detailing
from darkroom.generation.request import Request
from darkroom.generation.saved import Saved, mark_of
from darkroom.generation.shown import View, shown
from darkroom.generation.wording import Extras, Wording
from darkroom.generation.work import Encode, Enlarge, Row, Work
from darkroom.language import Moment
from darkroom.networks import Conditioning
from darkroom.networks.freeu import FreeU
from darkroom.pixels import Pixels
from darkroom.prompt import Prompt

Told: TypeAlias = Mapping["Prompt | None", Conditioning]
"""What an expert's text encoders made of every prompt that a picture needs of it."""


class Job:
    """One picture being made.

    `request` must be settled and for one picture, and what it names beside the model in `extras`. While it runs, `done`
    of `total` network calls are behind it and `denoised` is the latest estimate of the latent (1, C, h, w), or None.
    Things that are drawn over at the end are jobs of their own within it.

    With a `refiner` two experts share the way: the model goes from noise to `request.refiner_switch`, the refiner from
    there to the picture. `members` are other models that make steps with this one or in its place. Which of them make a
    step follows from the step alone, and samplers know nothing of it: what a multistep one remembers are estimates of
    one and the same latent. Adapters are not for the refiner. `watch` sees what the model's own network reads of the
    prompt.
    """

    def __init__(
        self,
        request: Request,
        family: Family,
        saved: Saved | None = None,
        refiner: Family | None = None,
        extras: Extras | None = None,
        members: Sequence[tuple[Family, Member]] = (),
        watch: Observer | None = None,
    ) -> None:
        assert request.seed is not None and request.count == 1, "settle the request, then take one picture"
        assert request.canvas.width is not None and request.canvas.height is not None
        assert request.guidance.scale is not None and request.sampling.sampler is not None
        self.request = request
        self.family = family
        self.members = tuple(member for _, member in members)
        self._others = refiner, members
        self.experts = (family, *(each for each, _ in members), *(() if refiner is None else (refiner,)))
        self._refiner = None if refiner is None else len(self.experts) - 1
        self.extras = extras or Extras()
        first = Manner(request, self.experts, self.extras)
        other = request.for_second_pass()
        self._manners = first, first if other is request else Manner(other, self.experts, self.extras)
        self.watch = watch
        self.freeu = next(
            (FreeU(**each.options) for each in parse_guides(request.guidance.guides) if each.name == "freeu"),
            None,
        )
        self.passes = passes(request, family, self.extras.subject, self.extras.upscaler)
        if watch is not None and any(each.tiles for each in self.passes):
            raise InvalidRequest("attention is looked at in whole pictures: leave `tile=` out")
        self._given = self._begins_with()
        self._total = sum(each.calls for each in self.passes)
        self._done = 0
        self._denoised: Tensor | None = None
        if saved is not None and saved.request != mark_of(request):
            raise InvalidRequest("the saved job is of another request: begin this one anew")
        self._resumed = saved
        self._stage = 0
        self._run: Run | None = None
        self._texts: dict[int, Told] = {}
        self._details = Detailing(request, family, self.extras, self._thing)

    @property
    def done(self) -> int:
        """How many network calls are behind it."""
        return self._done + self._details.done

    @property
    def total(self) -> int:
        """How many there are in all, as far as that is known: how many things are drawn over is seen when they are
        found."""
        return self._total + self._details.total

    @property
    def denoised(self) -> Tensor | None:
        """The latest estimate of the latent, (1, C, h, w), of a thing that is drawn over its own."""
        thing = self._details.thing
        return self._denoised if thing is None else thing.denoised

    def snapshot(self) -> Saved | None:
        """Where to go on after a loss, be it from bytes on a disk; None while no step has begun."""
        if (underway := self._details.underway) is not None:
            told = underway.to_dict(), self._details.saved
            return Saved(
                len(self.passes), None, self._done + self._details.behind, mark_of(self.request), *told
            )
        if self._run is None or self._run.saved is None:
            return self._resumed
        within_the_step = self._run.calls - self._run.saved.calls
        return Saved(self._stage, self._run.saved, self._done - within_the_step, mark_of(self.request))

    def develop(self) -> Generator[Work, Any, Pixels]:
        """Make the picture: (height, width, 3) uint8, or with 4 channels where one that is given is transparent in part
        and nothing but its details is drawn."""
        told = self._texts
        yield from self._enlarge_subject()
        for number, prompts in self._needed().items():
            told[number] = dict(zip(prompts, (yield Encode(prompts, number)), strict=True))
        made: Any = None if self.passes else brought(self.request, self.extras.subject)
        for stage, each in enumerate(self.passes):
            if self._resumed is not None and stage < self._resumed.stage:
                continue
            run = yield from self._begin(stage, each, made)
            self._stage, self._run = stage, run
            turns = partial(self._turns, run, each, told)
            if each.steps:
                answered = partial(self._answered, run, each.canvas)
                yield from path(self._manner(each).sampler, run, each.points, turns, answered)
            made = yield from each.canvas.end(run)
        if self._resumed is not None and self._resumed.details is not None:
            self._done = self._total = self._resumed.done
            pixels = yield from self._details.go_on(self._resumed.details, self._resumed.thing)
            return self._as_given(pixels)
        self._total = self._done
        pixels = finished((yield from self._sized(made)), self.request, self.extras.subject)
        return self._as_given((yield from self._details.begin(pixels)))

    def outlook(self, calls: int) -> Generator[Work, Any, Tensor]:
        """What the pass that it is in comes to if the rest of it is gone in so many network calls at most, in large
        steps (DPM-Solver++(2M)): a latent (1, C, h, w). The job stays where it is; ask between two of its works."""
        assert self._run is not None and self._run.saved is not None, "no step has begun"
        each, ahead = self.passes[self._stage], Run.restore(self._run.saved, self._run.source)
        first, last = ahead.step, len(each.points) - 1
        steps = sorted({round(first + (last - first) * part / calls) for part in range(calls + 1)})
        points = Points((each.points[step] for step in steps), each.points.schedule)
        ahead.step, ahead.history = 0, []

        def here() -> Run:
            """Where it is, as steps of the whole pass count."""
            return replace(ahead, step=steps[ahead.step])

        def turns(x: Tensor, point: Point) -> list[Turn]:
            return self._turns(here(), each, self._texts, x, point)

        yield from path(
            sampler("dpmpp_2m"), ahead, points, turns, lambda answer: each.canvas.answered(here(), answer)
        )
        found: Tensor = ahead.x
        return found

    def _as_given(self, pixels: Pixels) -> Pixels:
        return pixels if self.passes else detailed(pixels, self.extras.subject)

    def _thing(self, request: Request, subject: Subject, saved: Saved | None) -> Job:
        """The job of a thing that is drawn over in the finished picture."""
        extras = replace(self.extras, subject=subject, seekers={}, notes=())
        return Job(request, self.family, saved, self._others[0], extras, self._others[1])

    def _enlarge_subject(self) -> Generator[Work, Any, None]:
        """Have the upscaler bring the picture that all begins with to the size at which it is drawn over."""
        request, subject, by = self.request, self.extras.subject, self.extras.upscaler
        size = enlarged_size(request, subject) if draws_over(request, self.family) else None
        if by is None or subject is None or size is None:
            return
        pixels = yield Enlarge(subject.photo.over(), *size, by)
        self.extras = replace(self.extras, subject=enlarged(subject, pixels))
        self.passes = passes(request, self.family, self.extras.subject, by)

    def _sized(self, pixels: Pixels) -> Generator[Work, Any, Pixels]:
        """What was drawn, at the size that is asked for."""
        width, height, by = self.request.canvas.width, self.request.canvas.height, self.extras.upscaler
        assert width and height
        larger = put_in_larger(self.request, self.extras.subject) or (width, height)
        if by is not None and (larger[0] > pixels.shape[1] or larger[1] > pixels.shape[0]):
            made: Pixels = yield Enlarge(pixels, *larger, by)
            return made
        return fitted(pixels, width, height, filter_of(self.request.canvas.upscaler))

    def _manner(self, each: Pass) -> Manner:
        return self._manners[each.second]

    def _needed(self) -> dict[int, tuple[Prompt | None, ...]]:
        """Every prompt of every step, by the expert that makes the step, each once."""
        found: dict[int, dict[Prompt | None, None]] = {}
        for each in self.passes:
            wording = self._manner(each).wording
            for step in range(each.steps):
                for number, _ in self.shares(each, step):
                    own = found.setdefault(number, {})
                    for row in ("negative", *(row.name for row in positives(len(wording.weights)))):
                        told = self._told(wording, row, number, each.moment(step))
                        own |= dict.fromkeys(prompt for prompt, _ in told)
        return {number: tuple(found[number]) for number in sorted(found)}

    def _told(
        self, wording: Wording, row: str, number: int, moment: Moment
    ) -> Sequence[tuple[Prompt | None, float]]:
        """What a row of an expert is told, and the share of each."""
        if row == "negative" and self.experts[number].zero_empty and not wording.says_no:
            return ((None, 1.0),)
        return wording.told(row, moment, adapted=number != self._refiner)

    def _begins_with(self) -> Tensor | None:
        """What the request begins with in place of noise, (1, C, h, w). Raises InvalidRequest where it is of another
        size than the picture, or than what that is composed as first."""
        if (text := self.request.noise.latents) is None or not self.passes:
            return None
        given, wanted = torch.from_numpy(latents_array(text)), self._shape(self.passes[0])
        if given.shape != wanted:
            canvas = self.passes[0].canvas
            raise InvalidRequest(
                f"latents are of {tuple(given.shape[1:])}: the picture begins as one of {canvas.width}x{canvas.height},"
                f' whose latents are of {wanted[1:]}: give those, or another size, or `compose="own"`'
            )
        return given

    def _shape(self, each: Pass) -> tuple[int, int, int, int]:
        family, canvas = self.family, each.canvas
        return 1, family.latent_channels, canvas.height // family.factor, canvas.width // family.factor

    @property
    def notes(self) -> list[str]:
        """What of the request is not used, in words."""
        tile = self.request.tiling.tile
        notes = [*self._details.notes]
        if tile is not None and self.passes and not any(each.tiles for each in self.passes):
            notes.append(f"tile: not used for a picture that is drawn no larger than {tile} pixels a side")
        if any(each.second for each in self.passes):
            return notes
        unused = [f"second_{name}" for name, each in vars(self.request.second).items() if each is not None]
        why = f"of {self.request.canvas.width}x{self.request.canvas.height}, which is drawn in one pass"
        return [*notes, f"{', '.join(unused)}: not used for a picture {why}"] if unused else notes

    @property
    def latents(self) -> Tensor | None:
        """Where the way has come to, (1, C, h, w): at its end what the picture was decoded from."""
        return None if self._run is None else self._run.x

    def _begin(self, stage: int, each: Pass, before: Any) -> Generator[Work, Any, Run]:
        family, canvas, saved = self.family, each.canvas, self._resumed
        assert self.request.seed is not None
        given = None if stage else self._given
        source = SeededNoise(
            next_seed(self.request.seed, each.seed),
            self._shape(each),
            seeding=seeding_of(self.request, family),
            first=given,
        )
        if saved is not None and saved.stage == stage:
            assert saved.run is not None
            self._done = saved.done
            run = Run.restore(saved.run, source)
        else:
            run = yield from canvas.begin(source, each.points[0], before)
            if beside := (yield from shown(self._view(each, before))):
                run.memory["beside"] = beside
        if self._manner(each).brownian and each.steps:
            run.path = source.path(each.points)
        return run

    def _view(self, each: Pass, before: Any) -> View:
        """For what the networks of a pass are shown something: those of an ensemble see the same."""
        seed, canvas, subject = next_seed(self.request.seed or 0, each.seed), each.canvas, self.extras.subject
        return View(self.request, subject, self.family, canvas.width, canvas.height, before, seed)

    def shares(self, each: Pass, step: int) -> tuple[tuple[int, float], ...]:
        """The experts that make a step, and the share of each."""
        if self._refiner is not None and self._refines(each.points[step]):
            return ((self._refiner, 1.0),)
        moment = each.moment(step)
        return shares(self.members, moment.step, moment.steps)

    def _refines(self, point: Point) -> bool:
        """Whether the refiner makes the step that starts at a point: it makes those of little noise
        (Podell et al. 2023, https://arxiv.org/abs/2307.01952, section 2.5), cut by time as in diffusers."""
        switch, schedule = self.request.xl.refiner_switch, self.family.schedule
        assert switch is not None, "settle the request for a model with a refiner"
        count = schedule.last - schedule.first + 1
        return bool(point.time < round(count - switch * count))

    def _turns(self, run: Run, each: Pass, told: Mapping[int, Told], x: Tensor, point: Point) -> list[Turn]:
        """Who answers a question. By the whole step, not by the point: a step of two calls is not torn in the
        middle."""
        moment, guidance = each.moment(run.step), self._manner(each).guidance
        return [
            Turn(
                self.experts[number].process,
                guidance[number],
                partial(self._rows, number, each, moment, told[number], self._beside(run, number)),
                moment.step,
                moment.steps,
                number,
                share,
                each.tiles,
            )
            for number, share in self.shares(each, run.step)
        ]

    def _rows(
        self,
        number: int,
        each: Pass,
        moment: Moment,
        told: Told,
        beside: Mapping[str, Tensor],
        ask: Ask,
        x: Tensor,
        time: float,
    ) -> list[Row]:
        family, manner = self.experts[number], self._manner(each)
        scale, wording = manner.request.guidance.scale, manner.wording
        assert scale is not None
        without, channels = ask.without, beside.get("channels")
        if without is not None and without.what == "picture":
            without, channels = None, None if channels is None else torch.zeros_like(channels)
        x = x if channels is None else torch.cat([x, channels], dim=1)
        ends = self._told(wording, ask.prompt, number, moment)
        text = told[ends[0][0]]
        for other, share in ends[1:]:
            text = text.towards(told[other], share)
        numbers = sizes(ask.prompt, self.request, family, each.canvas)
        conditioning = replace(
            text,
            sizes=torch.tensor([numbers], dtype=torch.float32) if numbers else None,
            labels=beside.get(f"labels {ask.prompt}", beside.get("labels")),
            guidance=torch.tensor([float(scale) - 1]) if family.embeds_guidance else None,
        )
        # Of two ends the one that there is more of says which token is which word.
        prompt, _ = max(ends, key=lambda end: end[1])
        if self.watch and prompt and number == 0 and ask.prompt != "negative" and ask.without is None:
            conditioning = replace(conditioning, attention=self.watch(prompt, x, conditioning))
        doses = () if number == self._refiner else wording.doses(moment)
        return [Row(x, time, conditioning, number, each.canvas.seamless, without, self.freeu, doses)]

    def _beside(self, run: Run, number: int) -> Mapping[str, Tensor]:
        """What an expert is shown beside the latent: a refiner sees nothing of a picture."""
        beside: Mapping[str, Tensor] = run.memory.get("beside", {})
        return beside if self.experts[number].needs == self.family.needs else {}

    def _answered(self, run: Run, canvas: Canvas, answer: Estimate) -> Estimate:
        answer = canvas.answered(run, answer)
        self._done += 1
        # Adaptive samplers take more calls than they foretell, or fewer.
        self._total = max(self._total, self._done)
        self._denoised = answer.denoised
        return answer


def seeding_of(request: Request, family: Family) -> Seeding:
    """How a settled request's noise comes of its seed."""
    noise, variation, resized = request.noise, None, None
    if noise.variation_strength and noise.variation_seed is not None:
        variation = noise.variation_seed, noise.variation_strength
    if noise.resize_height and noise.resize_width:
        resized = noise.resize_height // family.factor, noise.resize_width // family.factor
    return Seeding(noise.source, noise.ensd, variation, resized)


def sizes(name: str, request: Request, family: Family, canvas: Canvas) -> tuple[float, ...]:
    """The numbers that the row `name` of a picture is told beside its text (Podell et al. 2023,
    https://arxiv.org/abs/2307.01952, section 2.2): height before width."""
    if not family.sizes:
        return ()
    told = request.xl
    original = told.original_height or canvas.height, told.original_width or canvas.width
    crop = told.crop_top, told.crop_left
    if family.sizes == "refiner":
        score = told.negative_aesthetic if name == "negative" else told.aesthetic
        return (*original, *crop, score)
    return (*original, *crop, told.target_height or canvas.height, told.target_width or canvas.width)
