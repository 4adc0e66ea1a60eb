"""Pipelines of models that are shown the picture they draw over: what they do otherwise than others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from darkroom.checkpoint.family import Augmentation
from darkroom.compat.diffusers.arguments import Arguments
from darkroom.compat.diffusers.config import Config
from darkroom.compat.diffusers.image2image import FromImage, repeated
from darkroom.compat.diffusers.images import ImageProcessor
from darkroom.compat.diffusers.job import Beginning
from darkroom.compat.diffusers.noise import Drawing, drawing, each_of
from darkroom.compat.diffusers.pipeline import DiffusionPipeline
from darkroom.compat.diffusers.schedulers import scheduler_of
from darkroom.errors import InvalidRequest
from darkroom.generation.shown import noised, ranged


class SeesImage(DiffusionPipeline):
    """A pipeline whose calls take the `image` that is changed; what is drawn begins with noise."""

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        if call["image"] is None:
            raise InvalidRequest("image is None: give the picture that is changed")
        image = self.image_processor.preprocess(call["image"])
        factor = self._family.factor if image.shape[1] == self._family.latent_channels else 1
        height, width = (side * factor for side in image.shape[2:])
        return {**call, "image": image}, height, width

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


class Enlarges(DiffusionPipeline):
    """A pipeline whose calls take the `image` that is enlarged, and how much noise is laid over it: `noise_level`."""

    low_res_scheduler = property(lambda self: scheduler_of(self._augmentation.config))

    @property
    def _augmentation(self) -> Augmentation:
        found = self._family.augmentation
        assert found is not None
        return found

    @property
    def config(self) -> Config:
        return Config({**super().config, "max_noise_level": self._augmentation.most})

    @property
    def image_processor(self) -> ImageProcessor:
        own = super().image_processor
        return replace(own, latent_channels=0, resample=Image.Resampling.BICUBIC)

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        if call["image"] is None:
            raise InvalidRequest("image is None: give the picture that is enlarged")
        most, level = self._augmentation.most, call["noise_level"]
        if level > most:
            raise InvalidRequest(f"noise_level is {level}: give {most} at most")
        image = self.image_processor.preprocess(call["image"])
        height, width = (side * self._family.factor for side in image.shape[2:])
        return {**call, "image": image}, height, width

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        image, level = cast(Tensor, call["image"]), call["noise_level"]
        noise = drawing(each_of(call["generator"])[: len(image)], tuple(image.shape), self.device)(self.dtype)
        seen = noised(image, noise, self._augmentation, level)
        begun = super()._beginning(call, draw, shape, first)
        return replace(begun, beside=repeated(seen, shape[0], "image"), labels=torch.tensor([level]))
