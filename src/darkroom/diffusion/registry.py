"""Samplers by name: ours, and those A1111, ComfyUI and diffusers use."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from darkroom.diffusion.catalogue import SAMPLERS, SamplerInfo
from darkroom.diffusion.points import NoiseSchedule, Points
from darkroom.diffusion.run import Sampler
from darkroom.diffusion.schedule import FlowSchedule
from darkroom.diffusion.spacing import AUTOMATIC, schedule_info, tail
from darkroom.errors import InvalidRequest, nearest
from darkroom.numeric import integer, real


def _key(name: str) -> str:
    plain = name.lower().strip().removeprefix("k_").removesuffix("_gpu").replace("+", "p")
    return "".join(c for c in plain if c.isalnum())


_NAMES = {_key(alias): info for info in SAMPLERS.values() for alias in (*info.aliases, info.label, info.name)}


def parse_sampler(text: str) -> tuple[str, str | None]:
    """(sampler name, schedule name or None) of what a user wrote in Darkroom's, A1111's, ComfyUI's or
    diffusers' words, A1111's old joined names such as "DPM++ 2M Karras" included. Raises
    InvalidRequest with the nearest name."""
    words = text.split()
    for cut in range(len(words), 0, -1):
        info = _NAMES.get(_key(" ".join(words[:cut])))
        if info is None:
            continue
        if cut == len(words):
            return info.name, None
        rest = " ".join(words[cut:])
        return info.name, None if rest.lower() == AUTOMATIC else schedule_info(rest).name
    raise InvalidRequest(f"unknown sampler {text!r}: {nearest(text, SAMPLERS)}")


def sampler_info(name: str) -> SamplerInfo:
    """All about the sampler of that name (any that `parse_sampler` takes)."""
    return SAMPLERS[parse_sampler(name)[0]]


def sampler(name: str, **options: float | str | bool) -> Sampler:
    """The sampler of that name with its options set. Raises InvalidRequest for an unknown name or
    option, and for a value the option cannot take."""
    info = sampler_info(name)
    for option, value in options.items():
        _check(f"sampler {info.name}", info.options, option, value)
        choices = info.choices.get(option)
        if choices and value not in choices:
            raise InvalidRequest(f"{option} is {value!r}: {nearest(str(value), choices)}")
    return partial(info.function, **options)


def schedule_for(noise_schedule: NoiseSchedule, sampler: str, schedule: str | None = None) -> str:
    """The name of the schedule that `points_for` will use."""
    if schedule is not None and schedule.lower() != AUTOMATIC:
        return schedule_info(schedule).name
    name, joined = parse_sampler(sampler)
    return joined or ("simple" if isinstance(noise_schedule, FlowSchedule) else SAMPLERS[name].schedule)


def points_for(
    noise_schedule: NoiseSchedule,
    steps: int,
    sampler: str,
    schedule: str | None = None,
    *,
    strength: float = 1.0,
    **options: float | str | bool,
) -> Points:
    """The points that `sampler` visits in `steps` steps.

    `schedule` None or "automatic" is the one joined to the sampler's name ("DPM++ 2M Karras"), else
    the sampler's default, else (flow models) "simple". `strength` in (0, 1] keeps the last share of
    the steps, for image to image. `options` go to the schedule. Raises InvalidRequest.
    """
    most = noise_schedule.last - noise_schedule.first + 1
    if not 1 <= steps <= most:
        raise InvalidRequest(f"steps is {steps}: it must be from 1 to the {most} the model was trained on")
    info = sampler_info(sampler)
    spacing = schedule_info(schedule_for(noise_schedule, sampler, schedule))
    for option, value in options.items():
        _check(f"schedule {spacing.name}", spacing.options, option, value)
    points = spacing.function(noise_schedule, steps + info.skips_last, **options)
    if info.skips_last:
        points = Points([*points[:-2], points[-1]], noise_schedule)
    return points if strength == 1 else tail(points, strength)


def _check(owner: str, known: dict[str, Any], option: str, value: object) -> None:
    """Refuses an option that is unknown, or whose value is not of its default's kind."""
    if option not in known:
        hint = nearest(option, known) if known else "it has none"
        raise InvalidRequest(f"{owner} has no option {option!r}: {hint}")
    default = known[option]
    if isinstance(default, bool | str):
        if type(value) is not type(default):
            raise InvalidRequest(f"{option} is {value!r}: {owner} takes something like {default!r}")
    elif isinstance(default, int):
        if (count := integer(value)) is None or count < (option == "order"):
            raise InvalidRequest(f"{option} is {value!r}: it must be a whole number, such as {default}")
    elif (
        (number := real(value)) is None or not number >= 0 or (number == math.inf and option not in UNBOUNDED)
    ):
        raise InvalidRequest(f"{option} is {value!r}: it must be a number of at least 0")


UNBOUNDED = ("s_tmax", "timestep_scaling")
"""Options to which infinity means something."""
