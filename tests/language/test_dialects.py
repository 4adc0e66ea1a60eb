"""Parts, dialects, tags; compel's own parser as a peer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import InvalidRequest
from darkroom.language import DIALECTS, Moment, dialect_of, read, read_whole
from darkroom.language.compel import mixture
from darkroom.language.tags import Tag, parse_tag, tagged


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a boat", [("a boat", 1.0)]),
        ("a boat AND a storm", [("a boat ", 1.0), (" a storm", 1.0)]),
        ("a boat:0.5 AND a storm :-0.7", [("a boat", 0.5), (" a storm", -0.7)]),
        ("a boat at 12:30", [("a boat at 12:30", 1.0)]),
        ("SAND AND LAND", [("SAND ", 1.0), (" LAND", 1.0)]),
        ("(a:1.2) AND b", [("(a:1.2) ", 1.0), (" b", 1.0)]),
    ],
)
def test_parts(text: str, parts: list[tuple[str, float]]) -> None:
    moment = Moment(0, 10)
    assert [(part.script.at(moment), part.weight) for part in read(text)] == parts
    assert read_whole(text).at(moment) == text
    for other in set(DIALECTS) - {"a1111"}:
        assert [part.script.at(moment) for part in read(text, other)] == [text]


def test_unknown_dialects_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="a1111"):
        dialect_of("a111")


def test_tags() -> None:
    text, tags = tagged(
        "a <lora:detail:0.8> boat <lyco:ink:0.5:0.2> <lora:x:1:te=0:start=0.2:stop=0.6:lbw=1,0,1> <b>"
    )
    assert text == "a  boat   <b>"
    assert tags == (
        Tag("detail", 0.8),
        Tag("ink", 0.5, 0.2),
        Tag("x", 1.0, 0.0, 0.2, 0.6, "1,0,1"),
    )
    assert tagged("<hypernet:paint:0.3>")[1][0].kind == "hypernet"
    for tag in tags:
        assert parse_tag(str(tag)) == tag


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("C:\\loras\\ink.safetensors:0.8:te=0.5", Tag("C:\\loras\\ink.safetensors", 0.8, 0.5)),
        ("c:/loras/ink", Tag("c:/loras/ink")),
        ("a:b.safetensors", Tag("a:b.safetensors")),
        ("a:b.PT : 0.5", Tag("a:b.PT", 0.5)),
        ("hypernet:./x:y/z.pt:0.3", Tag("./x:y/z.pt", 0.3, kind="hypernet")),
        ("ink:0.5:lbw=1,0", Tag("ink", 0.5, blocks="1,0")),
    ],
)
def test_paths_may_hold_colons(text: str, tag: Tag) -> None:
    assert parse_tag(text) == tag
    assert parse_tag(str(tag)) == tag


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:b", "no number"),
        ("", "names no adapter"),
        ("a:1:2:3", "not understood"),
        ("a:ten=1", "te"),
        ("a:start=2", "0 to 1"),
    ],
)
def test_tags_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse_tag(text)
    with pytest.raises(InvalidRequest, match="position 5"):
        tagged(f"boat <lora:{text}>")


def flattened(blend: object) -> tuple[list[list[tuple[str, float]]], list[float]]:
    """compel's own structure as (texts of (words, weight), shares)."""
    texts = blend.prompts if hasattr(blend, "prompts") else [blend]
    shares = list(blend.weights) if hasattr(blend, "prompts") else [1.0]
    if getattr(blend, "normalize_weights", False):
        shares = [share / sum(shares) for share in shares]
    words = [[(word, each.weight) for each in text.children for word in each.text.split()] for text in texts]
    return words, shares


def compared(text: str) -> None:
    from compel.prompt_parser import PromptParser

    theirs = PromptParser().parse_conjunction(text)
    ours = mixture(text)
    assert [blend.weight for blend in ours] == theirs.weights
    for blend, peer in zip(ours, theirs.prompts, strict=True):
        texts, shares = flattened(peer)
        assert list(blend.shares) == pytest.approx(shares)
        found = [
            [(letter, span.weight) for span in part for letter in span.text if not letter.isspace()]
            for part in blend.texts
        ]
        expected = [[(letter, weight) for word, weight in part for letter in word] for part in texts]
        assert [[letter for letter, _ in part] for part in found] == [
            [letter for letter, _ in part] for part in expected
        ]
        for part, peer_part in zip(found, expected, strict=True):
            assert [weight for _, weight in part] == pytest.approx([weight for _, weight in peer_part])


@pytest.mark.peer
@pytest.mark.parametrize(
    "text",
    [
        "a red+ boat",
        "a (red boat)1.3 on (the (sea)++)0.8",
        '"a b"+ c',
        "a well-known-- (thing)- x",
        '("a b", "c d").blend(0.7,0.3)',
        '("a b", "c (d)1.2").and(1,0.5)',
        '("a b", "c d", "e").and()',
        "(foo",
        "foo)",
        "foo(bar baz)+ x",
        "a (b, c)1.2, d",
        r"\(a\)+ b",
        '("x y", z).blend(1,1,no_normalize)',
        "(a)1.3(b)0.5 c",
        "(red)1.5boat",
        "cat++, dog-",
        '"((a)+ b)0.9"-- c',
        "a b.c, d.e+ f",
    ],
)
def test_compel(text: str) -> None:
    compared(text)


NESTED = st.recursive(
    st.sampled_from(["sea", "a boat", "red+", "old--"]),
    lambda inner: st.builds(
        lambda parts, sign: f"({' '.join(parts)}){sign}",
        st.lists(inner, min_size=1, max_size=3),
        st.sampled_from(["", "+", "--", "1.3", "0.5"]),
    ),
    max_leaves=8,
)


@pytest.mark.peer
@settings(max_examples=40, deadline=None)
@given(NESTED)
def test_compel_nested(text: str) -> None:
    compared(text)


def test_compel_adapters_and_mistakes() -> None:
    text, tags = dialect_of("compel").tagged("a boat withLora(ink, 0.5)")
    assert (text.strip(), tags) == ("a boat", (Tag("ink", 0.5),))
    with pytest.raises(InvalidRequest, match="swap"):
        mixture("a cat.swap(dog)")
    with pytest.raises(InvalidRequest, match="3 weights for 2 texts"):
        mixture('("a", "b").blend(1, 1, 1)')
    with pytest.raises(InvalidRequest, match="add up to 0"):
        mixture('("a", "b").blend(1, -1)')


@given(st.text('ab ()"+-.,1\\', max_size=40))
def test_any_text_is_read_in_compel(text: str) -> None:
    try:
        assert mixture(text)
    except InvalidRequest as error:
        told = str(error)
    else:
        return
    assert "position" in told
