"""A stage of a few numbers: does it train, stop and go on as it should?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.train.config import LoopConfig
from darkroom.train.feed import Arrays, Source
from darkroom.train.loop import Batch, Share, shares_by_shape

SETTINGS = LoopConfig(
    batch=4,
    steps=12,
    warmup=2,
    decay=4,
    workers=0,
    log_every=1,
    validate_every=0,
    sample_every=0,
    precision="float32",
)


@dataclass(frozen=True)
class Numbers:
    """Sample i is drawn by a generator seeded with i."""

    def __call__(self, start: int, count: int) -> Arrays:
        rows = [np.random.default_rng(i).standard_normal((3, 8, 8)) for i in range(start, start + count)]
        return {"x": np.stack(rows).astype(np.float32)}


class ToyStage:
    """A convolution that learns to remove noise, drawn from the step's generator."""

    name = "toy"

    def __init__(self, name: str = "toy") -> None:
        self.name = name
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 3, 1)
        )
        self.networks: dict[str, nn.Module] = {"net": network}
        self.exported: list[Path] = []

    def source(self) -> Source:
        return Numbers()

    def shares(self) -> Iterable[Share]:
        return shares_by_shape(self.networks.values())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch["x"]
        noise = torch.randn(x.shape, generator=generator)
        loss = F.mse_loss(self.networks["net"](x + 0.1 * noise), x)
        return loss, {"noise": noise.square().mean()}

    def validate(self) -> dict[str, float]:
        x = torch.from_numpy(Numbers()(10_000, 8)["x"])
        return {"error": F.mse_loss(self.networks["net"](x), x).item()}

    def sheet(self) -> Image.Image:
        return Image.new("RGB", (4, 4))

    def export(self, folder: Path) -> None:
        self.exported.append(folder)
