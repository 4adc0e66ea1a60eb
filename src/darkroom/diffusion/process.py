"""What a network predicts, in one place for sampling and for training.

Everywhere x = alpha * x0 + sigma * noise. The arithmetic works on whatever `alpha` and `sigma` are:
floats while sampling, tensors of one number per row while training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from darkroom.diffusion.points import Point
from darkroom.errors import InvalidRequest, ModelError, nearest

Array: TypeAlias = Any  # A torch tensor, a numpy array or a float: anything with + - * /.


class Place(Protocol):
    """A `Point`, or many of them stacked as tensors (`darkroom.diffusion.training.Rows`)."""

    @property
    def alpha(self) -> Any: ...
    @property
    def sigma(self) -> Any: ...
    @property
    def time(self) -> Any: ...


class Process(Protocol):
    """How a network's output and x0 are related. `x`, `x0`, `noise` and outputs share one shape."""

    @property
    def name(self) -> str: ...

    def network_input(self, x: Array, point: Place) -> tuple[Array, Any]:
        """What the network is given: x, scaled, and the time."""
        ...

    def denoised(self, output: Array, x: Array, point: Place) -> Array:
        """The estimate of x0 that the output amounts to."""
        ...

    def output(self, denoised: Array, x: Array, point: Place) -> Array:
        """The inverse of `denoised`: the output that amounts to that estimate. Not at the clean end."""
        ...

    def target(self, x0: Array, noise: Array, point: Place) -> Array:
        """The output that would have been right: what training regresses."""
        ...

    def gain(self, point: Place) -> Any:
        """How far an error of one in the output moves the estimate of x0."""
        ...


@dataclass(frozen=True)
class _Direct:
    """Networks trained on x itself: all of Stable Diffusion's."""

    def network_input(self, x: Array, point: Place) -> tuple[Array, Any]:
        return x, point.time


@dataclass(frozen=True)
class Epsilon(_Direct):
    """The network predicts the noise (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 14)."""

    name: str = "epsilon"

    def denoised(self, output: Array, x: Array, point: Place) -> Array:
        _check_signal(point)
        return (x - point.sigma * output) / point.alpha

    def output(self, denoised: Array, x: Array, point: Place) -> Array:
        return (x - point.alpha * denoised) / point.sigma

    def target(self, x0: Array, noise: Array, point: Place) -> Array:
        return noise

    def gain(self, point: Place) -> Any:
        _check_signal(point)
        return point.sigma / point.alpha


def _check_signal(point: Place) -> None:
    if isinstance(point, Point) and point.alpha == 0:
        raise ModelError(
            "a network that predicts the noise learns nothing from pure noise (zero terminal SNR): "
            "use a schedule without it, or a v-prediction model"
        )


@dataclass(frozen=True)
class Velocity(_Direct):
    """The network predicts v = alpha * noise - sigma * x0 on a variance-preserving path
    (Salimans and Ho 2022, https://arxiv.org/abs/2202.00512, appendix D)."""

    name: str = "v_prediction"

    def denoised(self, output: Array, x: Array, point: Place) -> Array:
        return point.alpha * x - point.sigma * output

    def output(self, denoised: Array, x: Array, point: Place) -> Array:
        return (point.alpha * x - denoised) / point.sigma

    def target(self, x0: Array, noise: Array, point: Place) -> Array:
        return point.alpha * noise - point.sigma * x0

    def gain(self, point: Place) -> Any:
        return point.sigma


@dataclass(frozen=True)
class Sample(_Direct):
    """The network predicts x0 itself."""

    name: str = "sample"

    def denoised(self, output: Array, x: Array, point: Place) -> Array:
        return output

    def output(self, denoised: Array, x: Array, point: Place) -> Array:
        return denoised

    def target(self, x0: Array, noise: Array, point: Place) -> Array:
        return x0

    def gain(self, point: Place) -> Any:
        return 1.0


@dataclass(frozen=True)
class Flow(_Direct):
    """The network predicts the velocity noise - x0 along alpha = 1 - t, sigma = t
    (Liu et al. 2022, https://arxiv.org/abs/2209.03003; Esser et al. 2024,
    https://arxiv.org/abs/2403.03206)."""

    name: str = "flow"

    def denoised(self, output: Array, x: Array, point: Place) -> Array:
        return x - point.sigma * output

    def output(self, denoised: Array, x: Array, point: Place) -> Array:
        return (x - denoised) / point.sigma

    def target(self, x0: Array, noise: Array, point: Place) -> Array:
        return noise - x0

    def gain(self, point: Place) -> Any:
        return point.sigma


_PROCESSES: dict[str, Process] = {each.name: each for each in (Epsilon(), Velocity(), Sample(), Flow())}
_ALIASES = {
    "eps": "epsilon",
    "v": "v_prediction",
    "v_pred": "v_prediction",
    "vpred": "v_prediction",
    "velocity": "v_prediction",
    "x0": "sample",
    "flow_prediction": "flow",
}


def process(name: str) -> Process:
    """The process called `name`: epsilon, v_prediction, sample or flow, or diffusers'
    `prediction_type` for it. Raises InvalidRequest for any other."""
    plain = str(name).strip().lower().replace("-", "_")
    found = _PROCESSES.get(_ALIASES.get(plain, plain))
    if found is None:
        raise InvalidRequest(f"unknown prediction type {name!r}: {nearest(name, _PROCESSES)}")
    return found
