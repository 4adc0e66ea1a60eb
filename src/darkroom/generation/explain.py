"""What Darkroom reads in a prompt: the steps, texts, chunks, tokens and weights, and what it names besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from darkroom.adapters.collection import Collection
from darkroom.adapters.describe import in_words
from darkroom.diffusion import positives
from darkroom.errors import DarkroomError
from darkroom.generation.request import Request
from darkroom.generation.wording import Extras, Wording
from darkroom.language import EMPHASES, IGNORE, Moment, dialect_of
from darkroom.language.mixture import in_one
from darkroom.language.tags import TAG, Tag
from darkroom.prompt.chunks import Chunk
from darkroom.prompt.conditioning import T5_LENGTH, Prompt, TextConditioner


@dataclass(frozen=True)
class TokenRead:
    """A token as the vocabulary has it, and its weight."""

    text: str
    weight: float


@dataclass(frozen=True)
class ChunkRead:
    """A sequence that an encoder reads: its tokens, without marks, and how many there is room for."""

    tokens: tuple[TokenRead, ...]
    room: int


@dataclass(frozen=True)
class TextRead:
    """A text that an encoder reads, in chunks, and its share of what they come to; `cut` tokens are not read."""

    share: float
    chunks: tuple[ChunkRead, ...]
    cut: int = 0


@dataclass(frozen=True)
class EncoderRead:
    """What one text encoder reads: blends one after another, each of texts that are added up."""

    encoder: str
    blends: tuple[tuple[TextRead, ...], ...]


@dataclass(frozen=True)
class Phase:
    """Steps, counted from 1, on which a row says the same: a text for each encoder that has its own."""

    steps: tuple[int, ...]
    texts: tuple[str, ...]
    encoders: tuple[EncoderRead, ...]


@dataclass(frozen=True)
class RowRead:
    """One of the rows that guide a picture: "positive" (or its parts), "negative"; and how much it counts."""

    row: str
    weight: float | None
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class NamedRead:
    """An adapter or an embedding that the prompt names: what it is, and what is wrong with it, if anything."""

    name: str
    what: str
    problem: str | None = None


@dataclass(frozen=True)
class Explanation:
    """How a request's prompts are read by a model."""

    model: str
    dialect: str
    emphasis: str
    steps: int
    rows: tuple[RowRead, ...]
    adapters: tuple[NamedRead, ...]
    embeddings: tuple[NamedRead, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether everything that is named can be used."""
        return not any(each.problem for each in (*self.adapters, *self.embeddings))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def explain(request: Request, text: TextConditioner, collection: Collection, model: str) -> Explanation:
    """How a settled request for one picture is read by a model of that name; its networks need no weights.

    Raises InvalidRequest where its prompts cannot be read at all.
    """
    steps = request.sampling.steps
    assert steps is not None
    wording = Wording(request)
    found, notes = collection.embeddings(wording.texts, request.text.embeddings, ())
    wording = Wording(request, Extras({}, tuple(found.items())))
    rows: list[RowRead] = []
    weights = {
        each.name: weight
        for each, weight in zip(positives(len(wording.weights)), wording.weights, strict=True)
    }
    for row in (*weights, "negative"):
        for end, (_, share) in enumerate(wording.told(row, Moment(0, steps), adapted=False)):
            called = f"{row} ({share:.0%})" if share < 1 else row
            rows.append(RowRead(called, weights.get(row), tuple(_phases(wording, row, end, steps, text))))
    return Explanation(
        model,
        request.text.dialect,
        request.text.emphasis,
        steps,
        tuple(rows),
        tuple(_adapter(tag, collection) for tag in wording.tags),
        tuple(_embedding(name, each.arrays) for name, each in found.items()),
        (*notes, *_adapters_notes(wording, collection), *_notes(request, rows)),
    )


def _phases(wording: Wording, row: str, end: int, steps: int, text: TextConditioner) -> Iterator[Phase]:
    said: dict[Prompt, list[int]] = {}
    for step in range(steps):
        prompt, _ = wording.told(row, Moment(step, steps), adapted=False)[end]
        said.setdefault(prompt, []).append(step + 1)
    for prompt, own in said.items():
        yield Phase(tuple(own), prompt.texts, tuple(_encoders(prompt, text)))


def _encoders(prompt: Prompt, text: TextConditioner) -> Iterator[EncoderRead]:
    for number, clip in enumerate(text.clips):
        vocabulary = text.vocabulary(number, prompt.embeddings)

        def read(chunk: Chunk, vocabulary: Any = vocabulary) -> ChunkRead:
            rows = zip(chunk.ids, chunk.weights, chunk.spans, strict=True)
            tokens = [TokenRead(vocabulary.text(id), weight) for id, weight, span in rows if span >= 0]
            return ChunkRead(tuple(tokens), len(chunk.ids) - 2)

        blends = zip(prompt.mixture(number), text.chunks(prompt, number), strict=True)
        yield EncoderRead(
            clip.role,
            tuple(
                tuple(
                    TextRead(share * blend.weight, tuple(map(read, own)))
                    for share, own in zip(blend.shares, texts, strict=True)
                )
                for blend, texts in blends
            ),
        )
    if text.t5 is not None:
        yield EncoderRead(text.t5.role, (tuple(_long(prompt, text)),))


def _long(prompt: Prompt, text: TextConditioner) -> Iterator[TextRead]:
    """What T5 reads."""
    assert text.t5 is not None
    tokenizer = text.t5.tokenizer
    blend = in_one(prompt.mixture(len(text.clips)))
    for share, spans in zip(blend.shares, blend.texts, strict=True):
        tokens = [TokenRead(piece, span.weight) for span in spans for piece in tokenizer.pieces(span.text)]
        room = T5_LENGTH - 1
        yield TextRead(share, (ChunkRead(tuple(tokens[:room]), room),), max(0, len(tokens) - room))


def _adapter(tag: Tag, collection: Collection) -> NamedRead:
    try:
        adapter = collection.adapter(tag)
    except DarkroomError as error:
        return NamedRead(str(tag), tag.kind, str(error))
    return NamedRead(str(tag), tag.kind if adapter.hypernetwork else in_words(adapter))


def _adapters_notes(wording: Wording, collection: Collection) -> Iterator[str]:
    """What is not used of the adapters that are."""
    for tag in wording.tags:
        with suppress(DarkroomError):
            yield from collection.adapter(tag).notes


def _embedding(name: str, arrays: Any) -> NamedRead:
    counts = ", ".join(f"{len(array)} x {array.shape[1]} in {role}" for role, array in arrays.items())
    return NamedRead(name, f"vectors: {counts}")


def _notes(request: Request, rows: list[RowRead]) -> Iterator[str]:
    """What in the prompts has no effect, or another than its author may think."""
    dialect = dialect_of(request.text.dialect)
    for name in ("prompt", "negative"):
        text = getattr(request, name)
        if tag := TAG.search(text):
            if name == "negative":
                yield f"{tag[0]} in the negative prompt is text: adapters are for the whole picture"
            elif not dialect.tagged(text)[1]:
                yield f"{tag[0]} is text in the dialect {dialect.name}: name it in `adapters=`"
        if request.text.dynamic == "off" and re.search(r"\{[^{}]*\|[^{}]*\}|__\w[\w/*]*__", text):
            yield f'{{a|b}} and __file__ in the {name} are text: `dynamic="random"` draws from them'
        if not dialect.edits and re.search(r"\bAND\b|\[[^\[\]]*:[^\[\]]*\]", text):
            yield f"AND and [from:to:when] are text in the dialect {dialect.name}"
        if dialect.name == "a1111" and re.search(r"\w(\+\+?|--)(\s|$)", text):
            yield '+ and - behind a word are text in the dialect a1111: `dialect="compel"` reads them as weights'
    if request.text.emphasis == IGNORE:
        yield f'weights: {EMPHASES[IGNORE]} (`emphasis="ignore"`)'
    for row in rows:
        for phase in row.phases:
            for encoder in phase.encoders:
                cut = sum(each.cut for blend in encoder.blends for each in blend)
                if cut:
                    room = T5_LENGTH - 1
                    yield f"{encoder.encoder} reads {room} tokens: the last {cut} of the {row.row} row are left out"
