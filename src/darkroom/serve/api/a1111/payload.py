"""What A1111's requests may hold, and what stands where they hold nothing (its `modules/api/models.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.errors import InvalidRequest, nearest

_BOTH: Mapping[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "sampler_name": None,
    "scheduler": None,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 50,
    "cfg_scale": 7.0,
    "width": 512,
    "height": 512,
    "restore_faces": None,
    "tiling": None,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "eta": None,
    "denoising_strength": None,
    "s_min_uncond": None,
    "s_churn": None,
    "s_tmax": None,
    "s_tmin": None,
    "s_noise": None,
    "override_settings": None,
    "override_settings_restore_afterwards": True,
    "refiner_checkpoint": None,
    "refiner_switch_at": None,
    "disable_extra_networks": False,
    "firstpass_image": None,
    "comments": None,
    "force_task_id": None,
    "sampler_index": "Euler",
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
    "infotext": None,
}
TXT2IMG: Mapping[str, Any] = {
    **_BOTH,
    "enable_hr": False,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "hr_scale": 2.0,
    "hr_upscaler": None,
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": "",
    "hr_negative_prompt": "",
}
IMG2IMG: Mapping[str, Any] = {
    **_BOTH,
    "denoising_strength": 0.75,
    "init_images": None,
    "resize_mode": 0,
    "image_cfg_scale": None,
    "mask": None,
    "mask_blur_x": 4,
    "mask_blur_y": 4,
    "mask_blur": None,
    "mask_round": True,
    "inpainting_fill": 0,
    "inpaint_full_res": True,
    "inpaint_full_res_padding": 0,
    "inpainting_mask_invert": 0,
    "initial_noise_multiplier": None,
    "latent_mask": None,
    "include_init_images": False,
}
EXTRAS: Mapping[str, Any] = {
    "resize_mode": 0,
    "show_extras_results": True,
    "gfpgan_visibility": 0.0,
    "codeformer_visibility": 0.0,
    "codeformer_weight": 0.0,
    "upscaling_resize": 2.0,
    "upscaling_resize_w": 512,
    "upscaling_resize_h": 512,
    "upscaling_crop": True,
    "upscaler_1": "None",
    "upscaler_2": "None",
    "extras_upscaler_2_visibility": 0.0,
    "upscale_first": False,
}
SINGLE: Mapping[str, Any] = {**EXTRAS, "image": ""}
SEVERAL: Mapping[str, Any] = {**EXTRAS, "imageList": []}

_WHOLE = {
    *("seed", "subseed", "seed_resize_from_h", "seed_resize_from_w", "batch_size", "n_iter", "steps"),
    *("width", "height", "firstphase_width", "firstphase_height", "hr_second_pass_steps", "hr_resize_x"),
    *("hr_resize_y", "resize_mode", "mask_blur_x", "mask_blur_y", "mask_blur", "inpainting_fill"),
    *("inpaint_full_res_padding", "inpainting_mask_invert", "upscaling_resize_w", "upscaling_resize_h"),
}
_REAL = {
    *("subseed_strength", "cfg_scale", "eta", "denoising_strength", "s_min_uncond", "s_churn", "s_tmax"),
    *("s_tmin", "s_noise", "refiner_switch_at", "hr_scale", "image_cfg_scale", "initial_noise_multiplier"),
    *("gfpgan_visibility", "codeformer_visibility", "codeformer_weight", "upscaling_resize"),
    *("extras_upscaler_2_visibility",),
}
_TRUE = {
    *("restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid", "enable_hr", "send_images"),
    *("override_settings_restore_afterwards", "disable_extra_networks", "save_images", "mask_round"),
    *("inpaint_full_res", "include_init_images", "upscaling_crop", "show_extras_results", "upscale_first"),
}
_LISTS = {"styles", "script_args", "init_images", "imageList"}
_OBJECTS = {"override_settings", "alwayson_scripts", "comments"}
_FEWEST_STEPS = 1


@dataclass(frozen=True)
class Payload:
    """A request with what it leaves out filled in; `given`: the names of what it does not."""

    values: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def read(body: object, known: Mapping[str, Any]) -> Payload:
    """A request of A1111's. Raises InvalidRequest for what is no such thing, and for what there is nothing for here:
    what is false, empty or nothing asks for nothing."""
    if not isinstance(body, Mapping):
        raise InvalidRequest('the body is no object: give one such as {"prompt": "a boat"}')
    values = dict(known)
    for name, value in body.items():
        if name not in known:
            if value not in (None, False, 0, "", "None", [], {}):
                raise InvalidRequest(f"{name} is not known here: {nearest(str(name), known)}")
        elif value is not None:
            values[name] = _of_its_kind(name, value)
    return Payload(values, frozenset(name for name in known if body.get(name) is not None))


def _of_its_kind(name: str, value: Any) -> Any:
    """A value as the number, truth or text that it is to be; numbers as texts, and truths as numbers, are taken for
    what they say, as there."""
    if name in _TRUE:
        return _truth(name, value)
    if name in _WHOLE or name in _REAL:
        return _number(name, value, name in _WHOLE)
    kind, word = (
        (list, "a list") if name in _LISTS else (dict, "an object") if name in _OBJECTS else (str, "a text")
    )
    if not isinstance(value, kind):
        raise InvalidRequest(f"{name} is {value!r}: give {word}")
    return value


def _truth(name: str, value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off", ""):
        return False
    raise InvalidRequest(f"{name} is {value!r}: give true or false")


def _number(name: str, value: Any, whole: bool) -> int | float:
    words = "a whole number" if whole else "a number"
    try:
        number = float(value)
        if not abs(number) < 1e15 or (whole and number != int(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{name} is {value!r}: give {words}") from None
    return int(value if isinstance(value, int) else number) if whole else number
