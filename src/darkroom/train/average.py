"""Averages of weights over training, kept in float32 beside the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from darkroom.train.config import LoopConfig


def power_exponent(width: float) -> float:
    """The gamma whose power-function average has relative width sigma_rel = `width`
    (Karras et al. 2024, https://arxiv.org/abs/2312.02696, eq. 126)."""
    inverse = 1 / width**2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def decay_at(config: LoopConfig, updates: int) -> float:
    """How much of the average is kept at its `updates`-th update, counted from 1.

    "power": (1 - 1/t)^(gamma + 1), Karras et al. 2024, eq. 121; "constant": the decay itself, but no more
    than t / (t + 9), so that early averages are not stuck at the first weights.
    """
    if config.ema == "power":
        return float((1 - 1 / updates) ** (power_exponent(config.ema_value) + 1))
    return min(config.ema_value, (updates - 1) / (updates + 8))


class Average:
    """The moving average of the networks' parameters; buffers are taken as they are."""

    def __init__(self, config: LoopConfig, networks: Mapping[str, nn.Module]) -> None:
        self._config = config
        self._live = dict(named_parameters(networks))
        self.tensors = {name: value.detach().clone().float() for name, value in self._live.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the parameters as they are now."""
        if self._config.ema == "none":
            return
        self.updates += 1
        keep = decay_at(self._config, self.updates)
        live = [value.detach() for value in self._live.values()]
        torch._foreach_lerp_(list(self.tensors.values()), live, 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The networks hold the average inside the block, their own weights again after it."""
        if self._config.ema == "none":
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._live.items():
            own = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(own)


def named_parameters(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter of every network that is trained, as (network.parameter, tensor)."""
    for prefix, network in networks.items():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                yield f"{prefix}.{name}", parameter
