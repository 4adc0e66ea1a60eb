"""A model's networks, as the engine runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.adapters.applied import applied
from darkroom.diffusion import parse_guides
from darkroom.engine.devices import Placement, give_back_memory, out_of_memory
from darkroom.engine.looking import Looker, clip_pixels
from darkroom.engine.memory import MODES, Memory
from darkroom.errors import GenerationError, InvalidRequest
from darkroom.generation.masks import Found
from darkroom.generation.request import Request
from darkroom.generation.work import Detector, Enlarger, Looked, Note, Row, no_picture, unheard
from darkroom.networks import VAE, Conditioning, Denoiser, TinyVAE
from darkroom.networks.altered import altered, attention_layers, blocks
from darkroom.networks.conditioning import together
from darkroom.networks.freeu import places
from darkroom.networks.precise import in_float32
from darkroom.networks.roles import Role
from darkroom.networks.seamless import joined
from darkroom.networks.vae import Parts
from darkroom.pixels import Pixels, to_images, to_pixels
from darkroom.prompt.conditioning import Prompt, TextConditioner


@dataclass(frozen=True)
class Expert:
    """A network that denoises, and what turns texts into what it is told."""

    text: TextConditioner
    denoiser: Denoiser

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
        return self.denoiser.role

    def check(self, request: Request) -> None:
        """Raises InvalidRequest for a request that these networks cannot fulfil."""
        for name in ("prompt_2", "negative_2", "prompt_3", "negative_3"):
            if getattr(request.text, name) is not None and int(name[-1]) > self.text.texts:
                raise InvalidRequest(
                    f"{name} is for a text encoder that this model has not, it has {self.text.texts}: leave it out"
                )
        for clip in self.text.clips:
            clip.check(request.text.clip_skip - 1)
        for guide in parse_guides(request.guidance.guides):
            if guide.name == "pag":
                attention_layers(self.denoiser, guide.options["layers"].split("+"))
            elif guide.name == "slg":
                blocks(self.denoiser, guide.options["blocks"].split("+"))
            elif guide.name == "freeu":
                places(self.denoiser)


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
    looker: Looker | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def modules(self) -> list[nn.Module]:
        """All its networks."""
        texts = [encoder for expert in self.experts for encoder in expert.text.encoders]
        looking = [] if self.looker is None else [self.looker.encoder, self.looker.normalizer]
        return [*texts, *(expert.denoiser for expert in self.experts), self.vae, *looking]

    def encode(self, prompts: Sequence[Prompt | None], expert: int = 0) -> list[Conditioning]:
        with self.lock:
            return self.experts[expert].text(prompts)

    def denoise(self, rows: Sequence[Row]) -> list[Tensor]:
        with self.lock:
            output = called(self.experts[rows[0].expert].denoiser, rows, self.placement)
            return list(torch.split(output.to("cpu", torch.float32), 1))

    def prepare(
        self, pixels: Pixels | NDArray[np.float32], note: Note = unheard, seamless: str = ""
    ) -> Tensor:
        image = to_images(pixels[None]).to(self.placement.device)
        return self._autoencoded(partial(self.vae.to_latent, image, seamless=seamless), "read", note)

    def look(self, pixels: Pixels) -> Looked:
        assert self.looker is not None
        seen = clip_pixels(pixels, self.looker.side).to(self.placement.device)
        with self.lock:
            return self.looker.looked(self.looker.embeddings(seen))

    def decode(self, latent: Tensor, note: Note = unheard, seamless: str = "") -> Pixels:
        pixels: Pixels = to_pixels(self.render(latent, note, seamless))[0]
        return pixels

    def render(self, latent: Tensor, note: Note = unheard, seamless: str = "") -> Tensor:
        if not bool(latent.isfinite().all()):
            raise GenerationError(
                "the finished latent is not a number: ask for less guidance, or another sampler or schedule"
            )
        there = latent.to(self.placement.device)
        beyond = no_picture("the finished latent", float(latent.abs().max()))
        run = partial(self.vae.from_latent, there, seamless=seamless)
        return self._autoencoded(run, "decoded", note, beyond)

    def enlarge(self, pixels: Pixels, width: int, height: int, by: Enlarger, note: Note = unheard) -> Pixels:
        with self.lock:
            return by.brought(pixels, width, height, note)

    def detect(self, pixels: Pixels, by: Detector) -> list[Found]:
        with self.lock:
            return by.found(pixels)

    def _in_parts(self, run: Callable[[Parts], Tensor], done: str, note: Note) -> Tensor:
        """What the autoencoder makes, of smaller parts of a picture where memory does not suffice."""
        ways = get_args(Parts)
        for parts in ways[ways.index(self.memory.parts) :]:
            if parts != self.memory.parts:
                give_back_memory()
                note(f"{done} in {parts}: memory did not suffice for more at once")
            try:
                return run(parts).to("cpu", torch.float32)
            except Exception as error:
                if parts == ways[-1] or not out_of_memory(error):
                    raise
        raise AssertionError("the last way gave neither a picture nor an error")

    def _autoencoded(
        self, run: Callable[[Parts], Tensor], done: str, note: Note, beyond: GenerationError | None = None
    ) -> Tensor:
        """What the autoencoder makes, once more in float32 where it overflows in the precision of its weights. Raises
        GenerationError where it makes no numbers even so: `beyond`, if that explains it."""
        with self.lock:
            made = self._in_parts(run, done, note)
            if bool(made.isfinite().all()):
                return made
            with in_float32(self.vae):
                made = self._in_parts(run, done, note)
        if not bool(made.isfinite().all()):
            raise beyond or GenerationError(
                "the autoencoder's output is not a number, not even in float32: its weights are damaged, give another "
                "one (`vae=`)"
            )
        note(f"{done} in float32: the autoencoder overflows in a lower precision")
        return made


def called(denoiser: Denoiser, rows: Sequence[Row], placement: Placement) -> Tensor:
    """One call of a network, where and in the precision in which it is: (B, C, h, w)."""
    device, dtype = placement.device, placement.dtype
    x = torch.cat([row.x for row in rows]).to(device, dtype, memory_format=torch.channels_last)
    times = torch.tensor([row.time for row in rows], dtype=torch.float32, device=device)
    told = together([row.conditioning for row in rows]).to(device, dtype)
    without, freeu = [row.without for row in rows], [row.freeu for row in rows]
    with (
        applied(denoiser, denoiser.role, [row.doses for row in rows]),
        altered(denoiser, x, without, freeu, told.attention) as attention,
        joined(denoiser, rows[0].seamless),
    ):
        output: Tensor = denoiser(x, times, replace(told, attention=attention))
        return output
