"""Schedules: which points of a noise schedule the steps of a sampler visit.

Each function takes a noise schedule, the number of steps, and options, and returns steps + 1 points
from much noise to none. Some space the *level* (sigma / alpha, or t of a flow model), the others
the *training step*. A shift of a flow schedule moves the latter only, as in its peers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from darkroom.diffusion.beta import beta_quantile
from darkroom.diffusion.options import Option, Within, options_of, parse_options, with_options
from darkroom.diffusion.points import CLEAN, NoiseSchedule, Point, Points
from darkroom.diffusion.schedule import FlowSchedule
from darkroom.errors import InvalidRequest, nearest

Rho = Annotated[float, Within(0.1, 100)]
Sigma = Annotated[float | None, Within(1e-6, 1e5)]
Shape = Annotated[float, Within(0.1, 10)]


def from_levels(schedule: NoiseSchedule, levels: Iterable[float]) -> Points:
    """Points at the given levels (custom sigmas), then clean."""
    return Points([*(schedule.at(level) for level in levels), CLEAN], schedule)


def from_steps(schedule: NoiseSchedule, steps: Iterable[float], end: Point = CLEAN) -> Points:
    """Points at the given training steps (custom timesteps), then `end`."""
    return Points([*(schedule.trained(step) for step in steps), end], schedule)


def line(start: float, end: float, count: int) -> list[float]:
    """`count` numbers evenly from start to end, both included."""
    return [start + (end - start) * i / max(count - 1, 1) for i in range(count)]


def _range(schedule: NoiseSchedule, low: float | None, high: float | None) -> tuple[float, float]:
    low = schedule.lowest if low is None else low
    high = schedule.highest if high is None else high
    if not 0 < low < high < math.inf:
        raise InvalidRequest(f"sigma_min is {low:g} and sigma_max {high:g}: need 0 < sigma_min < sigma_max")
    if high > schedule.highest and schedule.at(high) == schedule.at(schedule.highest):
        raise InvalidRequest(
            f"sigma_max is {high:g}: this model knows no more noise than {schedule.highest:g}"
        )
    return low, high


# Spacings of the level.


def _even_in(
    bend: Callable[[float], float],
    back: Callable[[float], float],
    schedule: NoiseSchedule,
    steps: int,
    low: float,
    high: float,
) -> Points:
    """Levels from high to low whose `bend` is evenly spaced; `back` is its inverse. The ends are exact."""
    inner = [back(u) for u in line(bend(high), bend(low), steps)[1:-1]]
    return from_levels(schedule, [high, *inner, low][:steps])


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    rho: Rho = 7.0,
    sigma_min: Sigma = None,
    sigma_max: Sigma = None,
) -> Points:
    """Even in level^(1/rho): small steps at little noise
    (Karras et al. 2022, https://arxiv.org/abs/2206.00364, eq. 5)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    return _even_in(lambda level: level ** (1 / rho), lambda u: u**rho, schedule, steps, low, high)


def exponential(
    schedule: NoiseSchedule, steps: int, *, sigma_min: Sigma = None, sigma_max: Sigma = None
) -> Points:
    """Even in the logarithm of the level (k-diffusion)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    return _even_in(math.log, math.exp, schedule, steps, low, high)


def polyexponential(
    schedule: NoiseSchedule,
    steps: int,
    *,
    rho: Rho = 1.0,
    sigma_min: Sigma = None,
    sigma_max: Sigma = None,
) -> Points:
    """The logarithm of the level falls with the power `rho` of the way left (k-diffusion)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    whole = math.log(high / low)
    return _even_in(
        lambda level: (math.log(level / low) / whole) ** (1 / rho),
        lambda u: low * math.exp(whole * u**rho),
        schedule,
        steps,
        low,
        high,
    )


def kl_optimal(
    schedule: NoiseSchedule, steps: int, *, sigma_min: Sigma = None, sigma_max: Sigma = None
) -> Points:
    """Even in the arc tangent of the level (Sabour et al. 2024, https://arxiv.org/abs/2404.14507)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    return _even_in(math.atan, math.tan, schedule, steps, low, high)


ALIGN_YOUR_STEPS = {
    "sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
"""The published optima for ten steps, as sigma / alpha (https://research.nvidia.com/labs/toronto-ai/AlignYourSteps)."""


def align_your_steps(schedule: NoiseSchedule, steps: int, *, table: Literal["sd1", "sdxl"] = "sd1") -> Points:
    """Optimised for one model family, `table` sd1 or sdxl; other numbers of steps are read off
    log-linearly (Sabour et al. 2024, https://arxiv.org/abs/2404.14507)."""
    logs = [math.log(sigma) for sigma in ALIGN_YOUR_STEPS[table]]

    def level(place: float) -> float:
        i = min(int(place), len(logs) - 2)
        ratio = math.exp(logs[i] + (place - i) * (logs[i + 1] - logs[i]))
        return schedule.level(Point(1.0, ratio, 0.0))

    return from_levels(schedule, (level(place) for place in line(0, len(logs) - 1, steps + 1)[:-1]))


# Spacings of the training step.


def normal(
    schedule: NoiseSchedule, steps: int, *, sigma_min: Sigma = None, sigma_max: Sigma = None
) -> Points:
    """Even in time from the highest to the lowest trained level, fractions allowed (k-diffusion)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    return from_steps(schedule, line(schedule.at(high).time, schedule.at(low).time, steps))


def sgm_uniform(
    schedule: NoiseSchedule, steps: int, *, sigma_min: Sigma = None, sigma_max: Sigma = None
) -> Points:
    """As `normal`, but even to the end: its last step is as long as the others (Stability's sgm)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    return from_steps(schedule, line(schedule.at(high).time, schedule.at(low).time, steps + 1)[:-1])


def simple(schedule: NoiseSchedule, steps: int) -> Points:
    """Whole training steps, evenly down from the last (ComfyUI)."""
    count = schedule.last - schedule.first + 1
    return from_steps(schedule, (schedule.last - int(i * count / steps) for i in range(steps)))


def ddim_uniform(schedule: NoiseSchedule, steps: int) -> Points:
    """Every n-th whole training step counted up from the second (Song et al. 2020; ComfyUI), to clean."""
    return leading(schedule, steps, clean_end=True)


def beta(schedule: NoiseSchedule, steps: int, *, alpha: Shape = 0.6, beta: Shape = 0.6) -> Points:
    """Whole training steps at the quantiles of a beta distribution: more at both ends
    (Lee et al. 2024, https://arxiv.org/abs/2407.12173). Where there are so many that two would
    coincide they keep their fractions."""
    span = schedule.last - schedule.first
    exact = [span * beta_quantile(1 - i / steps, alpha, beta) for i in range(steps)]
    whole = [round(round(step, 6)) for step in exact]  # Twice, so that a half is a half.
    chosen: Sequence[float] = whole if len(set(whole)) == steps else exact
    return from_steps(schedule, (schedule.first + step for step in chosen))


def leading(
    schedule: NoiseSchedule,
    steps: int,
    *,
    steps_offset: Annotated[int, Within(0, 1000)] = 1,
    clean_end: bool = False,
    drop_last: bool = False,
) -> Points:
    """diffusers' "leading": whole multiples of count // steps, plus `steps_offset`. It ends at the
    first training step as Stable Diffusion 1 does (set_alpha_to_one false), or clean. `drop_last`
    lays out one step more and leaves out the last, as diffusers' multistep solvers do."""
    span = schedule.last - schedule.first
    ratio = (span + 1) // (steps + drop_last)
    steps_taken = range(int(drop_last), steps + drop_last)
    offset = min(int(steps_offset), span - steps_taken[-1] * ratio)
    times = (schedule.first + i * ratio + offset for i in reversed(steps_taken))
    return from_steps(schedule, times, CLEAN if clean_end else schedule.trained(schedule.first))


def linspace(schedule: NoiseSchedule, steps: int, *, drop_last: bool = False) -> Points:
    """diffusers' "linspace": last to first training step, rounded; `drop_last` as for leading."""
    times = line(schedule.last, schedule.first, steps + drop_last)[:steps]
    return from_steps(schedule, (round(step) for step in times))


def trailing(schedule: NoiseSchedule, steps: int) -> Points:
    """diffusers' "trailing": evenly down from the last training step, rounded; what distilled and
    zero-terminal-SNR models want (Lin et al. 2023, https://arxiv.org/abs/2305.08891, table 2)."""
    count = schedule.last - schedule.first + 1
    return from_steps(schedule, (round(count - i * count / steps) - 1 + schedule.first for i in range(steps)))


def lcm(
    schedule: NoiseSchedule, steps: int, *, original_steps: Annotated[int, Within(1, 1000)] = 50
) -> Points:
    """The training steps a latent consistency model was distilled at, thinned evenly
    (Luo et al. 2023, https://arxiv.org/abs/2310.04378; diffusers' LCMScheduler)."""
    count = schedule.last - schedule.first + 1
    if steps > original_steps:
        raise InvalidRequest(
            f"{steps} steps of schedule lcm: it has at most original_steps = {original_steps}"
        )
    if not (ratio := count // original_steps):
        raise InvalidRequest(f"original_steps is {original_steps}: the model was trained on {count}")
    picked = (original_steps - i * original_steps // steps for i in range(steps))
    return from_steps(schedule, (schedule.first + k * ratio - 1 for k in picked))


NEARLY_ALL = 0.999
"""The strength from which A1111 takes all of the way."""


def steps_taken(points: Points, strength: float, convention: str = "diffusers") -> int:
    """How many of the steps a strength from 0 to 1 is, for image to image.

    Of n steps diffusers takes n * strength, rounded down, with flow models up; A1111 one more than rounded down (and
    all of them only from 1 - 1 / n).
    """
    steps = len(points) - 1
    if convention == "a1111":
        return int(min(strength, NEARLY_ALL) * steps) + 1
    whole = min(steps * strength, steps)
    return steps - int(steps - whole) if isinstance(points.schedule, FlowSchedule) else int(whole)


def tail(points: Points, strength: float, *, convention: str = "diffusers") -> Points:
    """The last share of the points, for image to image: less strength keeps more of the picture (`steps_taken`).

    Raises InvalidRequest where strength is outside (0, 1] or leaves no step.
    """
    steps = len(points) - 1
    if not 0 < strength <= 1:
        raise InvalidRequest(f"strength is {strength}: it must be above 0 and at most 1")
    if not (taken := steps_taken(points, strength, convention)):
        raise InvalidRequest(
            f"strength {strength} of {steps} steps leaves none: use at least {1 / steps:.2g}, or more steps"
        )
    return points[steps - taken :]


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule as users know it: its name, A1111's label, one line about it, other names."""

    name: str
    label: str
    function: Callable[..., Points]
    description: str
    aliases: tuple[str, ...] = ()

    @property
    def options(self) -> Mapping[str, Option]:
        return options_of(self.function)


AUTOMATIC = "automatic"
"""What A1111 calls leaving the schedule to the sampler."""

_INFOS = (
    ScheduleInfo("normal", "Normal", normal, "Even in time, to the least noise trained on.", ("uniform",)),
    ScheduleInfo("karras", "Karras", karras, "Small steps at little noise: detail."),
    ScheduleInfo("exponential", "Exponential", exponential, "Even in the logarithm of the noise."),
    ScheduleInfo("polyexponential", "Polyexponential", polyexponential, "Exponential, bent by rho."),
    ScheduleInfo("sgm_uniform", "SGM Uniform", sgm_uniform, "Even in time, to no noise at all."),
    ScheduleInfo("simple", "Simple", simple, "Whole training steps, even, from the last."),
    ScheduleInfo(
        "ddim_uniform", "DDIM", ddim_uniform, "Whole training steps, even, from the second.", ("ddim",)
    ),
    ScheduleInfo("beta", "Beta", beta, "More steps at much and at little noise."),
    ScheduleInfo("kl_optimal", "KL Optimal", kl_optimal, "Even in the arc tangent of the noise."),
    ScheduleInfo(
        "align_your_steps", "Align Your Steps", align_your_steps, "Optimised for SD 1 or SDXL.", ("ays",)
    ),
    ScheduleInfo(
        "leading", "Leading", leading, "diffusers' leading: whole training steps, as SD 1 folders say."
    ),
    ScheduleInfo(
        "linspace", "Linspace", linspace, "diffusers' linspace: first to last training step, whole."
    ),
    ScheduleInfo("trailing", "Trailing", trailing, "diffusers' trailing: for distilled models.", ("turbo",)),
    ScheduleInfo("lcm", "LCM", lcm, "The steps latent consistency models were distilled at."),
)

SCHEDULES: dict[str, ScheduleInfo] = {info.name: info for info in _INFOS}


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


_NAMES = {_key(alias): info for info in _INFOS for alias in (*info.aliases, info.label, info.name)}


def schedule_info(name: str) -> ScheduleInfo:
    """The schedule called `name` by Darkroom, A1111, ComfyUI or diffusers, its options aside. Raises InvalidRequest
    with the nearest name for any other."""
    info = _NAMES.get(_key(name.partition(":")[0]))
    if info is None:
        raise InvalidRequest(f"unknown schedule {name!r}: {nearest(name, SCHEDULES)}")
    return info


def parse_schedule(text: str) -> str | None:
    """The name of a schedule and its options that a user wrote ("Karras:rho=5"), in Darkroom's words; None for
    "automatic". Raises InvalidRequest as `schedule_info` does, and for options that it has not."""
    if text.strip().lower() == AUTOMATIC:
        return None
    info = schedule_info(text)
    return with_options(info.name, info.options, schedule_options(text))


def schedule_options(text: str) -> dict[str, Any]:
    """The options in the text of a schedule."""
    info = schedule_info(text)
    return parse_options(f"schedule {info.name}", info.options, text.partition(":")[2])
