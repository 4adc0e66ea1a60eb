"""FreeU: a U-Net whose way up is told more of what it knows and less of what it is reminded of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.errors import InvalidRequest
from darkroom.networks.denoiser import Denoiser


@dataclass(frozen=True)
class FreeU:
    """Factors for half the channels of the backbone (b1, b2) and for the lowest frequencies of the skip connections
    (s1, s2), in the first and the second block of the way up (Si et al. 2023, https://arxiv.org/abs/2309.11497,
    equations 2 to 4, with the fixed factors of its first code)."""

    b1: float = 1.3
    b2: float = 1.4
    s1: float = 0.9
    s2: float = 0.2

    def applied(self, x: Tensor, backbone: int, block: int) -> Tensor:
        """The input (B, C, h, w) of a ResNet block in way-up block 0 or 1: `backbone` channels, then the skip's."""
        b, s = ((self.b1, self.s1), (self.b2, self.s2))[block]
        half = backbone // 2
        own, rest, skip = x[:, :half], x[:, half:backbone], x[:, backbone:]
        return torch.cat([own * b, rest, lowest_scaled(skip, s)], dim=1)


def lowest_scaled(x: Tensor, scale: float) -> Tensor:
    """x (B, C, h, w) with the four middle frequencies of its spectrum times `scale`."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    mask = torch.ones_like(spectrum.real)
    row, column = x.shape[-2] // 2, x.shape[-1] // 2
    mask[..., max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = scale
    spectrum = torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))
    return torch.fft.ifftn(spectrum, dim=(-2, -1)).real.to(x.dtype)


def places(network: Denoiser) -> list[tuple[nn.Module, int, int]]:
    """(ResNet block, its backbone's channels, its way-up block's number) of all that FreeU changes in a network. Raises
    InvalidRequest where it is no U-Net."""
    found = list(network.merging())
    if not found:
        raise InvalidRequest("freeu is for U-Nets: this model has none, leave it out")
    return [place for place in found if place[2] < 2]
