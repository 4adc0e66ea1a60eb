"""Tiny autoencoders: TAESD and its kin (github.com/madebyollin/taesd), which speak a large one's latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks.configs import TinyVAEConfig
from darkroom.networks.seamless import joined
from darkroom.networks.vae import VAE, Parts

LIMIT = 3.0  # What z is kept within before it is decoded.


class Block(nn.Module):
    """Three 3x3 convolutions beside a shortcut, on (B, channels, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second, third = (conv(channels, channels) for _ in range(3))
        relu = nn.ReLU()
        self.conv = nn.Sequential(first, relu, second, relu, third)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def conv(in_channels: int, out_channels: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)


class Encoder(nn.Module):
    """(B, in_channels, H, W) in [-1, 1] to z (B, latent_channels, H/f, W/f)."""

    def __init__(self, config: TinyVAEConfig) -> None:
        super().__init__()
        width = config.encoder_block_out_channels[0]
        self.layers = nn.Sequential()
        for level, blocks in enumerate(config.num_encoder_blocks):
            first = conv(width, width, stride=2, bias=False) if level else conv(config.in_channels, width)
            self.layers.extend([first, *(Block(width) for _ in range(blocks))])
        self.layers.append(conv(width, config.latent_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers((x + 1) / 2)


class Decoder(nn.Module):
    """z (B, latent_channels, h, w) to (B, out_channels, f*h, f*w) in [-1, 1]."""

    def __init__(self, config: TinyVAEConfig) -> None:
        super().__init__()
        width, last = config.decoder_block_out_channels[0], len(config.num_decoder_blocks) - 1
        self.layers = nn.Sequential(conv(config.latent_channels, width), nn.ReLU())
        for level, blocks in enumerate(config.num_decoder_blocks):
            self.layers.extend(Block(width) for _ in range(blocks))
            if level < last:
                self.layers.append(nn.Upsample(scale_factor=config.upsampling_scaling_factor))
                self.layers.append(conv(width, width, bias=False))
        self.layers.append(conv(width, config.out_channels))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(torch.tanh(z / LIMIT) * LIMIT) * 2 - 1


class TinyVAE(VAE):
    """A tiny autoencoder in a large one's place: tiles and scales are inherited, the networks are its own.

    There is neither norm nor attention in it, so tiles differ from the whole picture at their edges only, and stand for
    bands too.
    """

    config: TinyVAEConfig  # type: ignore[assignment]

    def __init__(self, config: TinyVAEConfig) -> None:
        nn.Module.__init__(self)  # Not VAE's: that would build a large one.
        self.config = config
        self.encoder = Encoder(config)  # type: ignore[assignment]
        self.decoder = Decoder(config)  # type: ignore[assignment]

    def encode(self, image: Tensor, parts: Parts = "whole", seamless: str = "") -> tuple[Tensor, Tensor]:
        """z (B, latent_channels, H/factor, W/factor), and for its log-variance -30: there is none."""
        if parts != "whole":
            return self.encode_tiled(image, seamless=seamless)
        with joined(self, seamless):
            z = self.encoder(self._cast(image))
        return z, torch.full_like(z, -30)

    def decode(self, z: Tensor, parts: Parts = "whole", seamless: str = "") -> Tensor:
        """The picture of z (B, latent_channels, h, w); values may leave [-1, 1] a little."""
        if parts != "whole":
            return self.decode_tiled(z, seamless=seamless)
        with joined(self, seamless):
            return self.decoder(self._cast(z))

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(next(self.parameters()).dtype, memory_format=torch.channels_last)
