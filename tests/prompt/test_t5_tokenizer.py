"""T5's tokenizer against transformers' and against SentencePiece, whose models it reads."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import ModelError
from darkroom.prompt.t5_tokenizer import T5Tokenizer

SENTENCES = [
    "a majestic mountain landscape at sunset with golden clouds",
    "three red balloons above a blue sea at night",
    "a small grey house left of a tall tree, watercolour",
    "two cats and a dog's boat in the rain, it's calm",
    "1234567890 Ü ½ é 猫 (4k)",
]
AWKWARD = [
    "",
    "   ",
    "A RED  boat\n\tat  night!",
    "ﬁne ½ e\u0301 Å ２ ㍿ tea\u3000x  ",
    "日本語の猫 と 🌊🏔️ 👩‍👩‍👧",
    "<extra_id_3> red</s>sea <pad><unk> <extra_id_99>",
    "▁a ▁ _a",
    "\u200bzero\u200dwidth \x00\x07control",
    "x" * 300,
]
ANYTHING = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)


def trained(folder: Path, size: int = 120, **options: object) -> Path:
    """A small SentencePiece model with T5's special pieces, as the folder of a tokenizer."""
    import sentencepiece

    words = " ".join(SENTENCES).split()
    rng = random.Random(0)
    lines = SENTENCES + [" ".join(rng.choices(words, k=9)) for _ in range(500)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=file,
            vocab_size=size,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
            **options,
        )
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but spiece.model."""
    return trained(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def theirs(old: Path):
    from transformers import T5Tokenizer as Peer

    return Peer.from_pretrained(old)


@pytest.fixture(scope="module")
def new(theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenizer.json that transformers makes of it, after padding a text."""
    folder = tmp_path_factory.mktemp("new")
    theirs("red", padding="max_length", max_length=7, truncation=True)
    theirs.save_pretrained(folder)
    assert not (folder / "spiece.model").exists()
    return folder


@pytest.fixture(scope="module")
def ours(old: Path, new: Path) -> list[T5Tokenizer]:
    return [T5Tokenizer.load(old), T5Tokenizer.load(new)]


@pytest.mark.peer
@pytest.mark.parametrize("text", SENTENCES + AWKWARD)
@pytest.mark.parametrize("length", [1, 2, 12, 77])
def test_ids_equal_the_peer_s(ours, theirs, text, length):
    expected = theirs(text, padding="max_length", max_length=length, truncation=True).input_ids
    assert len(expected) == length
    for tokenizer in ours:
        assert tokenizer(text, length) == expected


@pytest.mark.peer
@settings(max_examples=200)
@given(text=ANYTHING)
def test_ids_equal_the_peer_s_on_any_unicode(ours, theirs, text):
    expected = theirs(text, add_special_tokens=False).input_ids
    for tokenizer in ours:
        assert tokenizer.encode(text) == expected


@pytest.mark.peer
@settings(max_examples=200)
@given(text=ANYTHING)
def test_ids_equal_sentencepiece_s(ours, old, text):
    import sentencepiece

    text = text.replace("\x85", "")  # White space to transformers, a sign to SentencePiece.
    text = re.sub(
        "</?s>|<pad>|<unk>|<extra_id_", "", text
    )  # One id each to transformers, signs to SentencePiece.
    model = sentencepiece.SentencePieceProcessor(model_file=str(old / "spiece.model"))
    assert ours[0].encode(text) == model.encode(text)


def test_pieces_of_the_user_are_marks(tmp_path):
    plain, marked = trained(tmp_path / "a"), trained(tmp_path / "b", user_defined_symbols=["<lora>"])
    assert len(T5Tokenizer.load(plain).encode("red<lora>sea")) > 3
    ids = T5Tokenizer.load(marked).encode("red<lora>sea")
    assert len(ids) == 3
    assert ids[1] == 3


def test_the_number_of_extra_marks_is_the_folder_s(tmp_path):
    folder = trained(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"extra_ids": 2}')
    tokenizer = T5Tokenizer.load(folder)
    first, second = tokenizer.encode("<extra_id_0><extra_id_1>")
    assert first == second + 1  # They count down from the end of the vocabulary.
    assert len(tokenizer.encode("<extra_id_2>")) > 1


def test_a_long_text_is_cut_and_a_short_one_filled(ours):
    for tokenizer in ours:
        whole = tokenizer.encode(" ".join(SENTENCES))
        assert tokenizer(" ".join(SENTENCES), 20) == [*whole[:19], 1]
        assert tokenizer("", 4) == [1, 0, 0, 0]


def test_what_is_no_t5_tokenizer_is_named(tmp_path, old):
    good = (old / "spiece.model").read_bytes()
    bpe = trained(tmp_path / "bpe", model_type="bpe") / "spiece.model"
    for data in (b"", good[:1000], good[:-1], b"\xff" * 99, b"version https://git-lfs", bpe.read_bytes()):
        (tmp_path / "spiece.model").write_bytes(data)
        with pytest.raises(ModelError):
            T5Tokenizer.load(tmp_path)
    (tmp_path / "spiece.model").unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        T5Tokenizer.load(tmp_path)
    for text in ("", "{}", '{"version": "1.0"}'):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ModelError, match=str(tmp_path)):
            T5Tokenizer.load(tmp_path)
