"""Requests on the way from one prompt, or one seed, to another."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Unpack, cast

from darkroom.errors import InvalidRequest
from darkroom.generation.parts import MAX_SEED
from darkroom.generation.request import MAX_COUNT, Request, Settings
from darkroom.numeric import integer

TAKEN = ("seed", "count", "towards", "towards_strength", "variation_seed", "variation_strength")
"""The settings that change on the way."""
_SAME = 1e-9


def between(
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = (),
    frames: int = 9,
    loop: bool = False,
    **settings: Unpack[Settings],
) -> list[Request]:
    """A request for each of some frames, evenly along the way through several prompts, several seeds, or as many of
    both: along the arc between two prompts' embeddings, and between two seeds' first noises (what samplers draw later
    is of the seed behind).

    A single prompt or seed is that of all frames; without seeds one is drawn, and for -1 as well. `loop`: back to the
    first, which is not there twice. Where a frame is at a prompt and a seed, it is the picture that these make alone.
    Raises InvalidRequest where there is no way, or `settings` say what the way does.
    """
    if taken := [name for name in TAKEN if name in settings]:
        raise InvalidRequest(f"{taken[0]} changes on the way: leave it out, and give prompts and seeds")
    if settings.get("dynamic", "off") != "off":
        raise InvalidRequest(
            "dynamic would draw each frame's prompt anew: leave it out, and give the prompts themselves"
        )
    prompts = [prompts] if isinstance(prompts, str) else [*prompts]
    given: list[int] = [cast(int, seeds)] if integer(seeds) is not None else [*cast(Sequence[int], seeds)]
    seeds = [secrets.randbelow(2**32) if seed == -1 else seed for seed in given or [-1]]
    if "latents" in settings and len(seeds) > 1:
        raise InvalidRequest("latents take the place of what seeds draw: give one seed, or leave them out")
    for seed in seeds:
        if (number := integer(seed)) is None or not 0 <= number <= MAX_SEED:
            raise InvalidRequest(f"seed is {seed!r}: give a whole number from 0 to {MAX_SEED:,}")
    stops = max(len(prompts), len(seeds))
    if not prompts or {len(prompts), len(seeds)} - {1, stops} or stops < 2:
        raise InvalidRequest(
            f"there are {len(prompts)} prompts and {len(seeds)} seeds: give several of one, or as many of both"
        )
    if (count := integer(frames)) is None or not 2 <= count <= MAX_COUNT:
        raise InvalidRequest(f"frames is {frames!r}: give a whole number from 2 to {MAX_COUNT:,}")
    texts, numbers = (_all(each, stops, loop) for each in (prompts, seeds))
    last = len(texts) - 1
    found = []
    for frame in range(count):
        place = frame * last / (count if loop else count - 1)
        stop = min(int(place + _SAME), last)
        share = place - stop
        request = Request(texts[stop], **settings).replace(seed=numbers[stop])
        if share > _SAME:
            if texts[stop] != texts[stop + 1]:
                request = request.replace(towards=texts[stop + 1], towards_strength=share)
            if numbers[stop] != numbers[stop + 1]:
                request = request.replace(variation_seed=numbers[stop + 1], variation_strength=share)
        found.append(request)
    return found


def _all(several: Sequence[Any], stops: int, loop: bool) -> list[Any]:
    """What there is at each stop, the first once more at the end of a loop."""
    whole = [*several] * (stops if len(several) == 1 else 1)
    return [*whole, *(whole[:1] if loop else ())]
