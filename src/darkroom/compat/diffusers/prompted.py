"""What a pipeline's network is told of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from darkroom.adapters.applied import applied
from darkroom.compat.diffusers.adapters import Adapted
from darkroom.compat.diffusers.arguments import Arguments, checked, lora_scale
from darkroom.compat.diffusers.call import Embeds
from darkroom.compat.diffusers.parts import Parts
from darkroom.compat.diffusers.prompts import by_encoder, encode
from darkroom.errors import InvalidRequest


class Prompted(Adapted, Parts):
    """What reads a call's prompts, with the LoRAs and the words that it knows."""

    tensor_inputs: ClassVar[tuple[str, ...]] = ("latents", "prompt_embeds", "negative_prompt_embeds")
    """What callbacks may ask for."""

    def encode_prompt(self, *_: Any, **call: Unpack[Arguments]) -> tuple[Tensor | None, ...]:
        """(prompt_embeds, negative_prompt_embeds) as a call takes them; for families whose networks are told of pooled
        states too, (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds)."""
        call = checked(call, self.tensor_inputs)
        found = self._encoded(call, guided=call["do_classifier_free_guidance"])
        plain = found.prompt, found.negative
        return (*plain, found.pooled, found.negative_pooled) if self._pools else plain

    @property
    def _pools(self) -> bool:
        return any(clip.use.pooled for clip in self._expert.text.clips)

    def _encoded(self, call: Arguments, *, guided: bool) -> Embeds:
        """What the network is told of each picture of a call: of its prompts, unless they are given ready."""
        given = Embeds.given(call)
        prompts = call["prompt"], call["prompt_2"], call["prompt_3"]
        negatives = call["negative_prompt"], call["negative_prompt_2"], call["negative_prompt_3"]
        if (prompts[0] is None) == (given.prompt is None):
            raise InvalidRequest("give either prompt or prompt_embeds")
        if negatives[0] is not None and given.negative is not None:
            raise InvalidRequest(
                "both negative_prompt and negative_prompt_embeds were given: give one of them"
            )
        prompt, pooled = given.prompt, given.pooled
        if prompt is None:
            prompt, pooled = self._read(by_encoder("prompt", prompts), call, call["clip_skip"] or 0)
        elif pooled is None and self._pools:
            raise InvalidRequest("prompt_embeds were given without pooled_prompt_embeds: give both")
        if not guided:
            return Embeds(prompt, None, pooled, None).repeated(call["num_images_per_prompt"])
        negative, negative_pooled = given.negative, given.negative_pooled
        if negative is None and negatives[0] is None and self._family.zero_empty:
            negative = torch.zeros_like(prompt)
            negative_pooled = None if pooled is None else torch.zeros_like(pooled)
        elif negative is None:
            texts = by_encoder("negative_prompt", (negatives[0] or "", *negatives[1:]), len(prompt))
            negative, negative_pooled = self._read(texts, call)
        elif negative_pooled is None and pooled is not None:
            raise InvalidRequest(
                "negative_prompt_embeds were given without negative_pooled_prompt_embeds: give both"
            )
        if negative.shape != prompt.shape:
            raise InvalidRequest(
                f"negative_prompt_embeds have the shape {tuple(negative.shape)}, prompt_embeds "
                f"{tuple(prompt.shape)}: they must be the same"
            )
        return Embeds(prompt, negative, pooled, negative_pooled).repeated(call["num_images_per_prompt"])

    def _read(
        self, texts: Sequence[Sequence[str]], call: Arguments, skip: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """What the text encoders make of texts, with the LoRAs that are used."""
        expert, scale, length = self._expert, lora_scale(call), call["max_sequence_length"]
        with self._networks().lock, ExitStack() as changed:
            for role, network in expert.networks.items():
                if role != expert.role:
                    changed.enter_context(applied(network, role, [self._doses(role, scale)]))
            return encode(expert.text, texts, skip=skip, t5_length=length, embeddings=self._embeddings)
