"""The tokenizer against transformers' CLIPTokenizer: ids must be equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import ModelError
from darkroom.prompt.tokenizer import END, START, Tokenizer

CORPUS = [
    "a majestic mountain landscape at sunset with golden clouds",
    "three red balloons above a blue sea at night",
    "a small grey house left of a tall tree, watercolour",
    "two cats and a dog's boat in the rain, it's calm",
] * 3
AWKWARD = [
    "",
    " ",
    "Three RED balloons!!",
    "don't you'll it's we've I'm",
    "café naïve Ångström ΣΑΣ ß ﬁ",
    "日本語の猫 と 🌊🏔️ 👩‍👩‍👧",
    "tabs\tand\nnew\r\nlines\u3000wide\u00a0hard",
    "a&amp;b <b>bold</b> 100% 3.14 ½ Ⅷ ²",
    f"before {END} after {START}",
    "\x00\x07control",
    "x" * 300,
]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.train(CORPUS, size=700)


@pytest.fixture(scope="module")
def folder(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    ours.save(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.peer
@pytest.mark.parametrize("text", CORPUS[:4] + AWKWARD)
def test_ids_equal_the_peers(ours, theirs, text):
    expected = theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
    assert ours(text) == expected


@pytest.mark.peer
@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=40))
def test_ids_equal_the_peers_on_any_unicode(ours, theirs, text):
    assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids


def test_saved_and_loaded_tokenizers_agree(ours, folder):
    again = Tokenizer.load(folder)
    assert [again(text) for text in AWKWARD] == [ours(text) for text in AWKWARD]


def test_training_finds_whole_words(ours):
    assert len(ours.encode("red balloons")) == 2


def test_a_long_text_becomes_chunks_that_lose_nothing(ours):
    text = " ".join(CORPUS)
    chunks = ours.chunks(text)
    assert all(len(chunk) == 77 and chunk[0] == ours.start for chunk in chunks)
    inner = [i for chunk in chunks for i in chunk if i not in (ours.start, ours.end)]
    assert inner == ours.encode(text)
    assert len(ours.chunks("")) == 1


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)
