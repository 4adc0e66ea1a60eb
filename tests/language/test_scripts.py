"""Prompts that change on the way: A1111's documented examples, as the schedules that it makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.language import Moment
from darkroom.language.scripts import script

TURNS = [[1, "a"], [2, "(b:1.1)"], [3, "a"], [4, "(b:1.1)"], [5, "a"], [6, "(b:1.1)"], [7, "a"]]
FEMALE = [[1, "female"], [2, "male"], [3, "female"], [4, "male"], [5, "female"], [6, "male"], [7, "female"]]


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("test", [[10, "test"]]),
        ("a [b:3]", [[3, "a "], [10, "a b"]]),
        ("a [b: 3]", [[3, "a "], [10, "a b"]]),
        ("a [[[b]]:2]", [[2, "a "], [10, "a [[b]]"]]),
        ("[(a:2):3]", [[3, ""], [10, "(a:2)"]]),
        ("a [b : c : 1] d", [[1, "a b  d"], [10, "a  c  d"]]),
        ("a[b:[c:d:2]:1]e", [[1, "abe"], [2, "ace"], [10, "ade"]]),
        ("a [unbalanced", [[10, "a [unbalanced"]]),
        ("a [b:.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("a [{b|d{:.5] c", [[5, "a  c"], [10, "a {b|d{ c"]]),
        ("((a][:b:c [d:3]", [[3, "((a][:b:c "], [10, "((a][:b:c d"]]),
        ("[a|(b:1.1)]", TURNS),
        ("[fe|]male", FEMALE),
        ("[fe|||]male", [[1, "female"], [2, "male"], [3, "male"], [4, "male"], [5, "female"], [6, "male"]]),
        ("[a::0.3]b", [[3, "ab"], [10, "b"]]),
        ("[word]", [[10, "[word]"]]),
        (r"\[a:b:3]", [[10, r"\[a:b:3]"]]),
        ("(a:1.3)", [[10, "(a:1.3)"]]),
        ("[a:b:c]", [[10, "[a:b:c]"]]),
    ],
)
def test_a1111(text: str, schedule: list[list[object]]) -> None:
    read = script(text)
    # It takes the first entry whose step is not behind it.
    for step in range(int(str(schedule[-1][0]))):
        expected = next(entry for end, entry in schedule if step <= int(str(end)))
        assert read.at(Moment(step, 10)) == expected
    assert read.changes == (len(schedule) > 1)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a [b:.5] c", [[5, "a  c"], [10, "a b c"]], [[10, "a b c"]]),
        ("a [b:1.5] c", [[10, "a  c"]], [[5, "a  c"], [10, "a b c"]]),
        ("a [b:13] c", [[10, "a  c"]], [[3, "a  c"], [10, "a b c"]]),
    ],
)
def test_the_second_pass_counts_on(text: str, first: list[list[object]], second: list[list[object]]) -> None:
    for before, schedule in ((0, first), (10, second)):
        for step in range(10):
            expected = next(entry for end, entry in schedule if step <= int(str(end)))
            assert script(text).at(Moment(step, 10, before)) == expected


@given(st.text("ab[]():|.5\\ ", max_size=40))
def test_any_text_is_read(text: str) -> None:
    read = script(text)
    for step in range(4):
        read.at(Moment(step, 4))
    if not read.changes:
        assert read.at(Moment(0, 4)) == text


def test_ten_thousand_brackets_need_no_recursion() -> None:
    deep = "[" * 10_000 + "a" + ":0.5]" * 10_000
    assert script(deep).at(Moment(9, 10)) == "a"
    assert script(deep).at(Moment(0, 10)) == ""
    assert script("[" * 10_000).at(Moment(0, 10)) == "[" * 10_000
