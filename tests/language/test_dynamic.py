"""Prompts drawn by lot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice, permutations

import pytest

from darkroom.errors import InvalidRequest
from darkroom.language.dynamic import combinations, count_combinations, drawn

FILES = {
    "colour": ["red", "blue"],
    "boat": ["a __colour__ boat", "{two|three} boats"],
    "self": ["a __self__ b"],
    "twice": ["__twice__ __twice__", "__twice____twice__"],
}


def lines(name: str) -> Sequence[str]:
    if name not in FILES:
        raise InvalidRequest(f"there is no wildcard __{name}__")
    return FILES[name]


def every(text: str) -> list[str]:
    return list(combinations(text, lines))


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("a boat", ["a boat"]),
        ("a {red|blue} boat", ["a red boat", "a blue boat"]),
        ("{a|b} {1|2}", ["a 1", "a 2", "b 1", "b 2"]),
        ("{a{1|2}|b}", ["a1", "a2", "b"]),
        ("a{|, at night}", ["a", "a, at night"]),
        ("{2$$a|b|c}", ["a, b", "a, c", "b, c"]),
        ("{1-2$$a|b}", ["a", "b", "a, b"]),
        ("{-1$$a|b}", ["", "a", "b"]),
        ("{2-$$a|b|c}", ["a, b", "a, c", "b, c", "a, b, c"]),
        ("{2$$ and $$a|b}", ["a and b"]),
        ("{0.5::a|0::b|c}", ["a", "c"]),
        ("__colour__ sea", ["red sea", "blue sea"]),
        ("__boat__", ["a red boat", "a blue boat", "two boats", "three boats"]),
        (r"\{a\|b\} \__x", ["{a|b} __x"]),
        ("a | b } c", ["a | b } c"]),
        ("(a:1.3) [b|c] snake_case", ["(a:1.3) [b|c] snake_case"]),
        (r"\(a\) {b|c}", [r"\(a\) b", r"\(a\) c"]),
    ],
)
def test_all_texts(text: str, texts: list[str]) -> None:
    assert every(text) == texts
    assert count_combinations(text, lines) == len(texts)
    assert {drawn(text, random.Random(seed), lines) for seed in range(300)} <= {*texts, *_reordered(text)}


def _reordered(text: str) -> set[str]:
    """Several are drawn in any order."""
    if "$$" not in text:
        return set()
    between = " and " if " and " in text else ", "
    return {between.join(order) for each in every(text) for order in permutations(each.split(between))}


def test_weights_and_seeds() -> None:
    counts = Counter(drawn("{3::a|b}", random.Random(seed), lines) for seed in range(2000))
    assert 0.7 < counts["a"] / 2000 < 0.8
    for seed in range(5):
        first, again = (drawn("{a|b|c|d|e|f} __boat__", random.Random(seed), lines) for _ in range(2))
        assert first == again


def test_many_and_deep() -> None:
    """Time and memory grow with the text, not with its depth."""
    deep = "{a|" * 5000 + "b" + "}" * 5000
    assert drawn(deep, random.Random(0), lines)
    assert len(list(islice(combinations("{a|b}" * 500, lines), 3))) == 3
    assert count_combinations("{a|b}" * 500, lines, 100) == 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a {b|c", "the { at position 2 of the prompt is never closed"),
        ("{3-2$$a|b}", "begin with the smaller"),
        ("{0::a|0::b}", "all weigh 0"),
        ("__nobody__", "there is no wildcard __nobody__"),
        ("__self__", "does a wildcard lead to itself"),
        ("__twice__", "does a wildcard lead to itself"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said.replace("{", r"\{")):
        drawn(text, random.Random(0), lines)
    with pytest.raises(InvalidRequest, match=said.replace("{", r"\{")):
        list(islice(combinations(text, lines), 100_000))
