"""What a user asks for, checked.

A `Request` is plain data: it travels through JSON, the command line's options are generated from its
fields, and together with the model's weights it determines every pixel.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.diffusion import AUTOMATIC, parse_sampler, schedule_info
from darkroom.errors import InvalidRequest, nearest

MAX_PROMPT = 20_000
MAX_STEPS = 1_000
MAX_SIDE = 8_192
MAX_COUNT = 10_000
MAX_SEED = 2**63 - 1
SECOND_PASS = ("auto", "on", "off")


def _option(default: Any, text: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": text, **extra})


@dataclass(frozen=True)
class Request:
    """One or more pictures of a prompt. None means: as the model prefers."""

    prompt: str
    negative: str = _option("", "what the picture should not show")
    width: int | None = _option(None, "width in pixels, a multiple of 8 (default: the model's native size)")
    height: int | None = _option(None, "height in pixels, a multiple of 8 (default: the model's native size)")
    steps: int | None = _option(None, f"sampling steps, 1 to {MAX_STEPS:,} (default: the model's)")
    guidance: float | None = _option(
        None, "classifier-free guidance scale, 1 turns it off (default: the model's)"
    )
    guidance_rescale: float = _option(0.0, "pull guided contrast back, 0 to 1 (Lin et al. 2023)")
    sampler: str | None = _option(None, "sampler, see 'darkroom samplers' (default: the model's)")
    schedule: str | None = _option(None, "noise schedule, see 'darkroom samplers' (default: the sampler's)")
    seed: int | None = _option(None, "seed of the first picture; the next ones count up (default: random)")
    count: int = _option(1, "how many pictures")
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
    second_pass: str = _option(
        "auto", "draw large pictures at the native size first, then refine them enlarged", choices=SECOND_PASS
    )
    second_strength: float | None = _option(
        None, "how much of the second pass is drawn anew, above 0 and up to 1 (default: the model's)"
    )

    def checked(self) -> Request:
        """This request with names in canonical form, or InvalidRequest naming the value and the remedy."""
        _check_text("prompt", self.prompt)
        _check_text("negative", self.negative)
        _check_integer("width", self.width, 8, MAX_SIDE, multiple=8)
        _check_integer("height", self.height, 8, MAX_SIDE, multiple=8)
        _check_integer("steps", self.steps, 1, MAX_STEPS)
        _check_integer("count", self.count, 1, MAX_COUNT, optional=False)
        _check_integer("seed", self.seed, -1, MAX_SEED)
        for name in ("original_width", "original_height"):
            _check_integer(name, getattr(self, name), 1, 4 * MAX_SIDE)
        for name in ("crop_left", "crop_top"):
            _check_integer(name, getattr(self, name), 0, 4 * MAX_SIDE, optional=False)
        for name in ("aesthetic", "negative_aesthetic"):
            _check_number(name, getattr(self, name), 0.0, 10.0, optional=False)
        _check_number("guidance", self.guidance, 0.0, 1000.0)
        _check_number("guidance_rescale", self.guidance_rescale, 0.0, 1.0, optional=False)
        _check_number("refiner_switch", self.refiner_switch, 0.0, 1.0, above=True)
        _check_number("second_strength", self.second_strength, 0.0, 1.0, above=True)
        if self.second_pass not in SECOND_PASS:
            raise InvalidRequest(
                f"second_pass is {self.second_pass!r}: choose one of {', '.join(SECOND_PASS)}"
            )
        sampler, schedule = self.sampler, self.schedule
        if sampler is not None:
            if not isinstance(sampler, str):
                raise InvalidRequest(f"sampler is {sampler!r}: give a name, see 'darkroom samplers'")
            sampler, implied = parse_sampler(sampler)
            schedule = schedule if schedule is not None else implied
        if schedule is not None:
            schedule = None if str(schedule).lower() == AUTOMATIC else schedule_info(str(schedule)).name
        if self.seed is not None and self.seed + self.count - 1 > MAX_SEED:
            raise InvalidRequest(
                f"seed {self.seed} plus {self.count} pictures passes {MAX_SEED}: choose a lower seed"
            )
        return dataclasses.replace(self, sampler=sampler, schedule=schedule)

    def settled(self, **preferences: Any) -> Request:
        """Checked, with every None replaced by the model's preference and a missing seed drawn."""
        checked = self.checked()
        settled = {name: value for name, value in preferences.items() if getattr(checked, name) is None}
        if checked.seed is None or checked.seed == -1:
            settled["seed"] = secrets.randbelow(2**32 - checked.count)
        return dataclasses.replace(checked, **settled)

    def single(self, index: int) -> Request:
        """The request that makes picture `index` of this one alone."""
        assert self.seed is not None, "settle the request first"
        return dataclasses.replace(self, seed=self.seed + index, count=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`; unknown names are an error that suggests the nearest."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise InvalidRequest(f"unknown setting {name!r}: {nearest(str(name), known)}")
        if "prompt" not in values:
            raise InvalidRequest("no 'prompt' in the request: add one (it may be empty)")
        return cls(**values)


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


def _is_surrogate(character: str) -> bool:
    return 0xD800 <= ord(character) <= 0xDFFF


def _check_integer(
    name: str, value: object, low: int, high: int, multiple: int = 1, optional: bool = True
) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{name} is {value!r}: give a whole number from {low:,} to {high:,}")
    if not low <= value <= high:
        raise InvalidRequest(f"{name} is {value}: choose {low:,} to {high:,}")
    if value % multiple:
        lower = value - value % multiple
        offers = [str(n) for n in (lower, lower + multiple) if low <= n <= high]
        raise InvalidRequest(f"{name} is {value}, not a multiple of {multiple}: try {' or '.join(offers)}")


def _check_number(
    name: str, value: object, low: float, high: float, optional: bool = True, above: bool = False
) -> None:
    if value is None and optional:
        return
    allowed = f"{'above ' if above else ''}{low:g} to {high:g}"
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InvalidRequest(f"{name} is {json.dumps(value, default=repr)}: give a number, {allowed}")
    if not low <= value <= high or (above and value == low):
        raise InvalidRequest(f"{name} is {value:g}: choose {allowed}")
