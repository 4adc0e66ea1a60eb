"""The arguments of pipelines' calls: each name's type and default, said once for all pipelines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, cast

import torch
from torch import Tensor

from darkroom.compat.diffusers import signatures
from darkroom.errors import InvalidRequest, nearest
from darkroom.numeric import integer, real

Prompt: TypeAlias = str | Sequence[str] | None
Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
Size: TypeAlias = tuple[int, int]
Callback: TypeAlias = Callable[[Any, int, Tensor, dict[str, Any]], Mapping[str, Any] | None]


class Arguments(TypedDict, total=False):
    """All arguments of calls and of `encode_prompt`, under diffusers' names, whichever pipeline takes them."""

    prompt: Prompt
    prompt_2: Prompt
    prompt_3: Prompt
    negative_prompt: Prompt
    negative_prompt_2: Prompt
    negative_prompt_3: Prompt
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None
    negative_pooled_prompt_embeds: Tensor | None
    max_sequence_length: int
    clip_skip: int | None
    lora_scale: float | None
    cross_attention_kwargs: Mapping[str, Any] | None
    joint_attention_kwargs: Mapping[str, Any] | None
    device: Any
    do_classifier_free_guidance: bool

    image: Any
    mask_image: Any
    masked_image_latents: Tensor | None
    padding_mask_crop: int | None
    image_embeds: Tensor | None
    depth_map: Tensor | None
    noise_level: int
    strength: float
    height: int | None
    width: int | None
    num_images_per_prompt: int
    generator: Generators
    latents: Tensor | None
    original_size: Size | None
    crops_coords_top_left: Size
    target_size: Size | None
    negative_original_size: Size | None
    negative_crops_coords_top_left: Size
    negative_target_size: Size | None
    aesthetic_score: float
    negative_aesthetic_score: float

    num_inference_steps: int
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    mu: float | None
    eta: float
    denoising_start: float | None
    denoising_end: float | None
    guidance_scale: float
    guidance_rescale: float
    image_guidance_scale: float
    skip_guidance_layers: None
    skip_layer_guidance_scale: float
    skip_layer_guidance_stop: float
    skip_layer_guidance_start: float
    ip_adapter_image: None
    ip_adapter_image_embeds: None

    output_type: str
    return_dict: bool
    callback_on_step_end: Callback | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    callback: Callable[[int, Tensor, Tensor], object] | None
    callback_steps: int | None


_DEFAULTS = Arguments(
    max_sequence_length=256,
    do_classifier_free_guidance=True,
    strength=1.0,
    num_images_per_prompt=1,
    crops_coords_top_left=(0, 0),
    negative_crops_coords_top_left=(0, 0),
    aesthetic_score=6.0,
    negative_aesthetic_score=2.5,
    num_inference_steps=50,
    eta=0.0,
    guidance_scale=7.5,
    guidance_rescale=0.0,
    image_guidance_scale=1.0,
    noise_level=20,
    skip_layer_guidance_scale=2.8,
    skip_layer_guidance_stop=0.2,
    skip_layer_guidance_start=0.01,
    output_type="pil",
    return_dict=True,
    callback_on_step_end_tensor_inputs=("latents",),
)

_MISSING = ("ip_adapter_image", "ip_adapter_image_embeds", "skip_guidance_layers")
"""Arguments that nothing here honours."""


def taking(names: str, **defaults: Any) -> Callable[[signatures.Method], signatures.Method]:
    """Has a method take these arguments, in this order, with a pipeline's own `defaults`: see `signatures.taking`."""
    return signatures.taking(names, Arguments, {**_DEFAULTS, **defaults})


def checked(call: Arguments, tensor_inputs: Sequence[str]) -> Arguments:
    """A call's arguments with numbers that are Python's. Raises InvalidRequest for what no model can honour;
    `tensor_inputs`: what callbacks may ask for."""
    given = cast(dict[str, Any], call)
    signatures.refuse(**{name: given[name] for name in _MISSING})
    found: dict[str, Any] = {
        name: check(name, given[name])
        for name, check in _CHECKS.items()
        if not (given[name] is None and name not in _DEFAULTS)
    }
    # diffusers' own callbacks say themselves what they ask for.
    asked = getattr(call["callback_on_step_end"], "tensor_inputs", call["callback_on_step_end_tensor_inputs"])
    for name in asked:
        if name not in tensor_inputs:
            raise InvalidRequest(
                f"callback_on_step_end_tensor_inputs has {name!r}: {nearest(str(name), tensor_inputs)}"
            )
    return cast(Arguments, {**given, **found, "callback_on_step_end_tensor_inputs": tuple(asked)})


def lora_scale(call: Arguments) -> float:
    """What a call multiplies all LoRAs by."""
    if call["lora_scale"] is not None:
        return call["lora_scale"]
    return attention_scale(call["cross_attention_kwargs"] or call["joint_attention_kwargs"])


def attention_scale(settings: Mapping[str, Any] | None) -> float:
    """What all LoRAs are multiplied by as settings of attention say. Raises InvalidRequest for other settings."""
    settings = settings or {}
    others = sorted({*settings} - {"scale"})
    if others:
        raise InvalidRequest(f"attention settings {others} are not there: leave them out")
    return a_number("the scale of LoRAs", settings.get("scale", 1.0))


def a_number(name: str, given: object) -> float:
    """A finite number as Python's. Raises InvalidRequest for anything else."""
    number = real(given)
    if number is None or not math.isfinite(number):
        raise InvalidRequest(f"{name} is {given!r}: give a number")
    return number


def _a_count(most: int | None = None, least: int = 1) -> Callable[[str, object], int]:
    def check(name: str, given: object) -> int:
        count = integer(given)
        if count is None or count < least or (most is not None and count > most):
            bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise InvalidRequest(f"{name} is {given!r}: give a whole number {bounds}")
        return count

    return check


_CHECKS: Mapping[str, Callable[[str, object], float]] = {
    **dict.fromkeys(("guidance_scale", "guidance_rescale", "eta", "lora_scale", "strength"), a_number),
    **dict.fromkeys(("denoising_start", "denoising_end", "image_guidance_scale"), a_number),
    **dict.fromkeys(("aesthetic_score", "negative_aesthetic_score"), a_number),
    **dict.fromkeys(("num_images_per_prompt", "callback_steps"), _a_count()),
    "padding_mask_crop": _a_count(least=0),
    "noise_level": _a_count(least=0),
    "max_sequence_length": _a_count(512),
}
