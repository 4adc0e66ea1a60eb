"""Names: ours, A1111's, ComfyUI's, diffusers'; options; the points a name and a schedule give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from darkroom.diffusion import (
    SAMPLERS,
    SCHEDULES,
    Discrete,
    FlowSchedule,
    parse_sampler,
    points_for,
    sampler,
    sampler_info,
    tail,
)
from darkroom.errors import InvalidRequest

VP = Discrete()


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("dpmpp_2m", ("dpmpp_2m", None)),
        ("DPM++ 2M", ("dpmpp_2m", None)),
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("dpm++ 2m karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE", ("dpmpp_2m_sde", None)),
        ("DPM++ 2M SDE Karras", ("dpmpp_2m_sde", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ 2M SDE Heun", ("dpmpp_2m_sde_heun", None)),
        ("DPM++ 2M SDE Heun Karras", ("dpmpp_2m_sde_heun", "karras")),
        ("DPM++ 3M SDE Exponential", ("dpmpp_3m_sde", "exponential")),
        ("DPM++ 2S a Karras", ("dpmpp_2s_ancestral", "karras")),
        ("DPM++ SDE Karras", ("dpmpp_sde", "karras")),
        ("DPM2 a Karras", ("dpm_2_ancestral", "karras")),
        ("DPM2 Karras", ("dpm_2", "karras")),
        ("LMS Karras", ("lms", "karras")),
        ("Euler a", ("euler_ancestral", None)),
        ("Euler a Align Your Steps", ("euler_ancestral", "align_your_steps")),
        ("Euler SGM Uniform", ("euler", "sgm_uniform")),
        ("Euler Automatic", ("euler", None)),
        ("k_euler_a", ("euler_ancestral", None)),
        ("k_dpm_2", ("dpm_2", None)),
        ("dpmpp_2m_sde_gpu", ("dpmpp_2m_sde", None)),
        ("uni_pc", ("unipc", None)),
        ("UniPC", ("unipc", None)),
        ("DDIM", ("ddim", None)),
        ("PLMS", ("plms", None)),
        ("LCM", ("lcm", None)),
        ("PNDMScheduler", ("plms", None)),
        ("KDPM2AncestralDiscreteScheduler", ("dpm_2_ancestral", None)),
        ("FlowMatchEulerDiscreteScheduler", ("euler", None)),
    ],
)
def test_parse_sampler(written: str, found: tuple[str, str | None]) -> None:
    assert parse_sampler(written) == found


@pytest.mark.parametrize("info", SAMPLERS.values(), ids=SAMPLERS)
def test_every_name_of_every_sampler_leads_to_it(info: Any) -> None:
    for name in (info.name, info.label, *info.aliases):
        assert parse_sampler(name) == (info.name, None)
        for schedule in SCHEDULES.values():
            if name == info.label:
                assert parse_sampler(f"{name} {schedule.label}") == (info.name, schedule.name)
    assert info.schedule in SCHEDULES
    assert info.description.endswith(".")
    assert sampler_info(info.label) is info


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("eular", "unknown sampler 'eular': did you mean 'euler'"),
        ("", "unknown sampler ''"),
        ("Euler Karas", "unknown schedule 'Karas': did you mean 'karras'"),
        ("\x00", "unknown sampler"),
    ],
)
def test_unknown_names(written: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_sampler(written)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("euler", {"eta": 1.0}, "sampler euler has no option 'eta'"),
        ("dpmpp_2m", {"order": 2}, "it has none"),
        ("ddim", {"eta": -0.1}, "eta is -0.1"),
        ("ddim", {"eta": math.nan}, "eta is nan"),
        ("ddim", {"eta": math.inf}, "eta is inf"),
        ("ddim", {"eta": "much"}, "eta is 'much'"),
        ("lms", {"order": 0}, "order is 0"),
        ("lms", {"order": 2.5}, "order is 2.5"),
        ("unipc", {"variant": "bh3"}, "variant is 'bh3'"),
        ("unipc", {"variant": 2}, "variant is 2"),
        ("unipc", {"lower_order_final": "no"}, "lower_order_final is 'no'"),
        ("dpmpp_2m_sde", {"solver_type": "euler"}, "solver_type is 'euler'"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        sampler(name, **options)


def test_infinity_where_it_means_something() -> None:
    sampler("euler", s_tmax=math.inf)
    sampler("lcm", timestep_scaling=math.inf)


def test_default_schedules() -> None:
    assert list(points_for(VP, 9, "dpmpp_2m")) == list(points_for(VP, 9, "dpmpp_2m", "karras"))
    assert list(points_for(VP, 9, "dpmpp_2m", "Automatic")) == list(points_for(VP, 9, "dpmpp_2m", "karras"))
    assert list(points_for(VP, 9, "Euler Karras")) == list(points_for(VP, 9, "euler", "karras"))
    assert list(points_for(VP, 9, "Euler Karras", "simple")) == list(points_for(VP, 9, "euler", "simple"))
    flow = FlowSchedule(3.0)
    assert list(points_for(flow, 9, "dpmpp_2m")) == list(points_for(flow, 9, "dpmpp_2m", "simple"))


def test_dpm2_skips_the_last_but_one_point() -> None:
    """A1111's discard_next_to_last_sigma."""
    longer = list(points_for(VP, 10, "euler", "karras"))
    assert list(points_for(VP, 9, "dpm_2")) == longer[:-2] + longer[-1:]


def test_points_for_a_strength() -> None:
    assert list(points_for(VP, 10, "euler", strength=0.6)) == list(tail(points_for(VP, 10, "euler"), 0.6))


@pytest.mark.parametrize(
    ("steps", "schedule", "options", "message"),
    [
        (0, None, {}, "steps is 0"),
        (1001, None, {}, "steps is 1001"),
        (5, "karas", {}, "unknown schedule"),
        (5, "karras", {"row": 7.0}, "schedule karras has no option 'row': did you mean 'rho'"),
        (5, "simple", {"rho": 7.0}, "it has none"),
        (5, "karras", {"rho": math.nan}, "rho is nan"),
        (5, "karras", {"sigma_min": math.nan}, "sigma_min is nan"),
        (5, "align_your_steps", {"table": "sd3"}, "table is 'sd3': did you mean 'sd1'"),
    ],
)
def test_bad_schedules(steps: int, schedule: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        points_for(VP, steps, "euler", schedule, **options)


def test_the_page_of_samplers_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text()
    for info in SAMPLERS.values():
        assert f"| `{info.name}` | {info.label} |" in page
    for schedule in SCHEDULES.values():
        assert f"| `{schedule.name}` | {schedule.label} |" in page
