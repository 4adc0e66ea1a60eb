"""diffusers' schedulers after k-diffusion: latents whose spread grows with the noise."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers.base import (
    BENT,
    CLIPPED,
    SPACED,
    STABLE,
    TRAINED,
    Scheduler,
)
from darkroom.compat.diffusers.schedulers.stepping import laying, stepping
from darkroom.compat.diffusers.schedulers.way import PLAIN, Custom, Floats, Options, Way
from darkroom.diffusion import Point, Points, sampler
from darkroom.errors import InvalidRequest


class Exploding(Scheduler):
    """Schedulers that work on x / alpha, after k-diffusion."""

    whole_karras: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    """Those of the sampler that `step` takes."""
    _explodes = True

    @property
    def init_noise_sigma(self) -> float:
        """As for the steps that were laid out last; before that, for all."""
        laid = self._laid or self._points(self.config.num_train_timesteps, Custom())
        return self._way(laid, PLAIN).start

    def _points(self, steps: int, custom: Custom) -> Points:
        config = self.config
        if self._tells_levels:
            custom.refused(self, "timesteps")
        if custom.sigmas is not None and custom.timesteps is not None:
            raise InvalidRequest("both timesteps and sigmas were given: give one of them")
        if custom.sigmas is not None:
            levels = np.asarray(custom.sigmas, dtype=float)
            return self._preserving(levels.tolist(), self._told_at(levels[:-1], self._times_of(levels[:-1])))
        if custom.timesteps is None:
            times = self._spaced(steps)
        else:
            times = custom.falling(config.num_train_timesteps, whole=False)
        levels = self._at_times(times)
        if self._own("interpolation_type") == "log_linear":
            # One level more than there are times: the last step ends at the least noise trained on.
            levels = np.geomspace(self._levels[-1], self._levels[0], len(times) + 1)
        high, low = self._own("sigma_max") or levels[0], self._own("sigma_min") or levels[-1]
        bent = self._bent(high, low, len(times)) if "use_karras_sigmas" in self.defaults else None
        if bent is not None:
            levels, times = bent, self._times_of(bent)
            if config.use_karras_sigmas and self.whole_karras:
                times = times.round()
        last = float(self._levels[0]) if self._own("final_sigmas_type") == "sigma_min" else 0.0
        return self._preserving([*levels.tolist(), last][: len(times) + 1], self._told_at(levels, times))

    def _told_at(self, levels: Floats, times: Floats) -> list[float]:
        """What the network is told at each level: its training step, or a quarter of its logarithm."""
        told = np.log(levels[: len(times)]) / 4 if self._tells_levels else times
        return list(told.tolist())

    @property
    def _tells_levels(self) -> bool:
        of_levels = self._own("timestep_type") == "continuous"
        return of_levels and bool(self.config.prediction_type == "v_prediction")

    def _way(self, points: Points, options: Options) -> Way:
        highest = self._discrete.level(points[0])
        even = self.config.timestep_spacing in ("linspace", "trailing")
        given: dict[str, Any] = {name: value for name, value in options.items() if name in self.options}
        return Way(
            points,
            sampler(type(self).__name__, **given),
            self._process,
            self._limit(),
            exploding=True,
            start=highest if even else math.hypot(highest, 1),
        )


class EulerDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        **BENT,
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
        "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero",
    }
    options = ("s_churn", "s_tmin", "s_tmax", "s_noise")
    set_timesteps = laying("num_inference_steps device timesteps sigmas")(Scheduler.set_timesteps)
    step = stepping("s_churn s_tmin s_tmax s_noise generator return_dict")(Scheduler.step)


class EulerAncestralDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **SPACED, "rescale_betas_zero_snr": False}
    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("generator return_dict")(Scheduler.step)


class HeunDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **STABLE, **SPACED, **BENT, **CLIPPED, "clip_sample": False}
    order = 2
    set_timesteps = laying("num_inference_steps device timesteps")(Scheduler.set_timesteps)
    step = stepping("return_dict")(Scheduler.step)


class KDPM2DiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **STABLE, **SPACED, **BENT}
    order = 2
    whole_karras = True
    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("return_dict")(Scheduler.step)

    def _level_at(self, number: int) -> Point:
        # Of the call in the middle of a step, diffusers gives the level at its end.
        step, point = self._calls[number]
        return point if self._begins(number) else self._laid_out()[step + 1]


class KDPM2AncestralDiscreteScheduler(KDPM2DiscreteScheduler):
    step = stepping("generator return_dict")(Scheduler.step)


class LMSDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **SPACED, **BENT}
    options = ("order",)
    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("order return_dict")(Scheduler.step)

    def _before(self, step: int, sample: Tensor) -> tuple[Any, ...]:
        # As in diffusers, what is known gets the weight it would have beside the slopes at all levels behind.
        points = self._laid_out()
        none = torch.zeros_like(sample, dtype=torch.float32)
        return tuple((none, points.schedule.level(points[behind])) for behind in reversed(range(step)))


class DPMSolverSDEScheduler(Exploding):
    """Its noise is drawn from the call's generator, not from a Brownian tree of its own as in diffusers."""

    told = torch.float64
    defaults: ClassVar[Defaults] = {**TRAINED, **STABLE, **SPACED, **BENT, "noise_sampler_seed": None}
    fixed: ClassVar[Defaults] = {"noise_sampler_seed": None}
    order = 2
    options = ("s_noise",)
    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("generator return_dict s_noise")(Scheduler.step)
