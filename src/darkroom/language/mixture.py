"""What one text encoder is to read: texts, blended and one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.language.spans import Span


@dataclass(frozen=True)
class Blend:
    """Texts whose states are added up, each times its share; `weight` is that of the whole, measured from the empty
    prompt."""

    texts: tuple[tuple[Span, ...], ...]
    shares: tuple[float, ...] = (1.0,)
    weight: float = 1.0


Mixture = tuple[Blend, ...]
"""Blends whose states follow one another. Most prompts are one blend of one text."""


def in_one(mixture: Mixture) -> Blend:
    """The same for an encoder that reads one sequence: what follows the first blend stands at its texts' ends."""
    first, *others = mixture
    behind = tuple(span for blend in others for span in blend.texts[0])
    return Blend(tuple((*text, *behind) for text in first.texts), first.shares)


def alone(spans: Sequence[Span]) -> Mixture:
    """One text and nothing else."""
    return (Blend((tuple(spans),)),)
