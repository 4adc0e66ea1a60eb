"""What a model prefers, and between which limits: requests that ask for something else keep to the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from darkroom.diffusion import Within

STEPS = Within(1, 1000)
GUIDANCE = Within(0, 1000)
SECOND_STRENGTH = Within(0, 1, above=True)
COMPOSE = ("native", "own")


@dataclass(frozen=True)
class Preferences:
    """What a request that leaves a setting open gets."""

    steps: int = 20
    guidance: float = 7.5
    sampler: str = "dpmpp_2m"
    schedule: str = "karras"
    second_strength: float = 0.5
    compose: str = "own"
    upscaler: str = "lanczos"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in which what goes without saying is not said: older versions do not know all of it."""
        return {name: value for name, value in vars(self).items() if (name, value) not in _UNSAID}


_UNSAID = (("compose", "own"), ("upscaler", "lanczos"))
