"""The dialects, and a prompt's parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from darkroom.errors import InvalidRequest, nearest
from darkroom.language import compel, tags
from darkroom.language.mixture import Mixture, alone
from darkroom.language.scripts import Script, script
from darkroom.language.spans import a1111, comfy, plain
from darkroom.language.tags import Tag


@dataclass(frozen=True)
class Dialect:
    """How a prompt is read.

    `mixture` finds texts and their weights; `tagged` the adapters that the prompt names; `edits` tells whether there
    are parts and steps in it. `from_empty`: weights scale what a word adds to the empty prompt, not the word itself;
    `lowers`: those below 1 draw the prompt towards itself without the words. `split` is where a text that is longer
    than a chunk is cut: at a "token", of which the last 20 may go to the next for the sake of a "comma", at a "word",
    at a "sentence". `embedding` is what stands around the name of an embedding.
    """

    name: str
    description: str
    mixture: Callable[[str], Mixture]
    tagged: Callable[[str], tuple[str, tuple[Tag, ...]]] = lambda text: (text, ())
    edits: bool = False
    from_empty: bool = False
    lowers: bool = False
    split: Literal["token", "comma", "word", "sentence"] = "token"
    embedding: tuple[str, str] = ("<", ">")


DIALECTS: Mapping[str, Dialect] = {
    each.name: each
    for each in (
        Dialect(
            "a1111",
            "(word:1.3) [word] [from:to:when] [one|other] AND BREAK <lora:name:0.8>",
            lambda text: alone(a1111(text)),
            tags.tagged,
            edits=True,
            split="comma",
            embedding=("", ""),
        ),
        Dialect(
            "comfy",
            "(word:1.3), measured from the empty prompt, embedding:name",
            lambda text: alone(comfy(text)),
            from_empty=True,
            split="word",
            embedding=("embedding:", ""),
        ),
        Dialect(
            "compel",
            'word+ word-- (words)1.3 ("one", "other").blend(0.7, 0.3) .and() withLora(name, 0.8)',
            compel.mixture,
            compel.tagged,
            from_empty=True,
            lowers=True,
            split="sentence",
        ),
        Dialect("plain", "text as it stands", lambda text: alone(plain(text))),
    )
}


ORIGINAL, NO_NORM, IGNORE = "original", "no_norm", "ignore"

EMPHASES = {
    ORIGINAL: "weights multiply, then the chunk's mean is put back",
    NO_NORM: "weights multiply",
    IGNORE: "weights are read and left out",
}
"""What weights do: A1111's modes (`modules/sd_emphasis.py`). Where weights scale the distance from the empty prompt,
the first two are the same."""


def dialect_of(name: str) -> Dialect:
    """The dialect of that name. Raises InvalidRequest for another."""
    if name not in DIALECTS:
        raise InvalidRequest(f"unknown dialect {name!r}: {nearest(str(name), DIALECTS)}")
    return DIALECTS[name]


@dataclass(frozen=True)
class Part:
    """One of the prompts that a picture is guided by together, and how much it counts."""

    script: Script
    weight: float = 1.0


_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*\Z")


def read(text: str, dialect: str = "a1111") -> tuple[Part, ...]:
    """A prompt's parts: one, but where the dialect has `AND`.

    A part's weight stands behind a colon at its end. Alone, a part has none: it would be a number in the text ("at
    12:30"). Raises InvalidRequest for an unknown dialect.
    """
    if not dialect_of(dialect).edits:
        return (Part(read_whole(text, dialect)),)
    texts = _AND.split(text)
    if len(texts) == 1:
        return (Part(script(text)),)
    return tuple(Part(script(each), weight) for each, weight in map(_weighed, texts))


def read_whole(text: str, dialect: str = "a1111") -> Script:
    """A text that has one part whatever it says, as negative prompts have. Raises InvalidRequest as `read` does."""
    return script(text) if dialect_of(dialect).edits else Script((text,))


def _weighed(text: str) -> tuple[str, float]:
    before, colon, after = text.rpartition(":")
    found = _WEIGHT.match(after) if colon else None
    return (before.rstrip(), float(found[1])) if found else (text, 1.0)
