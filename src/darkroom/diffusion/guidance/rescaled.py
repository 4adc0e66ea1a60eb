"""Guidance rescale: less contrast where guidance has made too much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.question import Ask, Guidance, Question
from darkroom.diffusion.process import Array


@dataclass(frozen=True)
class Rescaled:
    """Pulls the spread of the guided output back to that of the prompt's own (Lin et al. 2023,
    https://arxiv.org/abs/2305.08891, section 3.4): `share` 0 none of the way, 1 all of it. It is defined on outputs."""

    inner: Guidance
    share: float

    def rows(self, question: Question) -> tuple[Ask, ...]:
        return self.inner.rows(question)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        guided = self.inner.guided(outputs, question)
        if len(outputs) == 1:
            return guided
        matched = guided * (_spread(outputs["positive"]) / _spread(guided))
        return self.share * matched + (1 - self.share) * guided


def _spread(output: Array) -> Array:
    """The standard deviation over channels, height and width of each picture."""
    return output.std((-3, -2, -1), keepdim=True)
