"""Comparing a network with its peer: the same random weights, the same inputs, module by module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    error = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    assert math.isfinite(error)
    return error


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, those of norms and those that start at zero too, activations about one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (0.5 if "embedding.weight" in name else parameter[0].numel() ** -0.5))
            else:
                parameter.copy_(0.3 * noise + (1 if name.endswith("weight") else 0))
    return module.eval().requires_grad_(False)


def outputs_by_name(network: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """The output of every submodule in one run, as it was before anything changed it in place."""
    seen: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            output = getattr(output, "sample", output)
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, Tensor):
                seen[name] = output.clone()

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return seen


def compare_modules(
    ours: nn.Module, run_ours: Callable[[], Any], theirs: nn.Module, run_theirs: Callable[[], Any]
) -> set[str]:
    """Asserts that modules of one name give one output; returns the names compared."""
    ours_seen, theirs_seen = outputs_by_name(ours, run_ours), outputs_by_name(theirs, run_theirs)
    names = ours_seen.keys() & theirs_seen.keys()
    for name in sorted(names):
        error = relative_error(ours_seen[name], theirs_seen[name].view_as(ours_seen[name]))
        assert error <= TOLERANCE, f"{name}: relative error {error:.1e}"
    return names


@pytest.fixture
def close() -> Callable[[Tensor, Tensor], None]:
    def check(ours: Tensor, theirs: Tensor) -> None:
        assert relative_error(ours, theirs) <= TOLERANCE

    return check


@pytest.fixture(name="randomise")
def _randomise() -> Callable[..., nn.Module]:
    return randomise


@pytest.fixture(name="compare_modules")
def _compare_modules() -> Callable[..., set[str]]:
    return compare_modules


@pytest.fixture(name="relative_error")
def _relative_error() -> Callable[[Tensor, Tensor], float]:
    return relative_error
