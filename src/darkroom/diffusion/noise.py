"""Each picture's own noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from darkroom.diffusion.points import Point, Points

SOURCES = {
    "cpu": "torch's generator on the CPU: the same numbers on every machine",
    "nv": "the numbers that an NVIDIA GPU draws, computed on the CPU",
    "gpu": "torch's generator on the GPU that the model is on",
    "comfy": "the first noise as cpu, what samplers draw as nv: as ComfyUI on an NVIDIA GPU",
}
"""Where noise comes from, in A1111's words; `_SPLIT` says of what is two."""

_SPLIT = {"comfy": ("cpu", "nv")}

_SEEDS = 2**64
"""How many seeds there are: a generator takes 64 bits."""
_STRAIGHT = 0.9995
"""Noises whose mean cosine is larger are mixed along the line between them."""


@dataclass(frozen=True)
class Seeding:
    """How noise comes of a seed, as A1111 has it (`modules/rng.py`).

    source: see `SOURCES`. delta: added to the seed for all noise but the first (A1111's ENSD). variation: another seed,
    and how far towards its noise the first goes, 0 to 1. resized: (height, width) of the latent whose noise the first
    has in its middle, so that a picture of another size looks alike.
    """

    source: str = "cpu"
    delta: int = 0
    variation: tuple[int, float] | None = None
    resized: tuple[int, int] | None = None


class SeededNoise:
    """The noise of one picture: draw n of a generator seeded with `seed`.

    As long as `seeding` is the default, draw 0 equals
    torch.randn(shape, generator=torch.Generator().manual_seed(seed)), the later ones further calls of the same. Drawn
    in float32, on the CPU on every machine, then moved to `device` and `dtype`. Asking out of order draws again from
    the start, so the n-th is the n-th whoever asks. shape: (1, C, h, w), any other one without `seeding`. `first` takes
    the place of draw 0.
    """

    def __init__(
        self,
        seed: int,
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        seeding: Seeding | None = None,
        first: torch.Tensor | None = None,
    ) -> None:
        import torch  # The mathematics is to be had without it: help texts list samplers.

        self.seed = seed
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self.dtype = dtype or torch.float32
        self.seeding = seeding or Seeding()
        self._given = first
        delta, source = self.seeding.delta, self.seeding.source
        self._source, later = _SPLIT.get(source, (source, source))
        self._stream = _Stream(seed, self.shape, self._source)
        apart = delta or later != self._source
        self._later = _Stream((seed + delta) % _SEEDS, self.shape, later) if apart else None

    def __call__(self, draw: int) -> torch.Tensor:
        if not draw:
            noise = self._first()
        else:
            noise = self._stream(draw) if self._later is None else self._later(draw - 1)
        return noise.to(self.device, self.dtype)

    def _first(self) -> torch.Tensor:
        """Where a picture begins."""
        seeding, shape = self.seeding, self.shape
        whole = self._stream(0) if self._given is None else self._given
        if seeding.variation is None and seeding.resized is None:
            return whole
        small = shape if seeding.resized is None else (*shape[:-2], *seeding.resized)
        noise = whole if small == shape else _Stream(self.seed, small, self._source)(0)
        if seeding.variation is not None:
            other, strength = seeding.variation
            noise = _towards(noise, _Stream(other, small, self._source)(0), strength)
        return noise if small == shape else _within(noise, whole)

    def path(self, points: Points) -> Callable[[Point, Point], torch.Tensor]:
        """Noise from one of some points to another, all of one path (`darkroom.diffusion.brownian`), as k-diffusion's
        BrownianTreeNoiseSampler gives it."""
        import numpy as np

        from darkroom.diffusion.brownian import BrownianTree

        def level(point: Point) -> float:
            return float(np.float32(points.schedule.level(point)))  # As the peers have it.

        levels = [level(point) for point in points if point.sigma]
        tree = BrownianTree(
            min(levels),
            max(levels),
            self.seed,
            lambda seed: _Stream(seed, self.shape, self._source)(0),
        )

        def between(p: Point, q: Point) -> torch.Tensor:
            start, end = level(p), level(q)
            increment = tree(min(start, end), max(start, end)) * (1.0 if start < end else -1.0)
            noise: torch.Tensor = increment / abs(end - start) ** 0.5
            return noise.to(self.device, self.dtype)

        return between


class _Stream:
    """The draws of one generator, all of one shape, in float32 on the CPU."""

    def __init__(self, seed: int, shape: Sequence[int], source: str) -> None:
        self.seed, self.shape, self.source = seed, tuple(shape), source
        self._generator: torch.Generator | None = None
        self._next = 0

    def __call__(self, draw: int) -> torch.Tensor:
        import torch

        if self.source == "nv":
            from darkroom.diffusion.philox import normal

            return torch.from_numpy(normal(self.seed, draw, self.shape))
        device = "cuda" if self.source == "gpu" else "cpu"
        if self._generator is None or draw < self._next:
            self._generator = torch.Generator(device).manual_seed(self.seed)
            self._next = 0
        while True:
            noise = torch.randn(self.shape, generator=self._generator, device=device)
            self._next += 1
            if self._next > draw:
                return noise.to("cpu")


def _towards(noise: torch.Tensor, other: torch.Tensor, strength: float) -> torch.Tensor:
    """From one noise to another, along the arc between each two columns, as A1111 does."""
    import torch

    dot = ((noise / noise.norm(dim=-2, keepdim=True)) * (other / other.norm(dim=-2, keepdim=True))).sum(
        -2, True
    )
    if float(dot.mean()) > _STRAIGHT:
        return noise * strength + other * (1 - strength)
    angle = torch.acos(dot)
    sine = torch.sin(angle)
    return (torch.sin((1 - strength) * angle) / sine) * noise + (torch.sin(strength * angle) / sine) * other


def _within(noise: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """A noise in the middle of another, what of it has no room left out."""
    placed = around.clone()
    slices = []
    for inner, outer in zip(noise.shape[-2:], around.shape[-2:], strict=True):
        gap = (outer - inner) // 2
        size = inner if gap >= 0 else inner + 2 * gap
        slices.append((slice(max(gap, 0), max(gap, 0) + size), slice(max(-gap, 0), max(-gap, 0) + size)))
    (rows, from_rows), (columns, from_columns) = slices
    placed[..., rows, columns] = noise[..., from_rows, from_columns]
    return placed
