"""Prompts as diffusers encodes them: one sequence per encoder, what does not fit it left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from darkroom.errors import InvalidRequest
from darkroom.numeric import integer
from darkroom.prompt import ClipText, TextConditioner
from darkroom.prompt.vocabulary import Embeddings, Vocabulary

log = logging.getLogger(__name__)


def listed(name: str, value: object, count: int | None = None) -> list[str]:
    """A prompt or a list of them as a list; one prompt stands for `count` of them. Raises InvalidRequest for anything
    else, and for a list of another length."""
    if isinstance(value, str):
        return [value] * (count or 1)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) for each in value):
        raise InvalidRequest(f"{name} is {value!r}: give text, or a list of texts")
    if count is not None and len(value) != count:
        raise InvalidRequest(f"{name} has {len(value)} texts, prompt has {count}: give as many")
    return list(value)


def by_encoder(name: str, prompts: Sequence[Any], count: int | None = None) -> list[list[str]]:
    """The texts of each encoder: its own, or the first one's."""
    first = listed(name, prompts[0], count)
    others = enumerate(prompts[1:], start=2)
    return [first, *(listed(f"{name}_{n}", own, len(first)) if own else first for n, own in others)]


def encode(
    conditioner: TextConditioner,
    texts: Sequence[Sequence[str]],
    *,
    skip: int = 0,
    t5_length: int = 256,
    embeddings: Embeddings = (),
) -> tuple[Tensor, Tensor | None]:
    """What a network is told of `texts`, a list for each encoder: states (n, tokens, width) and, where the model has
    it, the pooled vector (n, P).

    `skip`: how many more of CLIP's last layers are left out; `t5_length`: how many tokens T5 gives;
    `embeddings`: words that stand for vectors.
    """
    contexts, pooled = [], []
    with torch.no_grad():
        for number, clip in enumerate(conditioner.clips):
            vocabulary = conditioner.vocabulary(number, embeddings)
            encoded = [_encoded(clip, text, skip, conditioner.device, vocabulary) for text in texts[number]]
            contexts.append(torch.cat([states for states, _ in encoded]))
            if clip.use.pooled:
                pooled.append(torch.cat([each for _, each in encoded]))
        context = torch.cat(contexts, dim=2)
        if conditioner.joint is not None:
            context = F.pad(context, (0, conditioner.joint - context.shape[2]))
            context = torch.cat([context, _long(conditioner, texts[-1], t5_length).to(context.dtype)], dim=1)
    return context, torch.cat(pooled, dim=1) if pooled else None


def _encoded(
    clip: ClipText, text: str, skip: int, device: torch.device, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor]:
    tokenizer = clip.tokenizer
    room = tokenizer.length - 2
    ids = [token for group in vocabulary.groups(text) for token in group]
    if len(ids) > room:
        log.warning("a prompt has %d tokens: CLIP sees the first %d of them", len(ids), room)
    most = clip.most_skipped
    if (layers := integer(skip)) is None or not 0 <= layers <= most:
        raise InvalidRequest(f"clip_skip is {skip!r}: this model's text encoder takes 0 to {most}")
    vectors = None if vocabulary.vectors is None else vocabulary.vectors.to(device)
    return clip.states(tuple(tokenizer.framed(ids[:room])), device, layers, vectors=vectors)


def _long(conditioner: TextConditioner, texts: Sequence[str], length: int) -> Tensor:
    """T5's states, or zeros in their place."""
    if conditioner.t5 is None:
        assert conditioner.joint is not None
        return torch.zeros(len(texts), length, conditioner.joint, device=conditioner.device)
    t5 = conditioner.t5
    return torch.cat([t5.states(tuple(t5.tokenizer(text, length)), conditioner.device) for text in texts])
