"""Each picture's own noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class SeededNoise:
    """The noise of one picture: draw n of a CPU generator seeded with `seed`.

    Draw 0 equals torch.randn(shape, generator=torch.Generator().manual_seed(seed)), the later ones
    further calls of the same. Drawn in float32 on the CPU on every machine, then moved to `device` and
    `dtype`. Asking out of order draws again from the start, so the n-th is the n-th whoever asks.
    """

    def __init__(
        self,
        seed: int,
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        import torch  # The mathematics is to be had without it: help texts list samplers.

        self.seed = seed
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self.dtype = dtype or torch.float32
        self._generator = torch.Generator()
        self._restart()

    def _restart(self) -> None:
        self._generator.manual_seed(self.seed)
        self._next = 0

    def __call__(self, draw: int) -> torch.Tensor:
        import torch

        if draw < self._next:
            self._restart()
        while True:
            noise = torch.randn(self.shape, generator=self._generator)
            self._next += 1
            if self._next > draw:
                return noise.to(self.device, self.dtype)
