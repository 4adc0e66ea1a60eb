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
)
from darkroom.diffusion.run import Estimate, Run, Sampler, Snapshot, Steps, count_calls
from darkroom.diffusion.schedule import Discrete, FlowSchedule, betas, resolution_shift
from darkroom.diffusion.spacing import SCHEDULES, ScheduleInfo, from_levels, from_steps, schedule_info, tail

__all__ = [
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
    "parse_sampler",
    "points_for",
    "process",
    "resolution_shift",
    "sampler",
    "sampler_info",
    "schedule_info",
    "tail",
]
