"""Guidance on some of the steps only: fewer rows, and often a better picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.question import Ask, Guidance, Question
from darkroom.diffusion.process import Array


@dataclass(frozen=True)
class _Sometimes(ABC):
    """`inside` on some of the steps, `outside` on the others."""

    inside: Guidance
    outside: Guidance

    def rows(self, question: Question) -> tuple[Ask, ...]:
        return self._chosen(question).rows(question)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        return self._chosen(question).guided(outputs, question)

    def _chosen(self, question: Question) -> Guidance:
        return self.inside if self._guides(question) else self.outside

    @abstractmethod
    def _guides(self, question: Question) -> bool:
        """Whether it is one of those steps."""


@dataclass(frozen=True)
class Interval(_Sometimes):
    """`inside` on the steps that begin from `start` up to `stop`, shares of the way, `outside` on the others
    (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724)."""

    start: float = 0.0
    stop: float = 1.0

    def _guides(self, question: Question) -> bool:
        return question.within(self.start, self.stop)


@dataclass(frozen=True)
class OffSteps(_Sometimes):
    """`outside` on every second step, on `every` one if asked, once the noise level sigma / alpha is under `below`,
    `inside` on the others: A1111's "negative guidance minimum sigma" (`modules/sd_samplers_cfg_denoiser.py`)."""

    below: float
    every: bool = False

    def _guides(self, question: Question) -> bool:
        late = question.point.sigma < self.below * question.point.alpha
        return not (late and (self.every or question.step % 2 == 1))
