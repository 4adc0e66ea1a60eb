"""Networks that make pictures larger. Attribute names are the keys of Real-ESRGAN's files.

Pictures are (B, C, H, W) in [0, 1]; what comes out is `config.scale` times as high and wide and may leave that range a
little. All of it is convolutions: what a pixel becomes depends on what is around it alone, so that large pictures are
made tile by tile (`darkroom.upscaling`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks.configs import CompactConfig, RRDBNetConfig

SLOPE = 0.2  # Of the leaky ReLUs of RRDBNet.
SHARE = 0.2  # Of a residual that is added.


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it made, beside a shortcut."""

    def __init__(self, features: int, growth: int, plus: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            _conv(features + i * growth, growth) for i in range(4)
        )
        self.conv5 = _conv(features + 4 * growth, features)
        self.conv1x1 = nn.Conv2d(features, growth, 1, bias=False) if plus else None

    def forward(self, x: Tensor) -> Tensor:
        first = _leaky(self.conv1(x))
        second = _leaky(self.conv2(_joined(x, first)))
        if self.conv1x1 is not None:
            second += self.conv1x1(x)
        third = _leaky(self.conv3(_joined(x, first, second)))
        fourth = _leaky(self.conv4(_joined(x, first, second, third)))
        if self.conv1x1 is not None:
            fourth += second
        made: Tensor = self.conv5(_joined(x, first, second, third, fourth))
        return made.mul_(SHARE).add_(x)


class RRDB(nn.Module):
    """Three dense blocks beside a shortcut: a residual in residual dense block."""

    def __init__(self, features: int, growth: int, plus: bool) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, growth, plus) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return made.mul_(SHARE).add_(x)


class RRDBNet(nn.Module):
    """ESRGAN (Wang et al. 2018, https://arxiv.org/abs/1809.00219), ESRGAN+ (Rakotonirina and Rasoanaivo 2020,
    https://arxiv.org/abs/2001.08073) and Real-ESRGAN (Wang et al. 2021, https://arxiv.org/abs/2107.10833), which folds
    a picture that is to become less than four times as large."""

    def __init__(self, config: RRDBNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.features
        self.conv_first = _conv(config.in_channels * config.unshuffle**2, width)
        self.body = nn.Sequential(*(RRDB(width, config.growth, config.plus) for _ in range(config.blocks)))
        self.conv_body = _conv(width, width)
        for number in range(1, config.doublings + 1):
            self.add_module(f"conv_up{number}", _conv(width, width))
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.conv_first(x if self.config.unshuffle == 1 else _folded(x, self.config.unshuffle))
        x = self.conv_body(self.body(x)) + x
        for number in range(1, self.config.doublings + 1):
            x = _leaky(getattr(self, f"conv_up{number}")(F.interpolate(x, scale_factor=2, mode="nearest")))
        scale, x = self.config.scale, self.conv_last(_leaky(self.conv_hr(x)))
        return x[..., : scale * height, : scale * width]


class Compact(nn.Module):
    """The compact network of Real-ESRGAN (SRVGGNetCompact): all its work is done at the picture's own size, and what it
    adds to each pixel repeated is folded out at the end."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.features
        layers: list[nn.Module] = [_conv(config.in_channels, width), nn.PReLU(width)]
        for _ in range(config.layers):
            layers += [_conv(width, width), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, _conv(width, config.out_channels * config.scale**2))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.config.scale
        return F.pixel_shuffle(self.body(x), scale) + F.interpolate(x, scale_factor=scale, mode="nearest")


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE, inplace=True)


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1)


def _folded(x: Tensor, by: int) -> Tensor:
    """Pixels into channels, of a picture that goes on as in a mirror to where it can be folded."""
    beyond = -x.shape[-1] % by, -x.shape[-2] % by
    mirrored = beyond[0] < x.shape[-1] and beyond[1] < x.shape[-2]
    x = F.pad(x, (0, beyond[0], 0, beyond[1]), "reflect" if mirrored else "replicate")
    return F.pixel_unshuffle(x, by).contiguous(memory_format=torch.channels_last)
