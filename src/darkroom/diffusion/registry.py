"""Samplers by name: ours, and those A1111, ComfyUI and diffusers use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from darkroom.diffusion import samplers, spacing
from darkroom.diffusion.run import Sampler, Steps
from darkroom.errors import InvalidRequest, nearest


@dataclass(frozen=True)
class SamplerInfo:
    """A sampler as users know it. `label` is A1111's name, `aliases` those of ComfyUI and diffusers;
    `schedule` is used when none is asked for; `order` is the order of convergence."""

    name: str
    label: str
    function: Callable[..., Steps]
    aliases: tuple[str, ...] = ()
    schedule: str = "normal"
    stochastic: bool = False
    order: int = 1

    @property
    def description(self) -> str:
        return (self.function.__doc__ or "").split("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Its options and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


_INFOS = (
    SamplerInfo("euler", "Euler", samplers.euler, ("EulerDiscreteScheduler",)),
    SamplerInfo("euler_ancestral", "Euler a", samplers.euler_ancestral, stochastic=True),
    SamplerInfo("ddim", "DDIM", samplers.ddim, ("DDIMScheduler",), "ddim_uniform"),
    SamplerInfo(
        "dpmpp_2m", "DPM++ 2M", samplers.dpmpp_2m, ("DPMSolverMultistepScheduler",), "karras", order=2
    ),
)

SAMPLERS: dict[str, SamplerInfo] = {info.name: info for info in _INFOS}


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum() or c == "+")


_NAMES = {_key(alias): info for info in _INFOS for alias in (*info.aliases, info.label, info.name)}


def parse_sampler(text: str) -> tuple[str, str | None]:
    """(sampler name, schedule name or None) of what a user wrote, A1111's old joined names such as
    "DPM++ 2M Karras" included. Raises InvalidRequest with the nearest name."""
    key = _key(text)
    if key in _NAMES:
        return _NAMES[key].name, None
    head, _, tail = text.strip().rpartition(" ")
    if _key(head) in _NAMES and spacing._key(tail) in spacing._NAMES:
        return _NAMES[_key(head)].name, spacing.schedule_info(tail).name
    raise InvalidRequest(f"unknown sampler {text!r}: {nearest(text, SAMPLERS)}")


def sampler(name: str, **options: float | str | bool) -> Sampler:
    """The sampler called `name` with its options set. Raises InvalidRequest for an unknown name or
    option."""
    info = SAMPLERS[parse_sampler(name)[0]]
    for option in options:
        if option not in info.options:
            raise InvalidRequest(
                f"sampler {info.name} has no option {option!r}: {nearest(option, info.options)}"
            )
    return partial(info.function, **options)
