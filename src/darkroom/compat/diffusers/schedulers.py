"""diffusers' schedulers by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from darkroom.compat.diffusers import solvers
from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.scheduler import (
    BENT,
    CLIPPED,
    FLOWING,
    SPACED,
    STABLE,
    THRESHOLDED,
    TRAINED,
    Custom,
    Floats,
    Scheduler,
    Way,
)
from darkroom.diffusion import CLEAN, FlowSchedule, NoiseSchedule, Point, Points, Sampler, process, sampler
from darkroom.errors import InvalidRequest, ModelError, nearest

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
            if any(self._own(name) for name in self.whole_bends):
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
        return bool(self._own("final_sigmas_type", "sigma_min") == "sigma_min")

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
