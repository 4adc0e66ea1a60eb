"""Options of samplers, schedules and ways of guiding: which there are, and what a user wrote of them.

A text such as "euler:s_churn=10,s_noise=1.01" is a name and its options. What an option takes is said where it is
declared, by the type of a function's keyword: `Annotated[float, Within(0, 1)]`, `Literal["bh1", "bh2"]`.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from darkroom.errors import InvalidRequest, nearest
from darkroom.numeric import integer, real

_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Within:
    """The numbers from `low` to `high`, both included unless they are to be `above` the lower one."""

    low: float = -_LARGEST
    high: float = _LARGEST
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.high < _LARGEST:
            return f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}"
        if self.low > -_LARGEST:
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        return "any number"


Amount = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]
Unbounded = Annotated[float, Within(0, math.inf)]
"""To which infinity means something."""


@dataclass(frozen=True)
class Option:
    """What an option is where nobody says, and what it takes: `words`, or numbers `within` a range."""

    default: float | bool | str | None
    within: Within = Within()
    words: tuple[str, ...] = ()

    def read(self, of: str, text: str) -> float | bool | str:
        """The value that a user wrote. `of`: the option's name, for errors. Raises InvalidRequest."""
        if isinstance(self.default, bool):
            if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
                raise InvalidRequest(f"{of} is {text!r}: say yes or no")
            return text.lower() in ("yes", "true", "1")
        if isinstance(self.default, str):
            return self.checked(of, text)
        whole = isinstance(self.default, int)
        try:
            value: float = int(text) if whole else float(text)
        except ValueError:
            raise InvalidRequest(
                f"{of} is {text!r}: give a {'whole ' * whole}number, {self.within}"
            ) from None
        return self.checked(of, value)

    def checked(self, of: str, given: object) -> float | bool | str:
        """A value as Python's own. Raises InvalidRequest for one that the option cannot take."""
        default = self.default
        if isinstance(default, bool | str):
            if type(given) is not type(default):
                raise InvalidRequest(f"{of} is {given!r}: give something like {default!r}")
            if self.words and given not in self.words:
                raise InvalidRequest(f"{of} is {given!r}: {nearest(str(given), self.words)}")
            return given
        whole = isinstance(default, int)
        value = integer(given) if whole else real(given)
        if value is None or math.isnan(value):
            raise InvalidRequest(f"{of} is {given!r}: give a {'whole ' * whole}number, {self.within}")
        if value not in self.within:
            raise InvalidRequest(f"{of} is {given!r}: choose {self.within}")
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: its default (null: the model's) and what it takes; a limit that there is not is left
        out, and infinity written as users do."""
        found: dict[str, Any] = {"default": self.default}
        if isinstance(self.default, float) and math.isinf(self.default):
            found["default"] = self.written()
        if self.words:
            found["words"] = list(self.words)
        elif not isinstance(self.default, bool | str):
            limits = {"least": self.within.low, "most": self.within.high}
            found |= {name: limit for name, limit in limits.items() if abs(limit) < _LARGEST}
        return found

    def written(self, value: object = None) -> str:
        """A value, or the default, as a user writes it; ... where that is the model's."""
        value = self.default if value is None else value
        if value is None:
            return "..."
        if isinstance(value, bool):
            return "yes" if value else "no"
        return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


@cache
def options_of(function: Callable[..., Any]) -> Mapping[str, Option]:
    """The keywords of a function as options."""
    plain = function.func if isinstance(function, partial) else function
    hints = get_type_hints(plain, include_extras=True)
    found = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY:
            hint = hints[each.name]
            ranges = [said for said in get_args(hint)[1:] if isinstance(said, Within)]
            within = ranges[0] if get_origin(hint) is Annotated and ranges else Within()
            words = get_args(hint) if get_origin(hint) is Literal else ()
            found[each.name] = Option(each.default, within, words)
    return found


def parse_options(owner: str, options: Mapping[str, Option], text: str) -> dict[str, Any]:
    """What "s_churn=10,s_noise=1.01" says, as it is to be handed on. `owner` has the options, for errors: "sampler
    euler". Raises InvalidRequest for an option that there is not or is given twice, or a value that it cannot take."""
    found: dict[str, Any] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = (each.strip() for each in pair.partition("="))
        if not equals and name in options:
            raise InvalidRequest(
                f"{owner}: {name} has no value: write it as in {name}={options[name].written()}"
            )
        if name in found:
            raise InvalidRequest(f"{owner}: {name} is given twice: leave one out")
        found[name] = _option(owner, options, name).read(f"{owner}: {name}", value)
    return found


def checked_options(owner: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are given as Python's values. Raises InvalidRequest as `parse_options` does."""
    return {
        name: _option(owner, options, name).checked(f"{owner}: {name}", value)
        for name, value in given.items()
    }


def with_options(name: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> str:
    """A name and those of its options that are not as they are anyhow, as `parse_options` reads them."""
    pairs = [
        f"{key}={option.written(given[key])}"
        for key, option in options.items()
        if key in given and given[key] != option.default
    ]
    return f"{name}:{','.join(pairs)}" if pairs else name


def _option(owner: str, options: Mapping[str, Option], name: str) -> Option:
    if name not in options:
        hint = nearest(name, options) if options else "it has none"
        raise InvalidRequest(f"{owner} has no option {name!r}: {hint}")
    return options[name]
