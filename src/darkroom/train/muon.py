"""Muon: momentum whose steps are made orthogonal, for matrices and kernels.

Every singular direction of a step is given the same length, so rare directions are learned as fast as common ones
(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/). Scaled to the size of AdamW's steps, after Liu et al.
2025 (https://arxiv.org/abs/2502.16982, eq. 4), both share one learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_POLYNOMIAL = 3.4445, -4.7750, 2.0315
"""Of Jordan's post: takes singular values in (0, 1] to about 1 in five rounds."""


class Muon(torch.optim.Optimizer):
    """Steps of size `lr` with Nesterov momentum. Kernels (out, in, h, w) count as matrices (out, in * h * w)."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for parameters in alike.values():
                self._move(parameters, group)

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of parameters of one shape, together: on a GPU many small products cost what one does."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
        torch._foreach_lerp_(means, grads, 1 - group["momentum"])
        ahead = torch.stack([g.lerp(m, group["momentum"]) for g, m in zip(grads, means, strict=True)])
        matrices = ahead.flatten(2)
        directions = orthogonal(matrices) * (0.2 * max(matrices.shape[1:]) ** 0.5)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(directions.view_as(ahead)), alpha=-group["lr"])


def orthogonal(matrices: Tensor, rounds: int = 5) -> Tensor:
    """About U V^T for matrices (..., m, n) that are U S V^T, in float32, by a Newton-Schulz iteration in bfloat16."""
    a, b, c = _POLYNOMIAL
    x = matrices.bfloat16()
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result
