"""Guidance: which rows, and what becomes of their outputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.diffusion import (
    ClassifierFree,
    Discrete,
    Epsilon,
    Flow,
    FlowSchedule,
    Guidance,
    NoiseSchedule,
    Process,
    Question,
    Sample,
    Velocity,
    estimate,
    guidance_from,
    parse_guides,
)
from darkroom.diffusion.guidance import (
    GUIDES,
    AwayFromWorse,
    Interval,
    OffSteps,
    Projected,
    Rescaled,
    Thresholded,
    TowardsPicture,
    Without,
    parse_guide,
)
from darkroom.errors import InvalidRequest

GENERATOR = torch.Generator().manual_seed(6)
X, NEGATIVE, POSITIVE, SECOND, WORSE = (
    torch.randn(2, 4, 8, 8, generator=GENERATOR, dtype=torch.float64) for _ in range(5)
)
SAMPLE = Sample()
POINT = Discrete().trained(300)
CASES = pytest.mark.parametrize(
    ("process", "schedule"),
    [(Epsilon(), Discrete()), (Velocity(), Discrete()), (Sample(), Discrete()), (Flow(), FlowSchedule())],
)


def asked(process: Process = SAMPLE, step: int = 0, steps: int = 10, **others: object) -> Question:
    return Question(**{"x": X, "point": POINT, "process": process, "step": step, "steps": steps, **others})


def names(guidance: Guidance, **question: object) -> list[str]:
    return [row.name for row in guidance.rows(asked(**question))]


def test_rows() -> None:
    assert names(ClassifierFree(1.0)) == ["positive"]
    assert names(ClassifierFree(7.5)) == ["negative", "positive"]
    assert names(ClassifierFree(1.0, (1.0, 0.5))) == ["negative", "positive", "positive 1"]


@CASES
def test_an_output_and_its_estimate_are_inverses(process: Process, schedule: NoiseSchedule) -> None:
    point = schedule.trained(500)
    question = asked(process, point=point)
    torch.testing.assert_close(question.output(question.denoised(POSITIVE)), POSITIVE)


@CASES
def test_at_scale_one_the_positive_row_is_the_estimate(process: Process, schedule: NoiseSchedule) -> None:
    point = schedule.trained(500)
    answer = estimate(ClassifierFree(1.0), [POSITIVE], asked(process, point=point))
    assert torch.equal(answer.denoised, process.denoised(POSITIVE, X, point))
    assert answer.unconditional is None


@CASES
@given(scale=st.floats(-2, 20))
def test_the_same_on_outputs_and_on_estimates(
    process: Process, schedule: NoiseSchedule, scale: float
) -> None:
    point = schedule.trained(300)
    guidance = ClassifierFree(scale)
    outputs = [POSITIVE] if scale == 1 else [NEGATIVE, POSITIVE]
    answer = estimate(guidance, outputs, asked(process, point=point))
    negative, positive = (process.denoised(each, X, point) for each in (NEGATIVE, POSITIVE))
    torch.testing.assert_close(answer.denoised, negative + scale * (positive - negative))
    assert scale == 1 or torch.equal(answer.unconditional, negative)


def test_parts_are_weighed_as_in_a1111() -> None:
    """`combine_denoised` of A1111: uncond, and for every part its difference times weight times scale."""
    answer = estimate(ClassifierFree(5.0, (1.0, -0.3)), [NEGATIVE, POSITIVE, SECOND], asked())
    expected = NEGATIVE.clone()
    for part, weight in ((POSITIVE, 1.0), (SECOND, -0.3)):
        expected += (part - NEGATIVE) * (weight * 5.0)
    torch.testing.assert_close(answer.denoised, expected)


@pytest.mark.peer
@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescale_is_that_of_diffusers(rescale: float) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    guided = NEGATIVE + 7.5 * (POSITIVE - NEGATIVE)
    expected = rescale_noise_cfg(guided, POSITIVE, guidance_rescale=rescale)
    answer = estimate(guidance_from(7.5, rescale), [NEGATIVE, POSITIVE], asked(Velocity()))
    torch.testing.assert_close(answer.denoised, Velocity().denoised(expected, X, POINT))


def test_rescale_in_full_gives_back_the_spread_of_the_positive_row() -> None:
    answer = estimate(Rescaled(ClassifierFree(9.0), 1.0), [NEGATIVE, POSITIVE], asked())
    torch.testing.assert_close(answer.denoised.std((1, 2, 3)), POSITIVE.std((1, 2, 3)))


EVERY = [guidance_from(9.0, 0.7, (1.0, 0.5), parse_guides([name])) for name in GUIDES]


@pytest.mark.parametrize("guidance", EVERY, ids=list(GUIDES))
def test_each_picture_is_guided_alone(guidance: Guidance) -> None:
    question = asked(Velocity(), step=1)
    outputs = [NEGATIVE, POSITIVE, SECOND, WORSE][: len(guidance.rows(question))]
    both = estimate(guidance, outputs, question).denoised
    alone = asked(Velocity(), step=1, x=X[1:])
    one = estimate(guidance, [output[1:] for output in outputs], alone).denoised
    torch.testing.assert_close(both[1:], one)


def test_an_interval_guides_within_it_alone() -> None:
    guidance = guidance_from(5.0, guides=parse_guides(["interval:start=0.2,stop=0.5"]))
    assert isinstance(guidance, Interval)
    guided = [len(guidance.rows(asked(step=step))) == 2 for step in range(10)]
    assert guided == [False, False, True, True, True, False, False, False, False, False]
    assert torch.equal(estimate(guidance, [POSITIVE], asked(step=0)).denoised, POSITIVE)


def test_off_steps_are_those_of_a1111() -> None:
    """`(step % 2 or all) and sigma < s_min_uncond` leaves the negative prompt out."""
    schedule = Discrete()
    for every in (False, True):
        guidance = OffSteps(ClassifierFree(5.0), ClassifierFree(1.0), below=2.0, every=every)
        for step in range(10):
            point = schedule.trained(999 - 110 * step)
            off = (step % 2 or every) and schedule.level(point) < 2.0
            assert len(guidance.rows(asked(step=step, point=point))) == (1 if off else 2)


def test_away_from_worse() -> None:
    guidance = AwayFromWorse(ClassifierFree(5.0), "perturbed", 3.0, Without("attention", ("mid",)), 0.0, 0.5)
    rows = guidance.rows(asked(step=4))
    assert [row.name for row in rows] == ["negative", "positive", "perturbed"]
    assert [row.prompt for row in rows] == ["negative", "positive", "positive"]
    assert [row.without for row in rows] == [None, None, Without("attention", ("mid",))]
    answer = estimate(guidance, [NEGATIVE, POSITIVE, WORSE], asked(step=4)).denoised
    torch.testing.assert_close(answer, NEGATIVE + 5 * (POSITIVE - NEGATIVE) + 3 * (POSITIVE - WORSE))
    assert names(guidance, step=5) == ["negative", "positive"]


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_towards_a_picture(scale: float) -> None:
    """InstructPix2Pix's own formula, eq. 3 of the paper: all three rows whatever the scale of the prompt is."""
    guidance = TowardsPicture(ClassifierFree(scale), 1.5)
    rows = guidance.rows(asked())
    assert [(row.name, row.prompt) for row in rows] == [
        ("negative", "negative"),
        ("positive", "positive"),
        ("unseen", "negative"),
    ]
    assert [row.without for row in rows] == [None, None, Without("picture")]
    answer = estimate(guidance, [NEGATIVE, POSITIVE, WORSE], asked())
    expected = WORSE + 1.5 * (NEGATIVE - WORSE) + scale * (POSITIVE - NEGATIVE)
    torch.testing.assert_close(answer.denoised, expected)
    torch.testing.assert_close(answer.unconditional, NEGATIVE)


@pytest.mark.peer
def test_projected_is_that_of_diffusers() -> None:
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    buffer = MomentumBuffer(-0.4)
    ours, memory = Projected(8.0, eta=0.3, threshold=9.0, momentum=-0.4), {}
    for step, (negative, positive) in enumerate([(NEGATIVE, POSITIVE), (SECOND, WORSE), (WORSE, NEGATIVE)]):
        # The paper's scale is one less than ours.
        expected = normalized_guidance(
            positive, negative, 7.0, buffer, 0.3, 9.0, use_original_formulation=True
        )
        answer = estimate(ours, [negative, positive], asked(step=step, memory=memory)).denoised
        torch.testing.assert_close(answer, expected)


def test_projected_with_all_of_its_difference_is_classifier_free() -> None:
    answer = estimate(Projected(8.0, eta=1.0), [NEGATIVE, POSITIVE], asked(Velocity()))
    plain = estimate(ClassifierFree(8.0), [NEGATIVE, POSITIVE], asked(Velocity()))
    torch.testing.assert_close(answer.denoised, plain.denoised)


def thresholded_by_the_extension(
    scale: float, mimic: float, percentile: float, separate: bool, spread: bool, zero: bool, phi: float
) -> torch.Tensor:
    """What mcmonkey's dynamic thresholding does, step by step."""
    result = torch.empty_like(X)
    for picture in range(len(X)):
        low = NEGATIVE[picture] + mimic * (POSITIVE - NEGATIVE)[picture]
        high = NEGATIVE[picture] + scale * (POSITIVE - NEGATIVE)[picture]
        low_flat, high_flat = low.flatten(1), high.flatten(1)
        low_mean, high_mean = low_flat.mean(1, keepdim=True), high_flat.mean(1, keepdim=True)
        low_c, high_c = (low_flat, high_flat) if zero else (low_flat - low_mean, high_flat - high_mean)

        def reference(x: torch.Tensor, share: float | None, spread: bool = spread) -> torch.Tensor:
            if not separate:
                x = x.flatten()[None]
            if spread:
                return x.std(1, keepdim=True)
            return (
                x.abs().amax(1, keepdim=True) if share is None else x.abs().quantile(share, 1, keepdim=True)
            )

        if spread:
            out = high_c / reference(high_c, None) * reference(low_c, None)
        else:
            limit = torch.maximum(reference(low_c, None), reference(high_c, percentile))
            out = high_c.maximum(-limit).minimum(limit) / limit * reference(low_c, None)
        out = out if zero else out + high_mean
        result[picture] = (phi * out + (1 - phi) * high_flat).view_as(high)
    return result


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("percentile", "phi"), [(1.0, 1.0), (0.9, 0.6)])
def test_dynamic_thresholding(
    separate: bool, spread: bool, zero: bool, percentile: float, phi: float
) -> None:
    guidance = Thresholded(
        ClassifierFree(15.0),
        ClassifierFree(4.0),
        percentile,
        "spread" if spread else "range",
        "zero" if zero else "mean",
        separate,
        phi,
    )
    answer = estimate(guidance, [NEGATIVE, POSITIVE], asked()).denoised
    torch.testing.assert_close(
        answer, thresholded_by_the_extension(15.0, 4.0, percentile, separate, spread, zero, phi)
    )


@pytest.mark.parametrize("name", GUIDES)
def test_every_way_of_guiding_takes_its_defaults_written_out(name: str) -> None:
    options = GUIDES[name].options
    written = ",".join(f"{option}={each.written()}" for option, each in options.items())
    assert parse_guide(f"{name}:{written}") == parse_guide(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pagg", "pag"),
        ("pag:scael=3", "scale"),
        ("pag:scale=big", "number"),
        ("pag:scale", "scale=3"),
        ("pag:stop=2", "0 to 1"),
        ("slg:blocks=a", "7\\+8\\+9"),
        ("off_steps:every=maybe", "yes or no"),
        ("threshold:measure=size", "range"),
    ],
)
def test_mistakes_are_explained(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse_guide(text)
    with pytest.raises(InvalidRequest, match="2 times"):
        parse_guides(["pag", "pag:scale=2"])
