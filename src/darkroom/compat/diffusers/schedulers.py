"""diffusers' schedulers by name: each is a layout of points and one of our samplers.

A scheduler here makes no step itself. `way` says what a pipeline's call is run with: the points on the way from noise
to picture, the sampler that visits them, and how latents in diffusers' convention are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from darkroom.compat.diffusers import solvers
from darkroom.compat.diffusers.config import Configured, Defaults
from darkroom.diffusion import (
    CLEAN,
    Discrete,
    Estimate,
    FlowSchedule,
    NoiseSchedule,
    Point,
    Points,
    Process,
    Run,
    Sampler,
    betas,
    process,
    sampler,
)
from darkroom.diffusion.beta import beta_quantile
from darkroom.errors import InvalidRequest, ModelError, nearest

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """What a call is run with.

    times: what the network is told at each of its calls. limit: bounds for estimates of x0, if any. exploding: latents
    in diffusers' convention are x / alpha, so their spread grows with the noise. start: what unit noise is multiplied
    by to begin with, in that convention. float32_noise: fresh noise is drawn in float32 whatever the networks' type.
    """

    points: Points
    sampler: Sampler
    process: Process
    limit: solvers.Limit | None = None
    exploding: bool = False
    start: float = 1.0
    float32_noise: bool = False

    @cached_property
    def times(self) -> tuple[float, ...]:
        asked, run = [], Run(torch.zeros(1, 1, 1, 1), source=lambda draw: torch.zeros(1, 1, 1, 1))
        steps = self.sampler(run, self.points)
        try:
            x, point = next(steps)
            while True:
                asked.append(point.time)
                x, point = steps.send(Estimate(x))
        except StopIteration:
            return tuple(asked)

    def begin(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of unit noise as the sampler begins with them."""
        return latents * self.start * self.scale(self.points[0])

    def scale(self, point: Point) -> float:
        """What latents in diffusers' convention are multiplied by to be ours."""
        return point.alpha if self.exploding else 1.0


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


class Scheduler(Configured):
    """A scheduler: `config` holds its settings under diffusers' names, `order` is how many network calls a step has.

    `set_timesteps` fills in `timesteps`, what the network will be told, call by call. Raises InvalidRequest for
    settings that diffusers does not have, or that it has and Darkroom does not.
    """

    config_name = "scheduler_config.json"
    order: ClassVar[int] = 1

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(self.config.num_train_timesteps - 1, -1, -1)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise it runs on."""
        return self._discrete

    @cached_property
    def _discrete(self) -> Discrete:
        config = self.config
        if config.trained_betas is not None:
            levels = tuple(map(float, config.trained_betas))
        else:
            levels = betas(
                config.beta_schedule, config.beta_start, config.beta_end, config.num_train_timesteps
            )
        return Discrete(levels, zero_terminal_snr=bool(config.get("rescale_betas_zero_snr")))

    @property
    def init_noise_sigma(self) -> float:
        """What unit noise is multiplied by to begin with."""
        return self.way(self.num_inference_steps or self.config.num_train_timesteps).start

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        eta: float = 0.0,
    ) -> Way:
        """Lay out the way for so many steps, or for custom timesteps or sigmas where the scheduler takes them."""
        way = self.way(num_inference_steps, eta=eta, timesteps=timesteps, sigmas=sigmas, mu=mu)
        self.num_inference_steps = len(way.points) - 1
        self.timesteps = torch.tensor(way.times, device=device)
        return way

    def way(
        self,
        steps: int | None = None,
        *,
        eta: float = 0.0,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> Way:
        """What a call of so many steps is run with. `eta` is DDIM's and TCD's; `mu` shifts the noise of flow models
        that are shifted by the size of the picture."""
        if timesteps is not None and sigmas is not None:
            raise InvalidRequest("both timesteps and sigmas were given: give one of them")
        if timesteps is None and sigmas is None:
            most = self.config.num_train_timesteps
            if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= most:
                raise InvalidRequest(
                    f"num_inference_steps is {steps!r}: give a whole number from 1 to {most}"
                )
        points = self._points(steps or 0, Custom(timesteps, sigmas, mu))
        return self._way(points, eta)

    def _points(self, steps: int, custom: Custom) -> Points:
        raise NotImplementedError

    def _way(self, points: Points, eta: float) -> Way:
        raise NotImplementedError

    @property
    def _process(self) -> Process:
        return process(self.config.prediction_type)

    def _limit(self) -> solvers.Limit | None:
        config = self.config
        if config.get("thresholding"):
            return solvers.thresholded(config.dynamic_thresholding_ratio, config.sample_max_value)
        return solvers.clipped(config.clip_sample_range) if config.get("clip_sample") else None

    def _spaced(self, steps: int, extra: int = 0, last: int | None = None) -> Floats:
        """Training steps from many to few in the config's spacing. `extra` lays out so many more and leaves them out at
        the low end; the highest is below `last`."""
        config = self.config
        count = config.num_train_timesteps if last is None else last
        spacing = config.get("timestep_spacing", "linspace")
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
        if config.use_exponential_sigmas or config.get("use_lu_lambdas"):
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


@dataclass(frozen=True)
class Custom:
    """What a caller lays out in the scheduler's place."""

    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    mu: float | None = None

    def refused(self, scheduler: Scheduler, *names: str) -> None:
        """Raises InvalidRequest where one of these was given to a scheduler that takes none."""
        for name in names:
            if getattr(self, name) is not None:
                raise InvalidRequest(f"{type(scheduler).__name__} takes no custom {name}: leave them out")

    def whole(self, most: int) -> Floats:
        """The timesteps, checked: whole numbers below `most`, falling."""
        times = np.asarray(self.timesteps, dtype=float)
        if not len(times) or times.max() >= most or times.min() < 0 or (np.diff(times) >= 0).any():
            raise InvalidRequest(
                f"timesteps are {list(times)}: give falling numbers from {most - 1} down to 0 at the least"
            )
        return times


# Those of k-diffusion: latents whose spread grows with the noise


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
        high, low = config.get("sigma_max") or levels[0], config.get("sigma_min") or levels[-1]
        bent = self._bent(high, low, len(times)) if "use_karras_sigmas" in config else None
        if bent is not None:
            levels, times = bent, self._times_of(bent)
            if config.use_karras_sigmas and self.whole_karras:
                times = times.round()
        last = float(self._levels[0]) if config.get("final_sigmas_type") == "sigma_min" else 0.0
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


# Those of the trained chain


class Chain(Scheduler):
    """Schedulers that step along whole training steps."""

    def _points(self, steps: int, custom: Custom) -> Points:
        custom.refused(self, "timesteps", "sigmas")
        times = self._spaced(steps).round()
        config, schedule = self.config, self._discrete
        last = CLEAN if config.set_alpha_to_one else schedule.trained(0)
        points = [*(schedule.trained(self._inside(time)) for time in times), last]
        return solvers.Strided(points, schedule, config.num_train_timesteps // steps, last)

    def _inside(self, time: float) -> float:
        if time > self._discrete.last:
            raise InvalidRequest(
                f"steps_offset is {self.config.steps_offset}: with so many steps it leads past the last training step, "
                f"{self._discrete.last}"
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
            times = custom.whole(self.config.num_train_timesteps)
        schedule = self._discrete
        return Points([*(schedule.trained(self._inside(time)) for time in times), CLEAN], schedule)

    def _way(self, points: Points, eta: float) -> Way:
        return Way(points, sampler("ddpm"), self._process, self._limit())


class Distilled(Scheduler):
    """Schedulers that step along the training steps a model was distilled at."""

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
        if custom.timesteps is not None:
            times = custom.whole(count)
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


# Those of several steps at a time


class Solver(Scheduler):
    """Schedulers that integrate over lambda from several values."""

    whole_bends: ClassVar[tuple[str, ...]] = ("use_karras_sigmas",)
    repeats_last: ClassVar[bool] = False
    takes_timesteps: ClassVar[bool] = False

    @property
    def schedule(self) -> NoiseSchedule:
        return FlowSchedule(self.config.flow_shift) if self.config.use_flow_sigmas else self._discrete

    def _points(self, steps: int, custom: Custom) -> Points:
        config, highest, lowest = self.config, float(self._levels[-1]), float(self._levels[0])
        custom.refused(self, "sigmas", *(() if self.takes_timesteps else ("timesteps",)))
        if config.use_flow_sigmas:
            custom.refused(self, "timesteps")
            return self._flowing(steps, custom)
        bent = self._bent(highest, lowest, steps)
        if custom.timesteps is not None:
            times = custom.whole(config.num_train_timesteps)
            levels = self._at_times(times)
        elif bent is not None:
            levels, times = bent, self._times_of(bent)
            if any(config.get(name) for name in self.whole_bends):
                times = times.round()
        else:
            times = self._laid(steps).round()
            levels = self._at_times(times)
        last = 0.0
        if self._ends_at_least:
            last = float(levels[-1]) if self.repeats_last and bent is not None else lowest
        times = np.floor(times)  # The network is told whole numbers.
        return self._preserving([*levels.tolist(), last], times.tolist())

    @property
    def _ends_at_least(self) -> bool:
        """Whether the last step ends at the least noise trained on, not at none."""
        return bool(self.config.get("final_sigmas_type", "sigma_min") == "sigma_min")

    def _laid(self, steps: int) -> Floats:
        return self._spaced(steps, extra=1)

    def _flowing(self, steps: int, custom: Custom) -> Points:
        config, count = self.config, self.config.num_train_timesteps
        even = 1 - np.linspace(1, 1 / count, steps + 1)[::-1][:-1] if self._begins_below_one else None
        levels = np.linspace(1, 1 / count, steps + 1)[:-1] if even is None else even
        if config.use_dynamic_shifting:
            levels = shifted_by_size(levels, custom.mu)
        else:
            levels = config.flow_shift * levels / (1 + (config.flow_shift - 1) * levels)
        if even is None and abs(levels[0] - 1) < 1e-6:
            levels[0] -= 1e-6
        times = np.floor(levels * count)
        last = float(levels[-1]) if self._ends_at_least else 0.0
        return _flow_points([*levels.tolist(), last], times.tolist(), self.schedule)

    _begins_below_one: ClassVar[bool] = True

    def _solver_type(self, known: Sequence[str], others: Sequence[str]) -> str:
        """The config's solver_type; another scheduler's means the first of ours, as in diffusers."""
        kind = str(self.config.solver_type)
        if kind in known:
            return kind
        if kind in others:
            return known[0]
        raise InvalidRequest(f"solver_type is {kind!r}: {nearest(kind, known)}")


class _DPMSolver(Solver):
    """What DPM-Solver in its two forms has in common."""

    algorithms: ClassVar[tuple[str, ...]]

    @property
    def _dpm(self) -> solvers.DPMSolver:
        config = self.config
        algorithm = "dpmsolver++" if config.algorithm_type == "deis" else str(config.algorithm_type)
        if algorithm not in self.algorithms:
            raise InvalidRequest(f"algorithm_type is {algorithm!r}: {nearest(algorithm, self.algorithms)}")
        if config.solver_order not in (1, 2, 3) or (
            config.solver_order == 3 and algorithm == "sde-dpmsolver"
        ):
            raise InvalidRequest(
                f"solver_order is {config.solver_order}: {algorithm} takes 1, 2"
                + ("" if algorithm == "sde-dpmsolver" else " or 3")
            )
        if not algorithm.endswith("++") and not self._ends_at_least:
            raise InvalidRequest(
                f"algorithm_type {algorithm!r} cannot end without noise: set final_sigmas_type='sigma_min' too"
            )
        return solvers.DPMSolver(algorithm, self._solver_type(("midpoint", "heun"), ("logrho", "bh1", "bh2")))

    def _clipped_last(self) -> int:
        """How many training steps are not below lambda_min_clipped."""
        least = self.config.lambda_min_clipped
        return sum(-math.log(level) >= least for level in self._discrete.levels)


class DPMSolverMultistepScheduler(_DPMSolver):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        **BENT,
        **THRESHOLDED,
        **FLOWING,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "rescale_betas_zero_snr": False,
    }
    fixed: ClassVar[Defaults] = {"variance_type": None}
    algorithms = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")
    whole_bends = ("use_karras_sigmas", "use_lu_lambdas")
    takes_timesteps = True

    def _laid(self, steps: int) -> Floats:
        return self._spaced(steps, extra=1, last=self._clipped_last())

    def _way(self, points: Points, eta: float) -> Way:
        config, solver = self.config, self._dpm
        run = partial(
            solvers.dpm_multistep,
            solver=solver,
            order=config.solver_order,
            lower_order_final=config.lower_order_final,
            euler_at_final=config.euler_at_final,
        )
        return Way(points, run, self._process, self._limit(), float32_noise=True)


class DPMSolverSinglestepScheduler(_DPMSolver):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **BENT,
        **THRESHOLDED,
        **FLOWING,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": False,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    }
    fixed: ClassVar[Defaults] = {"variance_type": None}
    algorithms = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver")
    takes_timesteps = True

    def _laid(self, steps: int) -> Floats:
        return self._spaced(steps, extra=1, last=self._clipped_last())

    def _way(self, points: Points, eta: float) -> Way:
        config, solver = self.config, self._dpm
        run = partial(
            solvers.dpm_singlestep,
            solver=solver,
            order=config.solver_order,
            lower_order_final=config.lower_order_final,
        )
        return Way(points, run, self._process, self._limit())


class DEISMultistepScheduler(Solver):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        **BENT,
        **THRESHOLDED,
        **FLOWING,
        "solver_order": 2,
        "algorithm_type": "deis",
        "solver_type": "logrho",
        "lower_order_final": True,
    }
    repeats_last = True

    def _way(self, points: Points, eta: float) -> Way:
        config = self.config
        points = Points(points, self._discrete)  # It integrates over sigma / alpha, flow models' too.
        self._solver_type(("logrho",), ("midpoint", "heun", "bh1", "bh2"))
        if config.solver_order not in (1, 2, 3):
            raise InvalidRequest(f"solver_order is {config.solver_order}: DEIS takes 1, 2 or 3")
        run = sampler("deis", order=config.solver_order, lower_order_final=bool(config.lower_order_final))
        return Way(points, run, self._process, self._limit())


class UniPCMultistepScheduler(Solver):
    defaults: ClassVar[Defaults] = {
        **TRAINED,
        **SPACED,
        **BENT,
        **THRESHOLDED,
        **FLOWING,
        "solver_order": 2,
        "predict_x0": True,
        "solver_type": "bh2",
        "lower_order_final": True,
        "disable_corrector": [],
        "solver_p": None,
        "final_sigmas_type": "zero",
        "rescale_betas_zero_snr": False,
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    }
    fixed: ClassVar[Defaults] = {
        "predict_x0": True,
        "disable_corrector": [],
        "solver_p": None,
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    }
    repeats_last = True
    _begins_below_one = False

    def _way(self, points: Points, eta: float) -> Way:
        config = self.config
        run = sampler(
            "unipc",
            order=config.solver_order,
            variant=self._solver_type(("bh2", "bh1"), ("midpoint", "heun", "logrho")),
            lower_order_final=bool(config.lower_order_final),
        )
        return Way(points, run, self._process, self._limit())


# Those of flow models


class FlowMatch(Scheduler):
    """Schedulers of models that learned a straight path."""

    @property
    def schedule(self) -> NoiseSchedule:
        return FlowSchedule(self.config.shift)

    def _points(self, steps: int, custom: Custom) -> Points:
        config, count = self.config, self.config.num_train_timesteps
        custom.refused(self, "timesteps", *(() if "use_dynamic_shifting" in config else ("sigmas",)))
        dynamic, shift = config.get("use_dynamic_shifting"), config.shift
        if custom.sigmas is not None:
            levels = np.asarray(custom.sigmas, dtype=float)
        else:
            low = 1 / count if dynamic else shift / count / (1 + (shift - 1) / count)
            levels = np.linspace(1, low, steps)
        if dynamic:
            levels = shifted_by_size(levels, custom.mu)
        else:
            levels = shift * levels / (1 + (shift - 1) * levels)
        if config.get("shift_terminal"):
            levels = 1 - (1 - levels) * (1 - config.shift_terminal) / (1 - levels[-1])
        if "use_karras_sigmas" in config:
            bent = self._bent(float(levels[0]), float(levels[-1]), len(levels))
            levels = levels if bent is None else bent
        return _flow_points([*levels.tolist(), 0.0], (levels * count).tolist(), self.schedule)

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


def _flow_points(levels: Sequence[float], times: Sequence[float], schedule: NoiseSchedule) -> Points:
    """Points of a straight path at levels, the last of which has no time."""
    each = zip(levels, [*times, 0.0], strict=False)
    return Points((Point(1 - level, level, float(time)) for level, time in each), schedule)


def shifted_by_size(levels: Floats, mu: float | None) -> Floats:
    """Levels of a flow shifted by e^mu (Esser et al. 2024, https://arxiv.org/abs/2403.03206, eq. 23)."""
    if mu is None:
        raise InvalidRequest(
            "use_dynamic_shifting is set, but no mu was given: give set_timesteps(..., mu=...)"
        )
    return np.asarray(math.exp(mu) / (math.exp(mu) + (1 / levels - 1)))


CLASSES: Mapping[str, type[Scheduler]] = {
    each.__name__: each
    for each in (
        DDIMScheduler,
        DDPMScheduler,
        DEISMultistepScheduler,
        DPMSolverMultistepScheduler,
        DPMSolverSDEScheduler,
        DPMSolverSinglestepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        HeunDiscreteScheduler,
        KDPM2AncestralDiscreteScheduler,
        KDPM2DiscreteScheduler,
        LCMScheduler,
        LMSDiscreteScheduler,
        PNDMScheduler,
        TCDScheduler,
        UniPCMultistepScheduler,
    )
}


def scheduler_of(config: Mapping[str, Any]) -> Scheduler:
    """The scheduler that a scheduler_config.json describes. Raises ModelError for one of an unknown class."""
    name = str(config.get("_class_name"))
    if name not in CLASSES:
        raise ModelError(f"unknown scheduler {name!r}: {nearest(name, CLASSES)}")
    return CLASSES[name].from_config(config)
