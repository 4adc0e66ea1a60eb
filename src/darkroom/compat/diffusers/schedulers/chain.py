"""diffusers' schedulers of the trained chain, and of models distilled to a few of its steps."""

from __future__ import annotations

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
    Custom,
    Scheduler,
    Way,
)
from darkroom.diffusion import CLEAN, Points, sampler
from darkroom.errors import InvalidRequest


class Chain(Scheduler):
    """Schedulers that step along whole training steps."""

    told = torch.int64

    def _points(self, steps: int, custom: Custom) -> Points:
        custom.refused(self, "timesteps", "sigmas")
        times = self._spaced(steps).round()
        config, schedule = self.config, self._discrete
        last = CLEAN if config.set_alpha_to_one else schedule.trained(0)
        points = [*(schedule.trained(self._inside(time)) for time in times), last]
        return solvers.Strided(points, schedule, config.num_train_timesteps // steps, last)

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

    def _way(self, points: Points, eta: float) -> Way:
        return Way(points, partial(solvers.ddim, eta=eta, limit=self._limit()), self._process)


class PNDMScheduler(Chain):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "skip_prk_steps": False,
    }

    def _way(self, points: Points, eta: float) -> Way:
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
    fixed: ClassVar[Defaults] = {"variance_type": "fixed_small"}

    def _points(self, steps: int, custom: Custom) -> Points:
        custom.refused(self, "sigmas")
        if custom.timesteps is None:
            times = self._spaced(steps).round()
        else:
            times = custom.falling(self.config.num_train_timesteps)
        schedule = self._discrete
        return Points([*(schedule.trained(self._inside(time)) for time in times), CLEAN], schedule)

    def _way(self, points: Points, eta: float) -> Way:
        return Way(points, sampler("ddpm"), self._process, self._limit())


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

    def _points(self, steps: int, custom: Custom) -> Points:
        custom.refused(self, "sigmas")
        count, original = self.config.num_train_timesteps, self.config.original_inference_steps
        if not 1 <= original <= count:
            raise InvalidRequest(f"original_inference_steps is {original}: give a number from 1 to {count}")
        if custom.timesteps is not None:
            times = custom.falling(count)
        elif steps > original:
            raise InvalidRequest(
                f"num_inference_steps is {steps}: {type(self).__name__} takes at most original_inference_steps, "
                f"which is {original}"
            )
        else:
            whole = (np.arange(1, original + 1) * (count // original) - 1)[::-1]
            times = whole[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)]
        return Points([*(self._discrete.trained(float(time)) for time in times), CLEAN], self._discrete)


class LCMScheduler(Distilled):
    def _way(self, points: Points, eta: float) -> Way:
        scaling = float(self.config.timestep_scaling)
        return Way(points, sampler("lcm", timestep_scaling=scaling), self._process, self._limit())


class TCDScheduler(Distilled):
    def _way(self, points: Points, eta: float) -> Way:
        if not 0 <= eta <= 1:
            raise InvalidRequest(f"eta is {eta}: TCDScheduler takes 0 to 1")
        return Way(points, sampler("tcd", eta=eta), self._process)
