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

from darkroom.checkpoint.families import SDXL
from darkroom.diffusion import points_for, sampler_info
from darkroom.errors import InvalidRequest
from darkroom.recipes.files import Named
from darkroom.recipes.infotext import number_of
from darkroom.recipes.plain import finite, mapping, parsed, rows
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

_SAYS_NOTHING = ("app_version", "metadata_version", "canvas_v2_metadata", "model_hash", "orig_hash")
"""What decides no pixel."""
_MADE = ("strength", "init_image", "hrf_method", "hrf_strength", "hrf_width", "hrf_height")
"""What is said of a picture that one was made from, or of a second pass."""

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_READ_HERE = ("prompt", "sampler", "type", "postprocessing", "variations")
"""What versions 1 and 2 said otherwise."""
_FLAGS = {
    **dict.fromkeys(("s", "steps"), "steps"),
    **dict.fromkeys(("S", "seed"), "seed"),
    **dict.fromkeys(("W", "width"), "width"),
    **dict.fromkeys(("H", "height"), "height"),
    **dict.fromkeys(("C", "cfg_scale"), "cfg_scale"),
    **dict.fromkeys(("A", "sampler"), "sampler"),
}
"""The options of version 1's command."""
_LONGEST = 20_000


def recipe_of(texts: Mapping[str, str], path: str | Path) -> Recipe:
    """What the metadata in a picture says. Raises InvalidRequest where it is damaged."""
    if "invokeai_metadata" in texts:
        return _Reading(_loaded(texts["invokeai_metadata"], "invokeai_metadata", path)).read()
    if "sd-metadata" in texts:
        return _old(_loaded(texts["sd-metadata"], "sd-metadata", path), path)
    return _old({"image": _typed(texts["Dream"], path)}, path)


def _loaded(text: str, key: str, path: str | Path) -> dict[str, Any]:
    if not isinstance(found := parsed(text), dict):
        raise InvalidRequest(f"{path}: its {key} is damaged: no object of JSON")
    return found


class _Reading:
    """What is said of a picture: each is taken out of `said` as it is read, what is left is lost."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = dict(said)
        version, model = said.get("app_version"), mapping(said.get("model"))
        self.recipe = Recipe(f"InvokeAI {version}" if version else "InvokeAI", layer="trained")
        self.base = str(model.get("base") or model.get("base_model") or "")

    def pop(self, name: str) -> Any:
        """What is said by that name, once."""
        return self.said.pop(name, None)

    def take(self, name: str, setting: str) -> None:
        """What is said by that name, as a setting."""
        self.recipe.put(setting, self.pop(name), name)

    def read(self) -> Recipe:
        recipe = self.recipe
        recipe.put("dialect", "compel")
        self._prompts()
        width, height = self.pop("width"), self.pop("height")
        if width is not None and height is not None:
            recipe.put_size(("width", "height"), (width, height))
        self.take("steps", "steps")
        self.take("seed", "seed")
        self.take("cfg_rescale_multiplier", "guidance_rescale")
        recipe.put("guidance", self._once("cfg_scale"))
        if (skipped := self.pop("clip_skip")) not in (None, 0):
            layer = skipped + 1 if isinstance(skipped, int) else skipped
            recipe.put("clip_skip", layer, f"clip_skip {skipped}")
        self._scheduler(str(self.pop("scheduler") or ""))
        self._passes()
        if axes := "".join(axis for axis in "xy" if self.pop(f"seamless_{axis}") is True):
            recipe.put("seamless", axes)
        self._files()
        for name, value in self.said.items():
            if name not in _SAYS_NOTHING and value not in (None, False, [], "", 0, {}):
                recipe.lose(name, json.dumps(value) if isinstance(value, dict | list) else value)
        return recipe

    def _prompts(self) -> None:
        recipe = self.recipe
        prompts = {name: self.pop(f"{name}_prompt") or "" for name in ("positive", "negative")}
        styles = {name: self.pop(f"{name}_style_prompt") for name in prompts}
        for ours, name in (("prompt", "positive"), ("negative", "negative")):
            recipe.put(ours, prompts[name])
            style = styles[name]
            if self.base.startswith("sdxl") and isinstance(style, str) and style.strip():
                recipe.put(f"{ours}_2", style)
        if self.base.startswith("sdxl"):
            for name in ("original_width", "original_height", "target_width", "target_height"):
                recipe.put(name, _XL_SIDE)
        texts = " ".join(map(str, prompts.values()))
        for call in _WITH_LORA.findall(texts):
            recipe.lose(call, why="it is read as words here")
        recipe.embeddings = [Named.of(name) for name in dict.fromkeys(_TRIGGER.findall(texts))]

    def _once(self, name: str) -> Any:
        """A number; of one for each step the first."""
        value = self.pop(name)
        if isinstance(value, list):
            self.recipe.lose(name, value, "one for each step: the first of them is used for all")
            return value[0] if value else None
        return value

    def _scheduler(self, name: str) -> None:
        recipe, seed = self.recipe, self.recipe.settings.get("seed")
        recipe.put("noise_source", "comfy" if self.pop("rand_device") in (None, "cpu") else "nv")
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
        first, *_, last, _ = points_for(SDXL.schedule, max(steps, 2), "euler", "leading:clean_end=yes")
        low, high = (SDXL.schedule.level(point) for point in (last, first))
        return f"karras:sigma_min={low:.6g},sigma_max={high:.6g}"

    def _passes(self) -> None:
        recipe = self.recipe
        mode, enlarged = str(self.pop("generation_mode") or "txt2img"), self.pop("hrf_enabled")
        details = {name: self.pop(name) for name in _MADE}
        recipe.put("second_pass", "off")
        if not mode.endswith("txt2img"):
            if mode.endswith("img2img"):
                recipe.begin(finite(details["strength"]), "diffusers", f"{mode}, strength")
            else:
                recipe.lose(
                    "generation_mode", mode, "made from another picture, which its file does not hold"
                )
        elif enlarged:
            told = [f"{name} {details[name]}" for name in ("hrf_method", "hrf_strength") if details[name]]
            recipe.lose("hrf_enabled", ", ".join(told) or None, "it is drawn at its size at once here")

    def _files(self) -> None:
        recipe = self.recipe
        recipe.model = _named(self.pop("model"))
        recipe.vae = _named(self.pop("vae"))
        recipe.refiner = _named(self.pop("refiner_model"))
        if recipe.refiner is not None:
            self.take("refiner_start", "refiner_switch")
            self.take("refiner_positive_aesthetic_score", "aesthetic")
            self.take("refiner_negative_aesthetic_score", "negative_aesthetic")
        loras = self.pop("loras")
        if loras and not isinstance(loras, list):
            recipe.lose("loras", loras)
        for each in rows(loras):
            said = mapping(each)
            named, weight = _named(said.get("model") or said.get("lora")), finite(said.get("weight", 0.75))
            if named is None or weight is None:
                recipe.lose("LoRA", each)
            else:
                recipe.adapt(named, float(weight))


def _named(model: Any) -> Named | None:
    """A model as its record says it: its name (version 3: `model_name`)."""
    said = mapping(model)
    name = model if isinstance(model, str) else said.get("name") or said.get("model_name")
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
