"""Dynamic thresholding: the detail of a high guidance scale in the value range of a lower one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from darkroom.diffusion.guidance.classifier_free import ClassifierFree
from darkroom.diffusion.guidance.question import NEGATIVE, Ask, Guidance, Question
from darkroom.diffusion.process import Array


@dataclass(frozen=True)
class Thresholded:
    """`inner`'s estimate of x0, each channel brought into the range that guidance of the scale `mimic` has.

    The method of Imagen (Saharia et al. 2022, https://arxiv.org/abs/2205.11487, section 2.3), for latents, which have
    no range of their own: as in the dynamic thresholding extension for A1111 and ComfyUI. `percentile` of the values,
    0 to 1, stay below the clamp; `measure` is the range itself ("range") or the standard deviation ("spread");
    `centre` measures from the mean or from zero; `channels` each channel by itself; `share` is how much of the result
    replaces inner's.
    """

    inner: Guidance
    mimic: ClassifierFree
    percentile: float = 1.0
    measure: Literal["range", "spread"] = "range"
    centre: Literal["mean", "zero"] = "mean"
    channels: bool = True
    share: float = 1.0

    def rows(self, question: Question) -> tuple[Ask, ...]:
        return self.inner.rows(question)

    def guided(self, outputs: Mapping[str, Array], question: Question) -> Array:
        output = self.inner.guided(outputs, question)
        if NEGATIVE.name not in outputs:
            return output
        guided = question.denoised(output)
        model = question.denoised(self.mimic.guided(outputs, question))
        axes = (-2, -1) if self.channels else (-3, -2, -1)
        middle = guided.mean((-2, -1), keepdim=True) if self.centre == "mean" else 0.0
        ours = guided - middle
        theirs = model - model.mean((-2, -1), keepdim=True) if self.centre == "mean" else model
        if self.measure == "spread":
            within = ours / ours.std(axes, keepdim=True) * theirs.std(axes, keepdim=True)
        else:
            reach = theirs.abs().amax(axes, keepdim=True)
            limit = _percentile(ours.abs(), self.percentile, len(axes)).maximum(reach)
            within = ours.clamp(-limit, limit) / limit * reach
        result = within + middle
        return question.output(self.share * result + (1 - self.share) * guided)


def _percentile(x: Array, share: float, axes: int) -> Array:
    """The value below which that share of the last axes' values lie, those axes kept."""
    found = x.flatten(-axes).quantile(share, dim=-1)
    return found[(..., *(None,) * axes)]
