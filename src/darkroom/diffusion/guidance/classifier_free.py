"""Classifier-free guidance, of one prompt or of several together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.question import NEGATIVE, Ask, Question, positives
from darkroom.diffusion.process import Array


@dataclass(frozen=True)
class ClassifierFree:
    """negative + scale * (positive - negative) (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598, eq. 6, whose w
    is scale - 1).

    It combines raw outputs. Those and estimates of x0 are affine in one another at a fixed x and point, so this line is
    the same on either. With several `weights` the prompt has as many parts, and each moves the picture by its own
    difference times its weight (Liu et al. 2022, https://arxiv.org/abs/2206.01714, eq. 11). At scale 1 only the
    positive row is run.
    """

    scale: float
    weights: tuple[float, ...] = (1.0,)

    def rows(self, question: Question) -> tuple[Ask, ...]:
        if self.scale == 1 and self.weights == (1.0,):
            return positives(1)
        return (NEGATIVE, *positives(len(self.weights)))

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        if NEGATIVE.name not in outputs:
            return outputs["positive"]
        negative = outputs[NEGATIVE.name]
        return negative + self.scale * (together(outputs, self.weights) - negative)


def together(outputs: Mapping[str, Array], weights: tuple[float, ...]) -> Array:
    """What all parts of the prompt come to at scale 1: the positive output itself where there is one part."""
    if weights == (1.0,):
        return outputs["positive"]
    negative = outputs[NEGATIVE.name]
    total = negative
    for row, weight in zip(positives(len(weights)), weights, strict=True):
        total = total + weight * (outputs[row.name] - negative)
    return total
