"""AUTOMATIC1111's `parameters`, which Forge, SD.Next, Fooocus, Civitai, stable-diffusion.cpp and others write, too.

What the words mean is in its `modules/processing.py` (`create_infotext`, hires fix), `modules/sd_samplers_*.py` and
`modules/infotext_versions.py`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from darkroom.diffusion import SamplerInfo, parse_sampler, sampler_info
from darkroom.errors import InvalidRequest
from darkroom.generation.infotext import CALLED
from darkroom.language import IGNORE, NO_NORM
from darkroom.language.tags import TAG
from darkroom.recipes.adetailer import take_details
from darkroom.recipes.files import Named
from darkroom.recipes.infotext import number_of, pairs_of, parse, size_of
from darkroom.recipes.plain import literal, mapping, parsed, rows
from darkroom.recipes.recipe import Recipe
from darkroom.recipes.writers import VERSION, writer_of

_TIMESTEPS = ("ddim", "ddim_cfgpp", "plms", "unipc")
"""The samplers that have steps of their own in A1111 (`modules/sd_samplers_timesteps.py`)."""
_OTHERWISE = ("beta", "kl_optimal", "align_your_steps")
"""The noise schedules that A1111 lays out in another way than ComfyUI and this."""
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
    *("Version", "User", "Created Date", "Civitai metadata", "App", "Backend", "Parser", "Model type"),
    *("Template", "Negative Template", "Batch size", "Batch pos", "Batch", "Index", "Hypernet hash"),
    *("Engine", "Pipeline", "Operations", "Guidance", "UniPC skip type", "NGMS all steps"),
    "Cache FP16 weight for LoRA",
)
"""What decides no pixel, or is said with something else."""
_OF_A_PICTURE = (
    *("Mask", "Inpaint", "Init image", "Conditional mask", "Resize mode"),
    "Extra noise",
)
"""What is said of a picture that one was made from."""
_GROUPS = (
    *("ADetailer", "ControlNet", "Tiled Diffusion", "Tiled VAE", "Hires", "Script"),
    *("Dynamic thresholding", "RP"),
)
"""What has many settings, which one line names."""
_OF_TILES = {"Method", "Tile tile width", "Tile tile height", "Tile Overlap", "Tile batch size"}
_LARGEST = 100  # Times that hires fix enlarges.
_SAME = ("Use same choices", "Use same checkpoint", "Use same sampler", "Use same scheduler")


def recipe_of(text: str, path: str | Path) -> Recipe:
    """What such a text says. Raises InvalidRequest for one that holds none of it."""
    prompt, negative, said = parse(text)
    if not said and not prompt.strip():
        raise InvalidRequest(f"{path}: its `parameters` are empty")
    if not said and text.lstrip().startswith(("{", "[")):
        raise InvalidRequest(
            f"{path}: its `parameters` are of a kind that Darkroom does not read: A1111's are text, these are JSON"
        )
    return recipe_said(prompt, negative, said)


def recipe_said(prompt: str, negative: str, said: Mapping[str, str]) -> Recipe:
    """What the settings of such a text say, by name."""
    return _Reading(prompt, negative, dict(said)).read()


class _Reading:
    """The settings of a text: each is taken out of `said` as it is read, what is left is lost."""

    def __init__(self, prompt: str, negative: str, said: dict[str, str]) -> None:
        self.said, self.negative = said, negative
        self.writer, program = writer_of(said)
        self.recipe = Recipe(program)
        name, strength = self.pop("Hypernet"), number_of(self.pop("Hypernet strength") or "1")
        self.prompt = prompt
        if name and isinstance(strength, int | float):
            self.recipe.adapt(Named.of(name), strength, kind="hypernet")

    def pop(self, name: str) -> str:
        """What is said by that name, once."""
        return self.said.pop(name, "")

    def take(self, name: str, setting: str) -> None:
        """A number, as a setting."""
        if value := self.pop(name):
            self.recipe.put(setting, number_of(value), f"{name}: {value}")

    def size(self, name: str) -> tuple[int, int] | None:
        """A size; what is none is lost."""
        value = self.pop(name)
        if value and size_of(value) is None:
            self.recipe.lose(name, value, "no size")
        return size_of(value)

    def read(self) -> Recipe:
        recipe = self.recipe
        recipe.put("prompt", self.prompt)
        recipe.put("negative", self.negative)
        recipe.put("dialect", self.writer.dialect)
        self.take("Steps", "steps")
        self.take("CFG scale", "guidance")
        self.take("CFG rescale", "guidance_rescale")
        self.take("Image CFG scale", "image_guidance")
        self.take("Clip skip", "clip_skip")
        self._sampling()
        self._noise()
        self._passes()
        self._tiles()
        self._details()
        self._guidance()
        self._files()
        self._rest()
        if self.writer.otherwise:
            recipe.nearly(f"{self.writer.name}'s steps", why=self.writer.otherwise)
        return recipe

    # Sampling

    def _sampling(self) -> None:
        recipe, name, schedule = self.recipe, self.pop("Sampler"), self.pop("Schedule type")
        options = self._options()
        skipped = self.pop("Discard penultimate sigma") == "True"
        if self.writer.name == "stable-diffusion.cpp":
            options.pop("eta", None)  # It is for none of the samplers that there are here.
        if not name:
            return
        info, joined = _known(name)
        schedule = schedule or joined
        if schedule.lower() == "automatic":
            schedule = "normal" if info is None else info.schedule
        elif not schedule:
            # Before 1.9 the schedule was part of the name; one without was k-diffusion's own.
            schedule = "karras" if info is not None and info.name == "restart" else "normal"
        if info is not None and info.name in _TIMESTEPS:
            if info.name == "unipc":
                options = {"variant": "bh1", "order": "3", **options}
                recipe.nearly("UniPC's own steps", why="here it goes by the noise schedule Leading")
            recipe.put_sampler(info.name, "leading", options)
            recipe.put("full_noise", True)
            return
        bend = {option: value for option, value in options.items() if option in _OF_SCHEDULES}
        recipe.put_sampler(name if info is None else info.name, schedule, options, bend)
        found = recipe.settings.get("schedule", "").partition(":")[0]
        if found in _OTHERWISE and not self.writer.full and self.writer.name != "Darkroom":
            recipe.nearly("Schedule type", schedule, "its steps lie a little otherwise here")
        if skipped and info is not None and not info.skips_last:
            recipe.nearly("Discard penultimate sigma", "True", f"{info.name} takes every step here")

    def _options(self) -> dict[str, str]:
        """The options of samplers and schedules, by the names that they have here."""
        found: dict[str, str] = {}
        for option, word in (*CALLED.items(), *_ALSO_CALLED):
            value: str | None = self.pop(word)
            if value and option in _ZERO and number_of(value) == 0:
                value = _ZERO[option]
            if value:
                found[option] = value
        return found

    def _noise(self) -> None:
        recipe, source = self.recipe, self.pop("RNG")
        self.take("Seed", "seed")
        self.take("ENSD", "ensd")
        self.take("Variation seed", "variation_seed")
        self.take("Variation seed strength", "variation_strength")
        self.take("Variation strength", "variation_strength")
        if resized := self.size("Seed resize from"):
            recipe.put_size(("seed_resize_width", "seed_resize_height"), resized)
        if source and source.lower() not in _SOURCES:
            recipe.lose("RNG", source)
        recipe.put("noise_source", _SOURCES.get(source.lower(), self.writer.source))
        if self.writer.full or self.pop("SGM noise multiplier") == "True":
            recipe.put("full_noise", True)
        if self.pop("Noise Schedule") == "Zero Terminal SNR":
            recipe.options["zero_snr"] = True

    # Passes

    def _passes(self) -> None:
        """One pass at the picture's size, or hires fix: at a size to begin with, then enlarged and drawn over."""
        recipe, strength = self.recipe, self.pop("Denoising strength")
        size, old = self.size("Size"), self.size("First pass size")
        by, to = self._times("Hires upscale"), self.size("Hires resize")
        first, final = size, None
        if size and not all(size):
            recipe.lose("Size", f"{size[0]}x{size[1]}")
            size = None
        elif size and to and any(to):
            final = _filled(to, size)
            if final[0] * size[1] != final[1] * size[0] and all(to):
                recipe.nearly("Hires resize", f"{to[0]}x{to[1]}", "it is stretched here, cut there")
        elif size and by:
            final = int(size[0] * by) // 8 * 8, int(size[1] * by) // 8 * 8
        elif size and old:
            first, final = (old if all(old) else _first_size(*size)), size
        if final and first:
            self._hires(first, strength)
        else:
            recipe.put("second_pass", "off")
            if strength:
                louder = number_of(self.pop("Noise multiplier")) or 1
                recipe.begin(number_of(strength), "a1111", "Denoising strength", noise_multiplier=louder)
                for name in [name for name in self.said if name.startswith(_OF_A_PICTURE)]:
                    recipe.lose(name, self.pop(name), "of that picture")
        if made := final or size:
            recipe.put_size(("width", "height"), made)

    def _times(self, name: str) -> float | None:
        """How many times a picture is enlarged; what cannot be that is lost."""
        by = number_of(self.pop(name))
        if isinstance(by, int | float) and 0 < by <= _LARGEST:
            return by
        if by:
            self.recipe.lose(name, by)
        return None

    def _hires(self, first: tuple[int, int], strength: str) -> None:
        recipe, steps = self.recipe, number_of(self.pop("Hires steps"))
        recipe.put_size(("first_width", "first_height"), first)
        recipe.put_upscaler(self.pop("Hires upscaler") or "Latent", "Hires upscaler")
        if self.writer.name != "Darkroom" or steps:
            # As many as in the first pass unless they are said, whatever the strength.
            recipe.put("second_steps", steps or recipe.settings.get("steps"), f"Hires steps: {steps}")
        if strength:
            recipe.put("second_strength", number_of(strength), f"Denoising strength: {strength}")
        for name, setting in (
            ("Hires prompt", "second_prompt"),
            ("Hires negative prompt", "second_negative"),
        ):
            if said := self.pop(name):
                recipe.put(setting, said, name)
        if (scale := number_of(self.pop("Hires CFG Scale"))) and scale != recipe.settings.get("guidance"):
            recipe.put("second_guidance", scale, "Hires CFG Scale")
        self._second_sampling()

    def _second_sampling(self) -> None:
        """The sampler and the schedule of the second pass, where they are said: a sampler alone keeps the schedule."""
        recipe, name, schedule = self.recipe, self.pop("Hires sampler"), self.pop("Hires schedule type")
        name, schedule = ("" if each in _SAME else each for each in (name, schedule))
        if name:
            info, joined = _known(name)
            automatic = "normal" if info is None else info.schedule
            schedule = schedule or joined
            recipe.put_sampler(name if info is None else info.name, None, whose="second_")
            if schedule:
                recipe.put_schedule(
                    automatic if schedule.lower() == "automatic" else schedule, whose="second_"
                )
            elif "second_sampler" in recipe.settings:
                recipe.put("second_schedule", recipe.settings.get("schedule"))
        elif schedule and schedule.lower() != "automatic":
            recipe.put_schedule(schedule, whose="second_")

    def _tiles(self) -> None:
        """Whether it is one, and those of the Tiled Diffusion extension, which counts latent pixels."""
        recipe = self.recipe
        if self.pop("Tiling") == "True":
            recipe.put("seamless", "xy")
        said = mapping(literal(self.pop("Tiled Diffusion")))
        if not said:
            return
        sides = [said.get(f"Tile {name}") for name in ("tile width", "tile height", "Overlap")]
        sides = [8 * each if type(each) is int else each for each in sides]
        recipe.put_tiles("Tiled Diffusion", sides, said.get("Method"))
        for name in said.keys() - _OF_TILES:
            recipe.lose(f"Tiled Diffusion's {name}", said[name])

    def _details(self) -> None:
        """What was drawn over at the end, by ADetailer or by Darkroom."""
        if self.writer.name == "Darkroom" and (details := self.pop("Details")):
            self.recipe.put("details", details.split("; "), "Details")
        take_details(self.said, self.recipe)

    def _guidance(self) -> None:
        recipe, emphasis = self.recipe, self.pop("Emphasis").lower()
        if emphasis == "none":
            recipe.put("dialect", "plain")
        elif emphasis not in ("", "original"):
            recipe.put("emphasis", {"no norm": NO_NORM, "ignore": IGNORE}.get(emphasis, emphasis), "Emphasis")
        if below := self.pop("NGMS"):
            every = ",every=yes" if self.said.get("NGMS all steps") == "True" else ""
            recipe.guide(f"off_steps:below={below}{every}")
        if (skipped := self.pop("Skip Early CFG")) and skipped != "0":
            share, steps = number_of(skipped), recipe.settings.get("steps")
            if isinstance(share, int | float) and steps:
                # On a step that begins at the share itself there is none, either.
                share = min((int(share * steps) + 1) / steps, 1)
            recipe.guide(f"interval:start={share}")

    # Files

    def _files(self) -> None:
        recipe = self.recipe
        # What Civitai's own generator says that it used.
        resources = [each for each in rows(parsed(self.pop("Civitai resources"))) if isinstance(each, dict)]
        hashes = {name.lower(): str(digits) for name, digits in mapping(parsed(self.pop("Hashes"))).items()}
        base = next((each for each in resources if each.get("type") in ("checkpoint", "model")), {})
        name, digits = self.pop("Model"), self.pop("Model hash") or hashes.pop("model", "")
        if name or digits or base.get("modelName"):
            recipe.model = Named.of(name or str(base.get("modelName") or ""), digits)
        elif base:
            recipe.lose(
                "Civitai's checkpoint", base.get("modelVersionId") or base.get("air"), "named by number alone"
            )
        vae, digits = self.pop("VAE"), self.pop("VAE hash") or hashes.pop("vae", "")
        if vae not in ("", "None", "Automatic", "Default (model)"):
            recipe.vae = Named.of(vae, digits)
        for slot in [slot for slot in self.said if re.fullmatch(r"Module \d+", slot)]:
            module = Named.of(self.pop(slot))
            if "vae" in module.name.lower() or module.name.lower() == "ae":
                recipe.vae = module
            else:
                recipe.others.append(module)
        if refiner := self.pop("Refiner"):
            recipe.refiner = Named.of(refiner)
            self._switch(self.pop("Refiner switch at"))
        self._adapters(hashes)
        for each in resources:
            if each is not base:
                what = each.get("modelName") or each.get("modelVersionId") or each.get("air")
                recipe.lose(
                    f"Civitai's {each.get('type')}", what, "named by its number there: give it by name"
                )

    def _switch(self, at: str) -> None:
        """Where the refiner takes over: a share of the noise, in Forge and before 1.8 of the steps."""
        recipe, share = self.recipe, number_of(at) if at else 0.8
        version = VERSION.match(self.said.get("Version", ""))
        by_steps = self.pop("Refiner switch by sampling steps") == "True"
        by_steps |= "Forge" in recipe.program
        by_steps |= version is not None and (int(version[1]), int(version[2])) < (1, 8)
        steps = recipe.settings.get("steps")
        if by_steps and isinstance(share, int | float) and steps:
            # The first step of which more than that share lies before it.
            recipe.put_switch(min(int(share * steps) + 1, steps))
        else:
            recipe.put("refiner_switch", share, f"Refiner switch at: {at}")

    def _adapters(self, hashes: dict[str, str]) -> None:
        recipe = self.recipe
        of_loras = {name: digits.lower() for name, digits in pairs_of(self.pop("Lora hashes"))}
        of_loras |= {name[5:]: digits for name, digits in hashes.items() if name.startswith("lora:")}
        recipe.hashes = of_loras
        named = {match[2].partition(":")[0].strip().lower() for match in TAG.finditer(self.prompt)}
        for name, weight in pairs_of(self.pop("Lora weights")):
            strength = number_of(weight)
            if isinstance(strength, int | float):
                recipe.adapt(Named.of(name, of_loras.get(name, "")), strength)
                named.add(name.lower())
        for name, digits in of_loras.items():
            if name.lower() not in named:
                recipe.lose(f"LoRA {name} [{digits}]", why="its strength is not said: give it as an adapter")
        inversions = [*pairs_of(self.pop("TI hashes")), *pairs_of(self.pop("TI"))]
        inversions += [(name[6:], digits) for name, digits in hashes.items() if name.startswith("embed:")]
        for name, digits in inversions:
            if (each := Named.of(name, digits)) not in recipe.embeddings:
                recipe.embeddings.append(each)

    def _rest(self) -> None:
        """What is left is for what there is not here; of an extension's settings one line is enough."""
        kin: dict[str, dict[str, str]] = defaultdict(dict)
        for name, value in self.said.items():
            if name in _SAYS_NOTHING or value in ("", "False", "None", *_SAME):
                continue
            kin[next((group for group in _GROUPS if name.startswith(group)), name)][name] = value
        for group, said in kin.items():
            if len(said) == 1:
                self.recipe.lose(*said.popitem())
            else:
                names = ", ".join(name.removeprefix(group).strip() for name in said)
                self.recipe.lose(f"{group} ({names})", limit=300)


def _known(name: str) -> tuple[SamplerInfo | None, str]:
    """A sampler by its name, and the schedule joined to it: "DPM++ 2M Karras", ComfyUI's savers' "euler_karras"."""
    head, _, tail = name.rpartition("_")
    for own, joined in ((name, ""), (head, tail), (name.rpartition(" ")[0], name.rpartition(" ")[2])):
        try:
            info, schedule = sampler_info(own), parse_sampler(own)[1]
        except InvalidRequest:
            continue
        return info, joined or schedule or ""
    return None, ""


def _filled(to: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """A size of which one side may be 0: that which keeps the proportions."""
    width, height = to
    return width or height * size[0] // size[1] // 8 * 8, height or width * size[1] // size[0] // 8 * 8


def _first_size(width: int, height: int) -> tuple[int, int]:
    """The size of the first pass before 2023, where none was said: of 512 x 512 pixels, in multiples of 64."""
    scale = math.sqrt(512 * 512 / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64
