"""An autoencoder's networks on large pictures, band by band of rows: what comes out is the same, in half the memory.

Tiles of a picture see group norms of their own, and differ from the whole by that. Here each layer is made of the whole
picture before the next one is begun, but no more of it at once than a band: norms are those of the whole, and of what
stands between two convolutions no more than a band is ever there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks.layers import Downsample, ResnetBlock, Upsample

_BAND = 1 << 23
"""About how many numbers of a picture are worked on at once."""


def decoded(decoder: Any, z: Tensor, wraps: bool = False) -> Tensor:
    """What a decoder makes of z (1, C, h, w). wraps: top and bottom meet (`darkroom.networks.seamless`)."""
    x = decoder.mid_block(decoder.conv_in(z))
    for layer in decoder.layers():
        x = _LAYERS[type(layer)](layer, x, wraps)
    return _ended(decoder, x, wraps)


def encoded(encoder: Any, image: Tensor, wraps: bool = False) -> Tensor:
    """What an encoder makes of a picture (1, C, H, W)."""
    x = _convolved(encoder.conv_in, image, wraps)
    for layer in encoder.layers():
        x = _LAYERS[type(layer)](layer, x, wraps)
    return _ended(encoder, encoder.mid_block(x), wraps)


def _ended(network: Any, x: Tensor, wraps: bool) -> Tensor:
    return _convolved(network.conv_out, x, wraps, _normed(network.conv_norm_out, x))


def _normed(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
    """What a group norm of a whole picture does to a part of it, with the activation behind it."""
    (channels, height, width), groups = x.shape[1:], norm.num_groups
    weight, bias = norm.weight.float(), norm.bias.float()
    count, mean, m2 = 0, *torch.zeros(2, groups, dtype=torch.float64, device=x.device)
    for rows in _bands(height, width, channels):
        # Of bands, joined (Chan et al. 1979, "Updating formulae and a pairwise algorithm").
        part = x[..., rows, :]
        if x.device.type != "cpu":  # Only there its numbers may be of less precision than what comes of them.
            part = part.float()
        size = part.shape[-2] * width
        _, own, spread = torch.native_group_norm(part, weight, bias, 1, channels, size, groups, norm.eps)
        apart, variance = own[0].double() - mean, spread[0].double() ** -2 - norm.eps
        n = size * channels // groups
        mean += apart * (n / (count + n))
        m2 += variance * n + apart.square() * (count * n / (count + n))
        count += n
    middle, variance = (each.float().repeat_interleave(channels // groups) for each in (mean, m2 / count))

    def normed(part: Tensor) -> Tensor:
        return F.silu(F.batch_norm(part, middle, variance, weight, bias, eps=norm.eps), inplace=True)

    return normed


def _bands(height: int, width: int, weight: int) -> Iterator[slice]:
    """Rows, band by band, of a picture each of whose pixels comes to so many numbers."""
    step = max(_BAND // (width * weight), 1)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _seen(x: Tensor, wraps: bool, weight: int = 0) -> Iterator[tuple[slice, Tensor, int]]:
    """Each band of rows: where it is, the band with the rows beside it, which 3x3 convolutions see, and how many of
    them are above it. What takes a band's place in x does not change what is seen of it later. weight: how many numbers
    a pixel comes to, where that is more than it is."""
    height, width = x.shape[-2:]
    first = x[..., :1, :].clone()
    above = x[..., -1:, :] if wraps else None
    for rows in _bands(height, width, max(weight, x.shape[1])):
        below = x[..., rows.stop : rows.stop + 1, :] if rows.stop < height else first if wraps else None
        parts = [each for each in (above, x[..., rows, :], below) if each is not None]
        seen, over = torch.cat(parts, dim=-2), int(above is not None)
        yield rows, seen, over
        above = seen.narrow(-2, over + rows.stop - rows.start - 1, 1)


def _gathered(height: int, made: Iterable[tuple[slice, Tensor]]) -> Tensor:
    """A picture of that height, of which the bands come one by one: where each is, and its rows, with what is more of
    them below it."""
    whole: Tensor | None = None
    for rows, own in made:
        if whole is None:  # Of the type that layers give, which is not always that of what they are given.
            size = (1, own.shape[1], height, own.shape[3])
            whole = torch.empty(size, dtype=own.dtype, device=own.device, memory_format=torch.channels_last)
        whole[..., rows, :] = own[..., : rows.stop - rows.start, :]
    assert whole is not None
    return whole


def _convolved(
    conv: nn.Conv2d, x: Tensor, wraps: bool, norm: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """A 3x3 convolution of a picture, normed before if it is to be."""
    seen = _seen(x, wraps, conv.out_channels)
    made = ((rows, conv(own if norm is None else norm(own))[..., above:, :]) for rows, own, above in seen)
    return _gathered(x.shape[-2], made)


def _resnet(block: ResnetBlock, x: Tensor, wraps: bool) -> Tensor:
    h = _convolved(block.conv1, x, wraps, _normed(block.norm1, x))
    norm = _normed(block.norm2, h)
    for rows, seen, above in _seen(h, wraps):
        made = block.conv2(norm(seen))[..., above : above + rows.stop - rows.start, :]
        made += x[..., rows, :] if block.conv_shortcut is None else block.conv_shortcut(x[..., rows, :])
        h[..., rows, :] = made  # In the place of what it is made of.
    return h


def _upsampled(layer: Upsample, x: Tensor, wraps: bool) -> Tensor:
    made = (
        (slice(2 * rows.start, 2 * rows.stop), layer(own)[..., 2 * above :, :])
        for rows, own, above in _seen(x, wraps, 4 * layer.conv.out_channels)
    )
    return _gathered(2 * x.shape[-2], made)


def _downsampled(layer: Downsample, x: Tensor, wraps: bool) -> Tensor:
    height = x.shape[-2] // 2

    def seen(rows: slice) -> Tensor:
        own = x[..., 2 * rows.start : 2 * rows.stop + 2, :]
        return torch.cat([own, x[..., :2, :]], dim=-2) if wraps and rows.stop == height else own

    bands = _bands(height, x.shape[-1] // 2, 4 * x.shape[1])
    return _gathered(height, ((rows, layer(seen(rows))) for rows in bands))


_LAYERS: Mapping[type[nn.Module], Callable[[Any, Tensor, bool], Tensor]] = {
    ResnetBlock: _resnet,
    Upsample: _upsampled,
    Downsample: _downsampled,
}
"""How each kind of layer makes its picture."""
