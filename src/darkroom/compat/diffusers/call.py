"""What a call of a pipeline is given, and what it gives back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from darkroom.compat.diffusers.arguments import Arguments, Callback
from darkroom.compat.diffusers.job import Output, Told
from darkroom.compat.diffusers.outputs import BaseOutput
from darkroom.compat.diffusers.schedulers.way import Way
from darkroom.errors import InvalidRequest, nearest


@dataclass(frozen=True)
class Embeds:
    """Ready prompts: states (n, tokens, width) and pooled vectors (n, P), of the prompt and of the negative one."""

    prompt: Tensor | None = None
    negative: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None

    @staticmethod
    def given(call: Arguments) -> Embeds:
        """Those that a call is given."""
        return Embeds(
            call["prompt_embeds"],
            call["negative_prompt_embeds"],
            call["pooled_prompt_embeds"],
            call["negative_pooled_prompt_embeds"],
        )

    def repeated(self, images: int) -> Embeds:
        """Each prompt's for so many pictures, one after the other."""
        every = (self.prompt, self.negative, self.pooled, self.negative_pooled)
        return Embeds(*(None if each is None else each.repeat_interleave(images, dim=0) for each in every))


def time_ids(call: Arguments, height: int, width: int, count: int, guided: bool) -> Tensor:
    """The sizes that an XL network is told of `count` pictures, those of the negative prompt first: original height and
    width, top and left of the crop, target height and width."""
    size = height, width
    told = [*(call["original_size"] or size), *call["crops_coords_top_left"], *(call["target_size"] or size)]
    negative = told
    if call["negative_original_size"] is not None and call["negative_target_size"] is not None:
        negative = [
            *call["negative_original_size"],
            *call["negative_crops_coords_top_left"],
            *call["negative_target_size"],
        ]
    rows = [negative] * count * guided + [told] * count
    return torch.tensor(rows, dtype=torch.float32)


@dataclass
class ImagePipelineOutput(BaseOutput):
    """`images`: a list of Pillow images, or an array or tensor of all, as `output_type` said.
    `nsfw_content_detected` is None: nothing here looks for it."""

    images: Any
    nsfw_content_detected: None = None


def shown_bar(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a progress bar, which is none where a program has no terminal to show it on."""
    hidden = {"disable": True} if sys.stderr is None and "file" not in settings else {}
    return {**settings, **hidden}


class Stepped:
    """What happens after each network call: callbacks, which may change what follows, and the bar."""

    def __init__(
        self, pipe: Any, call: Arguments, told: Told, embeds: Embeds, way: Way, calls: int, bar: Any
    ) -> None:
        self.pipe, self.call, self.told, self.embeds, self.calls, self.bar = (
            *(pipe, call, told, embeds, calls, bar),
        )
        self.order = pipe.scheduler.order
        # The first step of some schedulers has fewer calls than the others, of some more.
        self.before = max(len(way.times) - (len(way.points) - 1) * self.order, 0)

    def __call__(self, number: int, time: float, latents: Tensor) -> tuple[Tensor, bool]:
        """The latents that take these' place, these themselves where nobody changed them, and whether to go on."""
        last = number + 1 == self.calls
        stepped = last or (number >= self.before and (number + 1) % self.order == 0)
        if self.call["callback_on_step_end"] is not None or self.call["callback"] is not None:
            latents = self._listened(number, time, latents, stepped)
        if stepped:
            self.bar.update()
        return latents, not last and not self.pipe.interrupt

    def _listened(self, number: int, time: float, latents: Tensor, stepped: bool) -> Tensor:
        call, moment = self.call, torch.tensor(time, dtype=self.pipe.scheduler.told)
        # As diffusers has them: in the networks' type, and such as gradients can be taken of. Ours go on unrounded
        # where nobody changes them.
        with torch.inference_mode(False), torch.no_grad():
            before = latents.to(self.pipe.device, self.pipe.dtype).clone()
            shown = before.clone()
            if call["callback_on_step_end"] is not None:
                shown = self._told(call["callback_on_step_end"], number, moment, shown)
            if call["callback"] is not None and stepped and number % (call["callback_steps"] or 1) == 0:
                call["callback"](number // self.order, moment, shown)
            shown = shown.detach()
            return latents if torch.equal(shown.to(before), before) else shown.to(latents)

    def _told(self, callback: Callback, number: int, moment: Tensor, latents: Tensor) -> Tensor:
        told, embeds = self.told, self.embeds
        values = {
            "latents": latents,
            "prompt_embeds": told.prompt_embeds,
            "negative_prompt_embeds": embeds.negative,
            "add_text_embeds": told.pooled,
            "pooled_prompt_embeds": told.pooled,
            "negative_pooled_prompt_embeds": embeds.negative_pooled,
            "add_time_ids": told.time_ids,
            "negative_add_time_ids": told.time_ids,
            "image_latents": told.beside,
        }
        asked = {name: values[name] for name in self.call["callback_on_step_end_tensor_inputs"]}
        back = callback(self.pipe, number, moment, asked) or {}
        if not isinstance(back, Mapping):
            raise InvalidRequest(
                f"callback_on_step_end returned a {type(back).__name__}: it is to return a dictionary of tensors"
            )
        told.prompt_embeds = back.get("prompt_embeds", told.prompt_embeds)
        told.pooled = back.get("add_text_embeds", back.get("pooled_prompt_embeds", told.pooled))
        told.time_ids = back.get("add_time_ids", told.time_ids)
        told.beside = back.get("image_latents", told.beside)
        told.scale, told.rescale = self.pipe.guidance_scale, self.pipe.guidance_rescale
        told.picture = self.pipe.image_guidance_scale
        changed = back.get("latents", latents)
        if not isinstance(changed, Tensor) or changed.shape != latents.shape:
            given = tuple(changed.shape) if isinstance(changed, Tensor) else changed
            raise InvalidRequest(
                f"callback_on_step_end returned latents of the shape {given}: they are {tuple(latents.shape)}"
            )
        return changed


def both(negative: Tensor | None, positive: Tensor | None) -> Any:
    return positive if negative is None or positive is None else torch.cat([negative, positive])


def count_calls(way: Way, denoising_end: float | None, count: int, first: int = 0) -> int:
    """How many network calls are made from the `first` on: all, or those before the share `denoising_end` of the
    way."""
    times = way.times[first:]
    if denoising_end in (None, 0, 1):
        return len(times)
    cut = _cut("denoising_end", denoising_end, count)
    made = sum(time >= cut for time in times)
    if not made:
        raise InvalidRequest(f"denoising_end {denoising_end} leaves no step: give more, or more steps")
    return made


def first_call(way: Way, denoising_start: float, count: int, order: int) -> int:
    """The number of the first network call below the share `denoising_start` of the way, which no step is torn by."""
    cut = _cut("denoising_start", denoising_start, count)
    left = sum(time < cut for time in way.times)
    if not left:
        raise InvalidRequest(f"denoising_start {denoising_start} leaves no step: give less, or more steps")
    if order == 2 and left % 2 == 0:
        left += 1
    return len(way.times) - left


def _cut(name: str, share: float, count: int) -> int:
    """The time where a share of the way of so many training steps ends."""
    if not 0 <= share < 1:
        raise InvalidRequest(f"{name} is {share!r}: give a number from 0 to 1")
    return round(count - share * count)


def checked_latents(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        given = tuple(latents.shape) if isinstance(latents, Tensor) else latents
        raise InvalidRequest(f"latents have the shape {given}: this call needs {shape}")
    return latents.to("cpu", torch.float32)


def output_of(output_type: str) -> Output:
    kinds: dict[str, Output] = {"pil": "pixels", "np": "image", "pt": "image", "latent": "latent"}
    kinds |= dict.fromkeys(("np.array", "numpy"), "image")
    if output_type not in kinds:
        raise InvalidRequest(f"output_type is {output_type!r}: {nearest(str(output_type), kinds)}")
    return kinds[output_type]


def shown(made: Sequence[Any], output_type: str, device: torch.device, dtype: torch.dtype) -> Any:
    if output_type == "pil":
        return [Image.fromarray(pixels) for pixels in made]
    if output_type == "latent":
        return torch.stack(list(made)).to(device, dtype)
    images = (torch.cat(list(made)) / 2 + 0.5).clamp(0, 1)
    return images if output_type == "pt" else images.permute(0, 2, 3, 1).numpy()


def foreign(value: object) -> str:
    """What something is that is none of ours."""
    return f"{type(value).__module__}.{type(value).__name__}"
