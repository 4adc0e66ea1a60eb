"""The mathematics of diffusion: points, processes, schedules, samplers, guidance.

Nothing here knows a network; see docs/samplers.md.
"""

from darkroom.diffusion.guidance import ClassifierFree, Guidance
from darkroom.diffusion.noise import SeededNoise
from darkroom.diffusion.points import CLEAN, NoiseSchedule, Point, Points
from darkroom.diffusion.process import Epsilon, Flow, Process, Sample, Velocity, process
from darkroom.diffusion.registry import (
    SAMPLERS,
    SamplerInfo,
    parse_sampler,
    points_for,
    sampler,
    sampler_info,
    schedule_for,
)
from darkroom.diffusion.run import Estimate, Run, Sampler, Snapshot, Steps, count_calls
from darkroom.diffusion.schedule import Discrete, FlowSchedule, betas, resolution_shift
from darkroom.diffusion.spacing import (
    AUTOMATIC,
    SCHEDULES,
    ScheduleInfo,
    from_levels,
    from_steps,
    schedule_info,
    tail,
)
from darkroom.diffusion.training import Rows, logit_normal, min_snr, rows, snr, spread

__all__ = [
    "AUTOMATIC",
    "CLEAN",
    "SAMPLERS",
    "SCHEDULES",
    "ClassifierFree",
    "Discrete",
    "Epsilon",
    "Estimate",
    "Flow",
    "FlowSchedule",
    "Guidance",
    "NoiseSchedule",
    "Point",
    "Points",
    "Process",
    "Rows",
    "Run",
    "Sample",
    "Sampler",
    "SamplerInfo",
    "ScheduleInfo",
    "SeededNoise",
    "Snapshot",
    "Steps",
    "Velocity",
    "betas",
    "count_calls",
    "from_levels",
    "from_steps",
    "logit_normal",
    "min_snr",
    "parse_sampler",
    "points_for",
    "process",
    "resolution_shift",
    "rows",
    "sampler",
    "sampler_info",
    "schedule_for",
    "schedule_info",
    "snr",
    "spread",
    "tail",
]
