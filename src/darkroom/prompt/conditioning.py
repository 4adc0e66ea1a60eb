"""Prompts to what the denoising network is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.errors import InvalidRequest
from darkroom.language import IGNORE, ORIGINAL, Mixture, Span, dialect_of
from darkroom.language.mixture import in_one
from darkroom.networks import CLIPOutput, CLIPText, Conditioning, T5Encoder
from darkroom.networks.roles import Role
from darkroom.prompt.chunks import Chunk, Token, chunks, framed
from darkroom.prompt.emphasis import emphasised
from darkroom.prompt.t5_tokenizer import T5Tokenizer
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.prompt.use import TextUse
from darkroom.prompt.vocabulary import Embeddings, Vocabulary

T5_LENGTH = 256  # What Stable Diffusion 3 was trained on.


class Changes(Protocol):
    """What text encoders are made to do otherwise while they read a prompt; hashable, and equal where it does the
    same."""

    def __hash__(self) -> int: ...

    def of(self, role: Role) -> Changes | None:
        """What of it concerns the encoder of that role, None where nothing does."""
        ...

    def during(self, role: Role, encoder: nn.Module) -> AbstractContextManager[None]:
        """Within which the encoder is changed."""
        ...


@dataclass(frozen=True)
class Prompt:
    """What the text encoders are to read: a text for each, the last of `texts` for those that have none of their own.

    `dialect` and `emphasis` say how weights in it are found and applied (see `darkroom.language`); `skip` how many more
    of a CLIP encoder's last layers are left out; `changes` what adapters do to the encoders meanwhile; `embeddings` the
    words that stand for vectors.
    """

    texts: tuple[str, ...]
    dialect: str = "plain"
    emphasis: str = ORIGINAL
    skip: int = 0
    changes: Changes | None = None
    embeddings: Embeddings = ()

    def mixture(self, encoder: int) -> Mixture:
        """What the encoder of that number, from 0, is to read."""
        return dialect_of(self.dialect).mixture(self.texts[min(encoder, len(self.texts) - 1)])


@dataclass(frozen=True)
class ClipText:
    """A CLIP text encoder, its tokenizer, and what a model takes of it."""

    tokenizer: Tokenizer
    encoder: CLIPText
    use: TextUse = field(default_factory=TextUse)
    role: Role = Role.TEXT_ENCODER

    def states(
        self,
        ids: tuple[int, ...],
        device: torch.device,
        skip: int = 0,
        seen: tuple[bool, ...] | None = None,
        vectors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One sequence's states (1, 77, width), `skip` layers before the usual one, and its pooled vector (1, P):
        projected where the encoder has a projection. `seen` and `vectors` are `CLIPText.forward`'s. Raises
        InvalidRequest where there are no such layers."""
        self.check(skip)
        mask = None if seen is None else torch.tensor([seen], device=device)
        output: CLIPOutput = self.encoder(torch.tensor([ids], device=device), mask, vectors)
        states = output.hidden_states[self.use.layer - skip]
        if self.use.normed:
            states = self.encoder.final_norm(states)
        return states, output.pooled if output.projected is None else output.projected

    def check(self, skip: int) -> None:
        """Raises InvalidRequest where `skip` layers cannot be left out."""
        if not 0 <= skip <= self.most_skipped:
            raise InvalidRequest(
                f"clip_skip is {skip + 1}: this model's text encoder has {self.most_skipped + 1} layers to choose from"
            )

    @property
    def most_skipped(self) -> int:
        """How many layers can be left out beside those that the model does without."""
        return self.encoder.config.num_hidden_layers + 1 + self.use.layer


@dataclass(frozen=True)
class T5Text:
    """The T5 encoder of Stable Diffusion 3. Without one its tokens are zeros, as the model was trained to bear."""

    tokenizer: T5Tokenizer
    encoder: T5Encoder
    role: Role = Role.TEXT_ENCODER_3

    def states(self, ids: tuple[int, ...], device: torch.device) -> Tensor:
        """A sequence's states (1, tokens, width)."""
        states: Tensor = self.encoder(torch.tensor([ids], device=device))
        return states

    def chunk(self, spans: Sequence[Span], length: int) -> Chunk:
        """The first `length` - 1 tokens of a text and the end mark, padded; what does not fit is left out."""
        encode = self.tokenizer.encode
        tokens = [
            Token(token, span.weight, number)
            for number, span in enumerate(spans)
            for token in encode(span.text)
        ]
        mark = Token(self.tokenizer.end, 1.0, -1)
        tokens = [*tokens[: length - 1], mark]
        tokens += [mark._replace(id=self.tokenizer.pad)] * (length - len(tokens))
        ids, weights, numbers = zip(*tokens, strict=True)
        return Chunk(ids, weights, numbers)


class TextConditioner:
    """Prompts to conditionings, with one or more text encoders.

    The CLIP encoders' states lie side by side, (77 tokens, sum of widths); a longer text is encoded in as many chunks
    as it needs, one after the other. With `joint` (the width that an MMDiT joins all text in) they are padded to it,
    and T5's tokens follow. Every chunk is encoded in a call of its own, so a text's conditioning never depends on the
    texts beside it; results are kept for the chunks used last.
    """

    def __init__(
        self,
        clips: Sequence[ClipText],
        joint: int | None = None,
        t5: T5Text | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.clips = tuple(clips)
        self.joint = joint
        self.t5 = t5
        self.vocabulary = lru_cache(maxsize=16)(self._vocabulary)
        self._clip = lru_cache(maxsize=256)(self._encode_clip)
        self._t5 = lru_cache(maxsize=64)(self._encode_t5)

    def forget(self) -> None:
        """Encode everything anew from now on: the encoders have changed."""
        self._clip.cache_clear()
        self._t5.cache_clear()

    @property
    def encoders(self) -> list[nn.Module]:
        """Its networks."""
        return [*(clip.encoder for clip in self.clips), *([self.t5.encoder] if self.t5 else [])]

    @property
    def texts(self) -> int:
        """How many encoders may have a text of their own."""
        return len(self.clips) + (self.joint is not None)

    def __call__(self, prompts: Sequence[Prompt | str | None]) -> list[Conditioning]:
        """All prompts in as many chunks as the longest needs: networks take one context length a call. A text is a
        plain prompt; None one that says nothing at all: zeros in place of states."""
        read = [Prompt((each or "",)) if not isinstance(each, Prompt) else each for each in prompts]
        length = max(self._length(prompt, number) for prompt in read for number in range(len(self.clips)))
        made = [self._conditioning(prompt, length) for prompt in read]
        return [
            _silenced(conditioning) if prompt is None else conditioning
            for prompt, conditioning in zip(prompts, made, strict=True)
        ]

    def chunks(self, prompt: Prompt, number: int) -> list[list[list[Chunk]]]:
        """What the CLIP encoder of that number reads of a prompt: for each of its blends, for each of their texts, the
        chunks."""
        dialect, vocabulary = dialect_of(prompt.dialect), self.vocabulary(number, prompt.embeddings)
        return [
            [chunks(text, vocabulary, dialect) for text in blend.texts] for blend in prompt.mixture(number)
        ]

    def _vocabulary(self, number: int, embeddings: Embeddings) -> Vocabulary:
        role = self.clips[number].role
        own = {name: embedding.arrays[role] for name, embedding in embeddings if role in embedding.arrays}
        clip = self.clips[number]
        return Vocabulary(clip.tokenizer, own, clip.encoder.config.vocab_size)

    def _conditioning(self, prompt: Prompt, length: int) -> Conditioning:
        context = torch.cat(
            [self._context(prompt, number, length) for number in range(len(self.clips))], dim=2
        )
        if self.joint is not None:
            context = F.pad(context, (0, self.joint - context.shape[2]))
            context = torch.cat([context, self._long(prompt, self.joint).to(context.dtype)], dim=1)
        pooled = [self._pooled(prompt, number) for number, clip in enumerate(self.clips) if clip.use.pooled]
        return Conditioning(context, torch.cat(pooled, dim=1) if pooled else None)

    def _length(self, prompt: Prompt, number: int) -> int:
        """How many tokens a CLIP encoder's states of a prompt are."""
        longest = (max(map(len, texts)) for texts in self.chunks(prompt, number))
        return sum(longest) * self.clips[number].tokenizer.length

    def _context(self, prompt: Prompt, number: int, length: int) -> Tensor:
        """A CLIP encoder's states of a prompt, and of the empty one up to `length` tokens."""
        blank = self._blank(prompt, number)
        parts = []
        for blend, texts in zip(prompt.mixture(number), self.chunks(prompt, number), strict=True):
            longest = max(map(len, texts))
            states = [
                torch.cat([self._text(number, text, prompt), *[blank] * (longest - len(text))], dim=1)
                for text in texts
            ]
            parts.append(_weighed(_mixed(states, blend.shares), blend.weight, blank))
        tokens = sum(part.shape[1] for part in parts)
        return torch.cat([*parts, *[blank] * ((length - tokens) // blank.shape[1])], dim=1)

    def _pooled(self, prompt: Prompt, number: int) -> Tensor:
        """The pooled vector of a prompt's first blend, of the first chunk of each of its texts, without weights."""
        blend, texts = prompt.mixture(number)[0], self.chunks(prompt, number)[0]
        return _mixed([self._read(number, text[0].ids, prompt)[1] for text in texts], blend.shares)

    def _blank(self, prompt: Prompt, number: int) -> Tensor:
        empty = framed([], self.clips[number].tokenizer)
        return self._read(number, empty.ids, prompt)[0]

    def _text(self, number: int, text: Sequence[Chunk], prompt: Prompt) -> Tensor:
        """The states of a text's chunks, one after another, with its weights applied."""
        dialect = dialect_of(prompt.dialect)
        whole = self._emphasised(number, text, prompt)
        if not dialect.lowers or prompt.emphasis == IGNORE:
            return whole
        lowered = {
            span: weight
            for chunk in text
            for span, weight in zip(chunk.spans, chunk.weights, strict=True)
            if weight < 1
        }
        states, shares = [whole], [1.0]
        for span, weight in sorted(lowered.items()):
            states.append(self._emphasised(number, text, prompt, without=span))
            # From nothing at weight 1 over as much as the whole at 0.5 to all of it at 0 (compel).
            shares.append(math.tan((1 - max(weight, 1e-5)) * math.pi / 2))
        return _mixed(states, [share / sum(shares) for share in shares])

    def _emphasised(
        self, number: int, text: Sequence[Chunk], prompt: Prompt, without: int | None = None
    ) -> Tensor:
        """The same, with nothing but the weights; `without` a span nobody sees that span's tokens."""
        empty = self._blank(prompt, number) if dialect_of(prompt.dialect).from_empty else None
        parts = []
        for chunk in text:
            hidden = without is not None and without in chunk.spans
            seen = tuple(span != without for span in chunk.spans) if hidden else None
            states, _ = self._read(number, chunk.ids, prompt, seen)
            parts.append(
                emphasised(states, chunk.weights, prompt.emphasis, empty) if chunk.weighted else states
            )
        return torch.cat(parts, dim=1)

    def _long(self, prompt: Prompt, width: int) -> Tensor:
        """T5's states with their weights applied, or zeros in their place."""
        if self.t5 is None:
            return torch.zeros(1, T5_LENGTH, width, device=self.device)
        blend = in_one(prompt.mixture(len(self.clips)))
        return _mixed([self._long_text(text, prompt, self.t5) for text in blend.texts], blend.shares)

    def _long_text(self, spans: Sequence[Span], prompt: Prompt, t5: T5Text) -> Tensor:
        chunk = t5.chunk(spans, T5_LENGTH)
        changes = _concerning(t5.role, prompt)
        states = self._t5(chunk.ids, changes)
        if not chunk.weighted:
            return states
        from_empty = dialect_of(prompt.dialect).from_empty
        empty = self._t5(t5.chunk([], T5_LENGTH).ids, changes) if from_empty else None
        return emphasised(states, chunk.weights, prompt.emphasis, empty)

    def _read(
        self, number: int, ids: tuple[int, ...], prompt: Prompt, seen: tuple[bool, ...] | None = None
    ) -> tuple[Tensor, Tensor]:
        changes = _concerning(self.clips[number].role, prompt)
        plain = max(ids) < self.vocabulary(number, ()).size
        return self._clip(number, ids, prompt.skip, seen, changes, () if plain else prompt.embeddings)

    def _encode_clip(
        self,
        number: int,
        ids: tuple[int, ...],
        skip: int,
        seen: tuple[bool, ...] | None,
        changes: Changes | None,
        embeddings: Embeddings,
    ) -> tuple[Tensor, Tensor]:
        clip = self.clips[number]
        vectors = self.vocabulary(number, embeddings).vectors
        if vectors is not None:
            vectors = vectors.to(self.device)
        with nullcontext() if changes is None else changes.during(clip.role, clip.encoder):
            return clip.states(ids, self.device, skip, seen, vectors)

    def _encode_t5(self, ids: tuple[int, ...], changes: Changes | None) -> Tensor:
        t5 = self.t5
        assert t5 is not None
        with nullcontext() if changes is None else changes.during(t5.role, t5.encoder):
            return t5.states(ids, self.device)


def _concerning(role: Role, prompt: Prompt) -> Changes | None:
    return None if prompt.changes is None else prompt.changes.of(role)


def _mixed(states: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The sum of all, each times its share; one alone as it is."""
    if len(states) == 1 and shares[0] == 1:
        return states[0]
    total = sum((state.float() * share for state, share in zip(states, shares, strict=True)), torch.zeros(()))
    return total.to(states[0].dtype)


def _weighed(states: Tensor, weight: float, blank: Tensor) -> Tensor:
    """States measured from those of the empty prompt."""
    if weight == 1:
        return states
    empty = blank.repeat(1, states.shape[1] // blank.shape[1], 1).float()
    return (empty + (states.float() - empty) * weight).to(states.dtype)


def _silenced(conditioning: Conditioning) -> Conditioning:
    pooled = conditioning.pooled
    return Conditioning(
        torch.zeros_like(conditioning.context), None if pooled is None else torch.zeros_like(pooled)
    )
