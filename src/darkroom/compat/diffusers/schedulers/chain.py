"""diffusers' schedulers of the trained chain, and of models distilled to a few of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers import solvers
from darkroom.compat.diffusers.schedulers.base import (
    CLIPPED,
    SPACED,
    STABLE,
    THRESHOLDED,
    TRAINED,
    Scheduler,
)
from darkroom.compat.diffusers.schedulers.stepping import laying, stepping
from darkroom.compat.diffusers.schedulers.way import Custom, Options, Way
from darkroom.diffusion import CLEAN, Point, Points, sampler
from darkroom.errors import InvalidRequest


class Chain(Scheduler):
    """Schedulers that step along whole training steps."""

    told = torch.int64

    def _points(self, steps: int, custom: Custom) -> Points:
        times = self._spaced(steps).round()
        points = [self._discrete.trained(self._inside(time)) for time in times]
        return self._strided(points, self.config.num_train_timesteps // steps)

    def _strided(self, points: Sequence[Point], stride: int) -> Points:
        last = CLEAN if self.config.set_alpha_to_one else self._discrete.trained(0)
        return solvers.Strided([*points, last], self._discrete, stride, last)

    def _inside(self, time: float) -> float:
        if not 0 <= time <= self._discrete.last:
            raise InvalidRequest(
                f"steps_offset is {self.config.steps_offset}: with so many steps it leads out of the training steps, "
                f"0 to {self._discrete.last}"
            )
        return float(time)


class DDIMScheduler(Chain):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        **CLIPPED,
        **THRESHOLDED,
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
        "rescale_betas_zero_snr": False,
    }

    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("eta use_clipped_model_output generator variance_noise return_dict")(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
        clipped = options["use_clipped_model_output"]
        run = partial(solvers.ddim, eta=options["eta"], limit=None if clipped else self._limit())
        return Way(points, run, self._process, self._limit() if clipped else None)

    def _alone(self, time: float) -> Points:
        # As in diffusers, steps go so far down from wherever they begin.
        assert self.num_inference_steps is not None
        point = self._discrete.trained(self._inside(time))
        return self._strided([point], self.config.num_train_timesteps // self.num_inference_steps)


class PNDMScheduler(Chain):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "skip_prk_steps": False,
    }

    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("return_dict")(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
        run = partial(solvers.pndm, process=self._process, prk=not self.config.skip_prk_steps)
        return Way(points, run, self._process)


class DDPMScheduler(Chain):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        **CLIPPED,
        **THRESHOLDED,
        "timestep_spacing": "leading",
        "variance_type": "fixed_small",
        "rescale_betas_zero_snr": False,
    }

    set_timesteps = laying("num_inference_steps device timesteps")(Scheduler.set_timesteps)
    step = stepping("generator return_dict")(Scheduler.step)

    def _points(self, steps: int, custom: Custom) -> Points:
        if custom.timesteps is None:
            times = self._spaced(steps).round()
        else:
            times = custom.falling(self.config.num_train_timesteps)
        schedule = self._discrete
        return Points([*(schedule.trained(self._inside(time)) for time in times), CLEAN], schedule)

    def _way(self, points: Points, options: Options) -> Way:
        variances = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}
        kind = self.config.variance_type
        if kind not in variances:
            raise InvalidRequest(f"variance_type {kind!r} is not there: choose one of {', '.join(variances)}")
        return Way(points, sampler("ddpm", variance=variances[kind]), self._process, self._limit())


class Distilled(Scheduler):
    """Schedulers that step along the training steps a model was distilled at."""

    told = torch.int64

    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **STABLE,
        **CLIPPED,
        **THRESHOLDED,
        "beta_schedule": "scaled_linear",
        "original_inference_steps": 50,
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "leading",
        "timestep_scaling": 10.0,
        "rescale_betas_zero_snr": False,
    }

    set_timesteps = laying("num_inference_steps device original_inference_steps timesteps strength")(
        Scheduler.set_timesteps
    )

    def _points(self, steps: int, custom: Custom) -> Points:
        count = self.config.num_train_timesteps
        original = custom.original_inference_steps or self.config.original_inference_steps
        if not 1 <= original <= count:
            raise InvalidRequest(f"original_inference_steps is {original}: give a number from 1 to {count}")
        share = custom.strength
        if not 0 < share <= 1:
            raise InvalidRequest(f"strength is {share}: give a number above 0 to 1")
        if custom.timesteps is not None:
            times = custom.falling(count)
            times = times[len(times) - int(len(times) * share) :]
        else:
            trained = int(original * share)
            if steps > trained:
                raise InvalidRequest(
                    f"num_inference_steps is {steps}: {type(self).__name__} takes at most original_inference_steps, "
                    f"of which there are {trained} at strength {share:g}"
                )
            whole = (np.arange(1, trained + 1) * (count // original) - 1)[::-1]
            times = whole[np.floor(np.linspace(0, trained, steps, endpoint=False)).astype(int)]
        return Points([*(self._discrete.trained(float(time)) for time in times), CLEAN], self._discrete)


class LCMScheduler(Distilled):
    step = stepping("generator return_dict")(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
        scaling = float(self.config.timestep_scaling)
        return Way(points, sampler("lcm", timestep_scaling=scaling), self._process, self._limit())


class TCDScheduler(Distilled):
    step = stepping("eta generator return_dict", eta=0.3)(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
        return Way(points, sampler("tcd", eta=options["eta"]), self._process)
