"""Pipelines that begin with pictures: what they do otherwise than those that begin with noise alone."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from darkroom.compat.diffusers.arguments import Arguments
from darkroom.compat.diffusers.call import checked_latents, first_call
from darkroom.compat.diffusers.job import Beginning
from darkroom.compat.diffusers.noise import Drawing, drawing, each_of
from darkroom.compat.diffusers.pipeline import DiffusionPipeline
from darkroom.compat.diffusers.schedulers.way import Way
from darkroom.diffusion.spacing import steps_taken
from darkroom.errors import InvalidRequest
from darkroom.networks import TinyVAE


class FromImage(DiffusionPipeline):
    """A pipeline whose calls take `image`, and how much of it is drawn anew: `strength`."""

    @classmethod
    def _kinds(cls) -> list[Any]:
        return FromImage.__subclasses__()

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        if not 0 <= call["strength"] <= 1:
            raise InvalidRequest(f"strength is {call['strength']}: give a number from 0 to 1")
        return sized_by_image(self, call, "to begin with")

    def _natively_sized(self, call: Arguments) -> Arguments:
        """A call whose pictures are of the model's native size unless it says another one."""
        native = self._family.native
        return {**call, "height": call["height"] or native, "width": call["width"] or native}

    def _first(self, call: Arguments, way: Way) -> int:
        start, scheduler = call["denoising_start"], self.scheduler
        if start is not None:
            return first_call(way, start, scheduler.config.num_train_timesteps, scheduler.order)
        steps, strength = len(way.points) - 1, call["strength"]
        taken = steps_taken(way.points, strength)
        if not taken:
            raise InvalidRequest(f"strength {strength:g} of {steps} steps leaves none: give more of either")
        return (steps - taken) * int(scheduler.order)

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        image, count, given = cast(Tensor, call["image"]), shape[0], call["latents"]
        if given is not None:
            latents = checked_latents(given, shape)
        else:
            # Each of several generators draws for a picture of its own.
            several = len(each_of(call["generator"])) > 1
            latents = self._seen(call, repeated(image, count, "image") if several else image, count)
            if call["denoising_start"] is None:
                moment = self.scheduler.timesteps[first : first + 1]
                latents = self.scheduler.add_noise(latents, draw(self.dtype), moment)
        return Beginning(latents, self.scheduler.begun(first, latents))

    def _seen(self, call: Arguments, image: Tensor, count: int) -> Tensor:
        """The latents of pictures, drawn from what the autoencoder sees in them, or latents as they are, for each of so
        many: (count, C, h, w) float32 on the CPU."""
        if image.shape[1] != self._family.latent_channels:
            vae: Any = self.vae
            found = vae.encode(image.to(vae.dtype))
            z, seen = found.latents, found.latent_dist
            if not isinstance(self._networks().vae, TinyVAE):
                z = seen.mean + seen.std * self._drawn(call, tuple(seen.mean.shape)).to(seen.mean)
            shift, scale = float(vae.config.shift_factor or 0), float(vae.config.scaling_factor)
            image = (z.to(self.dtype) - shift) * scale
        return repeated(image, count, "image").to("cpu", torch.float32)

    def _drawn(self, call: Arguments, shape: tuple[int, ...]) -> Tensor:
        """What the call's generator draws of latents that are seen, which are of that shape."""
        return drawing(each_of(call["generator"])[: shape[0]], shape, self.vae.device)(self.vae.dtype)

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


def sized_by_image(pipe: Any, call: Arguments, what: str) -> tuple[Arguments, int, int]:
    """A call with its `image` as tensors, and the height and width of what is drawn of that. Raises InvalidRequest
    where it has none."""
    if call["image"] is None:
        raise InvalidRequest(f"image is None: give the picture {what}")
    family, image = (
        pipe._family,
        pipe.image_processor.preprocess(call["image"], call["height"], call["width"]),
    )
    latents = image.shape[1] == family.latent_channels
    height, width = (side * (family.factor if latents else family.enlarges) for side in image.shape[2:])
    return {**call, "image": image}, height, width


def repeated(values: Tensor, count: int, name: str) -> Tensor:
    """What there is of some pictures, again and again for so many. Raises InvalidRequest where that leaves a rest."""
    if count % len(values):
        raise InvalidRequest(f"{name} is {len(values)} pictures, for {count}: give one, or one for each")
    return values.repeat(count // len(values), 1, 1, 1)
