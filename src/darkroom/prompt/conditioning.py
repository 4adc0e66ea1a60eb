"""Prompts to what the denoising network is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks import CLIPOutput, CLIPText, T5Encoder
from darkroom.prompt.t5_tokenizer import T5Tokenizer
from darkroom.prompt.tokenizer import Tokenizer

T5_LENGTH = 256  # What Stable Diffusion 3 was trained on.

Ids: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Conditioning:
    """What cross-attention sees, `context` (1, tokens, width), and what the whole text comes to, `pooled` (1, P), for
    networks that are told it."""

    context: Tensor
    pooled: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.context.shape)


@dataclass(frozen=True)
class TextUse:
    """What a model takes of one CLIP text encoder.

    layer: which of the encoder's states, -1 the last; normed: through the final norm; pooled: whether its projected end
    state is part of the pooled vector; pad: the sign that fills a text up to its length.
    """

    layer: int = -1
    normed: bool = True
    pooled: bool = False
    pad: str = "<|endoftext|>"


@dataclass(frozen=True)
class ClipText:
    """A CLIP text encoder, its tokenizer, and what a model takes of it."""

    tokenizer: Tokenizer
    encoder: CLIPText
    use: TextUse = TextUse()

    def states(self, ids: Ids, device: torch.device, skip: int = 0) -> tuple[Tensor, Tensor]:
        """One sequence's states (1, 77, width), `skip` layers before the usual one, and its pooled vector (1, P):
        projected where the encoder has a projection."""
        output: CLIPOutput = self.encoder(torch.tensor([ids], device=device))
        states = output.hidden_states[self.use.layer - skip]
        if self.use.normed:
            states = self.encoder.final_norm(states)
        return states, output.pooled if output.projected is None else output.projected


@dataclass(frozen=True)
class T5Text:
    """The T5 encoder of Stable Diffusion 3. Without one its tokens are zeros, as the model was trained to bear."""

    tokenizer: T5Tokenizer
    encoder: T5Encoder

    def states(self, text: str, length: int, device: torch.device) -> Tensor:
        """A text's states (1, length, width)."""
        states: Tensor = self.encoder(torch.tensor([self.tokenizer(text, length)], device=device))
        return states


class TextConditioner:
    """Texts to conditionings, with one or more text encoders.

    The CLIP encoders' states lie side by side, (77 tokens, sum of widths); a longer text is encoded in as many chunks
    as it needs, one after the other. With `joint` (the width that an MMDiT joins all text in) they are padded to it,
    and T5's tokens follow. Every chunk is encoded in a call of its own, so a text's conditioning never depends on the
    texts beside it; results are kept for the texts used last.
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
        self._clip = lru_cache(maxsize=256)(self._encode_clip)
        self._t5 = lru_cache(maxsize=64)(self._encode_t5)

    @property
    def encoders(self) -> list[nn.Module]:
        """Its networks."""
        return [*(clip.encoder for clip in self.clips), *([self.t5.encoder] if self.t5 else [])]

    def __call__(self, texts: Sequence[str | None]) -> list[Conditioning]:
        """All texts in as many chunks as the longest needs: networks take one context length a call. None is a text
        that says nothing at all: zeros in place of states."""
        chunked = [[self._chunks(clip, text or "") for clip in self.clips] for text in texts]
        longest = max(len(chunks) for each in chunked for chunks in each)
        return [self._conditioning(text, each, longest) for text, each in zip(texts, chunked, strict=True)]

    def _chunks(self, clip: ClipText, text: str) -> list[Ids]:
        return [tuple(chunk) for chunk in clip.tokenizer.chunks(text)]

    def _conditioning(self, text: str | None, chunked: Sequence[list[Ids]], longest: int) -> Conditioning:
        contexts, pooled = [], []
        for number, (clip, chunks) in enumerate(zip(self.clips, chunked, strict=True)):
            blank = tuple(clip.tokenizer(""))
            made = [self._clip(number, chunk) for chunk in chunks + [blank] * (longest - len(chunks))]
            contexts.append(torch.cat([states for states, _ in made], dim=1))
            if clip.use.pooled:
                pooled.append(made[0][1])
        context = torch.cat(contexts, dim=2)
        whole = torch.cat(pooled, dim=1) if pooled else None
        if self.joint is not None:
            context = F.pad(context, (0, self.joint - context.shape[2]))
            context = torch.cat([context, self._t5(text or "").to(context.dtype)], dim=1)
        if text is None:
            return Conditioning(torch.zeros_like(context), None if whole is None else torch.zeros_like(whole))
        return Conditioning(context, whole)

    def _encode_clip(self, number: int, ids: Ids) -> tuple[Tensor, Tensor]:
        return self.clips[number].states(ids, self.device)

    def _encode_t5(self, text: str) -> Tensor:
        if self.t5 is None:
            assert self.joint is not None
            return torch.zeros(1, T5_LENGTH, self.joint, device=self.device)
        return self.t5.states(text, T5_LENGTH, self.device)
