"""How a pass goes: what it is told, and how it is sampled and guided."""

from __future__ import annotations

from collections.abc import Sequence

from darkroom.checkpoint.family import PICTURE, Family
from darkroom.diffusion import Guidance, guidance_from, parse_guides, sampler, sampler_info
from darkroom.generation.request import Request
from darkroom.generation.wording import Extras, Wording


class Manner:
    """What a settled request says of how its pictures are drawn, by a model and the others beside it: `guidance` is
    that of each expert."""

    def __init__(self, request: Request, experts: Sequence[Family], extras: Extras | None = None) -> None:
        self.request = request
        self.wording = Wording(request, extras)
        self.guidance = tuple(guidance_of(request, each, self.wording.weights) for each in experts)
        self.sampler = sampler(str(request.sampling.sampler))
        self.brownian = sampler_info(str(request.sampling.sampler)).brownian
        """Whether noise is drawn along the whole way."""


def guidance_of(request: Request, family: Family, weights: tuple[float, ...] = (1.0,)) -> Guidance:
    """How a request is guided, its prompt's parts weighing `weights`: a network that is told the scale needs no
    negative row, and one that is not shown the picture is not guided by it."""
    asked = request.guidance
    assert asked.scale is not None
    scale = 1.0 if family.embeds_guidance else asked.scale
    if scale != 1:
        scale *= sampler_info(str(request.sampling.sampler)).guidance_share
    seen = request.seen.image_guidance if family.needs == PICTURE else None
    picture = 1.0 if seen is None else seen
    return guidance_from(scale, asked.rescale, weights, parse_guides(asked.guides), picture)
