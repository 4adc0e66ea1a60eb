"""T5's tokenizer: text to the ids a T5 encoder was trained on.

A SentencePiece unigram model (Kudo 2018, arXiv 1804.10959), run by the `tokenizers` package. Folders
hold it as `tokenizer.json`, older ones as `spiece.model` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from struct import unpack
from typing import TYPE_CHECKING, Any

from darkroom.errors import ModelError

if TYPE_CHECKING:  # Imported where a tokenizer is read: only Stable Diffusion 3 has one.
    from tokenizers import Tokenizer

PAD, END = "<pad>", "</s>"
_SPACE = "▁"
_UNIGRAM = 1
_MARKS = (2, 3, 4)  # The kinds of pieces that a text is cut at: unknown, control and user-defined.
_SIZES = {1: 8, 5: 4}  # In bytes, of the wire types of fixed size.


class T5Tokenizer:
    """Text to ids. Of the marks `<pad>`, `</s>`, `<unk>` and `<extra_id_0>`..., each is one id in a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pad, end = tokenizer.token_to_id(PAD), tokenizer.token_to_id(END)
        if pad is None or end is None:
            raise ModelError(f"the tokenizer's vocabulary lacks {PAD} or {END}: it is not T5's")
        self.pad, self.end = pad, end
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without end mark, padding or limit."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def pieces(self, text: str) -> list[str]:
        """The same as the vocabulary has them."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).tokens)

    def __call__(self, text: str, length: int) -> list[int]:
        """The first `length` - 1 ids of a text and the end mark, padded; what does not fit is left out."""
        ids = [*self.encode(text)[: length - 1], self.end]
        return ids + [self.pad] * (length - len(ids))

    @classmethod
    def load(cls, folder: Path | str) -> T5Tokenizer:
        """Read a Hugging Face tokenizer folder: `tokenizer.json`, or `spiece.model` alone."""
        from tokenizers import Tokenizer

        folder = Path(folder)
        try:
            if (folder / "tokenizer.json").exists():
                return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))
            settings = folder / "tokenizer_config.json"
            config = json.loads(settings.read_text("utf-8")) if settings.exists() else {}
            return cls(
                _from_sentencepiece((folder / "spiece.model").read_bytes(), config.get("extra_ids", 100))
            )
        except ModelError:
            raise
        except Exception as error:  # `tokenizers` raises nothing narrower.
            raise ModelError(f"cannot read the tokenizer in {folder}: {error}") from error


def _from_sentencepiece(data: bytes, extra: int) -> Tokenizer:
    """The tokenizer of a `spiece.model`, with T5's `extra` marks behind its vocabulary.

    Field numbers are those of SentencePiece's sentencepiece_model.proto.
    """
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary: list[tuple[str, float]] = []
    marks: list[str] = []
    kind, unknown, characters = _UNIGRAM, 0, b""
    for field, message in _fields(data):
        if field == 1:  # A piece: its text, its score, its kind.
            piece = dict(_fields(message))
            vocabulary.append((str(piece[1], "utf-8"), unpack("<f", piece[2])[0]))
            if piece.get(3) in _MARKS:
                marks.append(vocabulary[-1][0])
        elif field == 2:
            trainer = dict(_fields(message))
            kind, unknown = trainer.get(3, _UNIGRAM), trainer.get(40, 0)
        elif field == 3:
            characters = dict(_fields(message)).get(2, b"")
    if kind != _UNIGRAM:
        raise ModelError("spiece.model is no unigram model: it is not T5's")
    extras = [f"<extra_id_{i}>" for i in reversed(range(extra))]
    vocabulary += [(mark, 0.0) for mark in extras]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback=False))
    if characters:
        tokenizer.normalizer = normalizers.Precompiled(characters)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always")]
    )
    tokenizer.add_special_tokens(
        [AddedToken(mark, special=True, normalized=False) for mark in marks + extras]
    )
    return tokenizer


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The numbered fields of a protobuf message, in order: integers, and everything else as bytes.

    ValueError where the message is cut short or is none.
    """
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        part = data[at : at + size]
        if len(part) < size:
            raise ValueError("it is cut short")
        at += size
        return part

    def integer() -> int:
        value = shift = 0
        while True:
            byte = take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        field, wire = divmod(integer(), 8)
        if wire == 0:
            yield field, integer()
        elif wire in _SIZES:
            yield field, take(_SIZES[wire])
        elif wire == 2:
            yield field, take(integer())
        else:
            raise ValueError("it is no protobuf message")
