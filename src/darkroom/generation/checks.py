"""What a setting may be: a setting is a field whose check and help stand beside it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, TypeAlias, TypeVar, cast

from darkroom.diffusion import Within
from darkroom.errors import InvalidRequest
from darkroom.numeric import integer, real

MAX_PROMPT = 20_000

Check: TypeAlias = Callable[[str, object], Any]
"""Told a setting's name and what was given for it, gives it as it is to be; raises InvalidRequest with the remedy."""


def setting(
    default: Any,
    check: Check,
    help: str = "",
    *,
    name: str | None = None,
    each: str | None = None,
    choices: tuple[str, ...] = (),
    sign: str | None = None,
) -> Any:
    """A field of a request. Where its default is None it may be None: as the model prefers.

    `name`: what users call it, where that is not the field's own name; `each`: what one is called on a command line, of
    a setting that is a list; `choices`: the words that it may be; `sign`: what stands for its value in help texts.
    """
    return field(
        default=default,
        metadata={
            "check": check,
            "help": help,
            "name": name,
            "each": each,
            "choices": choices,
            "sign": sign,
        },
    )


def one_of(default: str | None, choices: tuple[str, ...], help: str, *, name: str | None = None) -> Any:
    """A setting that is one of some words."""

    def check(name: str, given: object) -> str:
        if not isinstance(given, str) or given not in choices:
            raise InvalidRequest(f"{name} is {given!r}: choose one of {', '.join(choices)}")
        return given

    return setting(default, check, help, name=name, choices=choices)


def called(each: dataclasses.Field[Any]) -> str:
    """What users call the setting that a field is."""
    return each.metadata.get("name") or each.name


Function = TypeVar("Function", bound=Callable[..., Any])


def showing(settings: Mapping[str, dataclasses.Field[Any]]) -> Callable[[Function], Function]:
    """Has a function's signature show these settings in place of `**`, to `help` and notebooks as to type checkers."""

    def show(function: Function) -> Function:
        shown = inspect.signature(function)
        own = [each for each in shown.parameters.values() if each.kind is not each.VAR_KEYWORD]
        keywords = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
            )
            for name, each in settings.items()
            if name not in shown.parameters
        ]
        cast(Any, function).__signature__ = shown.replace(parameters=[*own, *keywords])
        return function

    return show


def checked(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that are settings, each checked."""
    found = {}
    for each in dataclasses.fields(settings):
        if check := each.metadata.get("check"):
            value = getattr(settings, each.name)
            empty = value is None and each.default is None
            found[each.name] = None if empty else check(called(each), value)
    return found


def a_text(name: str, given: object) -> str:
    """Checks a text without control characters."""
    if not isinstance(given, str):
        raise InvalidRequest(f"{name} is {given!r}: give text")
    if len(given) > MAX_PROMPT:
        raise InvalidRequest(f"{name} has {len(given):,} characters: keep it to {MAX_PROMPT:,}")
    for at, character in enumerate(given):
        code = ord(character)
        if (code < 32 and character not in "\n\r\t") or code == 127 or 0xD800 <= code <= 0xDFFF:
            raise InvalidRequest(
                f"{name} holds the control character U+{code:04X} at position {at}: remove it"
            )
    return given


def some_texts(name: str, given: object) -> tuple[str, ...]:
    """Checks several short texts: a list of them as JSON has it, or a tuple."""
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        raise InvalidRequest(f"{name} is {given!r}: give a list of texts")
    return tuple(a_text(name, each) for each in given)


def a_truth(name: str, given: object) -> bool:
    """Checks what is either so or not."""
    if given not in (True, False):
        raise InvalidRequest(f"{name} is {given!r}: give True or False")
    return bool(given)


def a_whole(low: int, high: int, multiple: int = 1) -> Check:
    """What checks a whole number and gives it as Python's."""

    def check(name: str, given: object) -> int:
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


def a_number(within: Within) -> Check:
    """What checks a real number and gives it as Python's."""

    def check(name: str, given: object) -> float:
        value = real(given)
        if value is None or not math.isfinite(value):
            raise InvalidRequest(f"{name} is {json.dumps(given, default=repr)}: give a number, {within}")
        if value not in within:
            raise InvalidRequest(f"{name} is {_shown(value)}: choose {within}")
        return given if isinstance(given, int | float) else value

    return check


def _shown(value: float) -> str:
    """A number as it was given; a huge one, which Python does not write out, by its size."""
    return str(value) if abs(value) < 1e30 else f"{'-' * (value < 0)}1e{math.log10(abs(value)):.0f}"
