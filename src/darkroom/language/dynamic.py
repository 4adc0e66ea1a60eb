"""Prompts that are drawn by lot: {a red|a blue} boat, {2$$rain|fog|snow}, __colours__.

The language of the Dynamic Prompts extension: options with bars between, of which one is drawn; `2$$` or `1-3$$` before
them draws several, joined by commas or by what stands before a second `$$`; `0.5::` before an option makes it rarer;
`__name__` is a line of a file. Options and lines may hold all of this again. A backslash takes a sign's meaning away.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from darkroom.errors import InvalidRequest

Lines = Callable[[str], Sequence[str]]
"""Gives the lines that a name between __ stands for. Raises InvalidRequest where there are none."""

_TOKEN = re.compile(r"\\[{}|$_\\]|[{}|]|__[\w*?./ -]+?__|[^\\{}|_]+|\\|_", re.S)
_COUNT = re.compile(r"\s*(\d+)?(-)?(\d+)?\s*\$\$")
_WEIGHT = re.compile(r"\s*(\d+\.?\d*|\.\d+)::")
_MOST_DRAWN, _LONGEST = 10_000, 20_000
_DEEPEST = 1_000  # Choices within one text of all there are.
_FARTHEST = 1_000_000
"""How many combinations are counted at most."""


@dataclass(frozen=True)
class Wildcard:
    """A line of a file."""

    name: str


@dataclass(frozen=True)
class Choice:
    """Some of several options, low to high of them, each with a weight."""

    options: tuple[Parts, ...]
    weights: tuple[float, ...]
    low: int = 1
    high: int = 1
    between: str = ", "


Part: TypeAlias = "str | Wildcard | Choice"
Parts: TypeAlias = "tuple[Part, ...]"


@dataclass
class _Frame:
    start: int = 0
    options: list[list[Part]] = field(default_factory=lambda: [[]])


def template(text: str) -> Parts:
    """A prompt's text, and what is drawn in it. Raises InvalidRequest with the position of what cannot be read."""
    frames = [_Frame()]
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign == "{":
            frames.append(_Frame(token.start()))
        elif sign == "}" and len(frames) > 1:
            frame = frames.pop()
            frames[-1].options[-1].append(_choice(frame))
        elif sign == "|" and len(frames) > 1:
            frames[-1].options.append([])
        elif len(sign) > 4 and sign.startswith("__"):
            frames[-1].options[-1].append(Wildcard(sign[2:-2].strip()))
        else:
            # A backslash before a bracket of emphasis is for whoever reads that.
            plain = sign[1:] if len(sign) == 2 and sign[0] == "\\" and sign[1] in "{}|$_" else sign
            frames[-1].options[-1].append(plain)
    if len(frames) > 1:
        raise InvalidRequest(
            f"the {{ at position {frames[-1].start} of the prompt is never closed: add a }}, or write \\{{"
        )
    return tuple(frames[0].options[0])


def _choice(frame: _Frame) -> Choice:
    """What stood between braces."""
    low, high, between = 1, 1, ", "
    options = frame.options
    first = options[0]
    if first and isinstance(first[0], str) and (found := _COUNT.match(first[0])):
        rest = first[0][found.end() :]
        ranged = found[2] is not None
        low = int(found[1] or (0 if ranged else 1))
        high = int(found[3] or len(options)) if ranged else low
        if "$$" in rest:
            between, _, rest = rest.partition("$$")
        first[0] = rest
        if low > high:
            raise InvalidRequest(
                f"{low}-{high}$$ at position {frame.start + 1} of the prompt draws no number of options: begin with "
                "the smaller"
            )
    weights = []
    for option in options:
        weight = 1.0
        if option and isinstance(option[0], str) and (marked := _WEIGHT.match(option[0])):
            weight = float(marked[1])
            option[0] = option[0][marked.end() :]
        weights.append(weight)
    if not any(weights):
        raise InvalidRequest(
            f"no option of the {{ at position {frame.start} of the prompt can be drawn: all weigh 0"
        )
    return Choice(tuple(map(tuple, options)), tuple(weights), low, high, between)


def drawn(text: str, draw: random.Random, lines: Lines) -> str:
    """One text of a template. Raises InvalidRequest for what cannot be read, files that are missing, and wildcards that
    lead to themselves without end."""

    def choose(choice: Choice) -> Sequence[Parts]:
        count = draw.randint(choice.low, choice.high)
        left = list(range(len(choice.options)))
        chosen: list[Parts] = []
        while left and len(chosen) < count:
            weights = [choice.weights[number] for number in left]
            if not any(weights):
                break
            number = draw.choices(left, weights)[0]
            left.remove(number)
            chosen.append(choice.options[number])
        return chosen

    return _expanded(template(text), choose, lambda name: draw.choice(lines(name)))


def _expanded(parts: Parts, choose: Callable[[Choice], Sequence[Parts]], line: Callable[[str], str]) -> str:
    made: list[str] = []
    length = count = 0
    waiting: list[Part] = list(reversed(parts))
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            made.append(part)
            length += len(part)
        else:
            count += 1
            inner: list[Part] = []
            if isinstance(part, Wildcard):
                inner += template(line(part.name))
            else:
                inner += _joined(choose(part), part.between)
            waiting += reversed(inner)
        if count > _MOST_DRAWN or length > _LONGEST:
            raise InvalidRequest(
                f"the prompt is drawn from more than {_MOST_DRAWN:,} choices or grows beyond {_LONGEST:,} characters: "
                "does a wildcard lead to itself?"
            )
    return "".join(made)


def _joined(options: Sequence[Parts], between: str) -> Parts:
    return tuple(
        part for number, option in enumerate(options) for part in ((between, *option) if number else option)
    )


def combinations(text: str, lines: Lines) -> Iterator[str]:
    """Every text of a template, in order. Raises InvalidRequest as `drawn` does."""
    waiting: list[tuple[str, tuple[Part, ...], int]] = [("", template(text), 0)]
    while waiting:
        begun, parts, depth = waiting.pop()
        if len(begun) > _LONGEST or len(parts) > _MOST_DRAWN or depth > _DEEPEST:
            raise InvalidRequest("the prompt grows without end: does a wildcard lead to itself?")
        if not parts:
            yield begun
            continue
        first, *rest = parts
        if isinstance(first, str):
            waiting.append((begun + first, tuple(rest), depth))
        else:
            options = _options(first, lines)
            waiting += [(begun, (*option, *rest), depth + 1) for option in reversed(options)]


def _options(part: Wildcard | Choice, lines: Lines) -> list[Parts]:
    if isinstance(part, Wildcard):
        return [template(line) for line in lines(part.name)]
    found: list[Parts] = []
    able = [option for option, weight in zip(part.options, part.weights, strict=True) if weight]
    for count in range(part.low, min(part.high, len(able)) + 1):
        found += [_joined(chosen, part.between) for chosen in itertools.combinations(able, count)]
        if len(found) > _FARTHEST:
            raise InvalidRequest(f"the prompt has more than {_FARTHEST:,} combinations: draw by lot instead")
    return found or [()]


def count_combinations(text: str, lines: Lines, most: int = _FARTHEST) -> int:
    """How many texts a template has, counted up to `most`."""
    return sum(1 for _ in itertools.islice(combinations(text, lines), most))
