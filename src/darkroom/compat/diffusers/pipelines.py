"""The pipelines of each family: what they are made of, and their signatures."""

from __future__ import annotations

from typing import Any

from darkroom.checkpoint.family import DEPTH, PICTURE, SMALL, VARIED, Family
from darkroom.compat.diffusers.arguments import Arguments, taking
from darkroom.compat.diffusers.image2image import FromImage
from darkroom.compat.diffusers.inpaint import FromMask
from darkroom.compat.diffusers.pipeline import DiffusionPipeline
from darkroom.compat.diffusers.seen import Enlarges, SeesDepth, SeesImage, Varies
from darkroom.compat.diffusers.texts import text_encoder


class StableDiffusionPipeline(DiffusionPipeline):
    """Stable Diffusion 1 and 2, and what is built like them, such as pocket."""

    unet = DiffusionPipeline._denoiser

    @classmethod
    def draws(cls, family: Family) -> bool:
        return not family.sizes and not StableDiffusion3Pipeline.draws(family)

    __call__ = taking(
        "prompt height width num_inference_steps timesteps sigmas guidance_scale negative_prompt "
        "num_images_per_prompt eta generator latents prompt_embeds negative_prompt_embeds ip_adapter_image "
        "ip_adapter_image_embeds output_type return_dict cross_attention_kwargs guidance_rescale clip_skip "
        "callback_on_step_end callback_on_step_end_tensor_inputs * callback callback_steps"
    )(DiffusionPipeline.__call__)

    encode_prompt = taking(
        "prompt device num_images_per_prompt do_classifier_free_guidance negative_prompt prompt_embeds "
        "negative_prompt_embeds lora_scale clip_skip"
    )(DiffusionPipeline.encode_prompt)


class StableDiffusionXLPipeline(DiffusionPipeline):
    """Stable Diffusion XL."""

    unet = DiffusionPipeline._denoiser
    text_encoder_2 = property(lambda self: self._encoder(1))
    tokenizer_2 = property(lambda self: self._tokenizer(1))
    tensor_inputs = (
        *("latents", "prompt_embeds", "add_text_embeds", "add_time_ids"),
        *("negative_prompt_embeds", "negative_pooled_prompt_embeds", "negative_add_time_ids"),
    )

    @classmethod
    def draws(cls, family: Family) -> bool:
        return bool(family.sizes)

    __call__ = taking(
        "prompt prompt_2 height width num_inference_steps timesteps sigmas denoising_end guidance_scale "
        "negative_prompt negative_prompt_2 num_images_per_prompt eta generator latents prompt_embeds "
        "negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds ip_adapter_image "
        "ip_adapter_image_embeds output_type return_dict cross_attention_kwargs guidance_rescale original_size "
        "crops_coords_top_left target_size negative_original_size negative_crops_coords_top_left "
        "negative_target_size clip_skip callback_on_step_end callback_on_step_end_tensor_inputs "
        "* callback callback_steps",
        guidance_scale=5.0,
    )(DiffusionPipeline.__call__)

    encode_prompt = taking(
        "prompt prompt_2 device num_images_per_prompt do_classifier_free_guidance negative_prompt "
        "negative_prompt_2 prompt_embeds negative_prompt_embeds pooled_prompt_embeds "
        "negative_pooled_prompt_embeds lora_scale clip_skip"
    )(DiffusionPipeline.encode_prompt)


class StableDiffusion3Pipeline(DiffusionPipeline):
    """Stable Diffusion 3 and 3.5."""

    denoiser_name = "transformer"
    transformer = DiffusionPipeline._denoiser
    text_encoder_2 = property(lambda self: self._encoder(1))
    tokenizer_2 = property(lambda self: self._tokenizer(1))
    tensor_inputs = ("latents", "prompt_embeds", "pooled_prompt_embeds")

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

    __call__ = taking(
        "prompt prompt_2 prompt_3 height width num_inference_steps sigmas guidance_scale negative_prompt "
        "negative_prompt_2 negative_prompt_3 num_images_per_prompt generator latents prompt_embeds "
        "negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds ip_adapter_image "
        "ip_adapter_image_embeds output_type return_dict joint_attention_kwargs clip_skip callback_on_step_end "
        "callback_on_step_end_tensor_inputs max_sequence_length skip_guidance_layers skip_layer_guidance_scale "
        "skip_layer_guidance_stop skip_layer_guidance_start mu",
        num_inference_steps=28,
        guidance_scale=7.0,
    )(DiffusionPipeline.__call__)

    encode_prompt = taking(
        "prompt prompt_2 prompt_3 device num_images_per_prompt do_classifier_free_guidance negative_prompt "
        "negative_prompt_2 negative_prompt_3 prompt_embeds negative_prompt_embeds pooled_prompt_embeds "
        "negative_pooled_prompt_embeds clip_skip max_sequence_length lora_scale"
    )(DiffusionPipeline.encode_prompt)


_OF_A_MASK = (
    "image mask_image masked_image_latents height width padding_mask_crop strength num_inference_steps"
)
_OF_XL_FROM_IMAGES = (
    "timesteps sigmas denoising_start denoising_end guidance_scale negative_prompt negative_prompt_2 "
    "num_images_per_prompt eta generator latents prompt_embeds negative_prompt_embeds pooled_prompt_embeds "
    "negative_pooled_prompt_embeds ip_adapter_image ip_adapter_image_embeds output_type return_dict "
    "cross_attention_kwargs guidance_rescale original_size crops_coords_top_left target_size negative_original_size "
    "negative_crops_coords_top_left negative_target_size aesthetic_score negative_aesthetic_score clip_skip "
    "callback_on_step_end callback_on_step_end_tensor_inputs * callback callback_steps"
)
"""Arguments that follow one another in several calls."""


class StableDiffusionImg2ImgPipeline(FromImage, StableDiffusionPipeline):
    """Stable Diffusion 1 and 2, from a picture."""

    __call__ = taking(
        "prompt image strength num_inference_steps timesteps sigmas guidance_scale negative_prompt "
        "num_images_per_prompt eta generator prompt_embeds negative_prompt_embeds ip_adapter_image "
        "ip_adapter_image_embeds output_type return_dict cross_attention_kwargs clip_skip callback_on_step_end "
        "callback_on_step_end_tensor_inputs * callback callback_steps",
        strength=0.8,
    )(DiffusionPipeline.__call__)


class StableDiffusionXLImg2ImgPipeline(FromImage, StableDiffusionXLPipeline):
    """Stable Diffusion XL and its refiner, from a picture."""

    __call__ = taking(
        f"prompt prompt_2 image strength num_inference_steps {_OF_XL_FROM_IMAGES}",
        strength=0.3,
        guidance_scale=5.0,
    )(DiffusionPipeline.__call__)


class StableDiffusion3Img2ImgPipeline(FromImage, StableDiffusion3Pipeline):
    """Stable Diffusion 3 and 3.5, from a picture, which is brought to the size of the call."""

    __call__ = taking(
        "prompt prompt_2 prompt_3 height width image strength num_inference_steps sigmas guidance_scale "
        "negative_prompt negative_prompt_2 negative_prompt_3 num_images_per_prompt generator latents prompt_embeds "
        "negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds output_type ip_adapter_image "
        "ip_adapter_image_embeds return_dict joint_attention_kwargs clip_skip callback_on_step_end "
        "callback_on_step_end_tensor_inputs max_sequence_length mu",
        strength=0.6,
        guidance_scale=7.0,
    )(DiffusionPipeline.__call__)

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        return super()._sized(self._natively_sized(call))


class StableDiffusionInpaintPipeline(FromMask, StableDiffusionPipeline):
    """Stable Diffusion 1 and 2, and their inpainting models, a part of a picture anew."""

    __call__ = taking(
        f"prompt {_OF_A_MASK} timesteps sigmas guidance_scale negative_prompt num_images_per_prompt eta generator "
        "latents prompt_embeds negative_prompt_embeds ip_adapter_image ip_adapter_image_embeds output_type return_dict "
        "cross_attention_kwargs clip_skip callback_on_step_end callback_on_step_end_tensor_inputs "
        "* callback callback_steps",
    )(DiffusionPipeline.__call__)


class StableDiffusionXLInpaintPipeline(FromMask, StableDiffusionXLPipeline):
    """Stable Diffusion XL, its refiner and its inpainting models, a part of a picture anew."""

    __call__ = taking(
        f"prompt prompt_2 {_OF_A_MASK} {_OF_XL_FROM_IMAGES}",
        strength=0.9999,
    )(DiffusionPipeline.__call__)


class StableDiffusion3InpaintPipeline(FromMask, StableDiffusion3Pipeline):
    """Stable Diffusion 3 and 3.5, a part of a picture anew."""

    __call__ = taking(
        f"prompt prompt_2 prompt_3 {_OF_A_MASK} sigmas guidance_scale "
        "negative_prompt negative_prompt_2 negative_prompt_3 num_images_per_prompt generator latents prompt_embeds "
        "negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds ip_adapter_image "
        "ip_adapter_image_embeds output_type return_dict joint_attention_kwargs clip_skip callback_on_step_end "
        "callback_on_step_end_tensor_inputs max_sequence_length mu",
        strength=0.6,
        guidance_scale=7.0,
    )(DiffusionPipeline.__call__)


class StableDiffusionInstructPix2PixPipeline(SeesImage, StableDiffusionPipeline):
    """InstructPix2Pix: a picture changed as the prompt says."""

    needs = PICTURE
    tensor_inputs = ("latents", "prompt_embeds", "image_latents")

    __call__ = taking(
        "prompt image num_inference_steps guidance_scale image_guidance_scale negative_prompt num_images_per_prompt "
        "eta generator latents prompt_embeds negative_prompt_embeds ip_adapter_image ip_adapter_image_embeds "
        "output_type return_dict callback_on_step_end callback_on_step_end_tensor_inputs cross_attention_kwargs "
        "* callback callback_steps",
        num_inference_steps=100,
        image_guidance_scale=1.5,
    )(DiffusionPipeline.__call__)


class StableDiffusionDepth2ImgPipeline(SeesDepth, StableDiffusionPipeline):
    """Stable Diffusion 2 that is shown depth, from a picture."""

    needs = DEPTH

    __call__ = taking(
        "prompt image depth_map strength num_inference_steps guidance_scale negative_prompt num_images_per_prompt "
        "eta generator prompt_embeds negative_prompt_embeds output_type return_dict cross_attention_kwargs clip_skip "
        "callback_on_step_end callback_on_step_end_tensor_inputs * callback callback_steps",
        strength=0.8,
    )(DiffusionPipeline.__call__)


class StableDiffusionUpscalePipeline(Enlarges, StableDiffusionPipeline):
    """Stable Diffusion's x4 upscaler."""

    needs = SMALL

    __call__ = taking(
        "prompt image num_inference_steps guidance_scale noise_level negative_prompt num_images_per_prompt eta "
        "generator latents prompt_embeds negative_prompt_embeds output_type return_dict callback callback_steps "
        "cross_attention_kwargs clip_skip",
        num_inference_steps=75,
        guidance_scale=9.0,
        callback_steps=1,
    )(DiffusionPipeline.__call__)


class StableUnCLIPImg2ImgPipeline(Varies, StableDiffusionPipeline):
    """Stable Diffusion 2 unCLIP: variations of a picture."""

    needs = VARIED

    __call__ = taking(
        "image prompt height width num_inference_steps guidance_scale negative_prompt num_images_per_prompt eta "
        "generator latents prompt_embeds negative_prompt_embeds output_type return_dict callback callback_steps "
        "cross_attention_kwargs noise_level image_embeds clip_skip",
        num_inference_steps=20,
        guidance_scale=10.0,
        noise_level=0,
        callback_steps=1,
    )(DiffusionPipeline.__call__)


class AutoPipelineForText2Image:
    """Gives the pipeline of whatever family a model is of."""

    from_pretrained = DiffusionPipeline.from_pretrained
    from_single_file = DiffusionPipeline.from_single_file
    from_pipe = DiffusionPipeline.from_pipe


class AutoPipelineForImage2Image:
    """Gives the pipeline of whatever family a model is of, from a picture."""

    from_pretrained = FromImage.from_pretrained
    from_single_file = FromImage.from_single_file
    from_pipe = FromImage.from_pipe


class AutoPipelineForInpainting:
    """Gives the pipeline of whatever family a model is of, for a part of a picture."""

    from_pretrained = FromMask.from_pretrained
    from_single_file = FromMask.from_single_file
    from_pipe = FromMask.from_pipe
