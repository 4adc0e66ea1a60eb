"""What a prompt asks of a picture of the drawn world: its words, as captions use them (`darkroom.world.words`), read
back as an `Expectation`.

Prompts are read loosely, for people write what they like: the longest phrase that is known wins, all else is passed
over and told. What is not said is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from darkroom.oracle.judging import Expectation, Wanted
from darkroom.world import words
from darkroom.world.scene import RELATIONS


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a prompt the oracle can tell, and the words that it knows nothing of."""

    expectation: Expectation
    unknown: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is asked that it can tell."""
        return self.expectation == Expectation()


def asked_of(prompt: str, negative: str = "") -> Asked:
    """What a picture of a prompt must show: things, how many and in which colour, how the first two stand to each
    other, place, time, weather and style; and of a negative prompt which things must not be there, but for those that
    the prompt asks for."""
    wanted, unwanted = _Reader.of(prompt), _Reader.of(negative)
    positive = wanted.expectation()
    kinds = {each.kind for each in positive.things}
    never = [
        Wanted(each.kind, each.colour, 0, exact=True)
        for each in unwanted.things
        if each.count and each.kind not in kinds
    ]
    return Asked(replace(positive, things=(*positive.things, *never)), tuple(wanted.unknown))


# What words mean: (what it is, which one).


class _Token(NamedTuple):
    sort: str
    value: Any
    words: str


_COUNTS = {"one": 1, "a single": 1, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10} | {
    str(number): number for number in range(5, 11)
}
_SEVERAL = ("several", "some", "many", "a few", "few", "lots of", "a group of", "a flock of")
_NONE = ("no", "without", "without a", "without an", "without any", "not a", "not any")
_GRAMMAR = {"article": ("a", "an", "the"), "and": ("and",), "with": ("with",), "verb": ("is", "are")}
_PASSED_OVER = """
    this its it there here we see shows s as of to for from at in by on under over above against before front
    among inside middle outside behind while picture photo image drawing painting illustration art style scene
    background landscape view weather colours colors
"""


@cache
def _lexicon() -> dict[tuple[str, ...], tuple[str, Any]]:
    """Phrases, as their words, and what each means; where two are the same, what is put in first."""
    found: dict[tuple[str, ...], tuple[str, Any]] = {}

    def put(phrase: str, sort: str, value: Any) -> None:
        if split := tuple(_words(phrase)):
            found.setdefault(split, (sort, value))

    for kind, forms in words.KIND_WORDS.items():
        for singular, plural in forms:
            put(singular, "thing", (kind, False))
            put(plural, "thing", (kind, True))
    for colour, several in words.COLOUR_WORDS.items():
        for form in several:
            put(form, "colour", colour)
    numbers: dict[str, int] = {form: n for n, forms in words.NUMBER_WORDS.items() for form in forms} | _COUNTS
    for form, number in numbers.items():
        put(form, "number", (number, True))
    for form in _SEVERAL:
        put(form, "number", (2, False))
    for form in _NONE:
        put(form, "none", None)
    for sort, value, form in _of_settings():
        put(form, sort, value)
    for relation in RELATIONS:
        for form in words.RELATION_PHRASES[relation]:
            put(form, "relation", relation)
        for form in words.INVERSE_PHRASES[relation]:
            for its, it in (("its", "it"), ("their", "them")):
                put(form.format(its=its, it=it), "inverse", relation)
    for sort, several in _GRAMMAR.items():
        for word in several:
            put(word, sort, None)
    moods = (words.THING_MOODS, *words.MOODS.values())
    for word in (*(mood for several in moods for mood in several), *_PASSED_OVER.split()):
        put(word, "passed over", None)
    return found


def _of_settings() -> Iterator[tuple[str, str, str]]:
    for name, tables in (
        ("weather", (words.WEATHER_PHRASES, words.WINDOW_PHRASES, words.WEATHER_TAGS)),
        ("place", (words.PLACE_PHRASES, words.PLACE_NOUNS, words.PLACE_TAGS)),
        ("time", (words.TIME_PHRASES, words.TIME_TAGS)),
        ("style", (words.STYLE_PREFIXES, words.STYLE_PHRASES, words.STYLE_TAGS)),
    ):
        for table in tables:
            for value, forms in table.items():
                for form in forms:
                    yield from ((name, value, each) for each in _written_out(form))
    yield "weather", "cloudy", "clouds"


def _written_out(form: str) -> Iterable[str]:
    """A form without what stands before an adjective of its own, which may be any: the sea of "on {a} sea"; with every
    colour of clouds, and without a style's article and "of"."""
    core = re.split(r"\{a\}|\{adj\}", form)[-1].strip()
    if "{clouds}" in core:
        clouds = [word for several in words.CLOUD_WORDS.values() for word in several]
        return [core.format(clouds=word) for word in clouds]
    return {core, re.sub(r"^an? | of$", "", core)}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+|[,.;:!?()\n]", text.lower().replace("-", " "))


def _tokens(text: str) -> Iterator[_Token]:
    """The longest known phrases of a text, one after another."""
    lexicon, given, at = _lexicon(), _words(text), 0
    longest = max(map(len, lexicon))
    while at < len(given):
        for length in range(min(longest, len(given) - at), 0, -1):
            phrase = tuple(given[at : at + length])
            if (meaning := lexicon.get(phrase)) is not None:
                yield _Token(*meaning, " ".join(phrase))
                break
        else:
            length = 1
            yield _Token("unknown" if given[at].isalnum() else "pause", None, given[at])
        at += length


class _Reader:
    """Takes the tokens of a text one by one, and has what they ask for."""

    def __init__(self) -> None:
        self.things: list[Wanted] = []
        self.settings: dict[str, str] = {}
        self.unknown: list[str] = []
        self._relation: tuple[int, str] | None = None  # From which thing on, what is to stand so.
        self._found: tuple[int, str, int] | None = None
        self._number: tuple[int, bool] | None = None
        self._none = self._verb = self._strange = False
        self._colours: list[str] = []

    @classmethod
    def of(cls, text: str) -> _Reader:
        """One that has taken all of a text."""
        reader = cls()
        for token in _tokens(text):
            reader.take(token)
        reader.pause()
        return reader

    def take(self, token: _Token) -> None:
        sort, value = token.sort, token.value
        if sort == "thing":
            self._thing(*value)
        elif sort == "colour":
            self._colours.append(value)
        elif sort == "number":
            self._phrase()
            self._number = value
        elif sort == "none":
            self._none = True
        elif sort == "verb":
            self._verb = True
        elif sort in ("place", "time", "weather", "style"):
            self._setting(sort, value)
        elif sort == "relation":
            self.pause()
            self._relation = (len(self.things) - 1, value) if self.things else None
        elif sort == "inverse":
            self.pause()
            if len(self.things) > 1:
                last = len(self.things) - 1
                self._found = self._found or (last, value, last - 1)
        elif sort == "unknown":
            self.unknown.append(token.words)
            self._strange = True
        elif sort == "article":
            self._phrase()
        elif sort in ("pause", "with") or (sort == "and" and self._of_strangers):
            self.pause()

    @property
    def _of_strangers(self) -> bool:
        """Whether what was said last is of something that is not known: of "two people and a cat" not the cat."""
        return self._strange or self._none or (self._number is not None and not self._colours)

    def pause(self) -> None:
        """A phrase is over, and no relation reaches beyond."""
        self._phrase()
        self._relation = None

    def _phrase(self) -> None:
        """Another phrase begins: what stands alone in the one before is about what was named last, or about nothing."""
        if self._verb and self.things and self.things[-1].colour is None and len(self._colours) == 1:
            self.things[-1] = replace(self.things[-1], colour=self._colours[0])
        else:
            self.unknown += self._colours
        self._over()

    def _over(self) -> None:
        self._number, self._colours = None, []
        self._none = self._verb = self._strange = False

    def _setting(self, sort: str, value: str) -> None:
        # Colours of a place ("a blue sea") are its mood; the sky is there with every place.
        none, self._relation = self._none, None
        self._over()
        if none:
            return
        before = self.settings.get(sort)
        if before is None or (sort == "place" and before == "sky"):
            self.settings[sort] = value

    def _thing(self, kind: str, plural: bool) -> None:
        count, exact = self._number or (2 if plural else 1, False)
        colour = self._colours[0] if len(self._colours) == 1 else None
        if len(self._colours) > 1:
            self.unknown += self._colours
        wanted = Wanted(kind, colour, 0, True) if self._none else Wanted(kind, colour, count, exact)
        same = next((i for i, each in enumerate(self.things) if self._again(each, wanted)), None)
        number = len(self.things) if same is None else same
        if same is None:
            self.things.append(wanted)
        relation, self._relation = self._relation, None
        self._over()
        if relation is not None and relation[0] != number and self._found is None:
            self._found = (relation[0], relation[1], number)

    def _again(self, before: Wanted, now: Wanted) -> bool:
        """Whether a thing that is named now was named before: "the boat", once a red one was."""
        named = now.colour is None and self._number is None and not now.exact
        return before.kind == now.kind and (before.colour == now.colour or named) and before.count > 0

    def expectation(self) -> Expectation:
        """What is asked for; the two that stand in a relation first."""
        things: Sequence[Wanted] = self.things
        relation = None
        if self._found is not None:
            first, relation, second = self._found
            if 0 in (things[first].count, things[second].count):
                relation = None
            else:
                others = [each for i, each in enumerate(things) if i not in (first, second)]
                things = [things[first], things[second], *others]
        return Expectation(tuple(things), relation, **self.settings)
