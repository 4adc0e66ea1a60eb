"""diffusers' schedulers after k-diffusion: latents whose spread grows with the noise."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers.base import (
    BENT,
    CLIPPED,
    SPACED,
    STABLE,
    TRAINED,
    Custom,
    Scheduler,
    Way,
)
from darkroom.diffusion import Points, Sampler, sampler


class Exploding(Scheduler):
    """Schedulers that work on x / alpha, after k-diffusion."""

    whole_karras: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()

    def _points(self, steps: int, custom: Custom) -> Points:
        config = self.config
        custom.refused(self, *({"timesteps", "sigmas"} - set(self.takes)))
        if custom.sigmas is not None:
            levels = np.asarray(custom.sigmas, dtype=float)
            return self._preserving(levels.tolist(), self._times_of(levels[:-1]).tolist())
        if custom.timesteps is None:
            times = self._spaced(steps)
        else:
            times = custom.whole(config.num_train_timesteps)
        levels = self._at_times(times)
        high, low = self._own("sigma_max") or levels[0], self._own("sigma_min") or levels[-1]
        bent = self._bent(high, low, len(times)) if "use_karras_sigmas" in self.defaults else None
        if bent is not None:
            levels, times = bent, self._times_of(bent)
            if config.use_karras_sigmas and self.whole_karras:
                times = times.round()
        last = float(self._levels[0]) if self._own("final_sigmas_type") == "sigma_min" else 0.0
        return self._preserving([*levels.tolist(), last], times.tolist())

    def _way(self, points: Points, eta: float) -> Way:
        highest = self._discrete.level(points[0])
        even = self.config.timestep_spacing in ("linspace", "trailing")
        return Way(
            points,
            self._sampler(),
            self._process,
            self._limit(),
            exploding=True,
            start=highest if even else math.hypot(highest, 1),
        )

    def _sampler(self) -> Sampler:
        return sampler(type(self).__name__)


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
    fixed: ClassVar[Defaults] = {"interpolation_type": "linear", "timestep_type": "discrete"}
    takes = ("timesteps", "sigmas")


class EulerAncestralDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **SPACED, "rescale_betas_zero_snr": False}


class HeunDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **STABLE, **SPACED, **BENT, **CLIPPED, "clip_sample": False}
    order = 2
    takes = ("timesteps",)


class KDPM2DiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **STABLE, **SPACED, **BENT}
    order = 2
    whole_karras = True


class KDPM2AncestralDiscreteScheduler(KDPM2DiscreteScheduler):
    pass


class LMSDiscreteScheduler(Exploding):
    defaults: ClassVar[Defaults] = {**TRAINED, **SPACED, **BENT}


class DPMSolverSDEScheduler(Exploding):
    """Its noise is drawn from the call's generator, not from a Brownian tree of its own as in diffusers."""

    defaults: ClassVar[Defaults] = {**TRAINED, **STABLE, **SPACED, **BENT, "noise_sampler_seed": None}
    fixed: ClassVar[Defaults] = {"noise_sampler_seed": None}
    order = 2
