"""Pipelines that begin with pictures: what they do otherwise than those that begin with noise alone."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from darkroom.compat.diffusers.arguments import Arguments
from darkroom.compat.diffusers.call import checked_latents
from darkroom.compat.diffusers.job import Beginning
from darkroom.compat.diffusers.noise import Drawing
from darkroom.compat.diffusers.pipeline import DiffusionPipeline
from darkroom.compat.diffusers.schedulers.way import Way
from darkroom.errors import InvalidRequest
from darkroom.networks import TinyVAE


class FromImage(DiffusionPipeline):
    """A pipeline whose calls take `image`, and how much of it is drawn anew: `strength`."""

    rounds_up = False
    """Whether a step that strength leaves in part is taken."""

    @classmethod
    def _kinds(cls) -> list[Any]:
        return FromImage.__subclasses__()

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        if call["image"] is None:
            raise InvalidRequest("image is None: give the picture to begin with")
        if not 0 <= call["strength"] <= 1:
            raise InvalidRequest(f"strength is {call['strength']}: give a number from 0 to 1")
        image = self.image_processor.preprocess(call["image"], call["height"], call["width"])
        factor = self._family.factor if image.shape[1] == self._family.latent_channels else 1
        height, width = (side * factor for side in image.shape[2:])
        return {**call, "image": image}, height, width

    def _first(self, call: Arguments, way: Way) -> int:
        start, scheduler = call["denoising_start"], self.scheduler
        if start is not None:
            return _first_below(start, way, scheduler.config.num_train_timesteps, scheduler.order)
        steps, strength = len(way.points) - 1, call["strength"]
        kept = steps * strength
        first: int = int(steps - kept) if self.rounds_up else steps - int(kept)
        if first >= steps:
            raise InvalidRequest(f"strength {strength:g} of {steps} steps leaves none: give more of either")
        return first * int(scheduler.order)

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        given = call["latents"]
        if given is not None:
            latents = checked_latents(given, shape)
        else:
            latents = self._encoded_image(call, shape[0])
            if call["denoising_start"] is None:
                moment = self.scheduler.timesteps[first : first + 1]
                latents = self.scheduler.add_noise(latents, draw(self.dtype), moment)
        return Beginning(latents, self.scheduler.begun(first, latents))

    def _encoded_image(self, call: Arguments, count: int) -> Tensor:
        """The latents of a call's pictures, (count, C, h, w) float32 on the CPU: drawn from what the autoencoder sees
        in them, with the call's generator. Raises InvalidRequest where there is another number of them."""
        image, generator = cast(Tensor, call["image"]), call["generator"]
        if count % len(image):
            raise InvalidRequest(f"image is {len(image)} pictures, for {count}: give one, or one for each")
        if image.shape[1] != self._family.latent_channels:
            several = isinstance(generator, list | tuple) and len(generator) > 1
            image = image.repeat(count // len(image), 1, 1, 1) if several else image
            parts = torch.split(image, 1) if several else [image]
            generators: Any = generator if several else [generator]
            image = torch.cat([self._sampled(part, own) for part, own in zip(parts, generators, strict=True)])
        return image.repeat(count // len(image), 1, 1, 1).to("cpu", torch.float32)

    def _sampled(self, image: Tensor, generator: Any) -> Tensor:
        [generator] = generator if isinstance(generator, list | tuple) else [generator]
        vae = self.vae
        found = vae.encode(image.to(vae.dtype))
        tiny = isinstance(self._networks().vae, TinyVAE)
        z: Tensor = found.latents if tiny else found.latent_dist.sample(generator)
        config: Any = vae.config
        shift, scale = float(config.shift_factor or 0), float(config.scaling_factor)
        return (z.to(self.dtype) - shift) * scale

    def _time_ids(self, call: Arguments, height: int, width: int, count: int, guided: bool) -> Tensor:
        original, crop = call["original_size"] or (height, width), call["crops_coords_top_left"]
        negative_original = call["negative_original_size"] or original
        if self._family.sizes == "refiner":
            told = [*original, *crop, call["aesthetic_score"]]
            other = call["negative_crops_coords_top_left"]
            negative = [*negative_original, *other, call["negative_aesthetic_score"]]
        else:
            target = call["target_size"] or (height, width)
            told = [*original, *crop, *target]
            negative = [*negative_original, *crop, *(call["negative_target_size"] or target)]
        return torch.tensor([negative] * count * guided + [told] * count, dtype=torch.float32)


def _first_below(start: float, way: Way, trained: int, order: int) -> int:
    """The number of the first network call below the share `denoising_start` of the way, which no step is torn by."""
    if not 0 <= start < 1:
        raise InvalidRequest(f"denoising_start is {start!r}: give a number from 0 to 1")
    cut = round(trained - start * trained)
    left = sum(time < cut for time in way.times)
    if not left:
        raise InvalidRequest(f"denoising_start {start:g} leaves no step: give less, or more steps")
    if order == 2 and left % 2 == 0:
        left += 1
    return len(way.times) - left
