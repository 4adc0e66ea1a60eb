"""Schedulers in loops of their users' own: `set_timesteps`, `scale_model_input`, `step`, `add_noise`.

Where a loop is, is plain data (`Place`): `step` begins the sampler anew at the top of the step that the loop is in, and
gives it the answers so far. So a loop may be copied, pickled, changed on the way, and given up.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypedDict, Unpack, cast

import torch
from torch import Tensor

from darkroom.compat.diffusers.arguments import Generators
from darkroom.compat.diffusers.config import Configured
from darkroom.compat.diffusers.noise import drawing
from darkroom.compat.diffusers.outputs import BaseOutput
from darkroom.compat.diffusers.schedulers.solvers import Limit
from darkroom.compat.diffusers.schedulers.way import PLAIN, Custom, Layout, Options, Way
from darkroom.compat.diffusers.signatures import Method, refuse, taking
from darkroom.diffusion import Estimate, NoiseSchedule, Point, Points, Run, Snapshot, dry_run
from darkroom.errors import InvalidRequest
from darkroom.numeric import integer

log = logging.getLogger(__name__)


class _Output(TypedDict):
    model_output: Tensor
    timestep: float | Tensor
    sample: Tensor


class Step(_Output, Options, total=False):
    """The arguments of `step`."""

    generator: Generators
    variance_noise: Tensor | None
    per_token_timesteps: None
    return_dict: bool


def laying(names: str) -> Callable[[Method], Method]:
    """Has a scheduler's `set_timesteps` take these."""
    return taking(names, Layout, {"strength": 1.0})


def stepping(names: str, **defaults: Any) -> Callable[[Method], Method]:
    """Has a scheduler's `step` take these behind the network's output, its time and the sample."""
    return taking(f"model_output timestep sample {names}", Step, {**PLAIN, "return_dict": True, **defaults})


@dataclass
class SchedulerOutput(BaseOutput):
    """`prev_sample`: the latents after a step, with a little less noise; `pred_original_sample`: what the picture is
    estimated to be."""

    prev_sample: Tensor
    pred_original_sample: Tensor


@dataclass(frozen=True)
class Place:
    """Where a loop is.

    points: those of its way. call: the number of its next network call. saved: the run at the top of the step that the
    call is of; answers: those that the step had so far; drawn: the noises that it drew. shown: the last latents given.
    """

    points: Points
    call: int
    saved: Snapshot
    answers: tuple[Estimate, ...] = ()
    drawn: dict[int, Tensor] = field(default_factory=dict)
    shown: Tensor | None = None


class _Finished(Exception):
    """A step is finished: raised where the sampler would go on with the next."""


class Stepping(Configured):
    """What users' own loops call; `schedule`, `_points`, `_way` and `_limit` are given by the scheduler."""

    order: ClassVar[int] = 1
    told: ClassVar[torch.dtype] = torch.float32
    """The type of `timesteps`, and of the time that callbacks are given."""

    num_inference_steps: int | None
    timesteps: Tensor
    _laid: Points | None = None
    _calls: tuple[tuple[int, Point], ...] = ()
    _place: Place | None = None
    _begin: int | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise it runs on."""
        raise NotImplementedError

    def _points(self, steps: int, custom: Custom) -> Points:
        """The points of a way of so many steps, or of what is laid out by a caller."""
        raise NotImplementedError

    def _way(self, points: Points, options: Options) -> Way:
        """The way over points."""
        raise NotImplementedError

    def _limit(self) -> Limit | None:
        """The bounds of estimates of the picture that the config gives."""
        raise NotImplementedError

    def _before(self, step: int, sample: Tensor) -> tuple[Any, ...]:
        """What a sampler remembers that begins midway, with this step."""
        return ()

    # The way

    def set_timesteps(self, *_: Any, **layout: Unpack[Layout]) -> None:
        """Lay out the way for so many steps, or for custom timesteps or sigmas where the scheduler takes them:
        `timesteps` are what the network will be told, call by call. A loop begins anew."""
        custom, steps = Custom.of(layout), 0
        if custom.timesteps is None and custom.sigmas is None:
            most, asked = self.config.num_train_timesteps, layout["num_inference_steps"]
            steps = integer(asked) or 0
            if not 1 <= steps <= most:
                raise InvalidRequest(
                    f"num_inference_steps is {asked!r}: give a whole number from 1 to {most}"
                )
        laid = self._points(steps, custom)
        plain = self._way(laid, PLAIN)
        calls = tuple(dry_run(plain.sampler, plain.points, torch.zeros(1, 1, 1, 1)))
        told = [point.time for _, point in calls]
        self.timesteps = torch.tensor(told, dtype=self.told, device=layout["device"])
        self.num_inference_steps = len(laid) - 1
        self._laid, self._calls, self._place, self._begin = laid, calls, None, None

    def lay_out_as(self, other: Stepping) -> None:
        """Lay out the way of another scheduler of this class."""
        self.timesteps, self.num_inference_steps = other.timesteps, other.num_inference_steps
        self._laid, self._calls, self._place, self._begin = other._laid, other._calls, None, None

    def way(self, **options: Any) -> Way:
        """The way that is laid out. Raises InvalidRequest where none is."""
        return replace(self._way(self._laid_out(), cast(Options, {**PLAIN, **options})), calls=self._calls)

    def _laid_out(self) -> Points:
        if self._laid is None:
            raise InvalidRequest(f"{type(self).__name__} has no steps yet: call set_timesteps first")
        return self._laid

    @property
    def sigmas(self) -> Tensor:
        """The level of each network call and that of the end: sigma / alpha, or the t of a flow."""
        points = self.way().points
        ends = [*(self._level_at(number) for number in range(len(self._calls))), points[-1]]
        return torch.tensor([points.schedule.level(point) for point in ends])

    @property
    def step_index(self) -> int | None:
        """How many network calls of the way are behind a loop; None where it has not begun."""
        return None if self._place is None else self._place.call

    @property
    def begin_index(self) -> int | None:
        """Where a loop is to begin, if `set_begin_index` was told."""
        return self._begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Have the next loop begin with this one of `timesteps`."""
        self._begin, self._place = begin_index, None

    def begun(self, number: int, sample: Tensor) -> Snapshot:
        """A way that begins midway, with its network call `number` or the next that a step begins with, from latents
        there."""
        number = next(each for each in range(number, len(self._calls)) if self._begins(each))
        step = self._calls[number][0]
        way = self.way()
        return Snapshot(sample * way.scale(way.points[step]), step, self._before(step, sample), 0)

    # A loop

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """What the network is given of latents."""
        way = self.way()
        if not way.exploding:
            return sample
        if timestep is None:
            raise InvalidRequest("scale_model_input needs timestep: give the one that the network is told")
        _, number = self._sought(_time(timestep))
        return sample * way.scale(self._calls[number][1])

    def step(self, *_: Any, **step: Unpack[Step]) -> Any:
        """From what the network made of latents to the latents of the next call: a SchedulerOutput, or without
        `return_dict` a tuple. Latents may be changed between steps."""
        output, sample = step["model_output"], step["sample"]
        if output.shape != sample.shape:
            raise InvalidRequest(
                f"model_output has the shape {tuple(output.shape)}, sample {tuple(sample.shape)}: they must be the same"
            )
        refuse(per_token_timesteps=step["per_token_timesteps"])
        place = self._placed(_time(step["timestep"]), sample)
        way = self._way(place.points, cast(Options, {name: step[name] for name in PLAIN}))  # type: ignore[literal-required]
        drawn = dict(place.drawn)
        run = Run.restore(place.saved, self._noise(way, drawn, step))
        run.finished = _finish
        asked = way.sampler(run, way.points)
        x, point = next(asked)
        for answer in place.answers:
            x, point = asked.send(answer)
        denoised = way.process.denoised(output.to(torch.float32), x, point)
        limit = self._limit()
        bounded = denoised if limit is None else limit(denoised)
        answer = Estimate(denoised if way.limit is None else bounded)
        place = replace(place, call=place.call + 1)
        try:
            x, point = asked.send(answer)
            place = replace(place, answers=(*place.answers, answer), drawn=drawn)
        except _Finished:
            x, point = run.x, way.points[run.step]
            place = Place(place.points, place.call, run.snapshot())
        shown = (x / way.scale(point)).to(sample.dtype)
        self._place = replace(place, shown=shown)
        # Others than those that are kept, which users may change in place.
        found = SchedulerOutput(shown.clone(), bounded.to(sample.dtype, copy=True))
        return found if step["return_dict"] else found.to_tuple()

    def _noise(self, way: Way, drawn: dict[int, Tensor], step: Step) -> Callable[[int], Tensor]:
        sample, given = step["sample"], step["variance_noise"]
        draw = drawing(step["generator"], tuple(sample.shape), sample.device)
        dtype = torch.float32 if way.float32_noise else step["model_output"].dtype

        def noise(number: int) -> Tensor:
            if number not in drawn:
                fresh = draw(dtype) if given is None else given
                drawn[number] = fresh.to(sample.device, torch.float32)
            return drawn[number]

        return noise

    def _placed(self, time: float, sample: Tensor) -> Place:
        """Where a loop that is at a time with a sample is."""
        points, number = self._sought(time)
        place = self._place
        if place is None or (place.points, place.call) != (points, number):
            step = self._calls[number][0] if points is self._laid else 0
            place = Place(points, number, Snapshot(sample, step, self._before(step, sample), 0))
        if place.shown is None or not _same(place.shown, sample):
            if place.answers:
                log.warning(
                    "latents changed between two calls of one step are as they were: change them after"
                )
            else:
                scale = self._way(points, PLAIN).scale(points[place.saved.step])
                place = replace(place, saved=place.saved._replace(x=sample.to(torch.float32) * scale))
        return place

    def _sought(self, time: float) -> tuple[Points, int]:
        """The points of a loop that is at a time, and the number of the call there."""
        place, laid = self._place, self._laid_out()
        if place is not None and place.points is laid and self._is_at(place.call, time):
            return laid, place.call
        announced = self._begin if place is None else None
        for number in range(announced or 0, len(self._calls)):
            if self._begins(number) and (announced is not None or self._is_at(number, time)):
                return laid, number
        return self._alone(time), 0

    def _is_at(self, number: int, time: float) -> bool:
        """Whether there is such a call, and the network is told that time there."""
        return number < len(self._calls) and _near(self._calls[number][1].time, time)

    def _begins(self, number: int) -> bool:
        """Whether a step begins with this call."""
        return number == 0 or self._calls[number][0] != self._calls[number - 1][0]

    def _alone(self, time: float) -> Points:
        """The points of one step from a time that is not on the way."""
        raise InvalidRequest(f"timestep is {time:g}: give those of the scheduler's timesteps, one by one")

    # Noise

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents with as much noise as there is at these times, one for all or one for each."""
        alpha, sigma = self._levels_at(timesteps, original_samples)
        scale = alpha if self._explodes else 1.0
        return (alpha / scale) * original_samples + (sigma / scale) * noise

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a network of velocities is to make of latents with that noise at these times."""
        alpha, sigma = self._levels_at(timesteps, sample)
        return alpha * noise - sigma * sample

    _explodes: ClassVar[bool] = False
    """Whether latents are x / alpha, so that their spread grows with the noise."""

    def _levels_at(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at times, to be multiplied with latents."""
        times = torch.as_tensor(timesteps).flatten().tolist()
        if len(times) not in (1, len(like)):
            raise InvalidRequest(f"timesteps are {len(times)} for {len(like)} samples: give one, or one each")
        points = [self._at(float(time)) for time in times]
        shape = (len(points), *[1] * (like.ndim - 1))
        levels = torch.tensor([(point.alpha, point.sigma) for point in points], dtype=torch.float32)
        alpha, sigma = levels.to(like.device, like.dtype).unbind(1)
        return alpha.view(shape), sigma.view(shape)

    def _at(self, time: float) -> Point:
        """The point at which the network is told a time: that on the way, else that trained on."""
        on_the_way = (number for number in range(len(self._calls)) if self._is_at(number, time))
        number = next(on_the_way, None)
        return self.schedule.told(time) if number is None else self._level_at(number)

    def _level_at(self, number: int) -> Point:
        """Where `sigmas` and `add_noise` have a network call."""
        return self._calls[number][1]


def _finish(run: Run) -> None:
    raise _Finished


def _time(given: float | Tensor) -> float:
    """A time that is said once, or once for each sample. Raises InvalidRequest where samples are at several."""
    times = torch.as_tensor(given).flatten().tolist()
    if len({*times}) != 1:
        raise InvalidRequest(f"timestep is {times}: give one for all samples")
    return float(times[0])


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one))
