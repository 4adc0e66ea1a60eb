"""Guidance away from what a worse network makes of the same prompt: perturbed-attention and skip-layer guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.question import Ask, Guidance, Question, Without
from darkroom.diffusion.process import Array


@dataclass(frozen=True)
class AwayFromWorse:
    """inner + scale * (positive - worse), on the steps that begin from `start` up to `stop`, shares of the way.

    The worse row is told the prompt by a network that does `without` something: without attention it is
    perturbed-attention guidance (Ahn et al. 2024, https://arxiv.org/abs/2403.17377, eq. 12), without some blocks
    skip-layer guidance (Stability AI 2024, Stable Diffusion 3.5 Medium).
    """

    inner: Guidance
    name: str
    scale: float
    without: Without
    start: float = 0.0
    stop: float = 1.0

    def rows(self, question: Question) -> tuple[Ask, ...]:
        rows = self.inner.rows(question)
        return (*rows, Ask(self.name, "positive", self.without)) if self._acts(question) else rows

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        if not self._acts(question):
            return self.inner.guided(outputs, question)
        others = {name: output for name, output in outputs.items() if name != self.name}
        away = outputs["positive"] - outputs[self.name]
        return self.inner.guided(others, question) + self.scale * away

    def _acts(self, question: Question) -> bool:
        return bool(self.scale) and question.within(self.start, self.stop)
