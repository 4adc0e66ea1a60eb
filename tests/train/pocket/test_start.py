"""The autoencoder's linear start."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from darkroom.networks import VAE, VAEConfig
from darkroom.train.pocket.start import linear_start


def smooth_pictures(count: int = 4, side: int = 64) -> torch.Tensor:
    small = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    return F.interpolate(small, size=(side, side), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("widths", [(32, 48, 96, 128), (16, 32, 64)])
def test_an_untrained_autoencoder_already_shows_smooth_pictures(widths):
    torch.manual_seed(0)
    vae = VAE(VAEConfig(block_out_channels=widths, layers_per_block=1, norm_num_groups=4))
    pictures = smooth_pictures()
    with torch.no_grad():
        before = F.mse_loss(vae.decode(vae.encode(pictures)[0]), pictures)
        linear_start(vae)
        mean, logvar = vae.encode(pictures)
        after = F.mse_loss(vae.decode(mean), pictures)
    assert after < 0.04
    assert after < before / 5
    cells = F.avg_pool2d(pictures, vae.config.factor)
    for channel in range(3):
        correlation = torch.corrcoef(torch.stack([mean[:, channel].flatten(), cells[:, channel].flatten()]))[
            0, 1
        ]
        assert correlation > 0.95
    assert logvar.exp().mean() < 0.02


def test_networks_too_narrow_for_it_are_left_alone():
    vae = VAE(VAEConfig(block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    linear_start(vae)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
