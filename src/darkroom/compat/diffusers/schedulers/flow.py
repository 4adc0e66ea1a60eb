"""diffusers' schedulers of flow models."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from torch import Tensor

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers.base import BENT, Scheduler, flow_points, shifted_by_size, stretched
from darkroom.compat.diffusers.schedulers.stepping import laying, stepping
from darkroom.compat.diffusers.schedulers.way import Custom, Options, Way
from darkroom.diffusion import FlowSchedule, NoiseSchedule, Points, process, sampler
from darkroom.errors import InvalidRequest


class FlowMatch(Scheduler):
    """Schedulers of models that learned a straight path."""

    positional = ("num_train_timesteps", "shift")

    @property
    def schedule(self) -> NoiseSchedule:
        return FlowSchedule(self.config.shift, self.config.num_train_timesteps)

    def _points(self, steps: int, custom: Custom) -> Points:
        config, count = self.config, self.config.num_train_timesteps
        dynamic, shift = self._own("use_dynamic_shifting"), config.shift
        if custom.sigmas is not None:
            levels = np.asarray(custom.sigmas, dtype=float)
        elif custom.timesteps is not None:
            levels = custom.falling(count + 1, whole=False) / count
        else:
            low = 1 / count if dynamic else shift / count / (1 + (shift - 1) / count)
            levels = np.linspace(1, low, steps)
        if dynamic:
            levels = shifted_by_size(levels, custom.mu, config.time_shift_type)
        else:
            levels = shift * levels / (1 + (shift - 1) * levels)
        if self._own("shift_terminal"):
            levels = stretched(levels, config.shift_terminal)
        if "use_karras_sigmas" in self.defaults:
            bent = self._bent(float(levels[0]), float(levels[-1]), len(levels))
            levels = levels if bent is None else bent
        told = (levels * count).tolist() if custom.timesteps is None else list(custom.timesteps)
        if len(told) != len(levels):
            raise InvalidRequest(
                f"timesteps are {len(told)}, sigmas are {len(levels)}: give as many of both, or one of them"
            )
        return flow_points([*levels.tolist(), 0.0], told, self.schedule)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor | None = None) -> Tensor:
        """`add_noise` under the name that it has for flow models."""
        if noise is None:
            raise InvalidRequest("scale_noise needs noise: give it")
        return self.add_noise(sample, noise, timestep)

    def _way(self, points: Points, options: Options) -> Way:
        if options["s_churn"]:
            raise InvalidRequest(f"{type(self).__name__} with s_churn is not there: leave it out")
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
    fixed: ClassVar[Defaults] = {"invert_sigmas": False}
    set_timesteps = laying("num_inference_steps device sigmas mu timesteps")(Scheduler.set_timesteps)
    step = stepping("s_churn s_tmin s_tmax s_noise generator per_token_timesteps return_dict")(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
        if self.config.stochastic_sampling:
            return Way(points, sampler("lcm", timestep_scaling=math.inf), process("flow"), float32_noise=True)
        return super()._way(points, options)


class FlowMatchHeunDiscreteScheduler(FlowMatch):
    defaults: ClassVar[Defaults] = {"num_train_timesteps": 1000, "shift": 1.0}
    order = 2
    set_timesteps = laying("num_inference_steps device")(Scheduler.set_timesteps)
    step = stepping("s_churn s_tmin s_tmax s_noise generator return_dict")(Scheduler.step)
