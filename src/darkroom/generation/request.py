"""What a user asks for, checked.

A `Request` is plain data in parts (`darkroom.generation.parts`): it travels through JSON, the command line's options
are generated from its fields, and together with the model's weights it determines every pixel.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field
from functools import cache
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias, TypedDict, Unpack, cast

from darkroom.errors import InvalidRequest
from darkroom.generation.checks import (
    a_text,
    a_truth,
    a_whole,
    called,
    checked,
    setting,
    some_texts,
)
from darkroom.generation.details import Details
from darkroom.generation.elsewhere import unknown_setting
from darkroom.generation.latents import nth
from darkroom.generation.masks import Thing
from darkroom.generation.parts import (
    MAX_SEED,
    XL,
    Canvas,
    Guidance,
    Noise,
    Part,
    Sampling,
    Second,
    Text,
    Tiling,
)
from darkroom.generation.sources import Source
from darkroom.generation.starting import Edit, Extend, Inpaint, Seen
from darkroom.language.tags import parse_tag

MAX_COUNT = 10_000
VERSION = 2
"""Of requests in JSON: 1 had all settings side by side, which is still read, as people write it; 2 has parts."""


Whole: TypeAlias = int | SupportsIndex
Number: TypeAlias = float | SupportsFloat
"""Whatever is a number to Python: NumPy's are too."""


class Settings(TypedDict, total=False):
    """All that may be asked for beside the prompt, as keywords: the settings of `Request` by name, or its parts."""

    negative: str
    adapters: Sequence[str]
    lora_partial: bool
    seed: Whole | None
    count: Whole

    canvas: Canvas
    width: Whole | None
    height: Whole | None
    compose: str | None
    second_pass: str
    second_strength: Number | None
    second_steps: Whole | None
    first_width: Whole | None
    first_height: Whole | None
    upscaler: str | None

    detail: Details
    details: Sequence[str]
    detail_prompts: Sequence[str]
    detail_negatives: Sequence[str]

    tiling: Tiling
    seamless: str | None
    tile: Whole | None
    tile_overlap: Whole | None
    tile_blend: str

    edit: Edit
    image: Any
    frame: Whole | None
    strength: Number | None
    strength_as: str | None
    fit: str | None
    noise_multiplier: Number | None
    loops: Whole | None
    last_strength: Number | None
    match_colors: bool | None

    seen: Seen
    depth: Any
    noise_level: Whole | None
    image_guidance: Number | None

    inpaint: Inpaint
    mask: Any
    mask_box: str | Sequence[int] | None
    mask_invert: bool | None
    mask_grow: Whole | None
    mask_blur: Number | None
    mask_resize: bool | None
    fill: str | None
    only_masked: bool | None
    mask_padding: Whole | None

    extend: Extend
    extend_left: Whole
    extend_top: Whole
    extend_right: Whole
    extend_bottom: Whole

    sampling: Sampling
    sampler: str | None
    schedule: str | None
    steps: Whole | None

    second: Second
    second_prompt: str | None
    second_negative: str | None
    second_sampler: str | None
    second_schedule: str | None
    second_guidance: Number | None

    guidance: Number | Guidance | None
    guidance_rescale: Number
    guides: Sequence[str]

    noise: Noise
    noise_source: str
    ensd: Whole
    variation_seed: Whole | None
    variation_strength: Number
    seed_resize_width: Whole | None
    seed_resize_height: Whole | None
    full_noise: bool
    latents: Any

    text: Text
    prompt_2: str | None
    negative_2: str | None
    prompt_3: str | None
    negative_3: str | None
    towards: str | None
    towards_strength: Number
    styles: Sequence[str]
    dynamic: str
    dialect: str
    emphasis: str
    clip_skip: Whole
    embeddings: Sequence[str]

    xl: XL
    original_width: Whole | None
    original_height: Whole | None
    target_width: Whole | None
    target_height: Whole | None
    crop_left: Whole
    crop_top: Whole
    aesthetic: Number
    negative_aesthetic: Number
    refiner_switch: Number | None


class Changes(Settings, total=False):
    """All that a request says."""

    prompt: str


def _adapters(name: str, given: object) -> tuple[str, ...]:
    adapters = some_texts(name, given)
    for adapter in adapters:
        parse_tag(adapter)
    return adapters


@dataclass(frozen=True, init=False, repr=False)
class Request:
    """One or more pictures of a prompt.

    Every setting may be given by its own name or within its part: `Request("a boat", steps=9)` is
    `Request("a boat", sampling=Sampling(steps=9))`. None means: as the model prefers. Raises InvalidRequest for a
    setting that there is not; `checked` looks at their values.
    """

    prompt: str = setting(MISSING, a_text)
    negative: str = setting("", a_text, "what the picture should not show")
    adapters: tuple[str, ...] = setting(
        (),
        _adapters,
        "a LoRA by name or file, with its strength: NAME:0.8, see 'darkroom lora --help'",
        each="adapter",
    )
    lora_partial: bool = setting(
        False,
        a_truth,
        "use what fits the model of LoRAs that do not fit it whole, instead of refusing them (default: no)",
    )
    seed: int | None = setting(
        None, a_whole(-1, MAX_SEED), "seed of the first picture; the next ones count up (default: random)"
    )
    count: int = setting(1, a_whole(1, MAX_COUNT), "how many pictures")
    canvas: Canvas = field(default=Canvas())
    tiling: Tiling = field(default=Tiling())
    edit: Edit = field(default=Edit())
    seen: Seen = field(default=Seen())
    inpaint: Inpaint = field(default=Inpaint())
    extend: Extend = field(default=Extend())
    sampling: Sampling = field(default=Sampling())
    second: Second = field(default=Second())
    detail: Details = field(default=Details())
    guidance: Guidance = field(default=Guidance())
    noise: Noise = field(default=Noise())
    text: Text = field(default=Text())
    xl: XL = field(default=XL())

    def __init__(self, prompt: str, **settings: Unpack[Settings]) -> None:
        given = flattened({"prompt": prompt, **settings})
        for each in dataclasses.fields(self):
            value: object = each.default
            if isinstance(value, Part):
                own = {inner.name: given[name] for name, inner in within(value).items() if name in given}
                value = dataclasses.replace(value, **own)
            else:
                value = given.get(each.name, value)
            object.__setattr__(self, each.name, value)

    def __repr__(self) -> str:
        """What is asked for, and none of what is not, as it may be written in Python."""
        flat = self.flat()
        if latents := flat["latents"]:
            flat["latents"] = f"{latents[:20]}..."
        asked = [
            f"{name}={value!r}"
            for name, value in flat.items()
            if name != "prompt" and value != SETTINGS[name].default
        ]
        return f"Request({', '.join([repr(self.prompt), *asked])})"

    def replace(self, **changes: Unpack[Changes]) -> Request:
        """This request with other settings."""
        return Request(**cast(Changes, self.flat() | flattened(changes)))

    def checked(self) -> Request:
        """This request with its values in canonical form, or InvalidRequest naming the value and the remedy."""
        own = checked(self)
        parts = {name: getattr(self, name).checked() for name in PARTS}
        noise, count = parts["noise"], own["count"]
        # Of variations their own seed counts up.
        name, seed = (
            ("variation_seed", noise.variation_seed) if noise.variation_strength else ("seed", own["seed"])
        )
        if seed is not None and seed + count - 1 > MAX_SEED:
            raise InvalidRequest(f"{name} {seed} plus {count} pictures passes {MAX_SEED}: choose a lower one")
        return Request(**own, **parts)

    def settled(self, **preferences: Any) -> Request:
        """Checked, with every None replaced by the model's preference and a missing seed drawn."""
        checked = self.checked()
        now = checked.flat()
        settled = {name: value for name, value in preferences.items() if now[name] is None}
        for name, used in (("seed", True), ("variation_seed", bool(checked.noise.variation_strength))):
            if used and now[name] in (None, -1):
                settled[name] = secrets.randbelow(2**32 - checked.count)
        return checked.replace(**cast(Changes, settled))

    def single(self, index: int) -> Request:
        """The request that makes picture `index` of this one alone."""
        assert self.seed is not None, "settle the request first"
        own: Changes = {"count": 1}
        if (latents := self.noise.latents) is not None:
            own["latents"] = nth(latents, index)
        if self.noise.variation_strength:
            assert self.noise.variation_seed is not None, "settle the request first"
            own["variation_seed"] = self.noise.variation_seed + index
        else:
            own["seed"] = self.seed + index
        return self.replace(**own)

    def for_second_pass(self) -> Request:
        """What a second pass is told, as a request of its own; this one where it is told nothing else."""
        own, sampling = self.second, self.sampling
        if own == Second():
            return self
        said = {"prompt": own.prompt, "negative": own.negative, "guidance": own.guidance}
        if own.sampler is not None or own.schedule is not None:
            said |= {
                "sampler": own.sampler or sampling.sampler,
                "schedule": own.schedule or sampling.schedule,
            }
        return self.replace(**cast(Changes, {name: each for name, each in said.items() if each is not None}))

    @property
    def in_part(self) -> bool:
        """Whether what is drawn is a part of a picture: what a mask covers, or what is beyond its edges."""
        return self.inpaint.masked or self.extend.asked

    def flat(self) -> dict[str, Any]:
        """Every setting by its name, those of all parts side by side."""
        found: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Part):
                found |= {name: getattr(value, inner.name) for name, inner in within(value).items()}
            else:
                found[each.name] = value
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON gives it back: parts within it, and what is empty left out."""
        return {"version": VERSION, "prompt": self.prompt, **_plain(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`. Settings may also stand side by side, as people write them and as version 1 had
        them. Raises InvalidRequest for unknown names, with the nearest, and for data of a newer version."""
        if not isinstance(values, Mapping):
            raise InvalidRequest(f"the request is {values!r}: give an object of settings")
        if "prompt" not in values:
            raise InvalidRequest("no 'prompt' in the request: add one (it may be empty)")
        return cls(**cast(Any, flattened(values)))


def within(part: Part) -> Mapping[str, Field[Any]]:
    """The settings of a part by the names that users give them."""
    return _within(cast(Any, type(part)))


@cache
def _within(kind: type[Any]) -> Mapping[str, Field[Any]]:
    return {called(each): each for each in dataclasses.fields(kind)}


PARTS: Mapping[str, Part] = {
    each.name: each.default for each in dataclasses.fields(Request) if isinstance(each.default, Part)
}
"""The parts of a request where nothing is asked for."""

SETTINGS: Mapping[str, Field[Any]] = {
    **{each.name: each for each in dataclasses.fields(Request) if each.name not in PARTS},
    **{name: each for part in PARTS.values() for name, each in within(part).items()},
}
"""Every setting by the name that users give it."""


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names, out of their parts. Of a `Part` those beside it take the place of its own; an object of
    settings, as JSON has it, says them once. Raises InvalidRequest for a setting that there is not, and for a newer
    version than this."""
    found: dict[str, Any] = {}
    whole: dict[str, Any] = {}

    def put(name: str, value: Any) -> None:
        if name in found:
            raise InvalidRequest(f"{name} is given twice, within its part and beside it: leave one out")
        found[name] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples.

    for name, value in values.items():
        part = PARTS.get(name)
        if part is not None and isinstance(value, type(part)):
            whole |= {outer: getattr(value, each.name) for outer, each in within(value).items()}
        elif part is not None and isinstance(value, Mapping):
            names = {each.name: outer for outer, each in within(part).items()}
            for inner, each in value.items():
                if inner not in names:
                    hint = unknown_setting(str(inner), names)
                    raise InvalidRequest(f"unknown setting {inner!r} in {name}: {hint}")
                put(names[inner], each)
        elif name in SETTINGS:
            put(name, value)
        elif name == "version":
            if value not in range(1, VERSION + 1):
                raise InvalidRequest(
                    f"the request is of version {value!r}, up to {VERSION} is read: update Darkroom"
                )
        elif part is not None:
            raise InvalidRequest(
                f"{name} is {value!r}: give an object of settings, or a {type(part).__name__}"
            )
        else:
            raise InvalidRequest(f"unknown setting {name!r}: {unknown_setting(str(name), SETTINGS)}")
    return whole | found


def _plain(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON has them, but for empty ones that mean the same where they are not: an empty
    second prompt does not, without one it is the first."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, Part):
            value = _plain(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Source | Thing):
            value = value.to_dict()
        empty = isinstance(value, str | list | dict) and not value and each.default is not None
        empty |= value is False and each.default is False
        if value is not None and not empty:
            found[each.name] = value
    return found
