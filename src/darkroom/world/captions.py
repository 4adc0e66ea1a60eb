"""Captions in varied English: seeded, endless, and never false about the picture.

A caption may leave things out. What it leaves out mostly takes its usual value (flat illustration, plain
place, day, clear), so that a model learns to draw a short prompt as a clean, simple picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darkroom.world import words
from darkroom.world.layout import FLOATING, HORIZON, layout
from darkroom.world.sampling import as_random
from darkroom.world.scene import OPPOSITE, Group, Scene

if TYPE_CHECKING:
    import numpy as np

# How often a caption names each usual value, and how often an unusual one.
_USUAL = {"style": 0.18, "place": 0.12, "time": 0.16, "weather": 0.08}
_UNUSUAL = {"style": 0.87, "place": 0.86, "time": 0.88, "weather": 0.88}


def caption(scene: Scene, rng: random.Random | np.random.Generator) -> str:
    """One caption of the scene, from bare tags to full sentences."""
    draw = as_random(rng)
    teller = _Teller(scene, draw)
    if not scene.groups:
        text = teller.landscape()
    else:
        form = draw.choices((teller.tags, teller.phrase, teller.sentence), (0.2, 0.55, 0.25))[0]
        text = form()
    return " ".join(text.split())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class _Details:
    """What this caption mentions beside the things."""

    style: bool
    place: bool
    time: bool
    weather: bool


class _Teller:
    """Says one scene; every choice of words comes from `draw`."""

    def __init__(self, scene: Scene, draw: random.Random) -> None:
        self.scene, self.draw = scene, draw

        def mention(name: str, usual: bool) -> bool:
            return draw.random() < (_USUAL if usual else _UNUSUAL)[name]

        plain = scene.place == "plain"
        self.says = _Details(
            style=mention("style", scene.style == "flat illustration"),
            place=mention("place", plain) or not scene.groups,
            time=mention("time", scene.time == "day") and not plain,
            weather=mention("weather", scene.weather == "clear") and not plain,
        )
        # Colours may be left out altogether, except where they alone tell two groups apart.
        same_kind = len({group.kind for group in scene.groups}) < len(scene.groups)
        self.colours = same_kind or draw.random() < 0.86

    # Choices

    def pick(self, forms: Sequence[str], first: float = 0.6) -> str:
        """One of the forms, the first with the given probability."""
        if len(forms) == 1 or self.draw.random() < first:
            return forms[0]
        return self.draw.choice(forms[1:])

    def maybe(self, probability: float) -> bool:
        return self.draw.random() < probability

    # Parts

    def thing(self, group: Group, definite: bool = False) -> str:
        """ "a red boat", "three red boats", "the red boat"."""
        singular, plural = (
            words.KIND_WORDS[group.kind][0]
            if self.maybe(0.78)
            else self.draw.choice(words.KIND_WORDS[group.kind])
        )
        noun = singular if group.count == 1 else plural
        if self.colours:
            noun = f"{self.pick(words.COLOUR_WORDS[group.colour], 0.8)} {noun}"
        if self.maybe(0.06):
            noun = f"{self.draw.choice(words.THING_MOODS)} {noun}"
        if definite:
            return f"the {noun}"
        if group.count == 1:
            return f"one {noun}" if self.maybe(0.06) else words.article(noun)
        return f"{self.pick(words.NUMBER_WORDS[group.count], 0.7)} {noun}"

    def mood(self) -> str:
        """An adjective for the place, or none; "blue" and "starry" where they are true."""
        scene, options = self.scene, list(words.MOODS[self.scene.place])
        if scene.time == "night" and scene.place == "sky":
            options += ["night"] * 4 + (["starry", "starry night"] if scene.weather == "clear" else [])
        if scene.place == "sea" and scene.time in ("day", "night") and scene.weather in ("clear", "cloudy"):
            options += ["blue"] * 2
        return self.draw.choice(options) if self.maybe(0.45) else ""

    def _fill(self, form: str) -> str:
        return words.fill(form, self.mood() if "{" in form else "")

    def place(self) -> str:
        scene = self.scene
        if scene.place == "sea" and scene.groups and self.maybe(0.5) and _all_in_the_air(scene):
            return self._fill(
                self.pick(("above the sea", "above {a} sea", "over {a} sea", "over the sea"), 0.2)
            )
        forms = words.PLACE_PHRASES[scene.place]
        if scene.place == "sky" and scene.time == "night" and self.maybe(0.6):
            forms = ("in the night sky", "in a night sky", "against the night sky")
        return self._fill(self.pick(forms, 0.4))

    def time(self) -> str:
        return self.pick(words.TIME_PHRASES[self.scene.time], 0.6)

    def weather(self) -> str:
        forms = words.WINDOW_PHRASES if self.scene.place == "room" else words.WEATHER_PHRASES
        return self._of_weather(forms)

    def _of_weather(self, forms: dict[str, tuple[str, ...]]) -> str:
        """One form for the scene's weather. Neon clouds are dark outlines, so their colour goes unsaid."""
        options = forms[self.scene.weather]
        if self.scene.style == "neon":
            options = tuple(form for form in options if "{clouds}" not in form)
        return self.pick(options, 0.5).format(clouds=self.pick(words.CLOUD_WORDS[self.scene.clouds], 0.8))

    def setting(self) -> list[str]:
        """Place, time and weather as phrases, those that are mentioned, in an order people use."""
        parts = [
            part
            for said, part in (
                (self.says.place, self.place),
                (self.says.time, self.time),
                (self.says.weather, self.weather),
            )
            if said
        ]
        if len(parts) == 3 and self.maybe(0.3):
            parts[1], parts[2] = parts[2], parts[1]
        return [part() for part in parts]

    def things(self) -> str:
        """All things with their relation, as one noun phrase."""
        groups, relation = self.scene.groups, self.scene.relation
        if len(groups) == 1:
            return self.thing(groups[0])
        first, second = groups
        if relation is None:
            if self.maybe(0.5):
                first, second = second, first
            return f"{self.thing(first)} and {self.thing(second)}"
        if relation in OPPOSITE and self.maybe(0.25):
            first, relation, second = second, OPPOSITE[relation], first
        if self.maybe(0.16):
            its, it = ("its", "it") if second.count == 1 else ("their", "them")
            inverse = self.pick(words.INVERSE_PHRASES[relation], 0.6).format(its=its, it=it)
            return f"{self.thing(second)} with {self.thing(first)} {inverse}"
        return f"{self.thing(first)} {self.pick(words.RELATION_PHRASES[relation], 0.55)} {self.thing(second)}"

    # Forms

    def tags(self) -> str:
        """ "red boat, sea, sunset, watercolour"."""
        scene = self.scene
        things = [self.things()]
        if scene.relation is None:
            things = [self.thing(group) for group in scene.groups]
            if self.maybe(0.6) and all(group.count == 1 for group in scene.groups):
                things = [_without_article(thing) for thing in things]
        tags = []
        if self.says.place:
            tags.append(self.pick(words.PLACE_TAGS[scene.place], 0.6))
        if self.says.time:
            tags.append(self.pick(words.TIME_TAGS[scene.time], 0.6))
        if self.says.weather:
            tags.append(self._of_weather(words.WEATHER_TAGS))
        if self.maybe(0.3):
            self.draw.shuffle(tags)
        style = [self.pick(words.STYLE_TAGS[scene.style], 0.6)] if self.says.style else []
        return ", ".join(style + things + tags if self.maybe(0.25) else things + tags + style)

    def phrase(self) -> str:
        """ "a watercolour of a red boat at sea at sunset"."""
        body = " ".join([self.things(), *self.setting()])
        if not self.says.style:
            return f"{self.draw.choice(words.PREFIXES)} {body}" if self.maybe(0.3) else body
        style = self.scene.style
        how = self.draw.choices(("prefix", "phrase", "tag", "leading"), (0.45, 0.15, 0.32, 0.08))[0]
        if how == "prefix":
            return f"{self.pick(words.STYLE_PREFIXES[style], 0.5)} {body}"
        if how == "phrase":
            return f"{body}, {self.pick(words.STYLE_PHRASES[style], 0.5)}"
        tag = self.pick(words.STYLE_TAGS[style], 0.6)
        return f"{body}, {tag}" if how == "tag" else f"{tag}: {body}"

    def sentence(self) -> str:
        """ "In a quiet forest at night stands a small grey house." """
        groups, relation = self.scene.groups, self.scene.relation
        setting = self.setting()
        one = groups[0].count == 1
        if relation and self.maybe(0.6):
            first, second = groups
            if relation in OPPOSITE and self.maybe(0.25):
                first, relation, second = second, OPPOSITE[relation], first
            verb = "is" if first.count == 1 else "are"
            subject = self.thing(first, definite=first.count == 1 and self.maybe(0.4))
            phrase = self.pick(words.RELATION_PHRASES[relation], 0.55)
            body = f"{_capital(subject)} {verb} {phrase} {self.thing(second)}"
            text = " ".join([body, *setting])
        elif setting and self.maybe(0.5):
            lead = _capital(" ".join(setting))
            verb = "is" if one else "are"
            text = self.draw.choice(
                (
                    f"{lead} there {verb} {self._in_order()}",
                    f"{lead} we see {self.things()}",
                    f"{lead}, {self.things()}",
                )
            )
        else:
            opening = self.draw.choice(("There {verb}", "Here {verb}", "This picture shows", "We see"))
            things = self._in_order() if "{verb}" in opening else self.things()
            text = " ".join([opening.format(verb="is" if one else "are"), things, *setting])
        if self.says.style:
            text += f", {self.pick(words.STYLE_PHRASES[self.scene.style], 0.5)}"
        return text + "."

    def _in_order(self) -> str:
        """The things with the first group named first, so that the verb before them agrees."""
        groups, relation = self.scene.groups, self.scene.relation
        if len(groups) == 1:
            return self.thing(groups[0])
        link = self.pick(words.RELATION_PHRASES[relation], 0.55) if relation else "and"
        return f"{self.thing(groups[0])} {link} {self.thing(groups[1])}"

    def landscape(self) -> str:
        """ "a majestic mountain landscape at sunset with golden clouds"."""
        scene = self.scene
        style = self.pick(words.STYLE_TAGS[scene.style], 0.6) if self.says.style else ""
        if self.maybe(0.2):
            tags = [self.pick(words.PLACE_TAGS[scene.place], 0.6)]
            if self.says.time:
                tags.append(self.pick(words.TIME_TAGS[scene.time], 0.6))
            if self.says.weather:
                tags.append(self._of_weather(words.WEATHER_TAGS))
            return ", ".join([*tags, *([style] if style else [])])
        noun = self._fill(self.pick(words.PLACE_NOUNS[scene.place], 0.45))
        parts = [self.time()] if self.says.time else []
        if self.says.weather:
            parts.insert(self.draw.randint(0, len(parts)), self.weather())
        body = " ".join([noun, *parts])
        if not style:
            prefix = f"{self.draw.choice(words.PREFIXES)} " if self.maybe(0.25) else ""
            return prefix + body
        if self.maybe(0.5):
            return f"{self.pick(words.STYLE_PREFIXES[scene.style], 0.5)} {body}"
        return f"{body}, {style}"


def _without_article(text: str) -> str:
    """ "red boat" of "a red boat"."""
    return text.partition(" ")[2]


def _all_in_the_air(scene: Scene) -> bool:
    horizon = HORIZON[scene.place]
    return all(group.kind in FLOATING for group in scene.groups) and all(
        box.y1 <= horizon + 0.06 for box in layout(scene)
    )
