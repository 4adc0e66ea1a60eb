"""What settings are called in other programs, for those who come from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from darkroom.diffusion import GUIDES, SAMPLERS, SCHEDULES
from darkroom.errors import nearest

# What other programs call the settings of a request; one of theirs may be two of ours.
_ELSEWHERE_CALLED = {
    "guidance_scale": "guidance",
    "cfg_scale": "guidance",
    "cfg": "guidance",
    "scale": "guidance",
    "num_inference_steps": "steps",
    "ddim_steps": "steps",
    "negative_prompt": "negative",
    "negative_prompt_2": "negative_2",
    "negative_prompt_3": "negative_3",
    "sampler_name": "sampler",
    "sampling_method": "sampler",
    "scheduler": "sampler schedule",
    "batch_size": "count",
    "batch_count": "count",
    "n_iter": "count",
    "n_samples": "count",
    "num_images": "count",
    "num_images_per_prompt": "count",
    "size": "width height",
    "generator": "seed",
    "lora": "adapters",
    "loras": "adapters",
    "init_image": "image",
    "init_images": "image",
    "init_img": "image",
    "denoising_strength": "strength",
    "denoise": "strength",
    "resize_mode": "fit",
    "initial_noise_multiplier": "noise_multiplier",
    "final_denoising_strength": "last_strength",
    "color_correction": "match_colors",
    "depth_map": "depth",
    "image_cfg_scale": "image_guidance",
    "image_guidance_scale": "image_guidance",
    "mask_image": "mask",
    "inpainting_fill": "fill",
    "inpainting_mask_invert": "mask_invert",
    "inpaint_full_res": "only_masked",
    "inpaint_full_res_padding": "mask_padding",
    "padding_mask_crop": "mask_padding",
    "grow_mask_by": "mask_grow",
    "tiling": "seamless",
    "seamless_x": "seamless",
    "seamless_y": "seamless",
    "circular_padding": "seamless",
    "tile_size": "tile",
    "hires_upscaler": "upscaler",
    "hr_upscaler": "upscaler",
    "hr_prompt": "second_prompt",
    "hr_negative_prompt": "second_negative",
    "hr_sampler_name": "second_sampler",
    "hr_scheduler": "second_schedule",
    "hr_cfg": "second_guidance",
    "hr_second_pass_steps": "second_steps",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
}


def called_here(name: str) -> list[str]:
    """What a setting is called here that other programs call by that name, which may be two settings; else nothing."""
    return _ELSEWHERE_CALLED.get(name.lower(), "").split()


def option_of(name: str) -> tuple[str, str] | None:
    """Of what an option is (sampler, schedule or guide), and how it is written there, for one that stands alone."""
    name = name.lower()
    known: dict[str, Mapping[str, Any]] = {"sampler": SAMPLERS, "schedule": SCHEDULES, "guide": GUIDES}
    for kind, infos in known.items():
        for each in infos.values():
            if (option := each.options.get(name)) is not None:
                return kind, f"{each.name}:{name}={option.written()}"
    return None


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """What to write in place of a setting that is none of those that are known."""
    if ours := called_here(name):
        return f"it is called {' and '.join(ours)} here"
    if found := option_of(name):
        return f'it is an option of the {found[0]}, written as in "{found[1]}"'
    return nearest(name, known)
