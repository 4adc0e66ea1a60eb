"""Emphasis: A1111's documented examples, ComfyUI's rules, and what must hold of any text."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import InvalidRequest
from darkroom.language.spans import HEAVIEST, Span, a1111, comfy, plain

SIGNS = st.text("ab (:)[]\\1.3,B", max_size=40)


def pairs(spans: list[Span]) -> list[tuple[str, float]]:
    return [("BREAK" if span.breaks else span.text, pytest.approx(span.weight)) for span in spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.3 * 1.1 * 1.1),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.1**4),
                (".", 1.1),
            ],
        ),
        ("[less]", [("less", 1 / 1.1)]),
        ("[[less]]", [("less", 1 / 1.21)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("one BREAK two", [("one", 1.0), ("BREAK", 1.0), ("two", 1.0)]),
        ("(one BREAK two:2)", [("one", 2.0), ("BREAK", 1.0), ("two", 2.0)]),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("(a:-1)", [("a", -1.0)]),
        ("( a : 1.5 )", [(" a ", 1.5)]),
        ("at 12:30", [("at 12:30", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_a1111(text: str, expected: list[tuple[str, float]]) -> None:
    assert pairs(a1111(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("((b))", [("b", 1.21)]),
        ("(b:1.3)", [("b", 1.3)]),
        ("((b:1.3) c:0.5)", [("b", 1.3), (" c", 0.5)]),  # Absolute, whatever is around it.
        (r"\(b\)", [("(b)", 1.0)]),
        ("[b]", [("[b]", 1.0)]),
        ("(b:x)", [("b:x", 1.1)]),
        ("a BREAK b", [("a BREAK b", 1.0)]),
    ],
)
def test_comfy(text: str, expected: list[tuple[str, float]]) -> None:
    assert pairs(comfy(text)) == expected


def naive(text: str) -> list[tuple[str, float]]:
    """A1111's rules, letter by letter and the slow way: each bracket goes over all the letters since its opening."""
    letters: list[list[object]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for letter in letters[start:]:
            letter[1] = float(str(letter[1])) * factor

    at = 0
    while at < len(text):
        sign = text[at]
        if sign == "\\" and text[at + 1 : at + 2] in tuple("()[]\\"):
            letters.append([text[at + 1], 1.0])
            at += 2
            continue
        if sign in "([":
            opened[sign].append(len(letters))
        elif sign == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif sign == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        else:
            letters.append([sign, 1.0])
        at += 1
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    return [(str(letter), float(str(weight))) for letter, weight in letters]


@given(st.text("ab ()[]\\", max_size=30))
def test_brackets_in_any_order(text: str) -> None:
    ours = [(letter, span.weight) for span in a1111(text) for letter in span.text]
    theirs = naive(text)
    assert [letter for letter, _ in ours] == [letter for letter, _ in theirs]
    assert [weight for _, weight in ours] == pytest.approx([weight for _, weight in theirs])


@given(SIGNS)
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (a1111, comfy, plain):
        try:
            spans = read(text)
        except InvalidRequest as error:
            told = str(error)
        else:
            assert spans
            assert all(math.isfinite(span.weight) for span in spans)
            neighbours = itertools.pairwise(spans)
            assert not any(a.weight == b.weight and not a.breaks and not b.breaks for a, b in neighbours)
            continue
        assert "position" in told


def test_ten_thousand_brackets_need_no_recursion() -> None:
    assert a1111("(" * 10 + "[" * 10_000 + "a" + "]" * 10_000)[-1].weight == pytest.approx(0.0, abs=1e-9)
    assert len(a1111("(a)[b]" * 3_000)) == 6_000


@pytest.mark.parametrize("read", [a1111, comfy])
def test_weights_beyond_all_measure_are_refused_with_their_position(read) -> None:
    with pytest.raises(InvalidRequest, match=r"position \d+"):
        read("(" * 200 + "a" + ")" * 200)
    assert HEAVIEST == 10_000


def test_a_weight_that_is_no_number_is_refused_with_its_position() -> None:
    with pytest.raises(InvalidRequest, match=r"'1\.\.2' at position 5"):
        a1111("a (b:1..2)")
