"""Guidance: one question of a sampler becomes rows for the network, and the rows' outputs one answer.

Neither the sampler nor the network knows of it. A variant is a small class with two methods:
`rows` names the conditionings to run at a point, `combine` turns their outputs into an Estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from darkroom.diffusion.process import Array, Place, Process
from darkroom.diffusion.run import Estimate


class Guidance(Protocol):
    def rows(self, point: Place) -> tuple[str, ...]:
        """The names of the conditionings to run at this point: "positive" is the prompt, "negative" the
        negative (or empty) prompt. A variant may name others that its job knows how to make."""
        ...

    def combine(self, outputs: Sequence[Array], process: Process, x: Array, point: Place) -> Estimate:
        """One estimate from the network's raw outputs for those rows, in that order."""
        ...


@dataclass(frozen=True)
class ClassifierFree:
    """negative + scale * (positive - negative) (Ho and Salimans 2022,
    https://arxiv.org/abs/2207.12598, eq. 6, whose w is scale - 1).

    It combines raw outputs. Those and estimates of x0 are affine in one another at a fixed x and point,
    so this line is the same on either; `rescale` is not: it pulls the guided output's spread
    back to the positive one's (Lin et al. 2023, https://arxiv.org/abs/2305.08891, section 3.4; 0
    none, 1 all of it), and is defined on outputs. At scale 1 only the positive row is run.
    """

    scale: float
    rescale: float = 0.0

    def rows(self, point: Place) -> tuple[str, ...]:
        return ("positive",) if self.scale == 1 else ("negative", "positive")

    def combine(self, outputs: Sequence[Array], process: Process, x: Array, point: Place) -> Estimate:
        if len(outputs) == 1:
            return Estimate(process.denoised(outputs[0], x, point))
        negative, positive = outputs
        guided = negative + self.scale * (positive - negative)
        if self.rescale:
            matched = guided * (_spread(positive) / _spread(guided))
            guided = self.rescale * matched + (1 - self.rescale) * guided
        return Estimate(process.denoised(guided, x, point), process.denoised(negative, x, point))


def _spread(output: Array) -> Array:
    """The standard deviation over channels, height and width of each picture."""
    return output.std((-3, -2, -1), keepdim=True)
