"""Guidance on some of the steps only: fewer rows, and often a better picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.question import Ask, Guidance, Question
from darkroom.diffusion.process import Array


@dataclass(frozen=True)
class Interval:
    """`inside` on the steps that begin from `start` up to `stop`, shares of the way, `outside` on the others
    (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724)."""

    inside: Guidance
    outside: Guidance
    start: float = 0.0
    stop: float = 1.0

    def rows(self, question: Question) -> tuple[Ask, ...]:
        return self._chosen(question).rows(question)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        return self._chosen(question).guided(outputs, question)

    def _chosen(self, question: Question) -> Guidance:
        return self.inside if question.within(self.start, self.stop) else self.outside


@dataclass(frozen=True)
class OffSteps:
    """`outside` on every second step, on `every` one if asked, once the noise level sigma / alpha is under `below`,
    `inside` on the others: A1111's "negative guidance minimum sigma" (`modules/sd_samplers_cfg_denoiser.py`)."""

    inside: Guidance
    outside: Guidance
    below: float
    every: bool = False

    def rows(self, question: Question) -> tuple[Ask, ...]:
        return self._chosen(question).rows(question)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        return self._chosen(question).guided(outputs, question)

    def _chosen(self, question: Question) -> Guidance:
        point = question.point
        off = point.sigma < self.below * point.alpha and (self.every or question.step % 2 == 1)
        return self.outside if off else self.inside
