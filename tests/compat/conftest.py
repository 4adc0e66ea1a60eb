"""What the comparisons with diffusers' schedulers share."""

from __future__ import annotations

import diffusers
import pytest


@pytest.fixture(autouse=True)
def quick_to_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of diffusers' schedulers take 0.4 s to make, which goes into laying out 1,000 steps that their next
    `set_timesteps` replaces: they lay out 10."""
    for scheduler in (diffusers.KDPM2DiscreteScheduler, diffusers.KDPM2AncestralDiscreteScheduler):

        def few(self, steps, device=None, training=None, whole=scheduler.set_timesteps):
            return whole(self, 10 if steps == training else steps, device, training)

        monkeypatch.setattr(scheduler, "set_timesteps", few)
