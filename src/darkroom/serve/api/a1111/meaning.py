"""What A1111's requests mean, as jobs of Darkroom's own.

Its settings are put into the words that it writes into pictures, which `darkroom.recipes.a1111` reads: so its interface
and its pictures mean the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from darkroom.checkpoint.family import PICTURE, Family
from darkroom.diffusion import parse_sampler, parse_schedule
from darkroom.errors import InvalidRequest
from darkroom.generation.infotext import UPSCALERS
from darkroom.generation.request import flattened
from darkroom.language.tags import TAG
from darkroom.photos import facts_of
from darkroom.recipes.a1111 import recipe_said
from darkroom.recipes.files import Named, here
from darkroom.recipes.infotext import parse
from darkroom.recipes.recipe import SCHEDULES_ELSEWHERE, Recipe, upscaler_file
from darkroom.serve.api.a1111 import options
from darkroom.serve.api.a1111.payload import Payload
from darkroom.serve.intake import picture_of
from darkroom.serve.problems import Problem

VERSION = "v1.10.1"
"""Of A1111, whose words these are."""
_SAMPLER = "Euler"
_FITS = ("stretch", "crop", "pad", "stretch")
_JUST_RESIZED, _IN_LATENTS = 0, 3
_FILLS = ("neighbors", "original", "noise", "nothing")
_MASK_BLUR = 4
_SAYS_NOTHING = ("", "None", "none", "Automatic", "automatic")
_OF_HIRES = {
    "hr_sampler_name": "Hires sampler",
    "hr_scheduler": "Hires schedule type",
    "hr_prompt": "Hires prompt",
    "hr_negative_prompt": "Hires negative prompt",
    "hr_checkpoint_name": "Hires checkpoint",
}
_OF_SAMPLERS = {
    "s_churn": "Sigma churn",
    "s_tmin": "Sigma tmin",
    "s_tmax": "Sigma tmax",
    "s_noise": "Sigma noise",
    "s_min_uncond": "NGMS",
}

Families = Callable[[str | None], Family]
"""Gives the family of a model by its name, of the usual one where there is none."""


def model_named(text: str, usual: str) -> str | None:
    """A model as A1111's clients name it (its title with a hash, its name, its file, its hash), by the name that it has
    here; None for the usual one. Raises Problem where there is none."""
    named = Named.of(text)
    if not text or usual in (text, *named.names):
        return None
    if (found := here(named, "model")) is None:
        raise Problem(
            404,
            "model_not_found",
            f"there is no model {text!r}: /sdapi/v1/sd-models lists those that there are",
        )
    return found


def job_of(
    payload: Payload, said: Mapping[str, Any], usual: str, family_of: Families
) -> tuple[dict[str, Any], Recipe]:
    """The body of a job, and how nearly it is what is asked for. `said`: the options that hold; `usual`: the service's
    model. Raises InvalidRequest and Problem for what cannot be honoured."""
    edits = "init_images" in payload.values
    _refuse(payload)
    model = model_named(str(said.get("sd_model_checkpoint", "")), usual)
    family = family_of(model)
    prompt, negative, words = _words(payload, said)
    if edits and family.needs == PICTURE and payload["image_cfg_scale"] is not None:
        words["Image CFG scale"] = f"{payload['image_cfg_scale']:g}"
    recipe = recipe_said(prompt, negative, words)
    if recipe.options:
        raise InvalidRequest(
            f"the option {next(iter(recipe.options))} is of a model as it is loaded: it is not here"
        )
    # Where nothing is said of two passes it is for the model to say, whose pictures are the better for them.
    recipe.settings.pop("second_pass", None)
    request = recipe.request(family)
    if recipe.vae is not None or recipe.refiner is not None:
        other = recipe.vae or recipe.refiner
        raise InvalidRequest(
            f"{other} is another network than the model's: it is not here, load a model that has it"
        )
    recipe.check()
    body = {
        **{
            name: value
            for name, value in flattened(request.to_dict()).items()
            if name not in ("version", "image")
        },
        "count": payload["batch_size"] * payload["n_iter"],
        "styles": list(payload["styles"]),
        "format": options.FORMATS[str(said.get("samples_format", "png")).lower()],
    }
    if body["format"] != "png":
        body["quality"] = int(said.get("jpeg_quality", options.OPTIONS["jpeg_quality"].usual))
    if model is not None:
        body["model"] = model
    if edits:
        body |= _begun(payload, said, recipe)
    return body, recipe


def _refuse(payload: Payload) -> None:
    """Raises InvalidRequest for what there is nothing for here."""
    if payload["script_name"]:
        raise Problem(422, "script_not_found", f"Script {payload['script_name']!r} not found")
    if payload["restore_faces"]:
        raise InvalidRequest(
            "restore_faces is true: there is no face restorer here, draw faces over with ADetailer"
        )
    for name in ("firstpass_image", "refiner_checkpoint", "latent_mask"):
        if payload.values.get(name) not in (None, *_SAYS_NOTHING):
            raise InvalidRequest(f"{name} is not here: leave it out")
    for name in ("batch_size", "n_iter"):
        if payload[name] < 1:
            raise InvalidRequest(f"{name} is {payload[name]}: give 1 or more")


# In A1111's words.


def _words(payload: Payload, said: Mapping[str, Any]) -> tuple[str, str, dict[str, str]]:
    """The prompts and all settings but those of a picture to begin with, in its words."""
    of_text: dict[str, str] = {}
    prompt, negative = payload["prompt"], payload["negative_prompt"]
    if payload["infotext"]:
        before, not_before, of_text = parse(payload["infotext"])
        prompt = prompt if "prompt" in payload.given else before
        negative = negative if "negative_prompt" in payload.given else not_before
        of_text.pop("Model", None), of_text.pop("Model hash", None)
    if payload["disable_extra_networks"]:
        prompt, negative = TAG.sub("", prompt), TAG.sub("", negative)
    words = {**_sampling(payload), **_seeds(payload), "Version": VERSION}
    if payload["tiling"]:
        words["Tiling"] = "True"
    if payload.values.get("enable_hr"):
        words |= _hires(payload)
    words |= _extensions(payload["alwayson_scripts"])
    left_out = {word for name, word in _GIVEN.items() if name not in payload.given} & of_text.keys()
    own = {name: each for name, each in words.items() if name not in left_out}
    words = {**options.words(said), **of_text, **own}
    other = ({"Eta", "Eta DDIM"} - {_eta_of(parse_sampler(words["Sampler"])[0])}).pop()
    words.pop(other, None)
    return prompt, negative, words


_GIVEN = {
    "steps": "Steps",
    "cfg_scale": "CFG scale",
    "sampler_name": "Sampler",
    "scheduler": "Schedule type",
    "seed": "Seed",
    "width": "Size",
}
"""What an infotext says where the request does not."""


def _sampling(payload: Payload) -> dict[str, str]:
    name = payload["sampler_name"] or payload["sampler_index"] or _SAMPLER
    try:
        sampler, joined = parse_sampler(name)
    except InvalidRequest as error:
        raise Problem(400, "sampler_not_found", f"Sampler not found: {error}") from None
    try:
        parse_schedule(
            SCHEDULES_ELSEWHERE.get(str(payload["scheduler"]).lower(), payload["scheduler"] or "automatic")
        )
    except InvalidRequest as error:
        raise Problem(400, "scheduler_not_found", f"Scheduler not found: {error}") from None
    found = {
        "Steps": str(payload["steps"]),
        "Sampler": name,
        "Schedule type": payload["scheduler"] or "Automatic",
        "CFG scale": f"{payload['cfg_scale']:g}",
        "Size": f"{payload['width']}x{payload['height']}",
    }
    if payload["scheduler"] is None and joined:
        del found["Schedule type"]
    for setting, word in _OF_SAMPLERS.items():
        if payload[setting] is not None:
            found[word] = f"{payload[setting]:g}"
    if payload["eta"] is not None:
        found[_eta_of(sampler)] = f"{payload['eta']:g}"
    return found


def _eta_of(sampler: str) -> str:
    return "Eta DDIM" if sampler.startswith("ddim") else "Eta"


def _seeds(payload: Payload) -> dict[str, str]:
    found = {} if payload["seed"] == -1 else {"Seed": str(payload["seed"])}
    if payload["subseed_strength"]:
        seed = payload["subseed"] if payload["subseed"] != -1 else secrets.randbelow(1 << 32)
        found |= {"Variation seed": str(seed), "Variation seed strength": f"{payload['subseed_strength']:g}"}
    width, height = payload["seed_resize_from_w"], payload["seed_resize_from_h"]
    if width > 0 and height > 0:
        found["Seed resize from"] = f"{width}x{height}"
    return found


def _hires(payload: Payload) -> dict[str, str]:
    """Two passes; their strength stands where a request for an edit has its own."""
    strength = payload["denoising_strength"]
    upscaler = str(payload["hr_upscaler"] or "Latent")
    if upscaler not in (*_SAYS_NOTHING, *UPSCALERS.values()):
        upscaler_named(upscaler)
    found = {"Hires upscaler": upscaler}
    if payload["firstphase_width"] and payload["firstphase_height"]:
        found["First pass size"] = f"{payload['firstphase_width']}x{payload['firstphase_height']}"
    elif payload["hr_resize_x"] or payload["hr_resize_y"]:
        found["Hires resize"] = f"{payload['hr_resize_x']}x{payload['hr_resize_y']}"
    else:
        found["Hires upscale"] = f"{payload['hr_scale']:g}"
    if payload["hr_second_pass_steps"]:
        found["Hires steps"] = str(payload["hr_second_pass_steps"])
    for name, word in _OF_HIRES.items():
        if payload[name] not in (None, *_SAYS_NOTHING) and not str(payload[name]).startswith("Use same"):
            found[word] = str(payload[name])
    if strength is not None:
        found["Denoising strength"] = f"{strength:g}"
    return found


# Extensions.


def _extensions(scripts: Mapping[str, Any]) -> dict[str, str]:
    """What extensions are told, in the words that they write into pictures. Raises InvalidRequest for those that are
    not here, unless they are told to do nothing."""
    found: dict[str, str] = {}
    for name, said in scripts.items():
        given = said.get("args", []) if isinstance(said, Mapping) else said
        given = list(given.values()) if isinstance(given, Mapping) else given
        if not isinstance(given, list):
            raise InvalidRequest(f'alwayson_scripts: {name} is {given!r}: give {{"args": [...]}}')
        if name.strip().lower() == "adetailer":
            found |= _details(given)
        elif _does_something(given):
            raise InvalidRequest(
                f"alwayson_scripts: {name} is to do something, and is not here: leave it out, or disable it"
            )
    return found


def _does_something(given: list[Any]) -> bool:
    """Whether an extension is told to: of units one is enabled, else its first word is not no."""
    units = [each for each in given if isinstance(each, Mapping)]
    if units:
        return any(each.get("enabled", each.get("enable", True)) for each in units)
    return bool(given) and given[0] not in (None, False, 0, "", *_SAYS_NOTHING)


_DETAILS = {
    "model": "model",
    "model_classes": "model classes",
    "prompt": "prompt",
    "negative_prompt": "negative prompt",
    "confidence": "confidence",
    "mask_k_largest": "mask only top k",
    "mask_min_ratio": "mask min ratio",
    "mask_max_ratio": "mask max ratio",
    "dilate_erode": "dilate erode",
    "mask_blur": "mask blur",
    "denoising_strength": "denoising strength",
    "inpaint_only_masked_padding": "inpaint padding",
    "inpaint_width": "inpaint width",
    "inpaint_height": "inpaint height",
    "steps": "steps",
    "cfg_scale": "CFG scale",
}
"""ADetailer's settings in the words that it writes into pictures (its `adetailer/args.py`)."""
_SWITCHES = {
    "steps": "use_steps",
    "cfg_scale": "use_cfg_scale",
    "inpaint_width": "use_inpaint_width_height",
    "inpaint_height": "use_inpaint_width_height",
    "sampler": "use_sampler",
    "scheduler": "use_sampler",
    "checkpoint": "use_checkpoint",
    "vae": "use_vae",
    "clip_skip": "use_clip_skip",
    "noise_multiplier": "use_noise_multiplier",
    "controlnet_module": "controlnet_model",
    "controlnet_weight": "controlnet_model",
    "controlnet_guidance_start": "controlnet_model",
    "controlnet_guidance_end": "controlnet_model",
}
"""Those that count only where another one says so."""
_AS_USUAL = {"tab_enable": True, "inpaint_only_masked": True, "mask_filter_method": "Area"}


def _details(given: list[Any]) -> dict[str, str]:
    """What ADetailer's units say, as it writes it into pictures. Raises InvalidRequest for what is not here."""
    found: dict[str, str] = {}
    if given[:1] == [False]:
        return found
    units = [
        {str(name).removeprefix("ad_"): value for name, value in each.items()}
        for each in given
        if isinstance(each, Mapping)
    ]
    units = [each for each in units if each.get("model") not in (None, *_SAYS_NOTHING)]
    for place, own in enumerate([each for each in units if each.get("tab_enable", True)], 1):
        ending = {1: "", 2: " 2nd", 3: " 3rd"}.get(place, f" {place}th")
        for name, value in own.items():
            off = name in _SWITCHES and own.get(_SWITCHES[name]) in (None, False, *_SAYS_NOTHING)
            if off or (value in (None, False, 0, *_SAYS_NOTHING) and name not in _AS_USUAL):
                continue
            if name in _DETAILS:
                found[f"ADetailer {_DETAILS[name]}{ending}"] = str(value)
            elif name not in _SWITCHES.values() and value != _AS_USUAL.get(name):
                raise InvalidRequest(
                    f"alwayson_scripts: ADetailer: ad_{name} is {value!r}, which is not here"
                )
    return found


# A picture to begin with.


def _begun(payload: Payload, said: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    images = payload["init_images"]
    if not images:
        raise Problem(404, "init_image_not_found", "Init image not found: init_images holds none")
    if len(images) != 1 or not isinstance(images[0], str):
        raise InvalidRequest(f"init_images holds {len(images)} pictures: give one, in base64")
    mode = payload["resize_mode"]
    if not 0 <= mode < len(_FITS):
        raise InvalidRequest(f"resize_mode is {mode}: give 0 to {len(_FITS) - 1}")
    louder = payload["initial_noise_multiplier"]
    louder = said.get("initial_noise_multiplier", 1.0) if louder is None else louder
    strength = payload["denoising_strength"]
    if "denoising_strength" not in payload.given:
        strength = recipe.edit.get("strength", strength)
    found: dict[str, Any] = {
        "image": images[0],
        "strength": strength,
        "strength_as": "a1111",
        "fit": _FITS[mode],
        "noise_multiplier": louder,
        "match_colors": bool(said.get("img2img_color_correction", False)) or None,
    }
    if mode == _IN_LATENTS:
        found["upscaler"] = "latent"
    elif (upscaler := str(said.get("upscaler_for_img2img", "None"))) not in _SAYS_NOTHING:
        found["upscaler"] = upscaler_named(upscaler)
    return found | (_painted(payload) if payload["mask"] else {})


def _painted(payload: Payload) -> dict[str, Any]:
    """What of it is painted anew."""
    blurs = {payload["mask_blur_x"], payload["mask_blur_y"]}
    if payload["mask_blur"] is not None:
        blurs = {payload["mask_blur"]}
    if len(blurs) > 1:
        raise InvalidRequest(
            "mask_blur_x and mask_blur_y are not the same, which is not here: give mask_blur"
        )
    fill = payload["inpainting_fill"]
    if not 0 <= fill < len(_FILLS):
        raise InvalidRequest(f"inpainting_fill is {fill}: give 0 to {len(_FILLS) - 1}")
    only = payload["inpaint_full_res"]
    return {
        "mask": payload["mask"],
        "mask_blur": blurs.pop(),
        "mask_resize": True,
        "mask_invert": bool(payload["inpainting_mask_invert"]),
        "fill": _FILLS[fill],
        "only_masked": only,
        **({"mask_padding": payload["inpaint_full_res_padding"], "fit": None} if only else {}),
    }


# What is made larger afterwards.


def upscaler_named(name: str) -> str:
    """An upscaler as A1111 calls it, by the name that it has here. Raises InvalidRequest where there is none."""
    ways = {label.lower(): way for way, label in UPSCALERS.items()}
    if (way := ways.get(name.lower())) is not None:
        return way
    if (found := here(upscaler_file(name), "upscaler")) is None:
        raise InvalidRequest(f"there is no upscaler {name!r}: /sdapi/v1/upscalers lists those that there are")
    return found


def larger(payload: Payload, image: str) -> dict[str, Any] | None:
    """The body of a job that makes a picture larger as its extras do; None where nothing is to be done. Raises
    InvalidRequest for what cannot be honoured."""
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if payload[name]:
            raise InvalidRequest(
                f"{name} is {payload[name]:g}: there is no face restorer here, leave it at 0"
            )
    if payload["upscaler_2"] not in _SAYS_NOTHING and payload["extras_upscaler_2_visibility"]:
        raise InvalidRequest("upscaler_2 is not here: a picture is made larger by one upscaler")
    content = picture_of("image", image)
    _, width, height = facts_of(content, "the image")
    if payload["upscaler_1"] in _SAYS_NOTHING:
        return None
    found: dict[str, Any] = {
        "kind": "upscale",
        "image": image,
        "upscaler": upscaler_named(payload["upscaler_1"]),
    }
    wide, high = payload["upscaling_resize_w"], payload["upscaling_resize_h"]
    if payload["resize_mode"] == _JUST_RESIZED:
        return found | {"by": payload["upscaling_resize"]}
    if payload["upscaling_crop"]:
        return found | {"width": wide, "height": high}
    return found | {"by": max(wide / width, high / height)}
