"""The autoencoder stage: pictures to latents and back.

The latents are made for a diffusion model, not only for reconstruction: a small KL term keeps them compact and
noise in them harmless, and decoding them at half size must give the picture at half size, which keeps fine texture
from hiding in them as high frequencies (Kouzelis et al. 2025, https://arxiv.org/abs/2502.09509).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from darkroom.networks import VAE, VAEConfig
from darkroom.pixels import sheet, to_images, to_pixels
from darkroom.train.config import LoopConfig
from darkroom.train.feed import Source
from darkroom.train.folders import load_network, save_network
from darkroom.train.loop import Batch, Share, shares_by_shape
from darkroom.train.pocket.data import Pictures, WorldConfig, rendered, scene_at, scenes_by_style
from darkroom.train.pocket.start import linear_start


@dataclass(frozen=True, slots=True)
class VAELoss:
    """The weights of the terms: absolute error, squared error, the logarithm of each picture's squared error (PSNR
    itself: as if every picture had a noise level of its own, Rybkin et al. 2021, https://arxiv.org/abs/2006.13202),
    error of the gradients at three scales, KL divergence per latent number, decoding at half size, and the adversarial
    term (0: no discriminator)."""

    absolute: float = 1.0
    squared: float = 1.0
    log: float = 0.0
    gradient: float = 1.0
    kl: float = 3e-4
    half: float = 0.25
    adversarial: float = 0.0


@dataclass(frozen=True, slots=True)
class VAESettings:
    """The settings file of this stage.

    head_start: begin as a blurred copy (`linear_start`). start_from: the folder of a trained autoencoder to begin with,
    in place of `network`. decoder_only: leave its encoder as it is: latents made with it, and what was trained on
    them, stay valid.
    """

    network: VAEConfig
    head_start: bool = True
    start_from: str = ""
    decoder_only: bool = False
    loop: LoopConfig = field(default_factory=LoopConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    loss: VAELoss = field(default_factory=VAELoss)


class Discriminator(nn.Sequential):
    """Which patches look drawn: (B, 3, H, W) to scores (B, 1, H/8, W/8) (Isola et al. 2017, arXiv 1611.07004)."""

    def __init__(self, width: int = 32) -> None:
        layers: list[nn.Module] = []
        for a, b in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.GroupNorm(8, b), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))


class VAEStage:
    """Trains `VAE` on rendered pictures."""

    name = "vae"

    def __init__(self, settings: VAESettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.loop.seed)
        if settings.start_from:
            self.vae = load_network(Path(settings.start_from), VAE)
        else:
            self.vae = VAE(settings.network)
            if settings.head_start:
                linear_start(self.vae)
        if settings.decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        self.networks: dict[str, nn.Module] = {"vae": self.vae}
        if settings.loss.adversarial:
            self.networks["discriminator"] = Discriminator()
        unseen = scenes_by_style(settings.world, 6)
        self._unseen = {style: rendered(scenes, settings.world.size) for style, scenes in unseen.items()}

    def source(self) -> Source:
        return Pictures(self.settings.world, self.settings.loop.seed)

    def shares(self) -> Iterable[Share]:
        return shares_by_shape(self.networks.values())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.settings.loss
        truth = to_images(batch["pictures"])
        mean, logvar = (part.float() for part in self.vae.encode(truth))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = mean + (logvar / 2).exp() * noise
        images = self.vae.decode(z).float()
        kl = (mean.square() + logvar.exp() - 1 - logvar).mean() / 2
        loss = reconstruction(images, truth, weights) + weights.kl * kl
        parts = {"psnr": psnr(images, truth).mean().detach(), "kl": kl.detach()}
        if weights.half:
            small = self.vae.decode(F.avg_pool2d(z, 2)).float()
            half = reconstruction(small, F.avg_pool2d(truth, 2), weights)
            loss = loss + weights.half * half
            parts["half"] = half.detach()
        if weights.adversarial:
            judged = adversarial(self.networks["discriminator"], images, truth)
            loss = loss + weights.adversarial * judged[0] + judged[1]
            parts |= {"fooled": judged[0].detach(), "discriminator": judged[1].detach()}
        return loss, parts

    def validate(self) -> dict[str, float]:
        found = {
            style: self._reconstruct(pictures)[1].mean().item() for style, pictures in self._unseen.items()
        }
        return {"psnr": sum(found.values()) / len(found)} | found

    def sheet(self) -> Image.Image:
        rows = []
        for pictures in self._unseen.values():
            rows += [pictures, to_pixels(self._reconstruct(pictures)[0])]
        return sheet([picture for row in rows for picture in row], columns=len(rows[0]), gap=2)

    def export(self, folder: Path) -> None:
        save_network(folder / "vae", self.vae if self.settings.decoder_only else self.calibrated())

    @torch.no_grad()
    def calibrated(self, count: int = 256) -> VAE:
        """The network with a scaling factor and shift that give its latents of drawn pictures mean 0 and variance 1."""
        world = self.settings.world
        latents = []
        for start in range(0, count, 16):
            scenes = [scene_at(world, -2, i) for i in range(start, start + 16)]
            latents.append(self.vae.encode(self._tensor(rendered(scenes, world.size)))[0].float())
        z = torch.cat(latents)
        self.vae.config = replace(
            self.vae.config, scaling_factor=round(1 / z.std().item(), 5), shift_factor=0.0
        )
        return self.vae

    def _tensor(self, pictures: object) -> Tensor:
        return to_images(torch.as_tensor(pictures, device=next(self.vae.parameters()).device))

    def _reconstruct(self, pictures: object) -> tuple[Tensor, Tensor]:
        truth = self._tensor(pictures)
        images = self.vae.decode(self.vae.encode(truth)[0])
        return images, psnr(images, truth)


def reconstruction(images: Tensor, truth: Tensor, weights: VAELoss) -> Tensor:
    """How far pictures (B, 3, H, W) are from the truth: in pixels, and in differences of neighbours at three scales,
    which sharp edges and thin lines depend on."""
    error = images - truth
    squares = error.square().mean((1, 2, 3))
    loss = weights.absolute * error.abs().mean() + weights.squared * squares.mean()
    if weights.log:
        loss = loss + weights.log * squares.add(1e-6).log().mean()
    if weights.gradient:
        for _ in range(3):
            loss = loss + weights.gradient / 3 * (_across(error) + _across(error.mT))
            error = F.avg_pool2d(error, 2)
    return loss


def _across(error: Tensor) -> Tensor:
    return (error[..., 1:] - error[..., :-1]).abs().mean()


def adversarial(judge: nn.Module, images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """What the autoencoder and the discriminator minimise: the non-saturating loss of Goodfellow et al. 2014
    (arXiv 1406.2661, section 3). Each has gradients for its own network alone, so both fit one backward pass."""
    fixed: Mapping[str, Tensor] = {name: value.detach() for name, value in judge.named_parameters()}
    fooled = F.softplus(-functional_call(judge, dict(fixed), (images,))).mean()
    told = F.softplus(judge(images.detach())).mean() + F.softplus(-judge(truth)).mean()
    return fooled, told


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture (N,), both in [-1, 1] and first clamped to it."""
    error = (images.float().clamp(-1, 1) - truth.float()).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error.clamp_min(1e-10))
