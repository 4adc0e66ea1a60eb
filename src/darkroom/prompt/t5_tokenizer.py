"""T5's tokenizer: text to the ids a T5 encoder was trained on.

A SentencePiece unigram model (Kudo 2018, arXiv 1804.10959), run by the `tokenizers` package. Folders
hold it as `tokenizer.json`, older ones as `spiece.model` alone; files of weights among what they say of themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from struct import unpack
from typing import TYPE_CHECKING, Any

from darkroom.errors import ModelError
from darkroom.files import write_bytes, write_json
from darkroom.weights.gguf import gguf_facts
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.opening import open_weights

if TYPE_CHECKING:  # Imported where a tokenizer is read: only Stable Diffusion 3 has one.
    from tokenizers import Tokenizer

PAD, END = "<pad>", "</s>"
_SPACE = "▁"
TEXT = "darkroom.t5_tokenizer"
"""The key of a file's metadata under which `convert` keeps a `tokenizer.json`."""
_UNIGRAM = 1
_UNKNOWN, _UNUSED = 2, 5
_MARKS = (_UNKNOWN, 3, 4)  # The kinds of pieces that a text is cut at: unknown, control and user-defined.
_NEVER = -1e9
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
    def load(cls, path: Path | str) -> T5Tokenizer:
        """Read a Hugging Face tokenizer folder: `tokenizer.json`, or `spiece.model` alone; or what a file of T5's
        weights holds, llama.cpp's GGUF or one that Darkroom wrote. Raises ModelError where there is none."""
        path = Path(path)
        try:
            return cls(_in_folder(path) if path.is_dir() else _in_weights(path))
        except ModelError:
            raise
        except Exception as error:  # `tokenizers` raises nothing narrower.
            raise ModelError(f"cannot read the tokenizer in {path}: {error}") from error

    def to_text(self) -> str:
        """A `tokenizer.json`."""
        return str(self._tokenizer.to_str())

    def save(self, folder: Path | str) -> None:
        """Write the folder `transformers.T5TokenizerFast` reads."""
        folder = Path(folder)
        write_bytes(folder / "tokenizer.json", self.to_text().encode())
        marks = {"pad_token": PAD, "eos_token": END, "unk_token": "<unk>", "model_max_length": 512}
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "T5TokenizerFast", **marks})


def has_t5_tokenizer(weights: WeightsFile) -> bool:
    """Whether a file of weights says that it holds T5's tokenizer."""
    facts = weights.metadata
    return TEXT in facts or (weights.format == "gguf" and facts.get("tokenizer.ggml.model") == "t5")


def _in_folder(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = folder / "tokenizer_config.json"
    config = json.loads(settings.read_text("utf-8")) if settings.exists() else {}
    return _from_sentencepiece((folder / "spiece.model").read_bytes(), config.get("extra_ids", 100))


def _in_weights(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    with open_weights(file) as weights:
        text, is_gguf = weights.metadata.get(TEXT), weights.format == "gguf"
    if text is not None:
        return Tokenizer.from_str(text)
    facts = gguf_facts(file) if is_gguf else {}
    own = {name: facts.get(f"tokenizer.ggml.{name}") or () for name in ("tokens", "scores", "token_type")}
    if not all(own.values()):
        raise ModelError(f"{file} holds no tokenizer of T5's")
    pieces = list(zip(own["tokens"], own["scores"], own["token_type"], strict=True))
    # The list may be filled up to the size of the network's table with words that no text has.
    vocabulary = [(piece, _NEVER if kind == _UNUSED else score) for piece, score, kind in pieces]
    marks = [piece for piece, _, kind in pieces if kind in _MARKS]
    unknown = next((number for number, (_, _, kind) in enumerate(pieces) if kind == _UNKNOWN), 0)
    return _unigram(
        vocabulary, unknown, marks, bytes(facts.get("tokenizer.ggml.precompiled_charsmap") or b"")
    )


def _from_sentencepiece(data: bytes, extra: int) -> Tokenizer:
    """The tokenizer of a `spiece.model`, with T5's `extra` marks behind its vocabulary.

    Field numbers are those of SentencePiece's sentencepiece_model.proto.
    """
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
    return _unigram(vocabulary, unknown, marks + extras, characters)


def _unigram(
    vocabulary: list[tuple[str, float]], unknown: int, marks: list[str], characters: bytes
) -> Tokenizer:
    """The tokenizer of a vocabulary with each piece's score, cut at `marks`; `characters`: how SentencePiece normalises
    them, compiled."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback=False))
    if characters:
        tokenizer.normalizer = normalizers.Precompiled(characters)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always")]
    )
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
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
