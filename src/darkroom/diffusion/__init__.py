"""The mathematics of diffusion: points, processes, schedules, samplers, guidance.

Nothing here knows a network; see docs/samplers.md.
"""

from darkroom.diffusion.catalogue import SAMPLERS, SamplerInfo
from darkroom.diffusion.guidance import (
    GUIDES,
    NEGATIVE,
    Ask,
    ClassifierFree,
    Guidance,
    Guide,
    Question,
    Without,
    estimate,
    guidance_from,
    parse_guides,
    positives,
)
from darkroom.diffusion.noise import SOURCES, SeededNoise, Seeding
from darkroom.diffusion.options import Option, Within
from darkroom.diffusion.points import CLEAN, NoiseSchedule, Point, Points
from darkroom.diffusion.process import Epsilon, Flow, Process, Sample, Velocity, process
from darkroom.diffusion.registry import (
    parse_sampler,
    points_for,
    sampler,
    sampler_info,
    sampler_options,
    schedule_for,
)
from darkroom.diffusion.run import Estimate, Noise, Run, Sampler, Snapshot, Steps, count_calls, dry_run
from darkroom.diffusion.schedule import Discrete, FlowSchedule, betas, resolution_shift
from darkroom.diffusion.spacing import (
    SCHEDULES,
    ScheduleInfo,
    from_levels,
    from_steps,
    parse_schedule,
    schedule_info,
    schedule_options,
    tail,
)
from darkroom.diffusion.training import Rows, logit_normal, min_snr, rows, snr, spread

__all__ = [
    "CLEAN",
    "GUIDES",
    "NEGATIVE",
    "SAMPLERS",
    "SCHEDULES",
    "SOURCES",
    "Ask",
    "ClassifierFree",
    "Discrete",
    "Epsilon",
    "Estimate",
    "Flow",
    "FlowSchedule",
    "Guidance",
    "Guide",
    "Noise",
    "NoiseSchedule",
    "Option",
    "Point",
    "Points",
    "Process",
    "Question",
    "Rows",
    "Run",
    "Sample",
    "Sampler",
    "SamplerInfo",
    "ScheduleInfo",
    "SeededNoise",
    "Seeding",
    "Snapshot",
    "Steps",
    "Velocity",
    "Within",
    "Without",
    "betas",
    "count_calls",
    "dry_run",
    "estimate",
    "from_levels",
    "from_steps",
    "guidance_from",
    "logit_normal",
    "min_snr",
    "parse_guides",
    "parse_sampler",
    "parse_schedule",
    "points_for",
    "positives",
    "process",
    "resolution_shift",
    "rows",
    "sampler",
    "sampler_info",
    "sampler_options",
    "schedule_for",
    "schedule_info",
    "schedule_options",
    "snr",
    "spread",
    "tail",
]
