"""Guidance towards the picture that a network is shown: InstructPix2Pix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.diffusion.guidance.question import NEGATIVE, Ask, Guidance, Question, Without
from darkroom.diffusion.process import Array

_UNSEEN = Ask("unseen", NEGATIVE.prompt, Without("picture"))


@dataclass(frozen=True)
class TowardsPicture:
    """inner + (scale - 1) * (negative - unseen), where `unseen` is told the negative prompt and not shown the picture.

    Around classifier-free guidance by the prompt that is InstructPix2Pix's of both (Brooks et al. 2022,
    https://arxiv.org/abs/2211.09800, eq. 3): unseen + scale * (negative - unseen) + its scale * (positive - negative).
    """

    inner: Guidance
    scale: float

    def rows(self, question: Question) -> tuple[Ask, ...]:
        rows = self.inner.rows(question)
        return (*(rows if NEGATIVE in rows else (NEGATIVE, *rows)), _UNSEEN)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        seen = {name: output for name, output in outputs.items() if name != _UNSEEN.name}
        towards = outputs[NEGATIVE.name] - outputs[_UNSEEN.name]
        return self.inner.guided(seen, question) + (self.scale - 1) * towards
