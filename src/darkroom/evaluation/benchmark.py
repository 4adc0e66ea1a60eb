"""The evaluation's prompts: GenEval's six tasks and three about the setting, with what each prompt asks for.

The tasks are those of Ghosh et al. 2023 (https://arxiv.org/abs/2310.11513) on the drawn world. Wherever a
task names a composition it is one that training never showed: two things, position and attribution combine
kinds and colours that are held out, counting and colours name kinds in their held-out colour, and the
settings are held-out triples of place, time and style. A single thing has nothing to hold out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from darkroom.errors import InvalidRequest, nearest
from darkroom.oracle.judging import Expectation, Wanted
from darkroom.world import words
from darkroom.world.scene import (
    COLOURS,
    CORE_PLACES,
    KINDS,
    OPPOSITE,
    PLACES,
    STYLES,
    TIMES,
    held_out_colour,
    held_out_pair,
    held_out_relation,
    held_out_setting,
)

GENEVAL_TASKS = ("single", "two", "counting", "colours", "position", "attribution")
SETTING_TASKS = ("place", "time", "style")
TASKS = GENEVAL_TASKS + SETTING_TASKS

_OPENINGS = ("a photo of {}", "a picture of {}", "{}")
# For each kind the colour that training never shows it in.
_UNSEEN = {kind: colour for kind, colour in product(KINDS, COLOURS) if held_out_colour(kind, colour)}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of one task and what a picture must show to pass."""

    task: str
    text: str
    expectation: Expectation


def prompts(task: str, count: int, seed: int = 0, core: bool = False) -> list[Prompt]:
    """`count` prompts of the task, the same for the same seed; distinct as far as the task has so many.

    With `core` they stay in the simple part of the world (flat style, plain places, a clear day), which has
    no settings to ask for: place, time and style raise InvalidRequest then, as do unknown tasks.
    """
    if task not in TASKS:
        raise InvalidRequest(f"unknown task {task!r}: {nearest(task, TASKS)}")
    if core and task in SETTING_TASKS:
        raise InvalidRequest(f"the core of the world has one setting, so no task {task!r}: leave core out")
    draw = random.Random(f"{task} {seed} {core}")
    pool = _COMPOSITIONS[task]()
    found: list[Prompt] = []
    texts: set[str] = set()
    while len(found) < count:
        draw.shuffle(pool)
        for text, expectation in pool[: count - len(found)]:
            for _ in range(8):  # another wording where this one was used before
                said = _said(task, text, core, draw)
                if said not in texts:
                    break
            texts.add(said)
            found.append(Prompt(task, said, expectation))
    return found


Composition = tuple[str, Expectation]


def _noun(kind: str, colour: str | None = None, count: int = 1) -> str:
    """ "a cat", "an orange cat", "three orange cats"."""
    singular, plural = words.KIND_WORDS[kind][0]
    phrase = " ".join([*([colour] if colour else []), singular if count == 1 else plural])
    return words.article(phrase) if count == 1 else f"{words.NUMBER_WORDS[count][0]} {phrase}"


def _single() -> list[Composition]:
    return [(_noun(kind), Expectation((Wanted(kind),))) for kind in KINDS]


def _two() -> list[Composition]:
    return [
        (f"{_noun(a)} and {_noun(b)}", Expectation((Wanted(a), Wanted(b))))
        for a, b in product(KINDS, KINDS)
        if held_out_pair(a, b)
    ]


def _counting() -> list[Composition]:
    return [
        (_noun(kind, colour, count), Expectation((Wanted(kind, None, count, exact=True),)))
        for (kind, colour), count in product(_UNSEEN.items(), (2, 3, 4))
    ]


def _colours() -> list[Composition]:
    return [(_noun(kind, colour), Expectation((Wanted(kind, colour),))) for kind, colour in _UNSEEN.items()]


def _position() -> list[Composition]:
    return [
        (
            f"{_noun(a)} {words.RELATION_PHRASES[relation][0]} {_noun(b)}",
            Expectation((Wanted(a), Wanted(b)), relation),
        )
        for a, relation, b in product(KINDS, OPPOSITE, KINDS)
        if a != b and held_out_relation(a, relation, b)
    ]


def _attribution() -> list[Composition]:
    return [
        (f"{_noun(*a)} and {_noun(*b)}", Expectation((Wanted(*a), Wanted(*b))))
        for a, b in product(_UNSEEN.items(), _UNSEEN.items())
        if a[0] != b[0]
    ]


def _settings(task: str) -> list[Composition]:
    """Landscapes and single things in held-out settings; only the task's own attribute is asked for."""
    found = []
    for place, time, style in product(PLACES, TIMES, STYLES):
        if not held_out_setting(place, time, style):
            continue
        wanted = Expectation(
            place=place if task == "place" else None,
            time=time if task == "time" else None,
            style=style if task == "style" else None,
        )
        opening, moment = words.STYLE_PREFIXES[style][0], words.TIME_PHRASES[time][0]
        where = words.PLACE_NOUNS[place][0]
        found.append((f"{opening} {words.fill(where)} {moment}", wanted))
        for kind in KINDS:
            found.append((f"{opening} {_noun(kind)} {words.PLACE_PHRASES[place][0]} {moment}", wanted))
    return found


_COMPOSITIONS: dict[str, Callable[[], list[Composition]]] = {
    "single": _single,
    "two": _two,
    "counting": _counting,
    "colours": _colours,
    "position": _position,
    "attribution": _attribution,
    "place": lambda: _settings("place"),
    "time": lambda: _settings("time"),
    "style": lambda: _settings("style"),
}


def _said(task: str, things: str, core: bool, draw: random.Random) -> str:
    """The composition as a user would type it, at a place (and time and style) that training has seen."""
    if task in SETTING_TASKS:
        return things
    if core:
        place = draw.choice(CORE_PLACES)
        where = words.PLACE_PHRASES[place][0]
        return draw.choice(_OPENINGS).format(things) + (f" {where}" if place != "plain" else "")
    place, time, style = draw.choice(PLACES), draw.choice(TIMES), draw.choice(STYLES)
    if place == "plain" or held_out_setting(place, time, style):
        return draw.choice(_OPENINGS).format(things)
    opening, moment = words.STYLE_PREFIXES[style][0], words.TIME_PHRASES[time][0]
    return f"{opening} {things} {words.PLACE_PHRASES[place][0]} {moment}"
