"""Texts longer than an encoder reads: cut into chunks, with a weight for every token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from darkroom.language import Dialect, Span
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.prompt.vocabulary import Vocabulary

COMMA_BACKTRACK = 20
"""How many tokens a full chunk gives back to the next for the sake of a comma, as A1111's default has it."""
LONGEST_WORD = 8
"""Tokens from which ComfyUI cuts a word in two rather than leave the rest of a chunk empty."""


class Token(NamedTuple):
    """A text's own token: its number, its weight, and which of the text's spans it is of."""

    id: int
    weight: float
    span: int


class Chunk(NamedTuple):
    """One sequence for an encoder: all arrays have the encoder's length. `weights` of marks and padding are 1, their
    `spans` -1."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    spans: tuple[int, ...]

    @property
    def weighted(self) -> bool:
        return any(weight != 1 for weight in self.weights)

    @property
    def used(self) -> int:
        """How many tokens are the text's own."""
        return sum(span >= 0 for span in self.spans)


Group = list[Token]
"""Tokens that stay together: those of an embedding, or one."""


def chunks(spans: Sequence[Span], vocabulary: Vocabulary, dialect: Dialect) -> list[Chunk]:
    """The chunks of a text, at least one. Each span is tokenised by itself."""
    tokenizer = vocabulary.tokenizer
    match dialect.split:
        case "word":
            filling = _by_word(spans, vocabulary, dialect)
        case "sentence":
            filling = _by_sentence(spans, vocabulary, dialect)
        case "comma":
            filling = _by_token(spans, vocabulary, dialect, COMMA_BACKTRACK)
        case _:
            filling = _by_token(spans, vocabulary, dialect, 0)
    return [framed(each, tokenizer) for each in filling]


def _groups(spans: Iterable[Span], vocabulary: Vocabulary, dialect: Dialect) -> Iterator[Group | None]:
    """The groups of a text, None where a span breaks the chunk."""
    for number, span in enumerate(spans):
        if span.breaks:
            yield None
        for group in vocabulary.groups(span.text, dialect.embedding):
            yield [Token(token, span.weight, number) for token in group]


def _by_token(
    spans: Sequence[Span], vocabulary: Vocabulary, dialect: Dialect, backtrack: int
) -> Iterator[list[Token]]:
    """Chunks filled token by token; where one is full, what follows a comma that is near goes to the next
    (A1111, `modules/sd_hijack_clip.py`, tokenize_line)."""
    tokenizer = vocabulary.tokenizer
    room, comma = tokenizer.length - 2, tokenizer.encode(",")
    chunk: list[Token] = []
    last_comma = -1
    made = 0
    for group in _groups(spans, vocabulary, dialect):
        if group is None:
            yield chunk
            chunk, last_comma, made = [], -1, made + 1
            continue
        is_comma = [token.id for token in group] == comma
        if len(chunk) + len(group) > room and chunk:
            near = last_comma >= 0 and room - last_comma <= backtrack and not is_comma and len(group) == 1
            cut = last_comma + 1 if near else len(chunk)
            yield chunk[:cut]
            chunk, last_comma, made = chunk[cut:], -1, made + 1
        elif is_comma:  # One that begins a chunk is not remembered, as in A1111.
            last_comma = len(chunk)
        chunk += group
        while len(chunk) > room:  # An embedding of more vectors than a chunk has room for.
            yield chunk[:room]
            chunk, made = chunk[room:], made + 1
    if chunk or not made:
        yield chunk


def _by_word(spans: Sequence[Span], vocabulary: Vocabulary, dialect: Dialect) -> Iterator[list[Token]]:
    """Chunks filled word by word, long words cut (ComfyUI, `comfy/sd1_clip.py`, tokenize_with_weights)."""
    room = vocabulary.tokenizer.length - 2
    chunk: list[Token] = []
    for number, span in enumerate(spans):
        for word in span.text.split():
            groups = vocabulary.groups(word, dialect.embedding)
            tokens = [Token(token, span.weight, number) for group in groups for token in group]
            while len(chunk) + len(tokens) > room:
                cut = room - len(chunk) if len(tokens) >= LONGEST_WORD else 0
                yield chunk + tokens[:cut]
                chunk, tokens = [], tokens[cut:]
            chunk += tokens
    yield chunk


def _by_sentence(spans: Sequence[Span], vocabulary: Vocabulary, dialect: Dialect) -> Iterator[list[Token]]:
    """Chunks that end with a sentence, else with a phrase, else with a word (compel, `embeddings_provider.py`,
    _find_next_best_split_point)."""
    room = vocabulary.tokenizer.length - 2
    left = [token for group in _groups(spans, vocabulary, dialect) for token in group or ()]
    while len(left) > room:
        words = [vocabulary.text(token.id) for token in left[:room]]
        ends = (
            next(filter(None, map(partial(_last, words), (_SENTENCE, _PHRASE))), 0)
            or _last_word(words)
            or room
        )
        yield left[:ends]
        left = left[ends:]
    yield left


_SENTENCE = frozenset({".</w>"})
_PHRASE = frozenset({".</w>", ",</w>", ";</w>", ":</w>"})


def _last(words: Sequence[str], ends: frozenset[str]) -> int:
    """How many words there are up to the last that is one of `ends`; 0 where there is none."""
    return max((number + 1 for number, word in enumerate(words) if word in ends), default=0)


def _last_word(words: Sequence[str]) -> int:
    return max((number + 1 for number, word in enumerate(words) if word.endswith("</w>")), default=0)


def framed(tokens: Sequence[Token], tokenizer: Tokenizer) -> Chunk:
    """A chunk of a text's tokens: the marks around them, padding behind."""
    mark = Token(tokenizer.end, 1.0, -1)
    whole = [mark._replace(id=tokenizer.start), *tokens, mark]
    whole += [mark._replace(id=tokenizer.pad)] * (tokenizer.length - len(whole))
    ids, weights, spans = zip(*whole, strict=True)
    return Chunk(ids, weights, spans)
