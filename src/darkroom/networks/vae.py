"""The KL autoencoder of Rombach et al. 2022 (arXiv 2112.10752): pictures to latents and back."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks.configs import VAEConfig
from darkroom.networks.layers import (
    Attention,
    Downsample,
    ResnetBlock,
    Upsample,
    to_image,
    to_tokens,
)
from darkroom.networks.tiles import in_tiles

EPS = 1e-6


class SpatialAttention(Attention):
    """Single-head self-attention over the pixels of an image (B, C, H, W), beside a shortcut."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, EPS)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x + to_image(super().forward(to_tokens(self.group_norm(x))), x.shape[-2])


class MidBlock(nn.Module):
    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups, EPS) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Block(nn.Module):
    """ResNet blocks at one resolution, then a step to the next."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        groups: int,
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(ResnetBlock(a, b, groups, EPS) for a, b in pairwise(widths))
        self.downsamplers = nn.ModuleList([Downsample(out_channels, padding=0)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = block(x)
        return x


class Encoder(nn.Module):
    """(B, in_channels, H, W) to mean and log-variance (B, 2 * latent_channels, H/f, W/f)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Block(widths[max(i - 1, 0)], width, config.layers_per_block, groups, down=i < last)
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x), inplace=True))


class Decoder(nn.Module):
    """(B, latent_channels, h, w) to (B, out_channels, f*h, f*w)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            Block(widths[max(i - 1, 0)], width, config.layers_per_block + 1, groups, up=i < last)
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x), inplace=True))


class VAE(nn.Module):
    """`encode` and `decode` speak the autoencoder's own z; `to_latent` and `from_latent` the U-Net's latents.

    Pictures are (B, 3, H, W) in [-1, 1], H and W multiples of `config.factor`. Inputs are cast to the
    weights' dtype, in which the results are.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant_conv = (
            nn.Conv2d(channels, channels, 1) if config.use_post_quant_conv else nn.Identity()
        )

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, (B, latent_channels, H/factor, W/factor) each."""
        mean, logvar = self.quant_conv(self.encoder(self._cast(image))).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        """The picture of z (B, latent_channels, h, w); values may leave [-1, 1] a little."""
        return self.decoder(self.post_quant_conv(self._cast(z)))

    def decode_tiled(self, z: Tensor, tile: int = 64, overlap: int = 16) -> Tensor:
        """`decode` in tiles of `tile` latent pixels, blended where they overlap: less memory, nearly equal.

        Group norms see one tile at a time, so colours may drift a little from one tile to the next.
        """
        return in_tiles(self.decode, z, tile, overlap, self.config.out_channels, up=self.config.factor)

    def encode_tiled(self, image: Tensor, tile: int = 64, overlap: int = 16) -> tuple[Tensor, Tensor]:
        """`encode` in tiles; `tile` and `overlap` count latent pixels."""
        channels = 2 * self.config.latent_channels
        mean, logvar = in_tiles(
            lambda x: torch.cat(self.encode(x), 1), image, tile, overlap, channels, down=self.config.factor
        ).chunk(2, dim=1)
        return mean, logvar

    def to_latent(self, image: Tensor, tiled: bool = False) -> Tensor:
        """The U-Net's latent of a picture: the mean of z, shifted and scaled to about unit variance."""
        mean, _ = self.encode_tiled(image) if tiled else self.encode(image)
        return self.scale(mean)

    def from_latent(self, latent: Tensor, tiled: bool = False) -> Tensor:
        """The picture of a latent of the U-Net's."""
        z = self.unscale(latent)
        return self.decode_tiled(z) if tiled else self.decode(z)

    def scale(self, z: Tensor) -> Tensor:
        """z to the U-Net's latent."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, latent: Tensor) -> Tensor:
        """The U-Net's latent to z."""
        return latent / self.config.scaling_factor + self.config.shift_factor

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.encoder.conv_in.weight.dtype, memory_format=torch.channels_last)
