"""Samplers by name: ours, and those A1111, ComfyUI and diffusers use."""

from __future__ import annotations

from functools import partial
from typing import Any

from darkroom.diffusion.catalogue import SAMPLERS, SamplerInfo
from darkroom.diffusion.options import checked_options, parse_options, with_options
from darkroom.diffusion.points import NoiseSchedule, Points
from darkroom.diffusion.run import Sampler
from darkroom.diffusion.schedule import FlowSchedule
from darkroom.diffusion.spacing import parse_schedule, schedule_info, schedule_options, tail
from darkroom.errors import InvalidRequest, nearest


def _key(name: str) -> str:
    plain = name.lower().strip().removeprefix("k_").removesuffix("_gpu").replace("+", "p")
    return "".join(c for c in plain if c.isalnum())


_NAMES = {_key(alias): info for info in SAMPLERS.values() for alias in (*info.aliases, info.label, info.name)}


def parse_sampler(text: str) -> tuple[str, str | None]:
    """The sampler and the schedule, if any, of what a user wrote in Darkroom's, A1111's, ComfyUI's or diffusers' words,
    A1111's old joined names such as "DPM++ 2M Karras" included, in Darkroom's words: a name, and after a colon the
    sampler's options that are not as they are anyhow ("euler:s_churn=10"). Raises InvalidRequest for a name or
    an option that there is not, with the nearest, and for a value that an option cannot take."""
    info, schedule, options = _read(text)
    return with_options(info.name, info.options, options), schedule


def _read(text: str) -> tuple[SamplerInfo, str | None, dict[str, Any]]:
    name, _, options = text.partition(":")
    words = name.split()
    for cut in range(len(words), 0, -1):
        if info := _NAMES.get(_key(" ".join(words[:cut]))):
            schedule = parse_schedule(" ".join(words[cut:])) if words[cut:] else None
            return info, schedule, parse_options(f"sampler {info.name}", info.options, options)
    raise InvalidRequest(f"unknown sampler {name!r}: {nearest(name, SAMPLERS)}")


def sampler_options(text: str) -> dict[str, Any]:
    """The options in such a text."""
    return _read(text)[2]


def sampler_info(text: str) -> SamplerInfo:
    """All about the sampler of any text that `parse_sampler` takes."""
    return _read(text)[0]


def sampler(text: str, **options: float | str | bool) -> Sampler:
    """The sampler of such a text, with its options and these set. Raises InvalidRequest as `parse_sampler` does."""
    info, _, written = _read(text)
    return partial(info.function, **written, **checked_options(f"sampler {info.name}", info.options, options))


def schedule_for(noise_schedule: NoiseSchedule, sampler: str, schedule: str | None = None) -> str:
    """The schedule that `points_for` will use, with its options."""
    info, joined, _ = _read(sampler)
    asked = None if schedule is None else parse_schedule(schedule)
    return asked or joined or ("simple" if isinstance(noise_schedule, FlowSchedule) else info.schedule)


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
    the steps, for image to image. `options` go to the schedule, beside those in its text. Raises InvalidRequest.
    """
    most = noise_schedule.last - noise_schedule.first + 1
    if not 1 <= steps <= most:
        raise InvalidRequest(f"steps is {steps}: it must be from 1 to the {most} the model was trained on")
    info, text = sampler_info(sampler), schedule_for(noise_schedule, sampler, schedule)
    spacing = schedule_info(text)
    given = schedule_options(text) | checked_options(f"schedule {spacing.name}", spacing.options, options)
    points = spacing.function(noise_schedule, steps + info.skips_last, **given)
    if info.skips_last:
        points = Points([*points[:-2], points[-1]], noise_schedule)
    return points if strength == 1 else tail(points, strength)
