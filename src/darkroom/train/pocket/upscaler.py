"""The upscaler stage: drawn pictures from small ones.

A scene is drawn large, and made small as pictures come: by one filter or another, softened, with grain, compressed
(Wang et al. 2021, https://arxiv.org/abs/2107.10833, section 3, with one mild round of it): what is learned is how
this world's edges look, not how one filter is undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from darkroom.networks.configs import CompactConfig
from darkroom.networks.upscaler import Compact
from darkroom.pixels import sheet, to_images, to_pixels
from darkroom.train.config import LoopConfig
from darkroom.train.feed import Arrays, Source
from darkroom.train.folders import save_weights
from darkroom.train.loop import Batch, Share, shares_by_shape
from darkroom.train.pocket.artefacts import chosen, compressed, noisy, softened
from darkroom.train.pocket.data import WorldConfig, generator_at, scene_at, scenes_by_style
from darkroom.train.pocket.vae import VAELoss, psnr, reconstruction
from darkroom.world import Scene, render

_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


@dataclass(frozen=True, slots=True)
class UpscalerData:
    """patch: the side in pixels of what is cut out of a small picture; patches: how many of one scene; clean: the share
    of them that nothing but a filter made small."""

    patch: int = 40
    patches: int = 4
    clean: float = 0.4


@dataclass(frozen=True, slots=True)
class UpscalerSettings:
    """The settings file of this stage. world.size: the side of the small pictures."""

    network: CompactConfig
    loop: LoopConfig = field(default_factory=LoopConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    data: UpscalerData = field(default_factory=UpscalerData)
    loss: VAELoss = field(default_factory=lambda: VAELoss(squared=0.0, kl=0.0, half=0.0))


@dataclass(frozen=True)
class Pairs:
    """Parts of drawn pictures, small and large: {"small": (N, p, p, 3), "large": (N, s * p, s * p, 3)} uint8. Every
    scene gives several, so that one is drawn for many."""

    settings: UpscalerSettings

    def __call__(self, start: int, count: int) -> Arrays:
        data, seed = self.settings.data, self.settings.loop.seed
        scale, small, large = self.settings.network.scale, [], []
        for i in range(start, start + count):
            scene = scene_at(self.settings.world, seed, i // data.patches)
            rng = generator_at("patch", seed, i)
            whole, tiny = _drawn(self.settings, scene, _FILTERS[rng.randrange(len(_FILTERS))])
            top, left = (rng.randrange(self.settings.world.size - data.patch + 1) for _ in range(2))
            there = slice(top, top + data.patch), slice(left, left + data.patch)
            small.append(tiny[there])
            large.append(whole[tuple(slice(scale * each.start, scale * each.stop) for each in there)])
        return {"small": np.stack(small), "large": np.stack(large)}


_large = lru_cache(maxsize=1)(render)
"""The scene that was drawn last: the next parts are of it, too."""


def _drawn(
    settings: UpscalerSettings, scene: Scene, by: Image.Resampling
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A scene drawn large, and that made small."""
    size = settings.world.size
    whole = _large(scene, size * settings.network.scale)
    return whole, np.asarray(Image.fromarray(whole).resize((size, size), by))


class UpscalerStage:
    """Trains `Compact` to draw the world's pictures larger."""

    name = "upscaler"

    def __init__(self, settings: UpscalerSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.loop.seed)
        self.network = Compact(settings.network)
        self.networks: dict[str, nn.Module] = {"upscaler": self.network}
        unseen = scenes_by_style(settings.world, 3)
        self._unseen = {
            style: [_drawn(settings, scene, Image.Resampling.BICUBIC) for scene in scenes]
            for style, scenes in unseen.items()
        }

    def source(self) -> Source:
        return Pairs(self.settings)

    def shares(self) -> Iterable[Share]:
        return shares_by_shape(self.networks.values())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        truth, small = to_images(batch["large"]), to_images(batch["small"])
        clean = chosen(len(small), self.settings.data.clean, generator)
        for artefact, share in ((softened, 0.3), (noisy, 0.5), (compressed, 0.5)):
            rows = (~clean & chosen(len(small), share, generator)).nonzero()[:, 0]
            if len(rows):
                small[rows] = artefact(small[rows], generator).float()
        images = self._enlarged(small.clamp(-1, 1))
        found = {"psnr": psnr(images, truth).mean().detach()}
        return reconstruction(images, truth, self.settings.loss), found

    def validate(self) -> dict[str, float]:
        found = {}
        for style, pairs in self._unseen.items():
            both = [(self._enlarged(self._tensor(tiny)), self._tensor(whole)) for whole, tiny in pairs]
            found[style] = sum(psnr(*pair).item() for pair in both) / len(both)
        return {"psnr": sum(found.values()) / len(found)} | found

    def sheet(self) -> Image.Image:
        rows = []
        for pairs in self._unseen.values():
            whole, tiny = pairs[0]
            plain = Image.fromarray(tiny).resize(whole.shape[1::-1], Image.Resampling.LANCZOS)
            rows += [np.asarray(plain), to_pixels(self._enlarged(self._tensor(tiny)))[0], whole]
        return sheet(rows, columns=3, gap=2)

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / "upscaler.safetensors", self.network, torch.float16)

    def _enlarged(self, images: Tensor) -> Tensor:
        """Of images in [-1, 1], which the network has in [0, 1]."""
        enlarged: Tensor = self.network((images + 1) / 2)
        return enlarged.float() * 2 - 1

    def _tensor(self, picture: NDArray[np.uint8]) -> Tensor:
        there = next(self.network.parameters()).device
        return to_images(torch.as_tensor(picture[None].copy(), device=there))
