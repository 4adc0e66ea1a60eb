"""diffusers' schedulers that look back on several steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from darkroom.compat.diffusers.config import Defaults
from darkroom.compat.diffusers.schedulers import solvers
from darkroom.compat.diffusers.schedulers.base import (
    BENT,
    FLOWING,
    SPACED,
    THRESHOLDED,
    TRAINED,
    Scheduler,
    flow_points,
    shifted_by_size,
    stretched,
)
from darkroom.compat.diffusers.schedulers.stepping import laying, stepping
from darkroom.compat.diffusers.schedulers.way import Custom, Floats, Options, Way
from darkroom.diffusion import FlowSchedule, NoiseSchedule, Points, sampler
from darkroom.errors import InvalidRequest, nearest


class Solver(Scheduler):
    """Schedulers that integrate over lambda from several values."""

    told = torch.int64
    whole_bends: ClassVar[tuple[str, ...]] = ("use_karras_sigmas",)
    repeats_last: ClassVar[bool] = False

    @property
    def schedule(self) -> NoiseSchedule:
        config = self.config
        if config.use_flow_sigmas:
            return FlowSchedule(config.flow_shift, config.num_train_timesteps)
        return self._discrete

    def _points(self, steps: int, custom: Custom) -> Points:
        config, highest, lowest = self.config, float(self._levels[-1]), float(self._levels[0])
        if config.use_flow_sigmas:
            custom.refused(self, "timesteps")
            return self._flowing(steps, custom)
        custom.refused(self, "sigmas")
        bent = self._bent(self._own("sigma_max") or highest, self._own("sigma_min") or lowest, steps)
        if custom.timesteps is not None:
            times = custom.falling(config.num_train_timesteps)
            levels = self._at_times(times)
        elif bent is not None:
            levels, times = bent, self._times_of(bent)
            if any(self._own(name) for name in self.whole_bends):
                times = times.round()
        else:
            times = self._spread(steps).round()
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

    def _spread(self, steps: int) -> Floats:
        return self._spaced(steps, extra=1)

    def _flowing(self, steps: int, custom: Custom) -> Points:
        config, count = self.config, self.config.num_train_timesteps
        if bends := [name for name in BENT if config[name]]:
            raise InvalidRequest(f"use_flow_sigmas and {bends[0]} are both set: set one of them")
        if custom.sigmas is not None:
            levels = np.asarray(custom.sigmas, dtype=float)
        elif self._begins_below_one:
            levels = 1 - np.linspace(1, 1 / count, steps + 1)[::-1][:-1]
        else:
            levels = np.linspace(1, 1 / count, steps + 1)[:-1]
        if config.use_dynamic_shifting:
            levels = shifted_by_size(levels, custom.mu, config.time_shift_type)
        else:
            levels = config.flow_shift * levels / (1 + (config.flow_shift - 1) * levels)
        if self._own("shift_terminal"):
            levels = stretched(levels, config.shift_terminal)
        if not self._begins_below_one and abs(levels[0] - 1) < 1e-6:
            levels[0] -= 1e-6
        times = np.floor(levels * count)
        last = float(levels[-1]) if self._ends_at_least else 0.0
        return flow_points([*levels.tolist(), last], times.tolist(), self.schedule)

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

    fixed: ClassVar[Defaults] = {"variance_type": None}
    algorithms: ClassVar[tuple[str, ...]]
    set_timesteps = laying("num_inference_steps device mu timesteps")(Scheduler.set_timesteps)

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

    def _spread(self, steps: int) -> Floats:
        """Over the training steps that are not below lambda_min_clipped."""
        least = self.config.lambda_min_clipped
        last = sum(-math.log(level) >= least for level in self._discrete.levels)
        return self._spaced(steps, extra=1, last=last)


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
    step = stepping("generator variance_noise return_dict")(Scheduler.step)
    algorithms = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")
    whole_bends = ("use_karras_sigmas", "use_lu_lambdas")

    def _way(self, points: Points, options: Options) -> Way:
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
    step = stepping("generator return_dict")(Scheduler.step)
    algorithms = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver")

    def _way(self, points: Points, options: Options) -> Way:
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
    set_timesteps = laying("num_inference_steps device mu")(Scheduler.set_timesteps)
    step = stepping("return_dict")(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
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
    fixed: ClassVar[Defaults] = {"solver_p": None}
    repeats_last = True
    _begins_below_one = False
    set_timesteps = laying("num_inference_steps device sigmas mu")(Scheduler.set_timesteps)
    step = stepping("return_dict")(Scheduler.step)

    def _way(self, points: Points, options: Options) -> Way:
        config = self.config
        run: Any = sampler(
            "unipc",
            order=config.solver_order,
            variant=self._solver_type(("bh2", "bh1"), ("midpoint", "heun", "logrho")),
            lower_order_final=bool(config.lower_order_final),
            predict="x0" if config.predict_x0 else "noise",
        )
        # Only estimates of x0 have bounds.
        limit = self._limit() if config.predict_x0 else None
        return Way(points, partial(run, uncorrected=tuple(config.disable_corrector)), self._process, limit)
