"""The U-Net of Stable Diffusion 1, 2 and XL (Rombach et al. 2022; Podell et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.errors import ModelError
from darkroom.networks.conditioning import Conditioning
from darkroom.networks.configs import Depths, Level, UNetConfig
from darkroom.networks.denoiser import Denoiser
from darkroom.networks.layers import (
    Attend,
    Downsample,
    ResnetBlock,
    TimestepEmbedding,
    Transformer,
    Upsample,
    attend,
    guidance_embedding,
    timestep_embedding,
    zeroed,
)
from darkroom.networks.roles import Role


def _transformers(config: UNetConfig, level: Level, depths: Depths, only_cross: bool) -> nn.ModuleList:
    """One transformer for each depth, or none where all are zero."""
    return nn.ModuleList(
        Transformer(
            level.width,
            config.cross_attention_dim,
            level.heads,
            depth,
            config.norm_num_groups,
            config.use_linear_projection,
            only_cross,
        )
        for depth in depths
        if any(depths)
    )


def _resnet(config: UNetConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, config.norm_num_groups, config.norm_eps, config.time_width)


class DownBlock(nn.Module):
    """One level on the way down; returns every state that becomes a skip connection, the last its result."""

    def __init__(self, config: UNetConfig, index: int) -> None:
        super().__init__()
        level, above = config.level(index), config.block_out_channels[max(index - 1, 0)]
        last = index == len(config.block_out_channels) - 1
        widths = [above] + [level.width] * (len(level.down) - 1)
        self.resnets = nn.ModuleList(_resnet(config, width, level.width) for width in widths)
        self.attentions = _transformers(config, level, level.down, level.only_cross)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(level.width)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, attention: Attend) -> list[Tensor]:
        states = []
        for resnet, transformer in zip_longest(self.resnets, self.attentions):
            x = resnet(x, time)
            if transformer is not None:
                x = transformer(x, context, attention)
            states.append(x)
        for downsample in self.downsamplers:
            states.append(downsample(x))
        return states


class MidBlock(nn.Module):
    """The coarsest level: a ResNet block, then, with `depth`, a transformer and another."""

    def __init__(self, config: UNetConfig, depth: int) -> None:
        super().__init__()
        level = config.level(len(config.block_out_channels) - 1)
        self.attentions = _transformers(config, level, (depth,), only_cross=False)
        self.resnets = nn.ModuleList(
            _resnet(config, level.width, level.width) for _ in range(1 + len(self.attentions))
        )

    def forward(self, x: Tensor, time: Tensor, context: Tensor, attention: Attend) -> Tensor:
        x = self.resnets[0](x, time)
        for transformer, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = resnet(transformer(x, context, attention), time)
        return x


class UpBlock(nn.Module):
    """One level on the way up; each ResNet block takes a skip connection off the end of the list."""

    def __init__(self, config: UNetConfig, index: int) -> None:
        super().__init__()
        widths, level = config.block_out_channels, config.level(index)
        below, above = widths[min(index + 1, len(widths) - 1)], widths[max(index - 1, 0)]
        layers = len(level.up)
        inputs = [below] + [level.width] * (layers - 1)
        skips = [level.width] * (layers - 1) + [above]
        self.resnets = nn.ModuleList(
            _resnet(config, a + b, level.width) for a, b in zip(inputs, skips, strict=True)
        )
        self.attentions = _transformers(config, level, level.up, level.only_cross)
        self.upsamplers = nn.ModuleList([Upsample(level.width)] if index else [])

    def forward(
        self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, attention: Attend
    ) -> Tensor:
        for resnet, transformer in zip_longest(self.resnets, self.attentions):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time)
            if transformer is not None:
                x = transformer(x, context, attention)
        for upsample in self.upsamplers:
            # The next skip's size, not twice this one's: odd sizes were rounded up on the way down.
            height, width = skips[-1].shape[-2:]
            x = upsample(x, (height, width))
        return x


class UNet(Denoiser):
    """The denoising network: x (B, in_channels, h, w), of any h and w, to (B, out_channels, h, w).

    `time` (B,) is what the network was trained on (0 to 999 for most), whole or not. It is told a context (B, T,
    cross_attention_dim), and what its config says it was trained with besides. Inputs are cast to the weights' dtype,
    in which the result is.
    """

    role: ClassVar[Role] = Role.UNET
    joint: ClassVar[bool] = False

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, time_width = config.block_out_channels, config.time_width
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time_width, config.time_cond_proj_dim)
        self.class_embedding = _class_embedding(config)
        if config.addition_embed_type == "text_time":
            self.add_embedding = TimestepEmbedding(_projection_width(config), time_width)
        self.down_blocks = nn.ModuleList(DownBlock(config, i) for i in range(len(widths)))
        depth = config.mid_transformer_layers
        self.mid_block = None if depth is None else MidBlock(config, depth)
        self.up_blocks = nn.ModuleList(UpBlock(config, i) for i in reversed(range(len(widths))))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], config.norm_eps)
        self.conv_out = zeroed(nn.Conv2d(widths[0], config.out_channels, 3, padding=1))
        self.name_layers()

    @property
    def middle(self) -> str:
        return "mid_block"

    def tokens(self, x: Tensor) -> int:
        return x.shape[-2] * x.shape[-1]

    def merging(self) -> Iterator[tuple[nn.Module, int, int]]:
        widths = self.config.block_out_channels[::-1]
        for number, block in enumerate(self.up_blocks):
            for index, resnet in enumerate(block.resnets):  # type: ignore[arg-type]
                yield resnet, widths[number if index else max(number - 1, 0)], number

    def blank(self, tokens: int, sizes: int = 0) -> Conditioning:
        config = self.config
        context = torch.zeros(1, tokens, config.cross_attention_dim)
        guidance = None if config.time_cond_proj_dim is None else torch.zeros(1)
        if config.addition_embed_type != "text_time":
            return Conditioning(context, guidance=guidance)
        pooled = _projection_width(config) - sizes * (config.addition_time_embed_dim or 256)
        return Conditioning(context, torch.zeros(1, pooled), torch.zeros(1, sizes), guidance=guidance)

    def forward(self, x: Tensor, time: Tensor, told: Conditioning) -> Tensor:
        attention, residuals = told.attention or attend, told.residuals
        x = x.to(self.conv_in.weight.dtype, memory_format=torch.channels_last)
        context = told.context.to(x.dtype)
        vector = F.silu(self.time_vector(time, told))
        skips = [self.conv_in(x)]
        for block in self.down_blocks:
            skips += block(skips[-1], vector, context, attention)
        x = skips[-1]
        if self.mid_block is not None:
            x = self.mid_block(x, vector, context, attention)
        if residuals is not None:
            skips = [skip + residual for skip, residual in zip(skips, residuals.blocks, strict=True)]
            x = x if residuals.mid is None else x + residuals.mid
        for block in self.up_blocks:
            x = block(x, skips, vector, context, attention)
        return self.conv_out(F.silu(self.conv_norm_out(x), inplace=True))

    def time_vector(self, time: Tensor, told: Conditioning) -> Tensor:
        """All that is known of a row besides its text, as one vector: (B, 4 * block_out_channels[0])."""
        config, dtype = self.config, self.conv_in.weight.dtype
        guidance = told.guidance
        if guidance is not None and config.time_cond_proj_dim is not None:
            guidance = guidance_embedding(guidance, config.time_cond_proj_dim).to(dtype)
        width = config.block_out_channels[0]
        vector: Tensor = self.time_embedding(timestep_embedding(time, width).to(dtype), guidance)
        if self.class_embedding is not None:
            labels = told.needed("labels")
            if config.class_embed_type == "timestep":
                labels = timestep_embedding(labels, width)
            vector = vector + self.class_embedding(
                labels if isinstance(self.class_embedding, nn.Embedding) else labels.to(dtype)
            )
        if config.addition_embed_type == "text_time":
            pooled, numbers = told.needed("pooled"), told.needed("sizes")
            sizes = timestep_embedding(numbers.flatten(), config.addition_time_embed_dim or 256)
            facts = torch.cat([pooled.to(dtype), sizes.to(dtype).view(len(numbers), -1)], dim=1)
            vector = vector + self.add_embedding(facts)
        return vector


def _class_embedding(config: UNetConfig) -> nn.Module | None:
    if config.class_embed_type == "timestep":
        return TimestepEmbedding(config.block_out_channels[0], config.time_width)
    if config.class_embed_type == "projection":
        return TimestepEmbedding(_projection_width(config), config.time_width)
    return nn.Embedding(config.num_class_embeds, config.time_width) if config.num_class_embeds else None


def _projection_width(config: UNetConfig) -> int:
    if config.projection_class_embeddings_input_dim is None:
        raise ModelError(
            "U-Net config: projection_class_embeddings_input_dim is missing; its embedding needs it"
        )
    return config.projection_class_embeddings_input_dim
