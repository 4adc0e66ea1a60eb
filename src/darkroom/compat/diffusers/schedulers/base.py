"""What diffusers' schedulers have in common: each is a layout of points and one of our samplers.

`way` says what a pipeline's call is run with: the points on the way from noise to picture, the sampler that visits
them, and how latents in diffusers' convention are ours. What loops of users' own call is in `stepping`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers import solvers
from darkroom.compat.diffusers.schedulers.stepping import Stepping
from darkroom.compat.diffusers.schedulers.way import Floats, numbers
from darkroom.diffusion import (
    Discrete,
    Flow,
    FlowSchedule,
    NoiseSchedule,
    Point,
    Points,
    Process,
    betas,
    process,
)
from darkroom.diffusion.beta import beta_quantile
from darkroom.errors import InvalidRequest, nearest

TRAINED: Defaults = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
STABLE: Defaults = {"beta_start": 0.00085, "beta_end": 0.012}
SPACED: Defaults = {"timestep_spacing": "linspace", "steps_offset": 0}
BENT: Defaults = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
CLIPPED: Defaults = {"clip_sample": True, "clip_sample_range": 1.0}
THRESHOLDED: Defaults = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
FLOWING: Defaults = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}


class Scheduler(Stepping):
    """A scheduler: `config` holds its settings under diffusers' names, `order` is how many network calls a step has.

    Raises InvalidRequest for settings that diffusers does not have, or that it has and Darkroom does not.
    """

    config_name = "scheduler_config.json"
    positional: ClassVar[tuple[str, ...]] = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
    )

    def __init__(self, *values: Any, **settings: Any) -> None:
        super().__init__(*values, **settings)
        _ = self.schedule  # Settings that make none are told of now.
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(self.config.num_train_timesteps - 1, -1, -1)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__} has no {name!r} here: docs/compat.md lists what there is"
        )

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    @property
    def schedule(self) -> NoiseSchedule:
        return self._discrete

    @cached_property
    def _discrete(self) -> Discrete:
        config = self.config
        if config.trained_betas is not None:
            levels = tuple(numbers("trained_betas", config.trained_betas) or ())
            if len(levels) != config.num_train_timesteps:
                raise InvalidRequest(
                    f"trained_betas are {len(levels)}, num_train_timesteps is {config.num_train_timesteps}: they must "
                    "be as many"
                )
        else:
            levels = betas(
                config.beta_schedule, config.beta_start, config.beta_end, config.num_train_timesteps
            )
        return Discrete(levels, zero_terminal_snr=bool(self._own("rescale_betas_zero_snr")))

    @property
    def betas(self) -> torch.Tensor:
        """The noise added at each training step."""
        return torch.tensor(self._discrete.betas)

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """The square of what is left of the picture at each training step."""
        return torch.tensor([point.alpha**2 for point in self._discrete.table])

    @property
    def init_noise_sigma(self) -> float:
        """What unit noise is multiplied by to begin with."""
        return 1.0

    def _own(self, name: str, default: Any = None) -> Any:
        """A setting, where this class has it: a config may hold others' too."""
        return self.config[name] if name in self.defaults else default

    @property
    def _process(self) -> Process:
        found = process(self.config.prediction_type)
        if isinstance(found, Flow) and not isinstance(self.schedule, FlowSchedule):
            raise InvalidRequest(
                f"{type(self).__name__} is not for flow models: use FlowMatchEulerDiscreteScheduler, or "
                "DPMSolverMultistepScheduler with use_flow_sigmas=True"
            )
        return found

    def _limit(self) -> solvers.Limit | None:
        config = self.config
        if self._own("thresholding"):
            return solvers.thresholded(config.dynamic_thresholding_ratio, config.sample_max_value)
        return solvers.clipped(config.clip_sample_range) if self._own("clip_sample") else None

    def _spaced(self, steps: int, extra: int = 0, last: int | None = None) -> Floats:
        """Training steps from many to few in the config's spacing. `extra` lays out so many more and leaves them out at
        the low end; the highest is below `last`."""
        config = self.config
        count = config.num_train_timesteps if last is None else last
        spacing = self._own("timestep_spacing", "linspace")
        if spacing == "linspace":
            return np.asarray(np.linspace(0, count - 1, steps + extra)[::-1][:steps])
        if spacing == "leading":
            ratio = count // (steps + extra)
            whole = np.arange(steps + extra, dtype=float)[::-1][:steps]
            return np.asarray(whole * ratio + config.steps_offset)
        if spacing == "trailing":
            return np.asarray(np.arange(count, 0, -config.num_train_timesteps / steps).round() - 1)
        raise InvalidRequest(
            f"timestep_spacing is {spacing!r}: {nearest(str(spacing), ('linspace', 'leading', 'trailing'))}"
        )

    def _bent(self, high: float, low: float, steps: int) -> Floats | None:
        """Levels from high to low as the config bends them, or None where it does not."""
        config, ramp = self.config, np.linspace(0, 1, steps)
        if sum(bool(config[name]) for name in BENT) > 1:
            raise InvalidRequest(f"more than one of {', '.join(BENT)} is set: set one of them")
        if config.use_karras_sigmas:
            return np.asarray((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7)
        if config.use_exponential_sigmas or self._own("use_lu_lambdas"):
            return np.asarray(np.exp(math.log(high) + ramp * (math.log(low) - math.log(high))))
        if config.use_beta_sigmas:
            return np.array([low + beta_quantile(1 - u, 0.6, 0.6) * (high - low) for u in ramp])
        return None

    def _preserving(self, levels: Sequence[float], times: Sequence[float]) -> Points:
        """Points of a variance-preserving schedule at levels sigma / alpha, the last of which has no time."""
        alphas = [1 / math.hypot(1, level) for level in levels]
        last = Point(alphas[-1], levels[-1] * alphas[-1], 0.0)
        each = zip(alphas, levels, times, strict=False)
        return Points([*(Point(a, level * a, float(t)) for a, level, t in each), last], self._discrete)

    @cached_property
    def _levels(self) -> NDArray[np.float32]:
        """The levels of all training steps, in single precision as diffusers has them: the last digits decide whether
        a time is just below a whole number, and so which one the network is told."""
        config, count = self.config, self.config.num_train_timesteps
        if config.trained_betas is not None or config.beta_schedule not in ("linear", "scaled_linear"):
            steps = torch.tensor(self._discrete.betas)
        elif config.beta_schedule == "linear":
            steps = torch.linspace(config.beta_start, config.beta_end, count)
        else:
            steps = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, count) ** 2
        if self._discrete.zero_terminal_snr:
            return np.asarray(self._discrete.levels, np.float32)
        kept = (1 - steps).cumprod(0)
        return ((1 - kept) / kept).sqrt().numpy()

    def _at_times(self, times: Floats) -> Floats:
        """The levels of training steps, fractions linear between them."""
        return np.asarray(np.interp(times, np.arange(len(self._levels)), self._levels))

    def _times_of(self, levels: Floats) -> Floats:
        """The training steps of levels, fractions linear between their logarithms."""
        table, logs = np.log(self._levels), np.log(np.maximum(levels, 1e-10))
        low = (np.searchsorted(table, logs, side="right") - 1).clip(0, len(table) - 2)
        share = ((table[low] - logs) / (table[low] - table[low + 1])).clip(0, 1)
        return np.asarray((1 - share) * low + share * (low + 1))


def flow_points(levels: Sequence[float], times: Sequence[float], schedule: NoiseSchedule) -> Points:
    """Points of a straight path at levels, the last of which has no time."""
    each = zip(levels, [*times, 0.0], strict=False)
    return Points((Point(1 - level, level, float(time)) for level, time in each), schedule)


def shifted_by_size(levels: Floats, mu: float | None, kind: str) -> Floats:
    """Levels of a flow shifted by e^mu (Esser et al. 2024, https://arxiv.org/abs/2403.03206, eq. 23), or by mu where
    the `kind` is linear."""
    if mu is None:
        raise InvalidRequest(
            "use_dynamic_shifting is set, but no mu was given: give set_timesteps(..., mu=...)"
        )
    if kind not in ("exponential", "linear"):
        raise InvalidRequest(f"time_shift_type is {kind!r}: {nearest(kind, ('exponential', 'linear'))}")
    shift = math.exp(mu) if kind == "exponential" else mu
    return np.asarray(shift / (shift + (1 / levels - 1)))


def stretched(levels: Floats, last: float) -> Floats:
    """Levels of a flow spread out so that the lowest is `last`."""
    return np.asarray(1 - (1 - levels) * (1 - last) / (1 - levels[-1]))
