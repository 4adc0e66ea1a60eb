"""What the tests of the mathematics share: a network with known outputs, a driver, and the peers in
float64."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.diffusion import Estimate, Point, Points, Run, Sampler


@pytest.fixture
def mixture() -> Callable[[Any, Point], Any]:
    """The exact denoiser of a mixture of two Gaussians, number by number: smooth and far from linear."""

    def denoised(x: torch.Tensor, point: Point) -> torch.Tensor:
        parts = []
        for weight, mean, variance in ((0.3, -0.8, 0.02), (0.7, 0.6, 0.1)):
            total = point.alpha**2 * variance + point.sigma**2
            off = x - point.alpha * mean
            log = math.log(weight) - 0.5 * math.log(total) - off**2 / (2 * total)
            parts.append((log, mean + point.alpha * variance / total * off))
        share = torch.sigmoid(parts[1][0] - parts[0][0])
        return (1 - share) * parts[0][1] + share * parts[1][1]

    return denoised


def driven(sampler: Sampler, run: Run, points: Points, network: Callable[[Any, Point], Any]) -> Any:
    """Runs a sampler to its end: (final x, the points it asked about)."""
    asked = []
    steps = sampler(run, points)
    try:
        x, point = next(steps)
        while True:
            asked.append(point)
            x, point = steps.send(Estimate(network(x, point)))
    except StopIteration:
        return run.x, asked


@pytest.fixture
def drive() -> Callable[..., tuple[Any, list[Point]]]:
    return driven


@pytest.fixture
def noises() -> Callable[[int], torch.Tensor]:
    """Draw n of a fixed noise, float64."""
    table = torch.randn((400, 3, 5), generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    return lambda draw: table[draw]


class _Double:
    """A module whose float32 is float64, so that a peer written for one works in the other."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def diffusers_scheduler(double: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a scheduler of diffusers by class name, all of it in float64."""

    def make(name: str, **config: Any) -> Any:
        kind = getattr(importlib.import_module("diffusers"), name)
        module = sys.modules[kind.__module__]
        for peer in ("torch", "np"):
            if peer in vars(module) and not isinstance(vars(module)[peer], _Double):
                monkeypatch.setattr(module, peer, _Double(vars(module)[peer]))
        return kind(**config)

    return make


@pytest.fixture(scope="session")
def k_diffusion() -> types.ModuleType:
    """k-diffusion's sampling.py alone. Importing the package wants torchvision, and this file
    imports solvers that the functions compared with do not use: they get empty modules."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None, "pip install --no-deps k-diffusion==0.1.1.post1"
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "sampling.py"
    unused = {name: types.ModuleType(name) for name in ("torchdiffeq", "torchsde", "k_diffusion")}
    unused["torchdiffeq"].odeint = None  # type: ignore[attr-defined]
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]  # type: ignore[attr-defined]
    unused["k_diffusion"].utils = utils  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {**unused, "k_diffusion.utils": utils}.items():
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("k_diffusion.sampling", path)
        assert spec is not None
        assert spec.loader is not None
        sampling = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sampling)
    return sampling
