"""A pipeline's U-Net or MMDiT, as loops of diffusers' users call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from darkroom.adapters.applied import applied
from darkroom.compat.diffusers.arguments import attention_scale
from darkroom.compat.diffusers.faces import Network, network
from darkroom.compat.diffusers.outputs import BaseOutput
from darkroom.compat.diffusers.signatures import refuse
from darkroom.networks import Conditioning, Denoiser, Residuals


@dataclass
class DenoiserOutput(BaseOutput):
    """`sample`: what the network makes of latents, (B, C, h, w)."""

    sample: Tensor


class _Denoiser(Network):
    """A denoiser with the LoRAs of the pipeline that it was last asked of, which `_pipe` refers to."""

    _pipe: Any = staticmethod(lambda: None)

    def _denoised(
        self,
        x: Tensor,
        timestep: float | Tensor,
        told: Conditioning,
        settings: Mapping[str, Any] | None,
        return_dict: bool,
    ) -> Any:
        pipe, own = self._pipe(), self._own
        device, scale = self.device if pipe is None else pipe.device, attention_scale(settings)
        times = torch.as_tensor(timestep, dtype=torch.float32, device=device).flatten().expand(len(x))
        doses = () if pipe is None else pipe._doses(own.role, scale)
        alone: Any = nullcontext() if pipe is None else pipe._networks().lock
        with alone, applied(own, own.role, [doses] * len(x)):
            found = own(x.to(device), times, told.to(device, self.dtype)).to(x.dtype)
        return DenoiserOutput(found) if return_dict else (found,)


class _UNet(_Denoiser):
    def __call__(
        self,
        sample: Tensor,
        timestep: float | Tensor,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        timestep_cond: None = None,
        attention_mask: None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        down_block_additional_residuals: Sequence[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        down_intrablock_additional_residuals: None = None,
        encoder_attention_mask: None = None,
        return_dict: bool = True,
    ) -> Any:
        """Of latents (B, C, h, w) at a time, one for all or one each, with texts (B, tokens, width); SDXL's
        `added_cond_kwargs` are `text_embeds` (B, P) and `time_ids` (B, 6). Without `return_dict` a tuple."""
        refuse(
            timestep_cond=timestep_cond,
            attention_mask=attention_mask,
            down_intrablock_additional_residuals=down_intrablock_additional_residuals,
            encoder_attention_mask=encoder_attention_mask,
        )
        added, down = added_cond_kwargs or {}, down_block_additional_residuals
        told = Conditioning(
            encoder_hidden_states,
            added.get("text_embeds"),
            None if (sizes := added.get("time_ids")) is None else sizes.to(torch.float32),
            class_labels,
            residuals=None if down is None else Residuals(tuple(down), mid_block_additional_residual),
        )
        return self._denoised(sample, timestep, told, cross_attention_kwargs, return_dict)


class _MMDiT(_Denoiser):
    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: float | Tensor,
        block_controlnet_hidden_states: Sequence[Tensor] | None = None,
        joint_attention_kwargs: Mapping[str, Any] | None = None,
        return_dict: bool = True,
        skip_layers: None = None,
    ) -> Any:
        """Of latents (B, C, h, w) at a time, one for all or one each, with texts (B, tokens, width) and what they come
        to (B, P). Without `return_dict` a tuple."""
        refuse(skip_layers=skip_layers)
        blocks = block_controlnet_hidden_states
        residuals = None if blocks is None else Residuals(tuple(blocks))
        told = Conditioning(encoder_hidden_states, pooled_projections, residuals=residuals)
        return self._denoised(hidden_states, timestep, told, joint_attention_kwargs, return_dict)


def denoiser(of: Denoiser, pipe: Any) -> Any:
    """The face of a pipeline's denoiser, one for all pipelines that have it."""
    face = network(of, _MMDiT if of.joint else _UNet)
    type(face)._pipe = staticmethod(ref(pipe))
    return face
