"""What a user asks for, checked.

A `Request` is plain data: it travels through JSON, the command line's options are generated from its
fields, and together with the model's weights it determines every pixel.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from darkroom.diffusion import AUTOMATIC, SOURCES, parse_guides, parse_sampler, schedule_info
from darkroom.errors import InvalidRequest, nearest
from darkroom.language import DIALECTS, EMPHASES, ORIGINAL
from darkroom.language.tags import parse_tag
from darkroom.numeric import integer, real

MAX_PROMPT = 20_000
MAX_STEPS = 1_000
MAX_SIDE = 8_192
MAX_COUNT = 10_000
MAX_SEED = 2**63 - 1
MAX_ENSD = 2**31 - 1
DYNAMIC = ("off", "random", "all")
COMPOSE = ("native", "own")
SECOND_PASS = ("auto", "on", "off")


def _option(default: Any, text: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": text, **extra})


@dataclass(frozen=True)
class Request:
    """One or more pictures of a prompt. None means: as the model prefers."""

    prompt: str
    negative: str = _option("", "what the picture should not show")
    prompt_2: str | None = _option(
        None, "SDXL, SD 3: another prompt for the second text encoder (default: the prompt)"
    )
    negative_2: str | None = _option(None, "its negative prompt (default: the negative prompt)")
    prompt_3: str | None = _option(None, "SD 3: another prompt for T5 (default: the prompt)")
    negative_3: str | None = _option(None, "its negative prompt (default: the negative prompt)")
    styles: tuple[str, ...] = _option(
        (), "a saved style: text to put around the prompt, see 'darkroom prompt --help'", each="style"
    )
    dynamic: str = _option(
        "off", "draw from {one|another} and __file__ in the prompts: by lot, or all in turn", choices=DYNAMIC
    )
    dialect: str = _option(
        "a1111", "language of the prompts, see 'darkroom prompt --help'", choices=tuple(DIALECTS)
    )
    emphasis: str = _option(
        ORIGINAL, "what weights in a prompt do, in A1111's words", choices=tuple(EMPHASES)
    )
    clip_skip: int = _option(
        1, "which of CLIP's layers is used, counted back from the one that the model was trained with (1)"
    )
    adapters: tuple[str, ...] = _option(
        (), "a LoRA by name or file, with its strength: NAME:0.8, see 'darkroom lora --help'", each="adapter"
    )
    embeddings: tuple[str, ...] = _option(
        (),
        "a textual inversion beside the library's: a file, whose name stands for it, or NAME=FILE",
        each="embedding",
    )
    width: int | None = _option(
        None,
        "width in pixels, a multiple of 8 (default: the model's native size: 128 for pocket, 512 for SD 1)",
    )
    height: int | None = _option(None, "height in pixels, a multiple of 8 (default: the model's native size)")
    steps: int | None = _option(None, f"sampling steps, 1 to {MAX_STEPS:,} (default: the model's)")
    guidance: float | None = _option(
        None, "classifier-free guidance scale, 1 turns it off (default: the model's)"
    )
    guidance_rescale: float = _option(0.0, "pull guided contrast back, 0 to 1 (Lin et al. 2023)")
    guides: tuple[str, ...] = _option(
        (),
        "another way of guiding, with its options: pag:scale=3,stop=0.8, see 'darkroom guides'",
        each="guide",
    )
    sampler: str | None = _option(None, "sampler, see 'darkroom samplers' (default: the model's)")
    schedule: str | None = _option(None, "noise schedule, see 'darkroom samplers' (default: the sampler's)")
    seed: int | None = _option(None, "seed of the first picture; the next ones count up (default: random)")
    count: int = _option(1, "how many pictures")
    noise_source: str = _option("cpu", "where noise comes from, in A1111's words", choices=tuple(SOURCES))
    ensd: int = _option(0, "added to the seed for all noise but the first, as A1111's ENSD")
    variation_seed: int | None = _option(
        None, "seed of variations: with variation_strength it counts up instead of the seed (default: random)"
    )
    variation_strength: float = _option(0.0, "how far towards its noise the picture begins, 0 to 1")
    seed_resize_width: int | None = _option(
        None,
        "width of the picture that the seed is known from: with its height, one of another size looks alike",
    )
    seed_resize_height: int | None = _option(None, "height of the picture that the seed is known from")
    original_width: int | None = _option(
        None, "SDXL: width the picture claims to have had (default: its own)"
    )
    original_height: int | None = _option(
        None, "SDXL: height the picture claims to have had (default: its own)"
    )
    crop_left: int = _option(0, "SDXL: columns cut off at the left, 0 for a centred picture")
    crop_top: int = _option(0, "SDXL: rows cut off at the top, 0 for a centred picture")
    aesthetic: float = _option(6.0, "SDXL refiner: how beautiful the picture is to be, 0 to 10")
    negative_aesthetic: float = _option(2.5, "SDXL refiner: how beautiful what it is to differ from is")
    refiner_switch: float | None = _option(
        None, "share of the way from noise to picture after which the refiner takes over (default: 0.8)"
    )
    compose: str | None = _option(
        None,
        "native: draw at the model's native size, then continue the picture to its proportions and enlarge it; "
        "own: in its own proportions from the start (default: the model's)",
        choices=COMPOSE,
    )
    second_pass: str = _option(
        "auto",
        "draw large pictures small first, then refine them enlarged; off draws at the full size at once",
        choices=SECOND_PASS,
    )
    second_strength: float | None = _option(
        None, "how much of the second pass is drawn anew, above 0 and up to 1 (default: the model's)"
    )

    def checked(self) -> Request:
        """This request with names in canonical form, or InvalidRequest naming the value and the remedy."""
        for name in ("prompt", "negative"):
            _check_text(name, getattr(self, name))
        for name in ("prompt_2", "negative_2", "prompt_3", "negative_3"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name, choices in (
            ("dialect", DIALECTS),
            ("emphasis", EMPHASES),
            ("dynamic", DYNAMIC),
            ("noise_source", SOURCES),
            ("compose", COMPOSE),
            ("second_pass", SECOND_PASS),
        ):
            value = getattr(self, name)
            known = isinstance(value, str) and value in tuple(choices)
            if not known and not (name == "compose" and value is None):
                raise InvalidRequest(f"{name} is {value!r}: choose one of {', '.join(choices)}")
        adapters, guides = _texts("adapters", self.adapters), _texts("guides", self.guides)
        embeddings, styles = _texts("embeddings", self.embeddings), _texts("styles", self.styles)
        for adapter in adapters:
            parse_tag(adapter)
        parse_guides(guides)
        numbers = {name: check(name, getattr(self, name)) for name, check in _NUMBERS.items()}
        if (self.seed_resize_width is None) != (self.seed_resize_height is None):
            raise InvalidRequest("seed_resize_width and seed_resize_height go together: give both, or none")
        sampler, schedule = self.sampler, self.schedule
        if sampler is not None:
            if not isinstance(sampler, str):
                raise InvalidRequest(f"sampler is {sampler!r}: give a name, see 'darkroom samplers'")
            sampler, implied = parse_sampler(sampler)
            schedule = schedule if schedule is not None else implied
        if schedule is not None:
            schedule = None if str(schedule).lower() == AUTOMATIC else schedule_info(str(schedule)).name
        seed, count = numbers["seed"], numbers["count"]
        if seed is not None and seed + count - 1 > MAX_SEED:
            raise InvalidRequest(f"seed {seed} plus {count} pictures passes {MAX_SEED}: choose a lower seed")
        return dataclasses.replace(
            self,
            sampler=sampler,
            schedule=schedule,
            adapters=adapters,
            embeddings=embeddings,
            styles=styles,
            guides=guides,
            **numbers,
        )

    def settled(self, **preferences: Any) -> Request:
        """Checked, with every None replaced by the model's preference and a missing seed drawn."""
        checked = self.checked()
        settled = {name: value for name, value in preferences.items() if getattr(checked, name) is None}
        for name, used in (("seed", True), ("variation_seed", bool(checked.variation_strength))):
            if used and getattr(checked, name) in (None, -1):
                settled[name] = secrets.randbelow(2**32 - checked.count)
        return dataclasses.replace(checked, **settled)

    def single(self, index: int) -> Request:
        """The request that makes picture `index` of this one alone."""
        assert self.seed is not None, "settle the request first"
        if self.variation_strength:
            assert self.variation_seed is not None, "settle the request first"
            return dataclasses.replace(self, variation_seed=self.variation_seed + index, count=1)
        return dataclasses.replace(self, seed=self.seed + index, count=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON gives it back."""
        values = dataclasses.asdict(self)
        return {name: list(each) if isinstance(each, tuple) else each for name, each in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`; unknown names are an error that suggests the nearest."""
        if not isinstance(values, Mapping):
            raise InvalidRequest(f"the request is {values!r}: give an object of settings")
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise InvalidRequest(f"unknown setting {name!r}: {unknown_setting(str(name), known)}")
        if "prompt" not in values:
            raise InvalidRequest("no 'prompt' in the request: add one (it may be empty)")
        # JSON has no tuples.
        plain = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
        return cls(**cast(Any, plain))


# What other programs call the fields of a request.
_ELSEWHERE_CALLED = {
    "guidance_scale": "guidance",
    "cfg_scale": "guidance",
    "cfg": "guidance",
    "num_inference_steps": "steps",
    "negative_prompt": "negative",
    "negative_prompt_2": "negative_2",
    "negative_prompt_3": "negative_3",
    "sampler_name": "sampler",
    "scheduler": "sampler or schedule",
    "batch_size": "count",
    "n_iter": "count",
    "num_images_per_prompt": "count",
    "generator": "seed",
    "lora": "adapters",
    "loras": "adapters",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
}


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """What to write in place of a setting that there is not."""
    ours = _ELSEWHERE_CALLED.get(name.lower())
    return f"it is called {ours} here" if ours else nearest(name, known)


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidRequest(f"{name} is {text!r}: give text")
    if len(text) > MAX_PROMPT:
        raise InvalidRequest(f"{name} has {len(text):,} characters: keep it to {MAX_PROMPT:,}")
    for at, character in enumerate(text):
        if (
            (ord(character) < 32 and character not in "\n\r\t")
            or ord(character) == 127
            or _is_surrogate(character)
        ):
            raise InvalidRequest(
                f"{name} holds the control character U+{ord(character):04X} at position {at}: remove it"
            )


def _texts(name: str, value: object) -> tuple[str, ...]:
    """Several short texts: a list of them as JSON has it, or a tuple."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InvalidRequest(f"{name} is {value!r}: give a list of texts")
    for each in value:
        _check_text(name, each)
    return tuple(value)


def _is_surrogate(character: str) -> bool:
    return 0xD800 <= ord(character) <= 0xDFFF


def _shown(value: float) -> str:
    """A number as it was given; a huge one, which Python does not write out, by its size."""
    return str(value) if abs(value) < 1e30 else f"{'-' * (value < 0)}1e{math.log10(abs(value)):.0f}"


def _integer(low: int, high: int, multiple: int = 1, optional: bool = True) -> Callable[[str, object], Any]:
    """What checks a whole number and gives it as Python's."""

    def check(name: str, given: object) -> int | None:
        if given is None and optional:
            return None
        value = integer(given)
        if value is None:
            raise InvalidRequest(f"{name} is {given!r}: give a whole number from {low:,} to {high:,}")
        if not low <= value <= high:
            raise InvalidRequest(f"{name} is {_shown(value)}: choose {low:,} to {high:,}")
        if value % multiple:
            lower = value - value % multiple
            offers = [str(n) for n in (lower, lower + multiple) if low <= n <= high]
            raise InvalidRequest(
                f"{name} is {value}, not a multiple of {multiple}: try {' or '.join(offers)}"
            )
        return value

    return check


def _number(
    low: float, high: float, optional: bool = True, above: bool = False
) -> Callable[[str, object], Any]:
    """What checks a real number and gives it as Python's."""

    def check(name: str, given: object) -> float | None:
        if given is None and optional:
            return None
        allowed = f"{'above ' if above else ''}{low:g} to {high:g}"
        value = real(given)
        if value is None or not math.isfinite(value):
            raise InvalidRequest(f"{name} is {json.dumps(given, default=repr)}: give a number, {allowed}")
        if not low <= value <= high or (above and value == low):
            raise InvalidRequest(f"{name} is {_shown(value)}: choose {allowed}")
        return given if isinstance(given, int | float) else value

    return check


_NUMBERS = {
    "clip_skip": _integer(1, 100, optional=False),
    "width": _integer(8, MAX_SIDE, multiple=8),
    "height": _integer(8, MAX_SIDE, multiple=8),
    "steps": _integer(1, MAX_STEPS),
    "count": _integer(1, MAX_COUNT, optional=False),
    "seed": _integer(-1, MAX_SEED),
    "ensd": _integer(-MAX_ENSD, MAX_ENSD, optional=False),
    "variation_seed": _integer(-1, MAX_SEED),
    "variation_strength": _number(0.0, 1.0, optional=False),
    "seed_resize_width": _integer(8, MAX_SIDE),
    "seed_resize_height": _integer(8, MAX_SIDE),
    "original_width": _integer(1, 4 * MAX_SIDE),
    "original_height": _integer(1, 4 * MAX_SIDE),
    "crop_left": _integer(0, 4 * MAX_SIDE, optional=False),
    "crop_top": _integer(0, 4 * MAX_SIDE, optional=False),
    "aesthetic": _number(0.0, 10.0, optional=False),
    "negative_aesthetic": _number(0.0, 10.0, optional=False),
    "guidance": _number(0.0, 1000.0),
    "guidance_rescale": _number(0.0, 1.0, optional=False),
    "refiner_switch": _number(0.0, 1.0, above=True),
    "second_strength": _number(0.0, 1.0, above=True),
}
