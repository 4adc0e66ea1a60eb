"""A model's networks, as the engine runs them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from darkroom.adapters.applied import applied
from darkroom.diffusion import parse_guides
from darkroom.engine.devices import Placement
from darkroom.engine.memory import MODES, Memory
from darkroom.errors import GenerationError, InvalidRequest
from darkroom.generation.request import Request
from darkroom.generation.work import Row
from darkroom.networks import VAE, Added, MMDiT, TinyVAE, UNet
from darkroom.networks.altered import altered, attention_layers, blocks
from darkroom.networks.freeu import places
from darkroom.networks.precise import in_float32
from darkroom.networks.roles import Role
from darkroom.pixels import Pixels, to_images, to_pixels
from darkroom.prompt.conditioning import Conditioning, Prompt, TextConditioner


class NotNumbers(GenerationError):
    """What an autoencoder made is no numbers: it overflows in this precision, or its weights are damaged."""


def no_picture(what: str, most: float) -> GenerationError | None:
    """What to say of a latent that goes so far from zero that no network can be blamed for what it makes of it; None of
    one that does not. Those of pictures stay within about 15, noise and all."""
    if most < 1e6:
        return None
    return GenerationError(
        f"{what} is no picture's latent, it goes to {most:.0e}: ask for less guidance, or another sampler or schedule"
    )


class Networks(Protocol):
    """What an engine needs of a model. Every method may be given any number of items.

    The autoencoder computes in float32 if it is to be `exact`, and raises NotNumbers where what it makes is none.
    """

    def encode(self, prompts: Sequence[Prompt | None], expert: int = 0) -> list[Conditioning]: ...

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        """ONE network call on all rows, which have equal shapes and are for one expert; outputs (1, C, h, w)
        float32."""
        ...

    def prepare(self, pixels: Pixels, exact: bool = False) -> Tensor: ...

    def decode(self, latent: Tensor, tiled: bool = False, exact: bool = False) -> Pixels: ...

    def render(self, latent: Tensor, tiled: bool = False, exact: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class Expert:
    """A network that denoises, and what turns texts into what it is told."""

    text: TextConditioner
    denoiser: UNet | MMDiT

    @property
    def networks(self) -> dict[Role, nn.Module]:
        """By their roles."""
        found: dict[Role, nn.Module] = {clip.role: clip.encoder for clip in self.text.clips}
        if self.text.t5 is not None:
            found[self.text.t5.role] = self.text.t5.encoder
        return found | {self.role: self.denoiser}

    @property
    def role(self) -> Role:
        """What the denoiser is in a model."""
        return Role.TRANSFORMER if isinstance(self.denoiser, MMDiT) else Role.UNET

    def check(self, request: Request) -> None:
        """Raises InvalidRequest for a request that these networks cannot fulfil."""
        for name in ("prompt_2", "negative_2", "prompt_3", "negative_3"):
            if getattr(request, name) is not None and int(name[-1]) > self.text.texts:
                raise InvalidRequest(
                    f"{name} is for a text encoder that this model has not, it has {self.text.texts}: leave it out"
                )
        for clip in self.text.clips:
            clip.check(request.clip_skip - 1)
        for guide in parse_guides(request.guides):
            if guide.name == "pag":
                attention_layers(self.denoiser, guide.options["layers"].split("+"))
            elif guide.name == "slg":
                blocks(self.denoiser, guide.options["blocks"].split("+"))
            elif guide.name == "freeu":
                list(places(self.denoiser))


@dataclass(frozen=True)
class LatentDiffusion:
    """Text encoders, U-Net or MMDiT, and autoencoder of a Stable Diffusion model on one device; the first two of other
    models of an ensemble and of a refiner as well.

    Latents are float32 on the CPU between calls: a sampler's arithmetic is then the same
    wherever the networks run. `lock` is held during a call, for what is done to networks meanwhile (adapters, weights
    that come and go) is for that call alone; between calls any number of engines, streams and threads take turns.
    """

    experts: tuple[Expert, ...]
    vae: VAE | TinyVAE
    placement: Placement
    memory: Memory = MODES["full"]
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def modules(self) -> list[nn.Module]:
        """All its networks."""
        texts = [encoder for expert in self.experts for encoder in expert.text.encoders]
        return [*texts, *(expert.denoiser for expert in self.experts), self.vae]

    def encode(self, prompts: Sequence[Prompt | None], expert: int = 0) -> list[Conditioning]:
        with self.lock:
            return self.experts[expert].text(prompts)

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        device, dtype = self.placement.device, self.placement.dtype
        x = torch.cat([row.x for row in rows]).to(device, dtype, memory_format=torch.channels_last)
        times = torch.tensor([row.time for row in rows], dtype=torch.float32, device=device)
        context = torch.cat([row.conditioning.context for row in rows]).to(device, dtype)
        whole = [row.conditioning.pooled for row in rows if row.conditioning.pooled is not None]
        pooled = torch.cat(whole).to(device, dtype) if whole else None
        numbers = [row.sizes for row in rows if row.sizes]
        sizes = torch.tensor(numbers, dtype=torch.float32, device=device) if numbers else None
        scales = [row.guidance - 1 for row in rows if row.guidance is not None]
        guidance = torch.tensor(scales, dtype=torch.float32, device=device) if scales else None
        expert = self.experts[rows[0].expert]
        denoiser = expert.denoiser
        without, freeu = [row.without for row in rows], [row.freeu for row in rows]
        with (
            self.lock,
            applied(denoiser, expert.role, [row.doses for row in rows]),
            altered(denoiser, without, freeu, _tokens(denoiser, x)) as attention,
        ):
            if isinstance(denoiser, MMDiT):
                output = denoiser(x, times, context, pooled, attention=attention)
            else:
                added = Added(pooled, sizes, guidance=guidance)
                output = denoiser(x, times, context, added, attention=attention)
        return list(output.to("cpu", torch.float32).split(1))

    def prepare(self, pixels: Pixels, exact: bool = False) -> Tensor:
        image = to_images(pixels[None]).to(self.placement.device)
        with self.lock, in_float32(self.vae) if exact else nullcontext():
            return _numbers(self.vae.to_latent(image, self.memory.tiled))

    def decode(self, latent: Tensor, tiled: bool = False, exact: bool = False) -> Pixels:
        pixels: Pixels = to_pixels(self.render(latent, tiled, exact))[0]
        return pixels

    def render(self, latent: Tensor, tiled: bool = False, exact: bool = False) -> Tensor:
        if not bool(latent.isfinite().all()):
            raise GenerationError(
                "the finished latent is not a number: ask for less guidance, or another sampler or schedule"
            )
        latent = latent.to(self.placement.device)
        with self.lock, in_float32(self.vae) if exact else nullcontext():
            made = self.vae.from_latent(latent, tiled=tiled or self.memory.tiled)
        beyond = no_picture("the finished latent", float(latent.abs().max())) if exact else None
        if beyond is not None and not bool(made.isfinite().all()):
            raise beyond
        return _numbers(made)


def _numbers(output: Tensor) -> Tensor:
    """What an autoencoder made, float32 on the CPU; NotNumbers where it is none."""
    output = output.to("cpu", torch.float32)
    if not bool(output.isfinite().all()):
        raise NotNumbers(
            "the autoencoder's output is not a number, not even in float32: its weights are damaged, give another "
            "one (--vae)"
        )
    return output


def _tokens(denoiser: nn.Module, x: Tensor) -> int:
    """How many tokens a picture is in an MMDiT; 0 for other networks."""
    if not isinstance(denoiser, MMDiT):
        return 0
    return x.shape[-2] * x.shape[-1] // denoiser.config.patch_size**2
