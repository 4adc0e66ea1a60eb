"""Pipelines that paint a part of a picture anew: what they do otherwise than those that draw all of it over."""

from __future__ import annotations

from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from darkroom.compat.diffusers.arguments import Arguments
from darkroom.compat.diffusers.call import checked_latents
from darkroom.compat.diffusers.image2image import FromImage, repeated
from darkroom.compat.diffusers.job import Beginning
from darkroom.compat.diffusers.noise import Drawing
from darkroom.errors import InvalidRequest
from darkroom.generation.settle import check_drawable


class FromMask(FromImage):
    """A pipeline whose calls take `mask_image`, white where the picture is painted anew.

    Networks of its own channels are shown the mask and what is left of the picture; of others, what is left is put
    back after each step.
    """

    @classmethod
    def _kinds(cls) -> list[Any]:
        return FromMask.__subclasses__()

    def _check_drawable(self) -> None:
        if not self._family.sees_masks:
            check_drawable(self._family, self.path.name)

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        image, mask, processor = call["image"], call["mask_image"], self.image_processor
        if mask is None:
            raise InvalidRequest("mask_image is None: give the mask of what is painted anew")
        call = self._natively_sized(call)
        height, width = call["height"] or 0, call["width"] or 0
        if call["padding_mask_crop"] is not None:
            box = self._box(call, height, width)
            image, mask = (
                processor.filled(each.crop(box), width, height) for each in (image, mask.convert("L"))
            )
        sized, height, width = super()._sized({**call, "image": image})
        masks = processor.masks(mask, height, width)
        return {**sized, "mask_image": masks}, height, width

    def _box(self, call: Arguments, height: int, width: int) -> tuple[int, int, int, int]:
        image, mask = call["image"], call["mask_image"]
        if (
            not isinstance(image, Image.Image)
            or not isinstance(mask, Image.Image)
            or call["output_type"] != "pil"
        ):
            raise InvalidRequest(
                "padding_mask_crop is for one picture and one mask of Pillow's and output_type pil: leave it out"
            )
        if image.size != mask.size:
            raise InvalidRequest(
                f"mask_image is of {mask.size}, image of {image.size}: give both of one size"
            )
        return self.image_processor.get_crop_region(mask, width, height, call["padding_mask_crop"] or 0)

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        count, scheduler, given = shape[0], self.scheduler, call["latents"]
        shows, whole, midway = (
            self._family.sees_masks,
            call["strength"] == 1,
            call["denoising_start"] is not None,
        )
        known = (
            None if shows and whole and not midway else self._seen(call, cast(Tensor, call["image"]), count)
        )
        noise = draw(self.dtype) if given is None or midway else checked_latents(given, shape)
        moment = scheduler.timesteps[first : first + 1]
        if midway:
            assert known is not None
            latents = known
        elif whole or given is not None:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(known, noise, moment)
        mask = torch.nn.functional.interpolate(cast(Tensor, call["mask_image"]), shape[2:])
        mask, left = repeated(mask, count, "mask_image"), self._left(call, count, shows)
        begun = scheduler.begun(first, latents)
        if left is not None:
            return Beginning(latents, begun, beside=torch.cat([mask, left], dim=1))

        assert known is not None

        def kept(latents: Tensor, made: int, total: int) -> Tensor:
            proper = known
            if made < total:
                proper = scheduler.add_noise(known, noise, scheduler.timesteps[first + made][None])
            return (1 - mask) * proper + mask * latents

        return Beginning(latents, begun, kept)

    def _left(self, call: Arguments, count: int, shows: bool) -> Tensor | None:
        """The latents of what is left of the picture, where a network is to be shown them. They are drawn for from the
        generator in any case, as in diffusers."""
        left, image, factor = call["masked_image_latents"], cast(Tensor, call["image"]), self._family.factor
        if left is None and image.shape[1] != self._family.latent_channels:
            left = image * (call["mask_image"] < 0.5)
            if not shows:
                sides = (side // factor for side in left.shape[2:])
                self._drawn(call, (len(left), self._family.latent_channels, *sides))
        if not shows:
            return None
        if left is None:
            raise InvalidRequest(
                "image is latents, of which no part can be shown: give masked_image_latents, or pixels"
            )
        return self._seen(call, left, count)

    def _laid_over(self, call: Arguments, images: Any) -> Any:
        if call["padding_mask_crop"] is None:
            return images
        wide, high = images[0].size
        image, mask, box = call["image"], call["mask_image"], self._box(call, high, wide)
        return [self.image_processor.apply_overlay(mask, image, each, box) for each in images]
