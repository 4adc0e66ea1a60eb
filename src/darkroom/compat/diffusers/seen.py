"""Pipelines of models that are shown the picture they draw over: what they do otherwise than others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from darkroom.checkpoint.family import Augmentation
from darkroom.compat.diffusers.arguments import Arguments, Generators
from darkroom.compat.diffusers.config import Config
from darkroom.compat.diffusers.image2image import FromImage, repeated, sized_by_image
from darkroom.compat.diffusers.images import ImageProcessor
from darkroom.compat.diffusers.job import Beginning
from darkroom.compat.diffusers.noise import Drawing, drawing, each_of
from darkroom.compat.diffusers.pipeline import DiffusionPipeline
from darkroom.compat.diffusers.schedulers import scheduler_of
from darkroom.engine.looking import Looker, clip_pixels
from darkroom.errors import InvalidRequest
from darkroom.generation.shown import likened, noised, ranged
from darkroom.photos import photo_of
from darkroom.pixels import Pixels


class SeesImage(DiffusionPipeline):
    """A pipeline whose calls take the `image` that is changed; what is drawn begins with noise."""

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        return sized_by_image(self, call, "that is changed")

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        seen, vae = cast(Tensor, call["image"]), self.vae
        if seen.shape[1] != self._family.latent_channels:
            # What the autoencoder sees most likely, as it is: so these models were trained.
            seen = vae.encode(seen.to(vae.dtype)).latents
        begun = super()._beginning(call, draw, shape, first)
        return replace(begun, beside=repeated(seen, shape[0], "image").to("cpu", torch.float32))


class SeesDepth(FromImage):
    """A pipeline whose calls take `image`, and its depth as `depth_map`."""

    depth_estimator: Any = None
    """What measures depth where none is given, with `feature_extractor`: transformers' own, set by who has them."""

    @classmethod
    def _kinds(cls) -> list[Any]:
        return DiffusionPipeline._kinds()

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        sized, height, width = super()._sized(call)
        depth = call["depth_map"]
        if depth is None:
            depth = self._measured(call["image"])
        if not isinstance(depth, Tensor) or depth.ndim != 3:
            raise InvalidRequest(
                "depth_map is no tensor (B, height, width): give one, larger where it is nearer"
            )
        factor = self._family.factor
        size = height // factor, width // factor
        depth = ranged(F.interpolate(depth.float()[:, None], size, mode="bicubic", align_corners=False))
        return {**sized, "depth_map": depth}, height, width

    def _measured(self, image: Any) -> Tensor:
        if self.depth_estimator is None or self.feature_extractor is None:
            raise InvalidRequest(
                "depth_map is None, and nothing here measures depth: give it, or set depth_estimator and "
                "feature_extractor to transformers' own"
            )
        images = image if isinstance(image, list | tuple) else [image]
        with torch.no_grad():
            pixels = self.feature_extractor(images=images, return_tensors="pt").pixel_values
            return cast(Tensor, self.depth_estimator(pixels).predicted_depth).to("cpu")

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        begun = super()._beginning(call, draw, shape, first)
        return replace(begun, beside=repeated(cast(Tensor, call["depth_map"]), shape[0], "depth_map"))


class Augmented(DiffusionPipeline):
    """A pipeline whose calls say how much noise is laid over what the network is shown: `noise_level`."""

    @property
    def _augmentation(self) -> Augmentation:
        found = self._family.augmentation
        assert found is not None
        return found

    def _check_level(self, call: Arguments) -> None:
        most, level = self._augmentation.most, call["noise_level"]
        if level > most:
            raise InvalidRequest(f"noise_level is {level}: give {most} at most")

    def _noise_over(self, call: Arguments, shape: tuple[int, ...]) -> Tensor:
        """What the call's generator draws for what is shown, which is of that shape."""
        return drawing(each_of(call["generator"])[: shape[0]], shape, self.device)(self.dtype)


class Enlarges(Augmented):
    """A pipeline whose calls take the `image` that is enlarged, and how much noise is laid over it: `noise_level`."""

    low_res_scheduler = property(lambda self: scheduler_of(self._augmentation.config))

    @property
    def config(self) -> Config:
        return Config({**super().config, "max_noise_level": self._augmentation.most})

    @property
    def image_processor(self) -> ImageProcessor:
        own = super().image_processor
        return replace(own, latent_channels=0, resample=Image.Resampling.BICUBIC)

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        self._check_level(call)
        return sized_by_image(self, call, "that is enlarged")

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        image, level = cast(Tensor, call["image"]), call["noise_level"]
        seen = noised(image, self._noise_over(call, tuple(image.shape)), self._augmentation, level)
        begun = super()._beginning(call, draw, shape, first)
        labels = torch.full((2 * shape[0],), level)
        return replace(begun, beside=repeated(seen, shape[0], "image"), labels=labels)


class Varies(Augmented):
    """A pipeline whose calls take the `image` that is varied, or what the image encoder makes of it: `image_embeds`."""

    image_noising_scheduler = property(lambda self: scheduler_of(self._augmentation.config))

    @property
    def _looker(self) -> Looker:
        found = self._networks().looker
        assert found is not None
        return found

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        image, embeds = call["image"], call["image_embeds"]
        if (image is None) == (embeds is None):
            raise InvalidRequest("give either image or image_embeds")
        self._check_level(call)
        if call["prompt"] is None and call["prompt_embeds"] is None:
            call = {**call, "prompt": [""] * len(image) if isinstance(image, list) else ""}
        return super()._sized(call)

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        count, alone = shape[0], isinstance(call["image"], Image.Image)
        embeds = self._looked(call["image"]) if call["image_embeds"] is None else call["image_embeds"]
        noisy = self._noised(embeds, call["noise_level"], self._noise_over(call, tuple(embeds.shape)))
        labels = noisy.repeat_interleave(count if alone else call["num_images_per_prompt"], dim=0)
        if len(labels) != count:
            raise InvalidRequest(
                f"image is {len(embeds)} pictures, for {count}: give one, or one for each prompt"
            )
        begun = super()._beginning(call, draw, shape, first)
        return replace(begun, labels=torch.cat([torch.zeros_like(labels), labels]))

    def noise_image_embeddings(
        self,
        image_embeds: Tensor,
        noise_level: int,
        noise: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """What the network is told of embeddings (B, E), with so much noise over them: (B, 2E)."""
        if noise is None:
            noise = drawing(generator, tuple(image_embeds.shape), image_embeds.device)(image_embeds.dtype)
        return self._noised(image_embeds, int(noise_level), noise).to(image_embeds)

    def _noised(self, embeds: Tensor, level: int, noise: Tensor) -> Tensor:
        looked = self._looker.looked(embeds)
        return likened(looked, noise.to("cpu", torch.float32), self._augmentation, level)

    def _looked(self, image: Any) -> Tensor:
        """What the image encoder makes of pictures: of tensors, as it is shown them."""
        looker = self._looker
        if not isinstance(image, Tensor):
            images = image if isinstance(image, list | tuple) else [image]
            image = torch.cat([clip_pixels(_bytes_of(each), looker.side) for each in images])
        with self._networks().lock, torch.no_grad():
            return looker.embeddings(image.to(self.device))


def _bytes_of(image: Any) -> Pixels:
    """A picture of Pillow's or NumPy's as (height, width, 3) uint8."""
    return np.asarray(photo_of(image, "image").over())
