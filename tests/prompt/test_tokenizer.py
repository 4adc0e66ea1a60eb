"""The tokenizer against transformers' CLIPTokenizer: ids must be equal.

In transformers 5 `CLIPTokenizerFast` is another name of `CLIPTokenizer`, which unescapes no HTML, finds
marks as they are written, whatever their neighbours, and holds the padding for a mark.
"""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import ModelError
from darkroom.language import Span, dialect_of
from darkroom.prompt.chunks import chunks
from darkroom.prompt.tokenizer import END, START, Tokenizer
from darkroom.prompt.vocabulary import Vocabulary

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
    f"{END}{END} a{START}b {END.upper()}!! <|STARTofText|>'s {END[:-1]} {END}\u0338 {END.upper()}\u0338",
    "&amp;lt; &lt;b&gt; &#39; &nbsp; &eacute; &amp;amp;amp;",
    "İstanbul ıI ẞ Ǆ ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ ʼn Ａ",
    "e\u0301 \u0301 a\u0323\u0307 한글 \u1112\u1161\u11ab नमस्ते ไทย עִבְרִית",
    "\u2028\u2029\x85\x0b\x0c\x1c\u1680\u180e\u200b\ufeff\u2009end",
    "'S 'LL I'M''re !'s '' it’s 's's",
    "hi! !! ?! !!!a! wow!one",
    "1234567890 ¼ ④ ৪ 四 3.14e-10 v1-5",
    "\x00\x07control \x7f\ufffd\uffff \U0001f1e9\U0001f1ea \U000e0067 \U00100000",
    "x" * 300,
    "supercalifragilisticexpialidocious" * 9,
]
UNASSIGNED = [
    "Cs",
    "Cn",
]  # Surrogates are no text; what Python's Unicode does not know changes with its version.
BITS = [
    "'s",
    "'LL",
    "&amp;",
    " ",
    "\t\n",
    "!",
    "Σ",
    "e\u0301",
    "\u0338",
    "猫",
    "🌊",
    "9",
    "the",
    START,
    END,
    END.upper(),
]
ANYTHING = st.lists(
    st.sampled_from(BITS) | st.text(alphabet=st.characters(exclude_categories=UNASSIGNED), max_size=8)
).map("".join)


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.train(CORPUS, size=700)


@pytest.fixture(scope="module", params=["trained", "clip", "openclip"])
def pair(request: pytest.FixtureRequest, ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    """A tokenizer and the peer that reads what it saves."""
    from transformers import CLIPTokenizer

    mine = {"trained": ours, "clip": Tokenizer.clip(), "openclip": Tokenizer.clip("!")}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    mine.save(folder)
    return mine, CLIPTokenizer.from_pretrained(folder)


@pytest.mark.peer
@pytest.mark.parametrize("text", CORPUS[:4] + AWKWARD)
def test_ids_equal_the_peers(pair, text):
    mine, theirs = pair
    assert mine(text) == theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
    assert mine.encode(text) == theirs(text, add_special_tokens=False).input_ids


@pytest.mark.peer
@settings(max_examples=300)
@given(text=ANYTHING)
def test_ids_equal_the_peers_on_any_unicode(pair, text):
    mine, theirs = pair
    assert mine.encode(text) == theirs(text, add_special_tokens=False).input_ids


@pytest.mark.peer
def test_ids_equal_the_peers_on_every_character(pair):
    mine, theirs = pair
    known = [
        c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c) not in (*UNASSIGNED, "Co", "Lo")
    ]
    # Of the other letters, most of which are Chinese or Korean, one in nine. Beside a letter, a number, a sign.
    known += [c for c in map(chr, range(0, sys.maxunicode, 9)) if unicodedata.category(c) == "Lo"]
    texts = ["".join(f"a{c}1{c}. " for c in known[at : at + 100]) for at in range(0, len(known), 100)]
    for text, expected in zip(texts, theirs(texts, add_special_tokens=False).input_ids, strict=True):
        assert mine.encode(text) == expected


@pytest.mark.peer
@pytest.mark.parametrize("word", ["a", "ab", "!", "é", "猫", "🌊", "1", "a ", "random", "o'"])
def test_words_of_20000_characters(pair, word):
    """However long a word, its merges take no time to speak of; pair by pair this would take an hour."""
    mine, theirs = pair
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=20000)
    text = "".join(letters) if word == "random" else word * (20000 // len(word))
    assert mine.encode(text) == theirs(text, add_special_tokens=False).input_ids


@pytest.mark.peer
@pytest.mark.parametrize("pad", [END, "!"])
def test_folders_of_today_s_transformers(pad, tmp_path):
    """They hold tokenizer.json alone."""
    from transformers import CLIPTokenizer

    mine = Tokenizer.clip(pad)
    mine.save(tmp_path / "ours")
    CLIPTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "vocab.json").exists()
    again = Tokenizer.load(tmp_path / "theirs")
    assert (again.vocabulary, again.merges, again.pad) == (mine.vocabulary, mine.merges, mine.pad)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("config", "map", "pad"),
    [(END, "!", "!"), ("!", END, END), (None, {"content": "!", "normalized": True}, "!"), ("!", None, "!")],
)
def test_special_tokens_map_has_the_last_word(ours, config, map, pad, tmp_path):
    """Stable Diffusion 2's two files disagree about the padding."""
    from transformers import CLIPTokenizer

    ours.save(tmp_path)
    for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", map)):
        data = json.loads((tmp_path / name).read_text("utf-8"))
        del data["pad_token"]
        (tmp_path / name).write_text(json.dumps(data | ({"pad_token": value} if value else {})), "utf-8")
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    assert theirs.pad_token == pad
    assert Tokenizer.load(tmp_path)("hi! you") == theirs("hi! you", padding="max_length").input_ids


def test_clip_s_vocabulary():
    tokenizer = Tokenizer.clip()
    assert len(tokenizer.vocabulary) == 49408
    assert sorted(tokenizer.vocabulary.values()) == list(range(49408))
    assert [tokenizer.vocabulary[entry] for entry in ("!", "!</w>", "in", START, END)] == [
        0,
        256,
        512,
        49406,
        49407,
    ]
    assert tokenizer("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, *[49407] * 71]
    assert Tokenizer.clip("!")("a cat") == [49406, 320, 2368, 49407, *[0] * 73]
    tokenizer.vocabulary["no entry"] = 49408
    assert "no entry" not in Tokenizer.clip().vocabulary


def test_the_vocabulary_comes_with_its_licence():
    import darkroom.prompt.tokenizer as module

    text = (Path(module.__file__).parent / "vocabulary" / "LICENSE").read_text("utf-8")
    assert "MIT License" in text
    assert "Copyright (c) 2021 OpenAI" in text


def test_saved_and_loaded_tokenizers_agree(ours, tmp_path):
    ours.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert [again(text) for text in AWKWARD] == [ours(text) for text in AWKWARD]


def test_training_finds_whole_words(ours):
    assert len(ours.encode("red balloons")) == 2


def test_a_long_text_becomes_chunks_that_lose_nothing(ours):
    def cut(text):
        return [chunk.ids for chunk in chunks([Span(text)], Vocabulary(ours), dialect_of("plain"))]

    text = " ".join(CORPUS)
    found = cut(text)
    assert all(len(chunk) == 77 and chunk[0] == ours.start for chunk in found)
    inner = [i for chunk in found for i in chunk if i not in (ours.start, ours.end)]
    assert inner == ours.encode(text)
    assert len(cut("")) == 1


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """A folder of transformers' today with tokens added to CLIP's vocabulary, and its tokenizer."""
    from transformers import AddedToken, CLIPTokenizer

    plain, folder = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("added")
    Tokenizer.clip().save(plain)
    theirs = CLIPTokenizer.from_pretrained(plain)
    theirs.add_tokens(
        [
            "<cat-toy>",
            "<cat-toy-2>",
            AddedToken("<Sks>", normalized=False),
            AddedToken("oak", single_word=True),
            "Big Dog",
        ]
    )
    theirs.save_pretrained(folder)
    return folder, theirs


@pytest.fixture(
    scope="module", params=["tokenizer.json", "added_tokens.json", "added_tokens_decoder", "dict"]
)
def ours_with_added(request, added, tmp_path_factory):
    ours = Tokenizer.load(added[0])
    if request.param == "dict":
        return Tokenizer.from_dict(json.loads(json.dumps(ours.to_dict())))
    if request.param == "tokenizer.json":
        return ours
    # As our own files are, and as releases before 5 wrote them.
    folder = tmp_path_factory.mktemp("ours")
    ours.save(folder)
    if request.param == "added_tokens_decoder":
        (folder / "added_tokens.json").unlink()
    return Tokenizer.load(folder)


@pytest.mark.parametrize(
    "text",
    [
        "a <cat-toy> here",
        "a <CAT-toy>b<cat-toy-2>",
        "<sks> and <Sks>x",
        "soak oak oaks OAK",
        "big  dog, BIG\u00a0DOGs",
        f"{END} <cat-toy>!",
    ],
)
def test_added_tokens_are_tokens(added, ours_with_added, text):
    ours, theirs = ours_with_added, added[1]
    assert [ours.start, *ours.encode(text), ours.end] == theirs(text)["input_ids"]


def test_added_tokens_of_old_folders(tmp_path):
    Tokenizer.clip().save(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<cat-toy>": 49408}')
    assert 49408 in Tokenizer.load(tmp_path)("a <cat-toy> here")
    assert not Tokenizer.load(tmp_path).is_clip()


def test_embeddings_come_after_the_rows_of_the_encoder(added):
    import torch

    # Encoders are often resized to more rows than there are words.
    vocabulary = Vocabulary(Tokenizer.load(added[0]), {"ink": torch.zeros(2, 4)}, 49_500)
    assert vocabulary.groups("<cat-toy> ink") == [(49_408,), (49_500, 49_501)]
