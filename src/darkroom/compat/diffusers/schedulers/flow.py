"""diffusers' schedulers of flow models."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers.base import (
    BENT,
    Custom,
    Scheduler,
    Way,
    flow_points,
    shifted_by_size,
)
from darkroom.diffusion import FlowSchedule, NoiseSchedule, Points, process, sampler


class FlowMatch(Scheduler):
    """Schedulers of models that learned a straight path."""

    positional = ("num_train_timesteps", "shift")

    @property
    def schedule(self) -> NoiseSchedule:
        return FlowSchedule(self.config.shift, self.config.num_train_timesteps)

    def _points(self, steps: int, custom: Custom) -> Points:
        config, count = self.config, self.config.num_train_timesteps
        custom.refused(self, "timesteps", *(() if "use_dynamic_shifting" in self.defaults else ("sigmas",)))
        dynamic, shift = self._own("use_dynamic_shifting"), config.shift
        if custom.sigmas is not None:
            levels = np.asarray(custom.sigmas, dtype=float)
        else:
            low = 1 / count if dynamic else shift / count / (1 + (shift - 1) / count)
            levels = np.linspace(1, low, steps)
        if dynamic:
            levels = shifted_by_size(levels, custom.mu)
        else:
            levels = shift * levels / (1 + (shift - 1) * levels)
        if self._own("shift_terminal"):
            levels = 1 - (1 - levels) * (1 - config.shift_terminal) / (1 - levels[-1])
        if "use_karras_sigmas" in self.defaults:
            bent = self._bent(float(levels[0]), float(levels[-1]), len(levels))
            levels = levels if bent is None else bent
        return flow_points([*levels.tolist(), 0.0], (levels * count).tolist(), self.schedule)

    def _way(self, points: Points, eta: float) -> Way:
        return Way(points, sampler(type(self).__name__), process("flow"))


class FlowMatchEulerDiscreteScheduler(FlowMatch):
    defaults: ClassVar[Defaults] = {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        **BENT,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    }
    fixed: ClassVar[Defaults] = {"invert_sigmas": False, "time_shift_type": "exponential"}

    def _way(self, points: Points, eta: float) -> Way:
        if self.config.stochastic_sampling:
            return Way(points, sampler("lcm", timestep_scaling=math.inf), process("flow"), float32_noise=True)
        return super()._way(points, eta)


class FlowMatchHeunDiscreteScheduler(FlowMatch):
    defaults: ClassVar[Defaults] = {"num_train_timesteps": 1000, "shift": 1.0}
    order = 2
