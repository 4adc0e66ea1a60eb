"""A head start for an autoencoder: before its first step it already is a blurred, subsampled copy of the picture.

With usual initial values a small autoencoder spends its first thousands of pictures finding out that brightness is
worth carrying, then each colour: at a given number of pictures this start is several dB ahead. Everything a
network adds to the straight path is learned as usual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darkroom.networks import VAE
from darkroom.networks.layers import Attention, Downsample, ResnetBlock, Upsample, zeroed

_COLOURS = 3
_STRENGTH = 2.0  # Of the constants beside a colour: they fix the scale that a group norm divides by.
_GAIN = 1.5  # Pictures have a spread of about 0.5, latents of about 1.


@torch.no_grad()
def linear_start(vae: VAE) -> None:
    """Let three latent channels begin as the mean colour of each patch, and the decoder as their enlargement.

    A network whose groups have fewer than the four channels this takes is left as it is.
    """
    if min(vae.config.block_out_channels) // vae.config.norm_num_groups < 4:
        return
    for part, blocks in ((vae.encoder, vae.encoder.down_blocks), (vae.decoder, vae.decoder.up_blocks)):
        for module in part.mid_block.modules():
            if isinstance(module, Attention):
                zeroed(module.to_out)
        for shortcut in _shortcuts(blocks):
            _carry(shortcut, _CENTRE)
        for module in blocks.modules():
            if isinstance(module, Downsample):
                _carry(module.conv, _MEAN)
            elif isinstance(module, Upsample):
                _carry(module.conv, _BLUR)
    groups = vae.config.norm_num_groups
    _carry(vae.encoder.conv_in, _CENTRE)
    _carry(vae.decoder.conv_in, _CENTRE, 1 / _GAIN)
    _spread(_shortcuts(vae.encoder.down_blocks)[-1], groups)
    _spread(_shortcuts(vae.decoder.up_blocks)[-1], groups)
    _gather(vae.encoder.conv_out, groups, _GAIN)
    _gather(vae.decoder.conv_out, groups, 1.0)
    channels = vae.config.latent_channels
    if isinstance(vae.quant_conv, nn.Conv2d):
        vae.quant_conv.weight[:channels] = torch.eye(2 * channels)[:channels, :, None, None]
        vae.quant_conv.weight[channels:] *= 0.1
        vae.quant_conv.bias.zero_()  # type: ignore[union-attr]
        vae.quant_conv.bias[channels:] = -5.0  # type: ignore[index]
    if isinstance(vae.post_quant_conv, nn.Conv2d):
        vae.post_quant_conv.weight.copy_(torch.eye(channels)[:, :, None, None])
        nn.init.zeros_(vae.post_quant_conv.bias)  # type: ignore[arg-type]


_CENTRE = torch.zeros(3, 3)
_CENTRE[1, 1] = 1
_MEAN = torch.zeros(3, 3)
_MEAN[:2, :2] = 0.25
_BLUR = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16


def _shortcuts(blocks: nn.ModuleList) -> list[nn.Conv2d]:
    """The convolutions on the straight path where the width changes, in order."""
    found = [module.conv_shortcut for module in blocks.modules() if isinstance(module, ResnetBlock)]
    return [conv for conv in found if conv is not None]


def _carry(conv: nn.Conv2d, kernel: Tensor, scale: float = 1.0) -> None:
    """The first channels through as they are, but for the kernel."""
    for i in range(_COLOURS):
        nn.init.zeros_(conv.weight[i])
        conv.weight[i, i] = scale * (kernel if conv.kernel_size == (3, 3) else torch.ones(1, 1))
        conv.bias[i] = 0  # type: ignore[index]


def _spread(conv: nn.Conv2d, groups: int) -> None:
    """Colour i, once with each sign, into a group of its own with constants that keep the norm's scale known."""
    size = conv.out_channels // groups
    for i in range(_COLOURS):
        rows = slice(i * size, (i + 1) * size)
        nn.init.zeros_(conv.weight[rows])
        nn.init.zeros_(conv.bias[rows])  # type: ignore[index]
        conv.weight[i * size, i] = 1
        conv.weight[i * size + 1, i] = -1
        conv.bias[i * size + 2], conv.bias[i * size + 3] = _STRENGTH, -_STRENGTH  # type: ignore[index]


def _gather(conv: nn.Conv2d, groups: int, scale: float) -> None:
    """The colours out of their groups, through norm and SiLU: silu(s) - silu(-s) = s."""
    size = conv.in_channels // groups
    back = scale * _STRENGTH * (2 / size) ** 0.5
    for i in range(_COLOURS):
        nn.init.zeros_(conv.weight[i])
        conv.weight[i, i * size] = back * _CENTRE
        conv.weight[i, i * size + 1] = -back * _CENTRE
        conv.bias[i] = 0  # type: ignore[index]
