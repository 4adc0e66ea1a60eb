"""Options of samplers, schedules and ways of guiding: what is written of them, and what they can bear."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.diffusion import (
    GUIDES,
    SAMPLERS,
    SCHEDULES,
    Discrete,
    FlowSchedule,
    NoiseSchedule,
    Option,
    Run,
    SeededNoise,
    betas,
    parse_sampler,
    parse_schedule,
    points_for,
    sampler,
    sampler_options,
    schedule_options,
)
from darkroom.diffusion.guidance import parse_guide
from darkroom.errors import InvalidRequest

LARGEST = 1.7e308
SHAPE = (1, 2, 4, 4)


def ends(option: Option) -> Iterator[Any]:
    """The outermost values that an option takes, as far as a user would go."""
    if option.words or isinstance(option.default, bool):
        yield from option.words or (True, False)
        return
    low, high = option.within.low, option.within.high
    yield low if not option.within.above else 0.001
    yield high if high < LARGEST else 1000.0
    if math.isinf(high):
        yield high


def all_ends(infos: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Of every option of every sampler, or schedule."""
    return [
        (name, option, value)
        for name, info in infos.items()
        for option, each in info.options.items()
        for value in ends(each)
    ]


@pytest.mark.parametrize("schedule", [Discrete(), Discrete(zero_terminal_snr=True), FlowSchedule(3.0)])
@pytest.mark.parametrize(("name", "option", "value"), all_ends(SAMPLERS))
def test_samplers_bear_the_ends_of_their_options(
    name: str, option: str, value: Any, schedule: NoiseSchedule, drive: Callable[..., Any], mixture: Any
) -> None:
    """Finite pictures in a finite time, of as much noise and as few or many estimates as can be asked for."""
    points = points_for(schedule, 6, name)
    run = Run.begin(SeededNoise(1, SHAPE), points[0])
    x, asked = drive(sampler(name, **{option: value}), run, points, mixture)
    assert torch.isfinite(x).all()
    assert len(asked) < 500


@pytest.mark.parametrize(("name", "option", "value"), all_ends(SCHEDULES))
def test_schedules_bear_the_ends_of_their_options(name: str, option: str, value: Any) -> None:
    if option == "sigma_min" and value > 1:
        with pytest.raises(InvalidRequest, match="need 0 < sigma_min < sigma_max"):
            points_for(Discrete(), 6, "euler", name, sigma_min=value)
        return
    value = max(value, 0.1) if option == "sigma_max" else value
    points = points_for(Discrete(), 1 if option == "original_steps" else 6, "euler", name, **{option: value})
    sigmas = [point.sigma / point.alpha for point in points]
    assert all(math.isfinite(sigma) for sigma in sigmas)
    assert sigmas == sorted(sigmas, reverse=True)


def test_a_schedule_of_more_steps_than_were_trained_is_none() -> None:
    few = Discrete(betas("scaled_linear", 0.00085, 0.012, 30))
    with pytest.raises(InvalidRequest, match="original_steps is 50: the model was trained on 30"):
        points_for(few, 4, "lcm")


@pytest.mark.parametrize("schedule", [Discrete(zero_terminal_snr=True), FlowSchedule()])
def test_there_is_no_more_noise_than_nothing_but_noise(schedule: NoiseSchedule) -> None:
    with pytest.raises(InvalidRequest, match="sigma_max is 10000: this model knows no more noise than"):
        points_for(schedule, 4, "euler", "karras:sigma_max=10000")


def values_of(option: Option) -> st.SearchStrategy[Any]:
    if option.words:
        return st.sampled_from(option.words)
    if isinstance(option.default, bool):
        return st.booleans()
    low, high = max(option.within.low, 0), min(option.within.high, 1000)
    if isinstance(option.default, int):
        return st.integers(int(low), int(high))
    return st.floats(low, high, exclude_min=option.within.above)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_as_it_was(data: st.DataObject) -> None:
    """In canonical form, options in any order, none that is as it is anyhow."""
    name = data.draw(st.sampled_from(sorted(SAMPLERS)))
    known = SAMPLERS[name].options
    given = {option: data.draw(values_of(each)) for option, each in known.items() if data.draw(st.booleans())}
    pairs = [f"{option} = {known[option].written(value)}" for option, value in given.items()]
    pairs = data.draw(st.permutations(pairs))
    text, schedule = parse_sampler(f"{SAMPLERS[name].label}: {', '.join(pairs)}")
    assert schedule is None
    assert sampler_options(text) == {
        option: value for option, value in given.items() if value != known[option].default
    }
    assert parse_sampler(text) == (text, None)


def test_options_beside_joined_names() -> None:
    assert parse_sampler("DPM++ 2M SDE Karras:eta=0.5") == ("dpmpp_2m_sde:eta=0.5", "karras")
    assert parse_sampler("ddim:eta=0.0") == ("ddim", None)
    assert parse_schedule("Karras: rho=5, sigma_min=.1") == "karras:rho=5,sigma_min=0.1"
    assert parse_schedule("Automatic") is None
    assert schedule_options("beta:beta=0.5") == {"beta": 0.5}
    there = list(points_for(Discrete(), 5, "euler", "karras", rho=5.0))
    assert list(points_for(Discrete(), 5, "euler", "karras:rho=5")) == there


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (parse_sampler, "euler:eta=1", "sampler euler has no option 'eta': known: s_churn"),
        (parse_sampler, "dpmpp_2m:order=2", "it has none"),
        (parse_sampler, "ddim:eta", "sampler ddim: eta has no value: write it as in eta=0"),
        (parse_sampler, "ddim:eta=", "eta is '': give a number, at least 0"),
        (parse_sampler, "ddim:eta=nan", "eta is nan: give a number"),
        (parse_sampler, "ddim:eta=inf", "eta is inf: choose at least 0"),
        (parse_sampler, "ddim:eta=-1", "eta is -1.0: choose at least 0"),
        (parse_sampler, "ddim:eta=1,eta=2", "eta is given twice"),
        (parse_sampler, "lms:order=2.5", "order is '2.5': give a whole number, 1 to 8"),
        (parse_sampler, "lms:order=9", "order is 9: choose 1 to 8"),
        (parse_sampler, "unipc:lower_order_final=maybe", "lower_order_final is 'maybe': say yes or no"),
        (parse_sampler, "unipc:variant=bh3", "variant is 'bh3': did you mean 'bh2'"),
        (parse_sampler, "dpm_adaptive:h_init=0", "h_init is 0.0: choose 0.001 to 10"),
        (parse_sampler, "dpmpp_sde:r=0", "r is 0.0: choose above 0 to 1"),
        (parse_schedule, "karras:rh=5", "schedule karras has no option 'rh': did you mean 'rho'"),
        (parse_schedule, "karras:sigma_min", "sigma_min has no value: write it as in sigma_min=..."),
        (parse_guide, "pag:scale=1,scale=2", "scale is given twice"),
    ],
)
def test_mistakes_are_told(read: Callable[[str], object], text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read(text)


def test_guides_have_options_like_all() -> None:
    assert parse_guide("off_steps:every=yes").options == {"below": 1.0, "every": True}
    assert all(isinstance(each, Option) for guide in GUIDES.values() for each in guide.options.values())
