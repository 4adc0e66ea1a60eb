"""The KL autoencoder of Rombach et al. 2022 (arXiv 2112.10752): pictures to latents and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks import bands
from darkroom.networks.configs import VAEConfig
from darkroom.networks.layers import (
    Attention,
    Downsample,
    ResnetBlock,
    Upsample,
    to_image,
    to_tokens,
)
from darkroom.networks.seamless import joined
from darkroom.networks.tiles import in_tiles, snug

EPS = 1e-6

Parts: TypeAlias = Literal["whole", "bands", "tiles"]
"""How much of a picture an autoencoder works on at once: all of it; every layer of all of it, but band by band of rows,
for the same result; or tile by tile, for nearly the same in the least memory. What is no larger than a tile is whole in
any case."""
TILE, OVERLAP = 64, 16
"""Of tiles, in latent pixels."""


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
    """ResNet blocks at one resolution, then a step to the next: `layers`, from (B, in_channels, H, W) on."""

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

    @property
    def layers(self) -> list[nn.Module]:
        return [*self.resnets, *self.downsamplers, *self.upsamplers]


def _layers(blocks: Iterable[Any]) -> Iterator[nn.Module]:
    """Those of some blocks, one after the other: while one makes its picture, none before the one it is made of need be
    there."""
    return chain.from_iterable(block.layers for block in blocks)


class Encoder(nn.Module):
    """(B, in_channels, H, W) to mean and log-variance (B, 2 * latent_channels, H/f, W/f).

    banded: band by band of rows (`darkroom.networks.bands`), of which the last is above the first where it `wraps`.
    """

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

    def layers(self) -> Iterator[nn.Module]:
        """Those before its middle."""
        return _layers(self.down_blocks)

    def forward(self, x: Tensor, banded: bool = False, wraps: bool = False) -> Tensor:
        if banded:
            return torch.cat([bands.encoded(self, each, wraps) for each in torch.split(x, 1)])
        x = self.conv_in(x)
        for layer in self.layers():
            x = layer(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x), inplace=True))


class Decoder(nn.Module):
    """(B, latent_channels, h, w) to (B, out_channels, f*h, f*w); banded, wraps: as the encoder's."""

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

    def layers(self) -> Iterator[nn.Module]:
        """Those after its middle."""
        return _layers(self.up_blocks)

    def forward(self, x: Tensor, banded: bool = False, wraps: bool = False) -> Tensor:
        if banded:
            return torch.cat([bands.decoded(self, each, wraps) for each in torch.split(x, 1)])
        x = self.mid_block(self.conv_in(x))
        for layer in self.layers():
            x = layer(x)
        return self.conv_out(F.silu(self.conv_norm_out(x), inplace=True))


class VAE(nn.Module):
    """`encode` and `decode` speak the autoencoder's own z; `to_latent` and `from_latent` the U-Net's latents.

    Pictures are (B, 3, H, W) in [-1, 1], H and W multiples of `config.factor`. Inputs are cast to the
    weights' dtype, in which the results are. Large ones need not be there as a whole (`Parts`); seamless: opposite
    edges meet along "x", "y" or "xy" (`darkroom.networks.seamless`).
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

    def encode(self, image: Tensor, parts: Parts = "whole", seamless: str = "") -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, (B, latent_channels, H/factor, W/factor) each."""
        if parts == "tiles":
            return self.encode_tiled(image, seamless=seamless)
        with joined(self, seamless):
            x = self._cast(image)
            banded = parts == "bands" and max(x.shape[-2:]) > TILE * self.config.factor
            moments = self.quant_conv(self.encoder(x, banded, "y" in seamless))
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor, parts: Parts = "whole", seamless: str = "") -> Tensor:
        """The picture of z (B, latent_channels, h, w); values may leave [-1, 1] a little."""
        if parts == "tiles":
            return self.decode_tiled(z, seamless=seamless)
        with joined(self, seamless):
            banded = parts == "bands" and max(z.shape[-2:]) > TILE
            return self.decoder(self.post_quant_conv(self._cast(z)), banded, "y" in seamless)

    def decode_tiled(self, z: Tensor, tile: int = TILE, overlap: int = OVERLAP, seamless: str = "") -> Tensor:
        """`decode` in tiles of `tile` latent pixels, blended where they overlap: less memory, nearly equal.

        Group norms see one tile at a time, so colours may drift a little from one tile to the next.
        """
        sides, own = _fitting(z.shape[-2:], tile, overlap, seamless)
        decode = partial(self.decode, seamless=own)
        factor, channels = self.config.factor, self.config.out_channels
        return in_tiles(decode, z, sides, overlap, channels, up=factor, seamless=seamless)

    def encode_tiled(
        self, image: Tensor, tile: int = TILE, overlap: int = OVERLAP, seamless: str = ""
    ) -> tuple[Tensor, Tensor]:
        """`encode` in tiles; `tile` and `overlap` count latent pixels."""
        factor, channels = self.config.factor, 2 * self.config.latent_channels
        sides, own = _fitting([side // factor for side in image.shape[-2:]], tile, overlap, seamless)

        def encode(x: Tensor) -> Tensor:
            return torch.cat(self.encode(x, seamless=own), 1)

        moments = in_tiles(encode, image, sides, overlap, channels, down=factor, seamless=seamless)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar

    def to_latent(self, image: Tensor, parts: Parts = "whole", seamless: str = "") -> Tensor:
        """The U-Net's latent of a picture: the mean of z, shifted and scaled to about unit variance."""
        mean, _ = self.encode(image, parts, seamless)
        return self.scale(mean)

    def from_latent(self, latent: Tensor, parts: Parts = "whole", seamless: str = "") -> Tensor:
        """The picture of a latent of the U-Net's."""
        return self.decode(self.unscale(latent), parts, seamless)

    def scale(self, z: Tensor) -> Tensor:
        """z to the U-Net's latent."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, latent: Tensor) -> Tensor:
        """The U-Net's latent to z."""
        return latent / self.config.scaling_factor + self.config.shift_factor

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.encoder.conv_in.weight.dtype, memory_format=torch.channels_last)


def _fitting(sides: Sequence[int], tile: int, overlap: int, seamless: str) -> tuple[tuple[int, int], str]:
    """How high and how wide tiles are of which as few as possible cover so many latent pixels, and along which seamless
    axes one is all there is, so that its own edges meet."""
    high, wide = (snug(side, tile, overlap, axis in seamless) for side, axis in zip(sides, "yx", strict=True))
    own = "".join(axis for axis, side in zip("yx", sides, strict=True) if axis in seamless and side <= tile)
    return (high, wide), own
