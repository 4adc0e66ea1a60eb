"""What the oracle saw in a picture, as a prompt for another like it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from darkroom.oracle.judging import Reading, Thing, related
from darkroom.world import words
from darkroom.world.scene import RELATIONS

_USUAL = {"place": "plain", "time": "day", "weather": "clear", "style": "flat illustration"}


@dataclass(frozen=True, slots=True)
class Said:
    """A part of a prompt, what it is about, and how sure the oracle is of it, 0 to 1."""

    text: str
    about: str
    confidence: float


def told(reading: Reading) -> tuple[str, tuple[Said, ...]]:
    """A prompt in the words of captions (`darkroom.world.captions`), each in its first form, and what it is made of.
    What goes without saying is not said."""
    groups = _groups(reading.things)
    parts = [Said(_named(each), "things", min(t.confidence for t in each)) for each in groups]
    text = " and ".join(part.text for part in parts)
    if len(groups) == 2 and (relation := _relation(reading, groups)):
        text = f" {words.RELATION_PHRASES[relation][0]} ".join(part.text for part in parts)
    elif len(parts) > 2:
        text = ", ".join([*(part.text for part in parts[:-1]), f"and {parts[-1].text}"])
    setting = list(_setting(reading, bool(groups)))
    style = [each for each in setting if each.about == "style"]
    where = [each.text for each in setting if each.about != "style"]
    whole = " ".join(filter(None, [text, *where])) or words.PLACE_PHRASES[_USUAL["place"]][0]
    prompt = ", ".join([whole, *(each.text for each in style)])
    return prompt, (*parts, *setting)


def _groups(things: Sequence[Thing]) -> list[list[Thing]]:
    """Things of one kind and colour together; those at the left first."""
    found: dict[tuple[str, str], list[Thing]] = {}
    for thing in sorted(things, key=lambda thing: thing.centre[0]):
        found.setdefault((thing.kind, thing.colour), []).append(thing)
    return list(found.values())


def _named(group: Sequence[Thing]) -> str:
    singular, plural = words.KIND_WORDS[group[0].kind][0]
    if (count := len(group)) == 1:
        return words.article(f"{group[0].colour} {singular}")
    number = words.NUMBER_WORDS[count][0] if count in words.NUMBER_WORDS else str(count)
    return f"{number} {group[0].colour} {plural}"


def _relation(reading: Reading, groups: Sequence[Sequence[Thing]]) -> str | None:
    """How all things of the first group stand to all of the second, if that is plain to see: "on" before the others,
    then whichever way they lie farther apart."""
    first, second = groups
    fitting = [
        name
        for name in RELATIONS
        if all(related(a, name, b, reading.aspect) for a in first for b in second)
        and (name != "on" or len(first) == len(second) == 1)
    ]
    if "on" in fitting or len(fitting) < 2:
        return "on" if "on" in fitting else next(iter(fitting), None)
    across = reading.aspect * math.fabs(first[0].centre[0] - second[0].centre[0])
    down = math.fabs(first[0].centre[1] - second[0].centre[1])
    wanted = ("left of", "right of") if across >= down else ("above", "below")
    return next((name for name in fitting if name in wanted), fitting[0])


def _setting(reading: Reading, things: bool) -> Iterator[Said]:
    place, time, weather = reading.place, reading.time, reading.weather
    if not things and place.name in words.PLACE_NOUNS:
        yield Said(words.fill(words.PLACE_NOUNS[place.name][0]), "place", place.confidence)
    elif place.name != _USUAL["place"]:
        yield Said(words.fill(words.PLACE_PHRASES[place.name][0]), "place", place.confidence)
    if place.name != _USUAL["place"]:
        if time.name != _USUAL["time"]:
            yield Said(words.TIME_PHRASES[time.name][0], "time", time.confidence)
        if weather.name != _USUAL["weather"]:
            forms = words.WINDOW_PHRASES if place.name == "room" else words.WEATHER_PHRASES
            # Of what colour clouds are it knows nothing.
            form = next((each for each in forms[weather.name] if "{" not in each), "with clouds")
            yield Said(form, "weather", weather.confidence)
    if reading.style.name != _USUAL["style"]:
        yield Said(words.STYLE_TAGS[reading.style.name][0], "style", reading.style.confidence)
