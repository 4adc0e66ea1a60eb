"""AUTOMATIC1111's `parameters` text, which Forge, SD.Next, Civitai, stable-diffusion.cpp and others write, too.

    a red boat, <lora:detail:0.8>
    Negative prompt: fog
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model: dream, ...

What the words mean is in its `modules/processing.py` (`create_infotext`) and `modules/infotext_utils.py`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.compat.pictures.files import Named
from darkroom.compat.pictures.recipe import Recipe
from darkroom.diffusion import parse_sampler, sampler_info
from darkroom.errors import InvalidRequest
from darkroom.generation.infotext import CALLED
from darkroom.language import IGNORE, NO_NORM

_NEGATIVE = "Negative prompt:"
_NAME = re.compile(r"\s*(\w[\w \-/]*):\s*")
_FEWEST = 3
"""How many settings make a line one of settings, as A1111 counts."""
_SIZE = re.compile(r"(\d+)\s*x\s*(\d+)")
_VERSION = re.compile(r"v?(\d+)\.(\d+)")

_TIMESTEPS = ("ddim", "ddim_cfgpp", "plms", "unipc")
"""The samplers that have noise schedules of their own there (`modules/sd_samplers_timesteps.py`)."""

_ALSO_CALLED = (
    ("eta", "Eta DDIM"),
    ("alpha", "Beta scheduler alpha"),
    ("beta", "Beta scheduler beta"),
    ("variant", "UniPC variant"),
    ("order", "UniPC order"),
    ("lower_order_final", "UniPC lower order final"),
)
"""More options of samplers and schedules."""

_OF_SCHEDULES = ("sigma_min", "sigma_max", "rho", "alpha", "beta")
_ZERO = {"s_tmax": "inf", "rho": None, "sigma_min": None, "sigma_max": None}
"""What 0 means there: nothing said, but for `s_tmax`."""

_SOURCES = {"cpu": "cpu", "gpu": "nv", "nv": "nv", "cuda": "nv"}
"""Its sources of noise (stable-diffusion.cpp's `cuda` too). What a GPU draws is computed here on the CPU."""

_SAYS_NOTHING = (
    *(
        "Version",
        "User",
        "Hashes",
        "Created Date",
        "Civitai metadata",
        "App",
        "Backend",
        "Parser",
        "Model type",
    ),
    *("Template", "Negative Template", "Batch size", "Batch pos", "Hypernet hash"),
    *("NGMS all steps", "Hires refiner", "Hires Module 1", "Refiner switch by sampling steps"),
)
"""What decides no pixel, or is said with something else."""

_OF_A_PICTURE = ("Mask", "Inpaint", "Init image", "Noise multiplier", "Conditional mask", "Resize mode")
_GROUPS = (
    "ADetailer",
    "ControlNet",
    "Tiled Diffusion",
    "Tiled VAE",
    "Hires",
    "Mask",
    "Script",
    "Dynamic thresholding",
)
"""Extensions of which one line is said whatever number of settings they have."""


def recipe_of(text: str, path: str | Path) -> Recipe:
    """What such a text says. Raises InvalidRequest for one that holds none of it."""
    prompt, negative, said = parse(text)
    if not said and not prompt.strip():
        raise InvalidRequest(f"{path}: its `parameters` are empty")
    if not said and text.lstrip().startswith(("{", "[")):
        raise InvalidRequest(
            f"{path}: its `parameters` are of a kind that Darkroom does not read: A1111's are text, these are JSON"
        )
    recipe = Recipe(_program(said))
    recipe.put("prompt", _with_hypernetwork(prompt, said))
    recipe.put("negative", negative)
    recipe.put("dialect", "a1111")
    _read(recipe, said)
    _lose_the_rest(recipe, said)
    return recipe


def parse(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings by name."""
    lines = text.strip().split("\n")
    said: dict[str, str] = {}
    for at in reversed(range(len(lines))):
        # What some extensions write in lines of their own stands behind the settings.
        pairs = _pairs(lines[at])
        if len(pairs) >= _FEWEST and (at == len(lines) - 1 or lines[at].lstrip().startswith("Steps:")):
            said, lines = dict(pairs), lines[:at]
            break
    at = next((at for at, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).strip().removeprefix(_NEGATIVE)
    return "\n".join(lines[:at]).strip(), negative.strip(), said


def _pairs(line: str) -> list[tuple[str, str]]:
    """The settings of a line: "Name: value, Name: value", a value that holds signs as JSON."""
    found, at = [], 0
    while at < len(line):
        if match := _NAME.match(line, at):
            value, at = _value(line, match.end())
            found.append((match[1].strip(), value))
        comma = line.find(",", at)
        at = len(line) if comma < 0 else comma + 1
    return found


def _value(line: str, at: int) -> tuple[str, int]:
    if line[at : at + 1] in ('"', "[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(line, at)
        except (ValueError, RecursionError):
            pass
        else:
            return (value if isinstance(value, str) else line[at:end]), end
    comma = line.find(",", at)
    end = len(line) if comma < 0 else comma
    return line[at:end].strip(), end


def _program(said: Mapping[str, str]) -> str:
    version = said.get("Version", "")
    if said.get("App"):
        return f"{said['App']} {version}".strip()
    if _VERSION.match(version):
        return f"AUTOMATIC1111 {version}"
    if re.match(r"f\d", version):
        return f"Forge {version}"
    if version:
        return version
    if "Civitai resources" in said:
        return "Civitai"
    return "AUTOMATIC1111, or what writes like it"


def _with_hypernetwork(prompt: str, said: dict[str, str]) -> str:
    """A prompt with the hypernetwork that was set beside it before there were tags."""
    name, strength = said.pop("Hypernet", ""), said.pop("Hypernet strength", "1")
    return f"{prompt}<hypernet:{name}:{strength}>" if name else prompt


def _read(recipe: Recipe, said: dict[str, str]) -> None:
    """Takes out of what is said what there is here."""

    def take(name: str, setting: str, number: bool = True) -> None:
        if (value := said.pop(name, None)) is not None:
            recipe.put(setting, _number(value) if number else value, f"{name}: {value}")

    take("Steps", "steps")
    take("CFG scale", "guidance")
    take("Seed", "seed")
    take("Clip skip", "clip_skip")
    take("ENSD", "ensd")
    take("Variation seed", "variation_seed")
    take("Variation seed strength", "variation_strength")
    if resized := _size(said.pop("Seed resize from", "")):
        for side, value in zip(("width", "height"), resized, strict=True):
            recipe.put(f"seed_resize_{side}", value)
    _sampling(recipe, said)
    _noise(recipe, said)
    _passes(recipe, said)
    _guidance(recipe, said)
    _files(recipe, said)


def _sampling(recipe: Recipe, said: dict[str, str]) -> None:
    name, schedule = said.pop("Sampler", None), said.pop("Schedule type", None)
    options = _sampling_options(said)
    if name is None:
        return
    try:
        info, joined = sampler_info(name), parse_sampler(name)[1]
    except InvalidRequest:
        recipe.put_sampler(name, None)
        return
    if info.name in _TIMESTEPS:
        if info.name == "unipc":
            options = {"variant": "bh1", "order": "3", **options}
            recipe.lose("UniPC's own steps", why="here it goes by the noise schedule Leading")
        recipe.put_sampler(info.name, "leading", options)
        recipe.put("full_noise", True)
        return
    if schedule is None:
        # Before 1.9 the schedule was part of the name; one without was k-diffusion's.
        schedule = joined or "normal"
    elif schedule.lower() == "automatic":
        schedule = info.schedule
    bend = ",".join(f"{option}={value}" for option, value in options.items() if option in _OF_SCHEDULES)
    recipe.put_sampler(info.name, "normal", options)
    recipe.put_schedule(f"{schedule}:{bend}" if bend else schedule)
    if said.pop("Discard penultimate sigma", "") == "True" and not info.skips_last:
        recipe.lose("Discard penultimate sigma", "True", f"{info.name} takes every step here")


def _sampling_options(said: dict[str, str]) -> dict[str, str]:
    """The options of samplers and schedules, by the names that they have here."""
    said.pop("UniPC skip type", None)
    found: dict[str, str] = {}
    for option, word in (*CALLED.items(), *_ALSO_CALLED):
        if (value := said.pop(word, None)) is None:
            continue
        if option in _ZERO and _number(value) == 0:
            value = _ZERO[option]
        if value is not None:
            found[option] = value
    return found


def _noise(recipe: Recipe, said: dict[str, str]) -> None:
    """Noise comes from the GPU where nothing else is said, as A1111 has it unless told otherwise."""
    source = said.pop("RNG", "GPU")
    if source.lower() in _SOURCES:
        recipe.put("noise_source", _SOURCES[source.lower()])
    else:
        recipe.lose("RNG", source)
    if said.pop("SGM noise multiplier", "") == "True":
        recipe.put("full_noise", True)
    if said.pop("Noise Schedule", "") == "Zero Terminal SNR":
        recipe.options["zero_snr"] = True


def _passes(recipe: Recipe, said: dict[str, str]) -> None:
    """One pass at the picture's size, or hires fix: at a size to begin with, then enlarged and drawn over."""
    size, old = _size(said.pop("Size", "")), _size(said.pop("First pass size", ""))
    by, to = _number(said.pop("Hires upscale", "")), _size(said.pop("Hires resize", ""))
    strength = said.pop("Denoising strength", None)
    first, final = size, None
    if size and to:
        final = _filled(to, size)
    elif size and isinstance(by, int | float):
        final = int(size[0] * by) // 8 * 8, int(size[1] * by) // 8 * 8
    elif size and old and all(old):
        first, final = old, size
    if final and first:
        for name, side in zip(("first_width", "first_height"), first, strict=True):
            recipe.put(name, side)
        upscaler, steps = said.pop("Hires upscaler", "Latent"), said.pop("Hires steps", None)
        if upscaler != "Lanczos":
            recipe.lose("Hires upscaler", upscaler, "pictures are enlarged by Lanczos here")
        if steps not in (None, "0", str(recipe.settings.get("steps"))):
            recipe.lose("Hires steps", steps, "the second pass goes by the same steps here")
        if strength is not None:
            recipe.put("second_strength", _number(strength), f"Denoising strength: {strength}")
    else:
        recipe.put("second_pass", "off")
        if strength is not None:
            recipe.lose(
                "Denoising strength", strength, "made from another picture, which its file does not hold"
            )
            for name in [
                name
                for name in said
                if name.startswith(("Mask", "Inpaint", "Init image", "Noise multiplier"))
            ]:
                recipe.lose(name, said.pop(name), "of that picture")
    for name, side in zip(("width", "height"), final or size or (), strict=False):
        recipe.put(name, side)


def _filled(to: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """A size of which one side may be 0: that which keeps the proportions."""
    width, height = to
    return width or height * size[0] // size[1] // 8 * 8, height or width * size[1] // size[0] // 8 * 8


def _guidance(recipe: Recipe, said: dict[str, str]) -> None:
    emphasis = said.pop("Emphasis", "Original").lower()
    if emphasis == "none":
        recipe.put("dialect", "plain")
    elif emphasis != "original":
        recipe.put("emphasis", {"no norm": NO_NORM, "ignore": IGNORE}.get(emphasis, emphasis), "Emphasis")
    if (below := said.pop("NGMS", None)) is not None:
        every = ",every=yes" if said.get("NGMS all steps") == "True" else ""
        recipe.guide(f"off_steps:below={below}{every}")
    if (share := _number(said.pop("Skip Early CFG", ""))) not in ("", 0):
        steps = recipe.settings.get("steps")
        # On a step that begins at the share itself there is none, either.
        if isinstance(share, int | float) and steps:
            share = min((int(share * steps) + 1) / steps, 1)
        recipe.guide(f"interval:start={share}")


def _files(recipe: Recipe, said: dict[str, str]) -> None:
    resources = _resources(said.pop("Civitai resources", ""))
    name, digits = said.pop("Model", ""), said.pop("Model hash", "")
    base = next((each for each in resources if each.get("type") in ("checkpoint", "model")), {})
    if name or digits or base:
        recipe.model = Named.of(name or str(base.get("modelName", "")), digits)
    vae, digits = said.pop("VAE", ""), said.pop("VAE hash", "")
    if vae not in ("", "None", "Automatic"):
        recipe.vae = Named.of(vae, digits)
    if refiner := said.pop("Refiner", ""):
        recipe.refiner = Named.of(refiner)
        if at := said.pop("Refiner switch at", None):
            recipe.put("refiner_switch", _number(at), f"Refiner switch at: {at}")
    recipe.hashes = dict(_hashes(said.pop("Lora hashes", "")))
    recipe.embeddings = [Named.of(*each) for each in _hashes(said.pop("TI hashes", ""))]
    for each in resources:
        if each.get("type") in ("lora", "lycoris", "locon", "dora") and each is not base:
            recipe.lose(
                f"{each['type']} of Civitai", each.get("modelName") or each.get("modelVersionId"),
                "it is named by its number on Civitai alone: give it as an adapter",
            )  # fmt: skip


def _resources(text: str) -> list[dict[str, Any]]:
    """What Civitai's own generator says that it used."""
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _hashes(text: str) -> list[tuple[str, str]]:
    """The pairs of "name: digits, name: digits"."""
    pairs = (each.rpartition(":") for each in text.split(","))
    return [(name.strip(), digits.strip().lower()) for name, _, digits in pairs if name.strip()]


def _lose_the_rest(recipe: Recipe, said: Mapping[str, str]) -> None:
    """What is left is for what there is not here; of an extension's settings one line is enough."""
    kin: dict[str, list[str]] = defaultdict(list)
    for name, value in said.items():
        if name in _SAYS_NOTHING or value in ("", "False", "None"):
            continue
        group = next((group for group in _GROUPS if name.startswith(group)), name)
        kin[group].append(f"{name}: {value}")
    for group, each in kin.items():
        recipe.lose(each[0] if len(each) == 1 else f"{group}: {'; '.join(each)}")


def _size(text: str) -> tuple[int, int] | None:
    match = _SIZE.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def _number(text: str) -> int | float | str:
    """A number as it is written; text that is none stays what it is, for the check to say so."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
