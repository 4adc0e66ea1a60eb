"""What a call of a pipeline is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from darkroom.compat.diffusers.job import Output
from darkroom.compat.diffusers.prompts import listed
from darkroom.compat.diffusers.scheduler import Way
from darkroom.errors import InvalidRequest, nearest

Generators = torch.Generator | Sequence[torch.Generator] | None
Callback = Callable[[Any, int, Tensor, dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Embeds:
    """Ready prompts: states (n, tokens, width) and pooled vectors (n, P), of the prompt and of the negative one."""

    prompt: Tensor | None = None
    negative: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None


@dataclass(frozen=True)
class Call:
    """A call's arguments that all families have, under diffusers' names, and the numbers an XL network is told."""

    height: int | None
    width: int | None
    num_inference_steps: int
    generator: Generators
    latents: Tensor | None
    output_type: str
    return_dict: bool
    callback_on_step_end: Callback | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    eta: float = 0.0
    denoising_end: float | None = None
    mu: float | None = None
    time_ids: Tensor | None = None
    callback: Callable[[int, Tensor, Tensor], object] | None = None
    callback_steps: int = 1


def by_encoder(name: str, prompts: Sequence[Any], count: int | None = None) -> list[list[str]]:
    """The texts of each encoder: its own, or the first one's."""
    first = listed(name, prompts[0], count)
    others = enumerate(prompts[1:], start=2)
    return [first, *(listed(f"{name}_{n}", own, len(first)) if own else first for n, own in others)]


def both(negative: Tensor | None, positive: Tensor | None) -> Any:
    return positive if negative is None or positive is None else torch.cat([negative, positive])


def count_calls(way: Way, denoising_end: float | None, count: int) -> int:
    """How many network calls are made: all, or those before the share `denoising_end` of the way."""
    if denoising_end is None or denoising_end == 1:
        return len(way.times)
    if not 0 < denoising_end < 1:
        raise InvalidRequest(f"denoising_end is {denoising_end!r}: give a number above 0, 1 at most")
    cut = round(count - denoising_end * count)
    made = sum(time >= cut for time in way.times)
    if not made:
        raise InvalidRequest(f"denoising_end {denoising_end} leaves no step: give more, or more steps")
    return made


def drawing(
    generator: Generators, shape: tuple[int, ...], device: torch.device
) -> Callable[[torch.dtype], Tensor]:
    """What draws noise as diffusers does: all pictures' in one from a single generator, or each from its own."""
    each: list[Any] = list(generator) if isinstance(generator, list | tuple) else [generator]
    if len(each) not in (1, shape[0]) or not all(g is None or isinstance(g, torch.Generator) for g in each):
        raise InvalidRequest(
            f"generator has {len(each)} entries for {shape[0]} pictures: give one torch.Generator, or one a picture"
        )
    sizes = [shape] if len(each) == 1 else [(1, *shape[1:])] * len(each)

    def draw(dtype: torch.dtype) -> Tensor:
        drawn = [
            torch.randn(size, generator=own, device=own.device if own else device, dtype=dtype)
            for size, own in zip(sizes, each, strict=True)
        ]
        return torch.cat([noise.to("cpu", torch.float32) for noise in drawn])

    return draw


def checked_latents(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        given = tuple(latents.shape) if isinstance(latents, Tensor) else latents
        raise InvalidRequest(f"latents have the shape {given}: this call needs {shape}")
    return latents.to("cpu", torch.float32)


def output_of(output_type: str) -> Output:
    kinds: dict[str, Output] = {"pil": "pixels", "np": "image", "pt": "image", "latent": "latent"}
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
