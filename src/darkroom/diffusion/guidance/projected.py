"""Adaptive projected guidance: high scales without burnt colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.classifier_free import ClassifierFree, together
from darkroom.diffusion.guidance.question import NEGATIVE, Ask, Question
from darkroom.diffusion.process import Array

_PAST = "projected"


@dataclass(frozen=True)
class Projected:
    """Classifier-free guidance on estimates of x0, of whose difference the part along the prompt's own estimate, which
    makes colours burn, is multiplied by `eta` (Sadat et al. 2024, https://arxiv.org/abs/2410.02416, algorithm 1).

    The difference is at most `threshold` long (0: any length); `momentum`, usually negative, adds the differences of
    the questions before.
    """

    scale: float
    weights: tuple[float, ...] = (1.0,)
    eta: float = 0.0
    threshold: float = 0.0
    momentum: float = 0.0

    def rows(self, question: Question) -> tuple[Ask, ...]:
        return ClassifierFree(self.scale, self.weights).rows(question)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        if NEGATIVE.name not in outputs:
            return outputs["positive"]
        positive = question.denoised(together(outputs, self.weights))
        difference = positive - question.denoised(outputs[NEGATIVE.name])
        if self.momentum:
            past = question.memory.get(_PAST)
            difference = difference if past is None else difference + self.momentum * past
            question.memory[_PAST] = difference
        if self.threshold:
            difference = difference * (self.threshold / _length(difference)).clamp(max=1.0)
        direction = positive / _length(positive)
        along = _total(difference * direction) * direction
        update = difference - along + self.eta * along
        return question.output(positive + (self.scale - 1) * update)


def _total(x: Array) -> Array:
    """The sum over channels, height and width of each picture."""
    return x.sum((-3, -2, -1), keepdim=True)


def _length(x: Array) -> Array:
    return _total(x * x).sqrt().clamp(min=1e-12)
