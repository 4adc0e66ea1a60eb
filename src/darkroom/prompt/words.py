"""The words of a prompt, and where in what a network is told each of them stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from darkroom.language.mixture import in_one
from darkroom.prompt.conditioning import T5_LENGTH, Prompt, TextConditioner
from darkroom.prompt.tokenizer import WORD_END, byte_alphabet

_VECTOR = re.compile(r"<(.+) (\d+)>")
"""One of an embedding's vectors, as `Vocabulary.text` has it."""
_BEGIN = "▁"
"""What a word begins with in T5's vocabulary."""


class Word(NamedTuple):
    """A word as an encoder reads it, and which tokens of the context are its own."""

    text: str
    places: tuple[int, ...]


def words(text: TextConditioner, prompt: Prompt, tokens: int) -> list[Word]:
    """The words of a prompt whose context has so many tokens: as the first CLIP encoder reads them and, behind those,
    as T5 does; of texts that are blended those of the first."""
    found: list[Word] = []
    at = 0
    vocabulary = text.vocabulary(0, prompt.embeddings)
    length = text.clips[0].tokenizer.length
    for texts in text.chunks(prompt, 0):
        for number, chunk in enumerate(texts[0]):
            own = [
                (vocabulary.text(id), at + number * length + place)
                for place, (id, span) in enumerate(zip(chunk.ids, chunk.spans, strict=True))
                if span >= 0
            ]
            found += _of_clip(own)
        at += max(map(len, texts)) * length
    if text.t5 is not None:
        spans = in_one(prompt.mixture(len(text.clips))).texts[0]
        pieces = [piece for span in spans for piece in text.t5.tokenizer.pieces(span.text)]
        start = tokens - T5_LENGTH
        found += _of_t5([(piece, start + place) for place, piece in enumerate(pieces[: T5_LENGTH - 1])])
    return found


def _of_clip(pieces: list[tuple[str, int]]) -> Iterator[Word]:
    begun, places = "", list[int]()
    for number, (piece, place) in enumerate(pieces):
        places.append(place)
        vector = _VECTOR.fullmatch(piece)
        if vector is not None:
            following = pieces[number + 1][0] if number + 1 < len(pieces) else ""
            if following == f"<{vector[1]} {int(vector[2]) + 1}>":
                continue
            yield Word(vector[1], tuple(places))
        elif piece.endswith(WORD_END):
            yield Word(_decoded(begun + piece.removesuffix(WORD_END)), tuple(places))
        else:
            begun += piece
            continue
        begun, places = "", []
    if places:
        yield Word(_decoded(begun), tuple(places))


def _of_t5(pieces: list[tuple[str, int]]) -> Iterator[Word]:
    begun, places = "", list[int]()
    for piece, place in pieces:
        if piece.startswith(_BEGIN) and begun.strip(_BEGIN):
            yield Word(begun.strip(_BEGIN), tuple(places))
            begun, places = "", []
        begun += piece
        places.append(place)
    if begun.strip(_BEGIN):
        yield Word(begun.strip(_BEGIN), tuple(places))


def _decoded(signs: str) -> str:
    """The text of a piece, whose signs stand for bytes."""
    return bytes(_bytes()[sign] for sign in signs if sign in _bytes()).decode("utf-8", "replace")


@cache
def _bytes() -> dict[str, int]:
    return {sign: byte for byte, sign in byte_alphabet().items()}
