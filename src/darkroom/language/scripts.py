"""Prompts that change on the way: A1111's [from:to:when] and [one|other]."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.S)
_WHEN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\Z")
_PARTNER = {"]": "[", ")": "("}


@dataclass(frozen=True)
class Moment:
    """A step of a picture, counted from 0, of `steps`; `before` is the steps of the pass before it (0: there was none).

    A whole number in a prompt counts steps from the picture's beginning, one with a point shares of a pass: the second
    pass goes from 1.0 to 2.0.
    """

    step: int
    steps: int
    before: int = 0


@dataclass(frozen=True)
class Edit:
    """[before:after:when]: one text, and another after step `when`."""

    before: Parts
    after: Parts
    when: str

    def chosen(self, moment: Moment) -> Parts:
        return self.before if _counted(moment) <= self.last(moment) else self.after

    def last(self, moment: Moment) -> int:
        """The last step of `before`, in steps of the moment's pass."""
        value = float(self.when)
        if "." in self.when:
            value = (value - bool(moment.before)) * moment.steps
        else:
            value -= moment.before
        return int(min(max(value, -1.0), moment.steps))


@dataclass(frozen=True)
class Alternate:
    """[one|other|...]: each for a step, in turn."""

    options: tuple[Parts, ...]

    def chosen(self, moment: Moment) -> Parts:
        return self.options[(_counted(moment) - 1) % len(self.options)]


Part: TypeAlias = "str | Edit | Alternate | Parts"
Parts: TypeAlias = "tuple[Part, ...]"
"""Text, and what becomes text at a step; what stood in brackets is nested."""


def _counted(moment: Moment) -> int:
    # As A1111 counts: its first two steps are both number one.
    return max(moment.step, 1)


@dataclass(frozen=True)
class Script:
    """A prompt, step by step; `changes` where some steps may differ."""

    parts: Parts
    changes: bool = False

    def at(self, moment: Moment) -> str:
        """The prompt's text at a step."""
        text: list[str] = []
        waiting = list(reversed(self.parts))
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                text.append(part)
            else:
                waiting += reversed(part if isinstance(part, tuple) else part.chosen(moment))
        return "".join(text)


@dataclass
class _Frame:
    """An open bracket, and what came since: segments, and the sign before each but the first."""

    opening: str = ""
    segments: list[list[Part]] = field(default_factory=lambda: [[]])
    signs: list[str] = field(default_factory=list)

    def add(self, *parts: Part) -> None:
        self.segments[-1] += parts

    def between(self, start: int, end: int) -> Parts:
        """Segments as one text, with the signs between them."""
        parts = list(self.segments[start])
        for sign, segment in zip(self.signs[start : end - 1], self.segments[start + 1 : end], strict=True):
            parts += [sign, *segment]
        return tuple(parts)

    def literal(self) -> Parts:
        """All of it as the text that it was."""
        return (self.opening, *self.between(0, len(self.segments)))

    def closed(self) -> Part:
        """What it means now that its bracket is closed: an edit, an alternation, or text."""
        if self.opening == "(":
            return (*self.literal(), ")")
        colons = [place for place, sign in enumerate(self.signs) if sign == ":"]
        last = self.segments[-1]
        when = _WHEN.match(last[0]) if len(last) == 1 and isinstance(last[0], str) else None
        if when and 1 <= len(colons) <= 2 and colons[-1] == len(self.signs) - 1:
            cut = colons[0] + 1 if len(colons) == 2 else 0
            return Edit(
                self.between(0, cut) if cut else (), self.between(cut, len(self.segments) - 1), when[1]
            )
        if "|" in self.signs:
            bars = [place + 1 for place, sign in enumerate(self.signs) if sign == "|"]
            ends = [*bars, len(self.segments)]
            return Alternate(tuple(self.between(*each) for each in zip([0, *bars], ends, strict=True)))
        return (*self.literal(), "]")


def script(text: str) -> Script:
    r"""A text with its edits and alternations understood (`modules/prompt_parser.py`, schedule_parser).

    Everything else is text as it stands, brackets of emphasis and backslashes included: what `at` gives is to be read
    for them. Brackets without a partner are text.
    """
    frames, depth, changes = [_Frame()], {"[": 0, "(": 0}, False
    for token in _TOKEN.findall(text):
        if token in depth:
            frames.append(_Frame(token))
            depth[token] += 1
        elif token in _PARTNER and depth[_PARTNER[token]]:
            opening = _PARTNER[token]
            at = len(frames) - 1
            while frames[at].opening != opening:
                at -= 1
            for unclosed in frames[at + 1 :]:
                depth[unclosed.opening] -= 1
                frames[at].add(*unclosed.literal())
            del frames[at + 1 :]
            part = frames.pop().closed()
            depth[opening] -= 1
            changes = changes or not isinstance(part, tuple)
            frames[-1].add(part)
        elif token in (":", "|") and frames[-1].opening == "[":
            frames[-1].signs.append(token)
            frames[-1].segments.append([])
        else:
            frames[-1].add(token)
    return Script(tuple(part for frame in frames for part in frame.literal()), changes)
