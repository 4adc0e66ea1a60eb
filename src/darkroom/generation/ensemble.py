"""Several models on one way from noise to a picture: averaged, in turn, or one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.diffusion import Estimate
from darkroom.diffusion.process import Array
from darkroom.errors import InvalidRequest
from darkroom.language.options import named_options, number

_WHAT = "the model"


@dataclass(frozen=True)
class Member:
    """Another model's part in a picture: its share of the estimate, the model's own being what is left to 1, on every
    `every`-th of the steps that begin from `start` up to `stop`, shares of the way."""

    name: str
    weight: float = 0.5
    start: float = 0.0
    stop: float = 1.0
    every: int = 1

    def share(self, step: int, steps: int) -> float:
        """Its share at a step, counted from 0."""
        due = self.start <= step / steps < self.stop and (step + 1) % self.every == 0
        return self.weight if due else 0.0


def parse_member(text: str) -> Member:
    """A model, and after colons its weight and start=, stop=, every=: "inks:0.3", "inks:1:start=0.5" (from half the way
    on), "inks:1:every=2" (in turn). Raises InvalidRequest for what it cannot read."""
    name, options = named_options(text, _WHAT, ("weight",), ("start", "stop", "every"))
    values = {option: number(value, text, _WHAT) for option, value in options.items()}
    every = values.pop("every", 1.0)
    if not name or every < 1 or every != int(every):
        raise InvalidRequest(f"{text!r} names no model and its part: write it as in inks:0.5:every=2")
    member = Member(name, **values, every=int(every))
    if not 0 <= member.start <= member.stop <= 1:
        raise InvalidRequest(
            f"{text!r} starts at {member.start:g} and stops at {member.stop:g}: choose 0 to 1"
        )
    return member


def shares(members: Sequence[Member], step: int, steps: int) -> tuple[tuple[int, float], ...]:
    """Which models make a step, the model itself being 0, and the share of each."""
    others = [(index, member.share(step, steps)) for index, member in enumerate(members, 1)]
    own = 1 - sum(share for _, share in others)
    return tuple((index, share) for index, share in ((0, own), *others) if share)


def averaged(estimates: Sequence[tuple[Estimate, float]]) -> Estimate:
    """The estimate that several come to, each with its share."""
    (first, share), *others = estimates
    if not others and share == 1:
        return first
    denoised = [(estimate.denoised, own) for estimate, own in estimates]
    negative = [
        (estimate.unconditional, own) for estimate, own in estimates if estimate.unconditional is not None
    ]
    return Estimate(_sum(denoised), _sum(negative) if len(negative) == len(estimates) else None)


def _sum(terms: Sequence[tuple[Array, float]]) -> Array:
    (first, share), *others = terms
    return sum((each * own for each, own in others), first * share)
