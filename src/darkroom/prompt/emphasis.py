"""What a weight does to a text encoder's states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from darkroom.language.dialects import IGNORE, ORIGINAL


def emphasised(
    states: Tensor, weights: Sequence[float], emphasis: str = ORIGINAL, empty: Tensor | None = None
) -> Tensor:
    """A chunk's states (1, T, width) with weights for its T tokens.

    With the states of the `empty` prompt, a weight scales what a token adds to them, as in ComfyUI and compel; without,
    it scales the state itself, as in A1111.
    """
    if emphasis == IGNORE:
        return states
    scale = torch.tensor(weights, dtype=torch.float32, device=states.device)[None, :, None]
    exact = states.float()
    if empty is not None:
        base = empty.float()
        return torch.where(scale == 1, exact, base + (exact - base) * scale).to(states.dtype)
    scaled = exact * scale
    if emphasis == ORIGINAL:
        scaled = scaled * (exact.mean() / scaled.mean())
    return scaled.to(states.dtype)
