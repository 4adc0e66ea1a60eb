"""Prompts to what the denoising network is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from darkroom.networks import CLIPOutput, CLIPText
from darkroom.prompt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Conditioning:
    """What cross-attention sees: `context` (1, tokens, width)."""

    context: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.context.shape)


class TextConditioner:
    """Texts to conditionings with one CLIP text encoder.

    Every 77-token chunk is encoded in a call of its own, so a text's conditioning never depends on
    the texts beside it; results are kept for the texts used last.
    """

    def __init__(self, tokenizer: Tokenizer, encoder: CLIPText) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self._chunk = lru_cache(maxsize=256)(self._encode_chunk)

    def __call__(self, texts: Sequence[str]) -> list[Conditioning]:
        """All texts in as many chunks as the longest needs: networks take one context length a call."""
        chunked = [[tuple(chunk) for chunk in self.tokenizer.chunks(text)] for text in texts]
        longest = max(len(chunks) for chunks in chunked)
        blank = tuple(self.tokenizer(""))
        return [
            Conditioning(
                torch.cat([self._chunk(c) for c in chunks + [blank] * (longest - len(chunks))], dim=1)
            )
            for chunks in chunked
        ]

    def _encode_chunk(self, ids: tuple[int, ...]) -> Tensor:
        device = next(self.encoder.parameters()).device
        output: CLIPOutput = self.encoder(torch.tensor([ids], device=device))
        return output.last
