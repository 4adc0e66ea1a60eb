"""Blocks shared by the networks. Attribute names are the keys of the published Hugging Face folders.

Images are (B, C, H, W) kept channels-last in memory, so that seeing one as tokens (B, H*W, C) costs
nothing. Where a result is changed in place it is one that nobody else holds: fresh memory is slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attend = Callable[[Tensor, Tensor, Tensor, str], Tensor]
"""Takes queries (B, heads, N, d), keys and values (B, heads, M, d) and the name of the attention layer
(its key in the state dict, such as `mid_block.attentions.0.transformer_blocks.0.attn1`); returns what
the queries gather, (B, heads, N, d)."""

# Queries times keys up to which training on a CPU computes attention in plain steps. The fused kernel's
# backward is slow there: plain, 64x64 took 1/9 of its time in bfloat16 and 1/1.3 in float32, 256x256
# in bfloat16 1/3; at 1024x1024 the fused one wins in both (torch 2.13, AVX512-bf16).
PLAIN_ATTENTION_LIMIT = 1 << 16

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def attend(q: Tensor, k: Tensor, v: Tensor, name: str = "", causal: bool = False) -> Tensor:
    """Scaled dot-product attention, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1).

    q is (B, heads, N, d); k and v are (B, heads, M, d). The default `Attend`; it has no use for `name`.
    """
    if q.device.type == "cpu" and q.requires_grad and q.shape[2] * k.shape[2] <= PLAIN_ATTENTION_LIMIT:
        return _plain_attention(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The same in three operations, for training: the fused kernel's backward is slow on CPUs."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(-1) @ v


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, heads*d) to (B, heads, N, d), without a copy."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, heads*d)."""
    return tokens.transpose(1, 2).flatten(2)


def zeroed(module: AnyModule) -> AnyModule:
    """The module with all its parameters zero: a residual branch that starts by adding nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_embedding(time: Tensor, width: int) -> Tensor:
    """Times (B,) to float32 (B, width): cosines, then sines, of falling frequency.

    Frequencies are 10000^(-i / (width/2)): Vaswani et al. 2017, section 3.5, as in Ho et al. 2020.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=time.device) / half)
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def guidance_embedding(guidance: Tensor, width: int) -> Tensor:
    """Guidance scales less one (B,) to float32 (B, width): Luo et al. 2023 (latent consistency models)."""
    half = width // 2
    # In this order: angles reach thousands of turns, where float32 forgives no other rounding.
    frequencies = torch.exp(torch.arange(half, device=guidance.device) * -(math.log(10000) / (half - 1)))
    angles = (1000 * guidance.float())[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers that take a vector (B, in_width) to the width of the time embedding."""

    def __init__(self, in_width: int, width: int, guidance_width: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_width, width)
        if guidance_width is not None:
            self.cond_proj = nn.Linear(guidance_width, in_width, bias=False)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor, guidance: Tensor | None = None) -> Tensor:
        if guidance is not None:
            x = x + self.cond_proj(guidance)
        return self.linear_2(F.silu(self.linear_1(x)))


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, in_channels, H, W) to (B, out_channels, H, W).

    With `time_width`, `time` (B, time_width), already through SiLU, is projected and added in between.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, eps: float, time_width: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x), inplace=True))
        if time is not None:
            h += self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        h += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h


class Downsample(nn.Module):
    """(B, C, H, W) to half the height and width by a strided 3x3 convolution.

    `padding` 1 is the U-Net's; with 0 (the autoencoder's) one row and column are added on the far
    sides only.
    """

    def __init__(self, channels: int, padding: int = 1) -> None:
        super().__init__()
        self.pad = nn.Identity() if padding else nn.ZeroPad2d((0, 1, 0, 1))
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pad(x))


class Upsample(nn.Module):
    """(B, C, H, W) to `size`, by default twice the height and width, by repetition and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        size = size or (2 * x.shape[-2], 2 * x.shape[-1])
        return self.conv(F.interpolate(x, size, mode="nearest"))


class Attention(nn.Module):
    """Multi-head attention from tokens (B, N, width) to `context` (B, M, context_width) or to themselves."""

    name = ""  # Its key in the network's state dict: what an `Attend` is told. Set by the network.

    def __init__(self, width: int, context_width: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias)
        self.to_k = nn.Linear(context_width, width, bias)
        self.to_v = nn.Linear(context_width, width, bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor | None = None, attention: Attend = attend) -> Tensor:
        context = x if context is None else context
        q, k, v = (split_heads(t, self.heads) for t in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out[0](merge_heads(attention(q, k, v, self.name)))


class GEGLU(nn.Module):
    """A linear layer whose second half of outputs gates the first through GELU (Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Tokens (B, N, width) through a gated inner layer four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The files number a dropout between the two layers.
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class TransformerBlock(nn.Module):
    """Attention to itself (to the context with `only_cross`), attention to the context, feed-forward."""

    def __init__(self, width: int, context_width: int, heads: int, only_cross: bool = False) -> None:
        super().__init__()
        self.only_cross = only_cross
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, context_width if only_cross else width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor, attention: Attend = attend) -> Tensor:
        """x (B, N, width) and context (B, M, context_width) to (B, N, width)."""
        x = self.attn1(self.norm1(x), context if self.only_cross else None, attention).add_(x)
        x = self.attn2(self.norm2(x), context, attention).add_(x)
        return self.ff(self.norm3(x)).add_(x)


class Transformer(nn.Module):
    """`depth` transformer blocks over the pixels of an image (B, channels, H, W), beside a shortcut."""

    def __init__(
        self,
        channels: int,
        context_width: int,
        heads: int,
        depth: int,
        groups: int,
        linear: bool = False,
        only_cross: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_width, heads, only_cross) for _ in range(depth)
        )
        self.proj_out = zeroed(nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor, attention: Attend = attend) -> Tensor:
        h: Tensor = self.norm(x) if self.linear else self.proj_in(self.norm(x))
        tokens = to_tokens(h)
        if self.linear:
            tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context, attention)
        if self.linear:
            tokens = self.proj_out(tokens)
        h = to_image(tokens, x.shape[-2])
        if not self.linear:
            h = self.proj_out(h)
        h += x
        return h


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H*W, C): a view where the image is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, height: int) -> Tensor:
    """(B, H*W, C) to a channels-last (B, C, H, W): always a view."""
    return tokens.reshape(len(tokens), height, -1, tokens.shape[-1]).permute(0, 3, 1, 2)
