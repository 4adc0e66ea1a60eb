"""What a pipeline is made of, under diffusers' names: looked at, and exchanged where a model can be loaded so."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from darkroom.checkpoint.family import Family
from darkroom.compat.diffusers import faces
from darkroom.compat.diffusers.arguments import Generators
from darkroom.compat.diffusers.autoencoders import Autoencoder
from darkroom.compat.diffusers.call import checked_latents, shown_bar
from darkroom.compat.diffusers.config import Config
from darkroom.compat.diffusers.denoisers import denoiser
from darkroom.compat.diffusers.images import ImageProcessor
from darkroom.compat.diffusers.noise import drawing
from darkroom.compat.diffusers.texts import text_encoder
from darkroom.compat.diffusers.vae import autoencoder
from darkroom.engine import Expert, LatentDiffusion
from darkroom.errors import InvalidRequest
from darkroom.model import Model

log = logging.getLogger(__name__)


class Parts:
    """A pipeline's networks, tokenizers and the rest. `_networks` has them; given by the pipeline."""

    path: Path
    scheduler: Any
    guidance_scale: Any
    image_guidance_scale: Any
    device: torch.device
    _family: Family
    _options: dict[str, Any]
    _loaded: Model | None
    _bar: dict[str, Any]

    denoiser_name: ClassVar[str] = "unet"
    safety_checker: Any = None
    feature_extractor: Any = None
    image_encoder: Any = None
    watermark: Any = None

    def _networks(self) -> LatentDiffusion:
        raise NotImplementedError

    @property
    def _expert(self) -> Expert:
        return self._networks().experts[0]

    # Networks

    @property
    def _denoiser(self) -> Any:
        return denoiser(self._expert.denoiser, self)

    @_denoiser.setter
    def _denoiser(self, value: Any) -> None:
        if not faces.same_network(value, self._expert.denoiser):
            raise InvalidRequest(
                "a pipeline's networks are not exchanged here: load a model that has the other"
            )
        log.info("torch.compile is left out: networks run as they are")

    @property
    def vae(self) -> Any:
        """The autoencoder, as diffusers' users speak to it."""
        networks = self._networks()
        return autoencoder(networks.vae, networks.lock, self)

    @vae.setter
    def vae(self, value: Any) -> None:
        if not faces.same_network(value, self._networks().vae):
            self._options = {**self._options, "vae": Autoencoder.path_of(value)}
            self._loaded = None

    def _encoder(self, number: int) -> Any:
        clips = self._expert.text.clips
        return text_encoder(clips[number].encoder if number < len(clips) else None)

    def _tokenizer(self, number: int) -> Any:
        clips = self._expert.text.clips
        return faces.tokenizer(clips[number].tokenizer) if number < len(clips) else None

    text_encoder = property(lambda self: self._encoder(0))
    tokenizer = property(lambda self: self._tokenizer(0))

    @property
    def components(self) -> dict[str, Any]:
        """All of these by name."""
        numbers = [number for number in ("", "_2", "_3") if hasattr(type(self), f"text_encoder{number}")]
        named = [f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in numbers]
        names = (self.denoiser_name, "vae", *named, "scheduler", "safety_checker", "feature_extractor")
        return {name: getattr(self, name) for name in names}

    @property
    def config(self) -> Config:
        """What diffusers' model_index.json says of a pipeline as a whole."""
        return Config({"_class_name": type(self).__name__, "_name_or_path": str(self.path)})

    @property
    def name_or_path(self) -> str:
        return str(self.path)

    # What calls are prepared with

    @property
    def vae_scale_factor(self) -> int:
        """How many pixels, each way, one latent pixel stands for."""
        return self._family.factor

    @property
    def image_processor(self) -> ImageProcessor:
        """What turns the autoencoder's pictures into Pillow's and back."""
        return ImageProcessor(self._family.factor, self._family.latent_channels)

    numpy_to_pil = staticmethod(ImageProcessor.numpy_to_pil)

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether a negative prompt counts."""
        return self.guidance_scale > 1 and self.image_guidance_scale >= 1 and not self._family.embeds_guidance

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: torch.dtype | None = None,
        device: Any = None,
        generator: Generators = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Noise for so many pictures, or the latents given, as the scheduler begins with them: (batch_size, channels,
        height / 8, width / 8)."""
        factor, place = self.vae_scale_factor, torch.device(device or self.device)
        shape = (batch_size, num_channels_latents, height // factor, width // factor)
        if latents is None:
            latents = drawing(generator, shape, place)(dtype or torch.float32)
        begin: float = self.scheduler.init_noise_sigma
        return checked_latents(latents, shape).to(place, dtype) * begin

    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> Any:
        """tqdm's bar over something, or of so many steps, with the settings of set_progress_bar_config."""
        return tqdm(iterable, total=total, **shown_bar(self._bar))

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Settings of tqdm for the bars of later calls: disable, desc, leave."""
        self._bar = settings
