"""How fast a device is, measured in about a second on operations like those of a U-Net."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from darkroom.engine.devices import Placement
from darkroom.forecast.cost import Cost, Operation
from darkroom.networks import attend


@dataclass(frozen=True)
class Speed:
    """Floating-point operations per second of each kind of work, bytes per second, and the seconds that any
    operation takes however small it is."""

    convolution: float
    product: float
    attention: float
    bandwidth: float
    overhead: float

    def seconds(self, cost: Cost) -> float:
        """What a call takes: each operation as long as its arithmetic or its memory, whichever is longer."""
        return sum(self._seconds(operation) for operation in cost.operations)

    def _seconds(self, operation: Operation) -> float:
        arithmetic = operation.flops / getattr(self, operation.kind) if operation.flops else 0.0
        return max(arithmetic, operation.nbytes / self.bandwidth) + self.overhead


def measure(placement: Placement) -> Speed:
    """The speed of a device in a precision."""
    device, dtype = placement.device, placement.dtype

    def made(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=device).to(dtype)

    def timed(call: Callable[[], object], repeats: int = 5) -> float:
        call()
        found = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            found.append(time.perf_counter() - began)
        return statistics.median(found)

    with torch.inference_mode():
        image = made(2, 320, 32, 32).to(memory_format=torch.channels_last)
        kernel = made(320, 320, 3, 3).to(memory_format=torch.channels_last)
        tokens, matrix = made(1024, 640), made(2560, 640)
        heads = made(2, 8, 1024, 64)
        large, small = made(8 << 20), made(2, 16, 4, 4)
        layer = nn.Conv2d(16, 16, 1, device=device, dtype=dtype)
        return Speed(
            convolution=2.0 * 2 * 320 * 32 * 32 * 320 * 9 / timed(lambda: F.conv2d(image, kernel, padding=1)),
            product=2.0 * 1024 * 640 * 2560 / timed(lambda: F.linear(tokens, matrix)),
            attention=4.0 * heads.numel() * 1024 / timed(lambda: attend(heads, heads, heads)),
            bandwidth=3.0 * large.nbytes / timed(lambda: large + large),
            overhead=timed(lambda: [layer(small) for _ in range(100)]) / 100,
        )
