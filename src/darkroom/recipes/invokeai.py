"""Pictures by InvokeAI: `invokeai_metadata` (3 and later), `sd-metadata` (2) and `Dream` (1), a typed command.

Its samplers are diffusers' schedulers (`backend/stable_diffusion/schedulers`), each with its way of laying out steps.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from darkroom.checkpoint.families import FAMILIES
from darkroom.diffusion import points_for, sampler_info
from darkroom.errors import InvalidRequest
from darkroom.language.tags import Tag
from darkroom.recipes.files import Named
from darkroom.recipes.infotext import number_of
from darkroom.recipes.plain import finite
from darkroom.recipes.recipe import Recipe

KEYS = ("invokeai_metadata", "sd-metadata", "Dream")
_LATER = 0xFFFFFFFF
"""The seed of all noise but the first is the picture's with these bits turned (`denoise_latents.py`)."""
_TRIGGER = re.compile(r"<([^<>:]+)>")
"""An embedding in a prompt."""
_WITH_LORA = re.compile(r"(?:withLora|useLora)\([^()]*\)")
_XL_SIDE = 1024
"""What SDXL is told of the picture's size, whatever it is."""


class _Scheduler(NamedTuple):
    """A scheduler: the sampler here; its noise schedules in models of Stable Diffusion 1 and 2, whose folders leave
    that to it, and in SDXL's, whose folders say "leading"; what is otherwise here."""

    sampler: str
    usual: str = "normal"
    leading: str = "leading:clean_end=yes"
    otherwise: str = ""

    @property
    def is_k(self) -> bool:
        """Whether it is k-diffusion's: its noise is that of the first step, its Karras levels those of the steps."""
        return self.usual == "normal"

    def full(self, leading: bool) -> bool:
        """Whether it begins with the whole of the noise."""
        return leading or not self.is_k


_MULTISTEP = "linspace:drop_last=yes", "leading:clean_end=yes,drop_last=yes"
_OWN = "leading", "leading"
_IN_PLACE = "dpmpp_2m takes its place"
_STEPS = "its steps lie a little otherwise here"
_NOISE = "it draws its noise otherwise here"
_SCHEDULERS = {
    "ddim": _Scheduler("ddim", *_OWN),
    "ddpm": _Scheduler("ddpm", "leading:clean_end=yes"),
    "pndm": _Scheduler("plms", *_OWN),
    "lms": _Scheduler("lms"),
    "euler": _Scheduler("euler"),
    "euler_a": _Scheduler("euler_ancestral"),
    "heun": _Scheduler("heun"),
    "kdpm_2": _Scheduler("dpm_2", otherwise=_STEPS),
    "kdpm_2_a": _Scheduler("dpm_2_ancestral", otherwise=_STEPS),
    "deis": _Scheduler("deis:order=2", *_MULTISTEP),
    "dpmpp_2s": _Scheduler("dpmpp_2m", *_MULTISTEP, otherwise=_IN_PLACE),
    "dpmpp_2m": _Scheduler("dpmpp_2m", *_MULTISTEP),
    "dpmpp_2m_sde": _Scheduler("dpmpp_2m_sde", *_MULTISTEP, otherwise=_NOISE),
    "dpmpp_3m": _Scheduler("dpmpp_2m", *_MULTISTEP, otherwise=_IN_PLACE),
    "dpmpp_sde": _Scheduler("dpmpp_sde", otherwise=_NOISE),
    "unipc": _Scheduler("unipc", *_MULTISTEP),
    "lcm": _Scheduler("lcm", "lcm", "lcm"),
    "tcd": _Scheduler("tcd", "lcm", "lcm"),
}

_OLD = {
    "k_euler_a": "euler_a",
    "k_euler": "euler",
    "k_heun": "heun",
    "k_lms": "lms",
    "k_dpm_2": "kdpm_2",
    "k_dpm_2_a": "kdpm_2_a",
    "k_dpmpp_2": "dpmpp_2m",
    "k_dpmpp_2_a": "dpmpp_2s",
    "plms": "pndm",
}
"""What version 2 called them."""

_SAYS_NOTHING = (
    *("app_version", "metadata_version", "generation_mode", "canvas_v2_metadata", "orig_hash"),
    *("positive_prompt", "negative_prompt", "positive_style_prompt", "negative_style_prompt"),
    *(
        "model",
        "model_hash",
        "vae",
        "loras",
        "clip_skip",
        "rand_device",
        "scheduler",
        "hrf_method",
        "variations",
    ),
)
"""What is read where it belongs, or decides no pixel."""


def recipe_of(texts: Mapping[str, str], path: str | Path) -> Recipe:
    """What the metadata in a picture says. Raises InvalidRequest where it is damaged."""
    if "invokeai_metadata" in texts:
        return _Reading(_loaded(texts["invokeai_metadata"], "invokeai_metadata", path)).read()
    if "sd-metadata" in texts:
        return _old(_loaded(texts["sd-metadata"], "sd-metadata", path), path)
    return _old({"image": _typed(texts["Dream"], path)}, path)


def _loaded(text: str, key: str, path: str | Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path}: its {key} is damaged: no object of JSON")
    return found


class _Reading:
    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = said
        version = said.get("app_version")
        self.recipe = Recipe(f"InvokeAI {version}" if version else "InvokeAI", layer="trained")
        model = said.get("model")
        self.base = str(model.get("base") or model.get("base_model") or "") if isinstance(model, dict) else ""
        self.known = {*_SAYS_NOTHING}

    def read(self) -> Recipe:
        recipe, said = self.recipe, self.said
        recipe.put("dialect", "compel")
        recipe.put("prompt", said.get("positive_prompt") or "")
        recipe.put("negative", said.get("negative_prompt") or "")
        if self.base.startswith("sdxl"):
            for ours, theirs in (
                ("prompt_2", "positive_style_prompt"),
                ("negative_2", "negative_style_prompt"),
            ):
                if isinstance(style := said.get(theirs), str) and style.strip():
                    recipe.put(ours, style)
            for name in ("original_width", "original_height", "target_width", "target_height"):
                recipe.put(name, _XL_SIDE)
        prompts = f"{said.get('positive_prompt')} {said.get('negative_prompt')}"
        for call in _WITH_LORA.findall(prompts):
            recipe.lose(call, why="it is read as words here")
        recipe.embeddings = [Named.of(name) for name in dict.fromkeys(_TRIGGER.findall(prompts))]
        self.known |= {"width", "height"}
        if said.get("width") is not None and said.get("height") is not None:
            recipe.put_size(("width", "height"), (said["width"], said["height"]))
        self._take("steps", "steps")
        self._take("seed", "seed")
        self._take("cfg_rescale_multiplier", "guidance_rescale")
        scale = self._once("cfg_scale")
        recipe.put("guidance", scale)
        if (skipped := said.get("clip_skip")) not in (None, 0):
            recipe.put(
                "clip_skip", skipped + 1 if isinstance(skipped, int) else skipped, f"clip_skip {skipped}"
            )
        self._scheduler(str(said.get("scheduler") or ""))
        self._passes()
        self._files()
        self._rest()
        return recipe

    def _take(self, name: str, setting: str) -> None:
        self.known.add(name)
        self.recipe.put(setting, self.said.get(name), name)

    def _once(self, name: str) -> Any:
        """A number; of one for each step the first."""
        self.known.add(name)
        value = self.said.get(name)
        if isinstance(value, list):
            self.recipe.lose(name, value, "one for each step: the first of them is used for all")
            return value[0] if value else None
        return value

    def _scheduler(self, name: str) -> None:
        recipe, seed = self.recipe, self.recipe.settings.get("seed")
        cpu = self.said.get("rand_device", "cpu") == "cpu"
        recipe.put("noise_source", "comfy" if cpu else "nv")
        if seed is not None:
            recipe.put("ensd", (seed ^ _LATER) - seed)
        if not name:
            return
        plain, karras = name.removesuffix("_k"), name.endswith("_k")
        if (found := _SCHEDULERS.get(plain)) is None:
            recipe.put_sampler(name, None)
            return
        leading = self.base.startswith("sdxl")
        schedule = found.leading if leading else found.usual
        if karras:
            schedule = self._karras() if leading and found.is_k else "karras"
        recipe.put_sampler(found.sampler, schedule)
        recipe.put("full_noise", found.full(leading))
        if found.otherwise:
            recipe.lose("scheduler", name, found.otherwise)

    def _karras(self) -> str:
        """Karras levels between those of the first and the last of "leading" steps."""
        if not (steps := self.recipe.settings.get("steps")):
            return "karras"
        schedule = next(family.schedule for family in FAMILIES if family.id == "sdxl")
        first, *_, last, _ = points_for(schedule, max(steps, 2), "euler", "leading:clean_end=yes")
        low, high = (schedule.level(point) for point in (last, first))
        return f"karras:sigma_min={low:.6g},sigma_max={high:.6g}"

    def _passes(self) -> None:
        recipe, said = self.recipe, self.said
        self.known |= {"strength", "init_image", "hrf_enabled", "hrf_strength", "hrf_width", "hrf_height"}
        recipe.put("second_pass", "off")
        mode = str(said.get("generation_mode") or "txt2img")
        if not mode.endswith("txt2img"):
            strength = "" if (strength := said.get("strength")) is None else f", strength {strength}"
            recipe.lose(
                "generation_mode",
                f"{mode}{strength}",
                "made from another picture, which its file does not hold",
            )
        elif said.get("hrf_enabled"):
            details = [f"{name} {said[name]}" for name in ("hrf_method", "hrf_strength") if said.get(name)]
            recipe.lose("hrf_enabled", ", ".join(details) or None, "it is drawn at its size at once here")

    def _files(self) -> None:
        recipe, said = self.recipe, self.said
        recipe.model = _named(said.get("model"))
        recipe.vae = _named(said.get("vae"))
        recipe.refiner = _named(said.get("refiner_model"))
        self.known.add("refiner_model")
        if recipe.refiner is not None:
            self._take("refiner_start", "refiner_switch")
            self._take("refiner_positive_aesthetic_score", "aesthetic")
            self._take("refiner_negative_aesthetic_score", "negative_aesthetic")
        loras = said.get("loras")
        if loras and not isinstance(loras, list):
            recipe.lose("loras", loras)
        for each in loras if isinstance(loras, list) else []:
            named = _named(each.get("model") or each.get("lora")) if isinstance(each, dict) else None
            weight = finite(each.get("weight", 0.75)) if isinstance(each, dict) else None
            if named is None or weight is None:
                recipe.lose("LoRA", each)
            else:
                recipe.adapters.append((named, Tag(named.name, float(weight))))

    def _rest(self) -> None:
        for name, value in self.said.items():
            if name not in self.known and value not in (None, False, [], "", 0, {}):
                self.recipe.lose(name, json.dumps(value) if isinstance(value, dict | list) else value)


def _named(model: Any) -> Named | None:
    """A model as its record says it: its name (version 3: `model_name`)."""
    if isinstance(model, str):
        return Named.of(model)
    if not isinstance(model, dict):
        return None
    name = model.get("name") or model.get("model_name")
    return Named.of(name) if isinstance(name, str) and name else None


def _old(said: Mapping[str, Any], path: str | Path) -> Recipe:
    """Versions 1 and 2: all about the picture stands in `image`, the negative prompt in brackets behind the other."""
    image = said.get("image")
    if not isinstance(image, dict):
        raise InvalidRequest(f"{path}: its sd-metadata says nothing of the picture")
    positive, negative = _without_brackets(_prompt(image.get("prompt")))
    sampler = str(image.get("sampler") or "")
    now = {
        **{name: image[name] for name in image if name not in _READ_HERE},
        "app_version": said.get("app_version"),
        "positive_prompt": positive,
        "negative_prompt": negative,
        "scheduler": _OLD.get(sampler, sampler),
        "model": {"name": said.get("model_weights")} if said.get("model_weights") else None,
        "generation_mode": image.get("type") or "txt2img",
        "rand_device": "cuda",  # Noise was drawn where the model was.
    }
    if now.pop("hires_fix", False):
        now["hrf_enabled"] = True
    recipe = _Reading(now).read()
    if digits := said.get("model_hash"):
        recipe.model = Named.of(recipe.model.name if recipe.model else "", str(digits))
    recipe.settings.pop("ensd", None)
    if (name := recipe.settings.get("sampler")) and sampler_info(name).stochastic:
        recipe.lose(f"noise of {sampler}", why="drawn otherwise before InvokeAI 3")
    for name in ("postprocessing", "variations"):
        each = image.get(name)
        for one in each if isinstance(each, list) else [each] if each else []:
            recipe.lose(name, one)
    return recipe


_READ_HERE = ("prompt", "sampler", "type", "postprocessing", "variations")


def _prompt(said: object) -> str:
    """A prompt; several with their weights as compel writes it."""
    if not isinstance(said, list):
        return said if isinstance(said, str) else ""
    parts = [(str(each.get("prompt", "")), each.get("weight", 1)) for each in said if isinstance(each, dict)]
    if len(parts) < 2:
        return "".join(text for text, _ in parts)
    texts = ", ".join(json.dumps(text, ensure_ascii=False) for text, _ in parts)
    return f"({texts}).blend({', '.join(str(weight) for _, weight in parts)})"


def _without_brackets(prompt: str) -> tuple[str, str]:
    """A prompt without what stands in square brackets, which is the negative one."""
    negative = " ".join(_BRACKETS.findall(prompt))
    return " ".join(_BRACKETS.sub(" ", prompt).split()), negative


_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_FLAGS = {
    **dict.fromkeys(("s", "steps"), "steps"),
    **dict.fromkeys(("S", "seed"), "seed"),
    **dict.fromkeys(("W", "width"), "width"),
    **dict.fromkeys(("H", "height"), "height"),
    **dict.fromkeys(("C", "cfg_scale"), "cfg_scale"),
    **dict.fromkeys(("A", "sampler"), "sampler"),
}
_LONGEST = 20_000


def _typed(command: str, path: str | Path) -> dict[str, Any]:
    """A command of version 1: "a red boat" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms. The prompt stands in front; other
    options are kept by their names, with what stands behind them."""
    try:
        words = shlex.split(command[:_LONGEST])
    except ValueError as error:
        raise InvalidRequest(f"{path}: its Dream is damaged: {error}") from None
    found: dict[str, Any] = {}
    name, prompt = "", []
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            flag, _, value = word.partition("=")
            if not word.startswith("--"):
                flag, value = word[:2], word[2:]
            name = _FLAGS.get(flag.lstrip("-"), flag)
            found[name] = value
        elif name:
            found[name] = f"{found[name]} {word}".strip()
        else:
            prompt.append(word)
    numbers = {name: number_of(found[name]) for name in {*_FLAGS.values()} - {"sampler"} if name in found}
    return {**{name: value or True for name, value in found.items()}, **numbers, "prompt": " ".join(prompt)}
