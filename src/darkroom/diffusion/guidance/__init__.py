"""Guidance: one question of a sampler becomes rows for the network, and the rows' outputs one answer.

Neither the sampler nor the network knows of it. A guidance is a small class with two methods: `rows` names the rows to
run for a question, `guided` makes one output of theirs. Most wrap another one, so that they combine freely:

    guidance = Rescaled(AwayFromWorse(ClassifierFree(5), "perturbed", 3, Without("attention", ("mid",))), 0.7)
    question = Question(x, point, process, step, steps, memory)
    outputs = [network(x, point, row) for row in guidance.rows(question)]
    answer = estimate(guidance, outputs, question)
"""

from darkroom.diffusion.guidance.classifier_free import ClassifierFree
from darkroom.diffusion.guidance.interval import Interval, OffSteps
from darkroom.diffusion.guidance.pictured import TowardsPicture
from darkroom.diffusion.guidance.projected import Projected
from darkroom.diffusion.guidance.question import (
    NEGATIVE,
    Ask,
    Guidance,
    Question,
    Without,
    estimate,
    positives,
)
from darkroom.diffusion.guidance.registry import (
    GUIDES,
    Guide,
    GuideInfo,
    guidance_from,
    parse_guide,
    parse_guides,
)
from darkroom.diffusion.guidance.rescaled import Rescaled
from darkroom.diffusion.guidance.thresholded import Thresholded
from darkroom.diffusion.guidance.worse import AwayFromWorse

__all__ = [
    "GUIDES",
    "NEGATIVE",
    "Ask",
    "AwayFromWorse",
    "ClassifierFree",
    "Guidance",
    "Guide",
    "GuideInfo",
    "Interval",
    "OffSteps",
    "Projected",
    "Question",
    "Rescaled",
    "Thresholded",
    "TowardsPicture",
    "Without",
    "estimate",
    "guidance_from",
    "parse_guide",
    "parse_guides",
    "positives",
]
