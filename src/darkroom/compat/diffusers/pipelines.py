"""The pipelines of each family, with diffusers' signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from darkroom.checkpoint.family import Family
from darkroom.compat.diffusers.adapters import scale_of
from darkroom.compat.diffusers.call import Call, Callback, Embeds, Generators, ImagePipelineOutput, Size
from darkroom.compat.diffusers.pipeline import DiffusionPipeline
from darkroom.compat.diffusers.texts import text_encoder
from darkroom.errors import InvalidRequest, nearest
from darkroom.numeric import integer

Prompt = str | Sequence[str] | None
Made = ImagePipelineOutput | tuple[Any, ...]

LEGACY = ("callback", "callback_steps")


def _refuse(**given: object) -> None:
    """Raises InvalidRequest for arguments of diffusers' that nothing here honours."""
    for name, value in given.items():
        if value is not None:
            raise InvalidRequest(f"{name} is not there yet: leave it out")


def _legacy(given: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in given:
        if name not in LEGACY:
            raise InvalidRequest(f"a call takes no {name!r}: {nearest(name, LEGACY)}")
    return {name: value for name, value in given.items() if value is not None}


class StableDiffusionPipeline(DiffusionPipeline):
    """Stable Diffusion 1 and 2, and what is built like them, such as pocket."""

    unet = DiffusionPipeline._denoiser

    @classmethod
    def draws(cls, family: Family) -> bool:
        return not family.sizes and not StableDiffusion3Pipeline.draws(family)

    def __call__(
        self,
        prompt: Prompt = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: Prompt = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: None = None,
        ip_adapter_image_embeds: None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **legacy: Any,
    ) -> Made:
        """Make pictures; arguments and result are those of diffusers' pipeline of this name."""
        _refuse(ip_adapter_image=ip_adapter_image, ip_adapter_image_embeds=ip_adapter_image_embeds)
        call = Call(
            lora_scale=scale_of(cross_attention_kwargs),
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
            output_type=output_type,
            return_dict=return_dict,
            clip_skip=clip_skip,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            guidance_rescale=guidance_rescale,
            timesteps=timesteps,
            sigmas=sigmas,
            eta=eta,
            **_legacy(legacy),
        )
        return self._run(call, [prompt], [negative_prompt], Embeds(prompt_embeds, negative_prompt_embeds))

    def encode_prompt(
        self,
        prompt: Prompt,
        device: Any = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Prompt = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(prompt_embeds, negative_prompt_embeds), as a call takes them."""
        embeds = self._encode(
            [prompt],
            [negative_prompt],
            Embeds(prompt_embeds, negative_prompt_embeds),
            images=num_images_per_prompt,
            guided=do_classifier_free_guidance,
            skip=clip_skip,
        )
        return embeds.prompt, embeds.negative


class StableDiffusionXLPipeline(DiffusionPipeline):
    """Stable Diffusion XL."""

    unet = DiffusionPipeline._denoiser
    text_encoder_2 = property(lambda self: self._encoder(1))
    tokenizer_2 = property(lambda self: self._tokenizer(1))

    @classmethod
    def draws(cls, family: Family) -> bool:
        return bool(family.sizes)

    tensor_inputs = (
        *("latents", "prompt_embeds", "add_text_embeds", "add_time_ids"),
        *("negative_prompt_embeds", "negative_pooled_prompt_embeds", "negative_add_time_ids"),
    )

    def __call__(
        self,
        prompt: Prompt = None,
        prompt_2: Prompt = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: Prompt = None,
        negative_prompt_2: Prompt = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: None = None,
        ip_adapter_image_embeds: None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: Size | None = None,
        crops_coords_top_left: Size = (0, 0),
        target_size: Size | None = None,
        negative_original_size: Size | None = None,
        negative_crops_coords_top_left: Size = (0, 0),
        negative_target_size: Size | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **legacy: Any,
    ) -> Made:
        """Make pictures; arguments and result are those of diffusers' pipeline of this name."""
        _refuse(ip_adapter_image=ip_adapter_image, ip_adapter_image_embeds=ip_adapter_image_embeds)
        call = Call(
            lora_scale=scale_of(cross_attention_kwargs),
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
            output_type=output_type,
            return_dict=return_dict,
            clip_skip=clip_skip,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            guidance_rescale=guidance_rescale,
            timesteps=timesteps,
            sigmas=sigmas,
            eta=eta,
            denoising_end=denoising_end,
            original_size=original_size,
            crops_coords_top_left=crops_coords_top_left,
            target_size=target_size,
            negative_original_size=negative_original_size,
            negative_crops_coords_top_left=negative_crops_coords_top_left,
            negative_target_size=negative_target_size,
            **_legacy(legacy),
        )
        return self._run(
            call,
            [prompt, prompt_2],
            [negative_prompt, negative_prompt_2],
            Embeds(
                prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds
            ),
        )

    def encode_prompt(
        self,
        prompt: Prompt,
        prompt_2: Prompt = None,
        device: Any = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Prompt = None,
        negative_prompt_2: Prompt = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor | None, ...]:
        """(prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds), as a call
        takes them."""
        embeds = self._encode(
            [prompt, prompt_2],
            [negative_prompt, negative_prompt_2],
            Embeds(
                prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds
            ),
            images=num_images_per_prompt,
            guided=do_classifier_free_guidance,
            skip=clip_skip,
        )
        return embeds.prompt, embeds.negative, embeds.pooled, embeds.negative_pooled


class StableDiffusion3Pipeline(DiffusionPipeline):
    """Stable Diffusion 3 and 3.5."""

    denoiser_name = "transformer"
    transformer = DiffusionPipeline._denoiser
    text_encoder_2 = property(lambda self: self._encoder(1))
    tokenizer_2 = property(lambda self: self._tokenizer(1))

    @property
    def text_encoder_3(self) -> Any:
        """T5, if it is there."""
        t5 = self._expert.text.t5
        return text_encoder(None if t5 is None else t5.encoder)

    @property
    def tokenizer_3(self) -> Any:
        t5 = self._expert.text.t5
        return None if t5 is None else t5.tokenizer

    @classmethod
    def draws(cls, family: Family) -> bool:
        return family.pipeline == "StableDiffusion3Pipeline"

    tensor_inputs = ("latents", "prompt_embeds", "pooled_prompt_embeds")

    def __call__(
        self,
        prompt: Prompt = None,
        prompt_2: Prompt = None,
        prompt_3: Prompt = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 28,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 7.0,
        negative_prompt: Prompt = None,
        negative_prompt_2: Prompt = None,
        negative_prompt_3: Prompt = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: None = None,
        ip_adapter_image_embeds: None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        joint_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int = 256,
        skip_guidance_layers: None = None,
        skip_layer_guidance_scale: float = 2.8,
        skip_layer_guidance_stop: float = 0.2,
        skip_layer_guidance_start: float = 0.01,
        mu: float | None = None,
    ) -> Made:
        """Make pictures; arguments and result are those of diffusers' pipeline of this name."""
        _refuse(
            ip_adapter_image=ip_adapter_image,
            ip_adapter_image_embeds=ip_adapter_image_embeds,
            skip_guidance_layers=skip_guidance_layers,
        )
        if mu is None and self.scheduler.config.get("use_dynamic_shifting"):
            mu = self._shift(height or self._family.native, width or self._family.native)
        call = Call(
            lora_scale=scale_of(joint_attention_kwargs),
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
            output_type=output_type,
            return_dict=return_dict,
            clip_skip=clip_skip,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            sigmas=sigmas,
            mu=mu,
        )
        return self._run(
            call,
            [prompt, prompt_2, prompt_3],
            [negative_prompt, negative_prompt_2, negative_prompt_3],
            Embeds(
                prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds
            ),
            _t5_length(max_sequence_length),
        )

    def _shift(self, height: int, width: int) -> float:
        """The logarithm of the shift for a picture of this size: linear in how many patches it has."""
        config, unit = self.scheduler.config, self._family.unit
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.16)
        patches = (height // unit) * (width // unit)
        return float(base + (most - base) / (high - low) * (patches - low))

    def encode_prompt(
        self,
        prompt: Prompt,
        prompt_2: Prompt = None,
        prompt_3: Prompt = None,
        device: Any = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Prompt = None,
        negative_prompt_2: Prompt = None,
        negative_prompt_3: Prompt = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        clip_skip: int | None = None,
        max_sequence_length: int = 256,
        lora_scale: float | None = None,
    ) -> tuple[Tensor | None, ...]:
        """(prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds), as a call
        takes them."""
        embeds = self._encode(
            [prompt, prompt_2, prompt_3],
            [negative_prompt, negative_prompt_2, negative_prompt_3],
            Embeds(
                prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds
            ),
            images=num_images_per_prompt,
            guided=do_classifier_free_guidance,
            skip=clip_skip,
            t5_length=_t5_length(max_sequence_length),
        )
        return embeds.prompt, embeds.negative, embeds.pooled, embeds.negative_pooled


def _t5_length(length: int) -> int:
    if (found := integer(length)) is None or not 1 <= found <= 512:
        raise InvalidRequest(f"max_sequence_length is {length!r}: give a whole number from 1 to 512")
    return found


class AutoPipelineForText2Image:
    """Gives the pipeline of whatever family a model is of."""

    from_pretrained = DiffusionPipeline.from_pretrained
    from_single_file = DiffusionPipeline.from_single_file
    from_pipe = DiffusionPipeline.from_pipe
