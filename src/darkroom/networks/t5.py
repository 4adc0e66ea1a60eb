"""The encoder of T5 (Raffel et al. 2020, arXiv 1910.10683), as version 1.1 has it: Stable Diffusion 3's reader.

T5 was trained in bfloat16, and its states leave float16's range (65,504). So between the layers they are
float32 whatever the weights are, and with float16 weights the feed-forward scales them down for a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks.configs import T5Config
from darkroom.networks.layers import merge_heads, split_heads

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gated-gelu": partial(F.gelu, approximate="tanh"),
    "gated-silu": F.silu,
}


def relative_buckets(config: T5Config, length: int, device: torch.device) -> Tensor:
    """For each query and key of a text which bias their distance has: a number, (length, length).

    Keys behind the query have the first half of the buckets, keys ahead the second. In each half, half are
    for single distances, the others for ranges that grow evenly in the logarithm up to the greatest, which
    stands for all beyond: `_relative_position_bucket` of Mesh TensorFlow, with which T5 was trained.
    """
    places = torch.arange(length, device=device)
    offset = places - places[:, None]
    half, exact = config.relative_attention_num_buckets // 2, config.relative_attention_num_buckets // 4
    distance = offset.abs()
    # In float32 and in this order: a distance on the edge of a range falls where it did in training.
    growth = torch.log(distance.clamp(min=1).float() / exact)
    growth /= math.log(config.relative_attention_max_distance / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019, arXiv 1910.07467); any dtype to the weight's."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(weight.dtype) * weight


class Norm(nn.Module):
    """`normed`, with a weight for each of `width` numbers."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return normed(x, self.weight, self.eps)


class SelfAttention(nn.Module):
    """softmax(q k^T + bias) v, without Vaswani et al.'s scale: T5's initial weights make up for it."""

    def __init__(self, config: T5Config, holds_bias: bool) -> None:
        super().__init__()
        self.heads = config.num_heads
        inner = config.num_heads * config.d_kv
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if holds_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, self.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.q, self.k, self.v))
        return self.o(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)))


class FeedForward(nn.Module):
    """Through an inner layer, gated (Shazeer 2020, arXiv 2002.05202) or not; of float16 makes float32."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.feed_forward_proj]
        self.gated = config.feed_forward_proj.startswith("gated-")
        if self.gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            inner = self.activation(self.wi_0(x).float()) * self.wi_1(x).float()
        else:
            inner = self.activation(self.wi(x).float())
        if x.dtype != torch.float16:
            return self.wo(inner.to(x.dtype))
        # Each token's greatest becomes 1: neither it nor what is summed of it then overflows.
        greatest = inner.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        return self.wo((inner / greatest).half()).float() * greatest


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and beside a shortcut, on float32 states (B, T, d_model)."""

    def __init__(self, config: T5Config, holds_bias: bool) -> None:
        super().__init__()
        width, eps = config.d_model, config.layer_norm_epsilon
        attention = {"SelfAttention": SelfAttention(config, holds_bias), "layer_norm": Norm(width, eps)}
        feed_forward = {"DenseReluDense": FeedForward(config), "layer_norm": Norm(width, eps)}
        self.layer = nn.ModuleList([nn.ModuleDict(attention), nn.ModuleDict(feed_forward)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention: Any = self.layer[0]
        feed_forward: Any = self.layer[1]
        x = x + attention["SelfAttention"](attention["layer_norm"](x), bias)
        return x + feed_forward["DenseReluDense"](feed_forward["layer_norm"](x))


class Encoder(nn.Module):
    """States (B, T, d_model) through all blocks and the final norm."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.block = nn.ModuleList(Block(config, holds_bias=i == 0) for i in range(config.num_layers))
        self.final_layer_norm = Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        bias = self.bias(x.shape[1], mask).to(x.dtype)
        x = x.float()
        for block in self.block:
            x = block(x, bias)
        return self.final_layer_norm(x)

    def bias(self, length: int, mask: Tensor | None) -> Tensor:
        """What every block adds to the scores of its attention, (B or 1, heads, T, T); the first one holds it."""
        first: Any = self.block[0]
        table = first.layer[0]["SelfAttention"].relative_attention_bias
        bias: Tensor = table(relative_buckets(self.config, length, table.weight.device)).permute(2, 0, 1)[
            None
        ]
        if mask is None:
            return bias
        # Not minus infinity: a text of nothing but padding would become NaN.
        return bias.masked_fill(mask[:, None, None] == 0, torch.finfo(bias.dtype).min)


class T5Encoder(nn.Module):
    """Token ids (B, T) to states (B, T, d_model) after the final norm, in the weights' dtype.

    `mask` (B, T) is zero where a token is padding, which no other then attends to. Stable Diffusion 3 hands in none.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)
        self.register_load_state_dict_pre_hook(_one_embedding)  # type: ignore[no-untyped-call]

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.encoder(self.shared(ids), mask)


def _one_embedding(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Files hold the embedding under one name, another, or both."""
    twin = state.pop(prefix + "encoder.embed_tokens.weight", None)
    if twin is not None:
        state.setdefault(prefix + "shared.weight", twin)
