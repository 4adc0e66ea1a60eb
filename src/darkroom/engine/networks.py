"""A model's networks, as the engine runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from darkroom.engine.devices import Placement
from darkroom.engine.memory import MODES, Memory
from darkroom.generation.work import Pixels, Row
from darkroom.networks import VAE, Added, MMDiT, TinyVAE, UNet
from darkroom.prompt.conditioning import Conditioning, TextConditioner


class Networks(Protocol):
    """What an engine needs of a model. Every method may be given any number of items."""

    def encode(self, texts: Sequence[str | None], expert: int = 0) -> list[Conditioning]: ...

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        """ONE network call on all rows, which have equal shapes and are for one expert; outputs (1, C, h, w)
        float32."""
        ...

    def prepare(self, pixels: Pixels) -> Tensor: ...

    def decode(self, latent: Tensor, tiled: bool = False) -> Pixels: ...

    def render(self, latent: Tensor, tiled: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class Expert:
    """A network that denoises, and what turns texts into what it is told."""

    text: TextConditioner
    denoiser: UNet | MMDiT


@dataclass(frozen=True)
class LatentDiffusion:
    """Text encoders, U-Net or MMDiT, and autoencoder of a Stable Diffusion model on one device; with a refiner, the
    first two of that as well.

    Latents are float32 on the CPU between calls: a sampler's arithmetic is then the same
    wherever the networks run.
    """

    experts: tuple[Expert, ...]
    vae: VAE | TinyVAE
    placement: Placement
    memory: Memory = MODES["full"]

    def modules(self) -> list[nn.Module]:
        """All its networks."""
        texts = [encoder for expert in self.experts for encoder in expert.text.encoders]
        return [*texts, *(expert.denoiser for expert in self.experts), self.vae]

    def encode(self, texts: Sequence[str | None], expert: int = 0) -> list[Conditioning]:
        return self.experts[expert].text(texts)

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        device, dtype = self.placement.device, self.placement.dtype
        x = torch.cat([row.x for row in rows]).to(device, dtype, memory_format=torch.channels_last)
        times = torch.tensor([row.time for row in rows], dtype=torch.float32, device=device)
        context = torch.cat([row.conditioning.context for row in rows]).to(device, dtype)
        whole = [row.conditioning.pooled for row in rows if row.conditioning.pooled is not None]
        pooled = torch.cat(whole).to(device, dtype) if whole else None
        denoiser = self.experts[rows[0].expert].denoiser
        if isinstance(denoiser, MMDiT):
            output = denoiser(x, times, context, pooled)
        else:
            numbers = [row.sizes for row in rows if row.sizes]
            sizes = torch.tensor(numbers, dtype=torch.float32, device=device) if numbers else None
            scales = [row.guidance - 1 for row in rows if row.guidance is not None]
            guidance = torch.tensor(scales, dtype=torch.float32, device=device) if scales else None
            output = denoiser(x, times, context, Added(pooled, sizes, guidance=guidance))
        return list(output.to("cpu", torch.float32).split(1))

    def prepare(self, pixels: Pixels) -> Tensor:
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
        return self.vae.to_latent(image.to(self.placement.device), self.memory.tiled).to("cpu", torch.float32)

    def decode(self, latent: Tensor, tiled: bool = False) -> Pixels:
        return to_pixels(self.render(latent, tiled))

    def render(self, latent: Tensor, tiled: bool = False) -> Tensor:
        latent = latent.to(self.placement.device)
        return self.vae.from_latent(latent, tiled=tiled or self.memory.tiled).to("cpu", torch.float32)


def to_pixels(image: Tensor) -> Pixels:
    """An image (1, 3, H, W) in [-1, 1] to (H, W, 3) uint8."""
    image = (image[0] * 127.5 + 127.5).round().clamp(0, 255)
    return np.ascontiguousarray(image.to(torch.uint8).permute(1, 2, 0).numpy())
