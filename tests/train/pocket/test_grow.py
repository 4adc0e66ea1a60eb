"""U-Nets that begin as smaller ones."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.networks.conftest import randomise
from torch import nn
from torch.nn import functional as F

from darkroom.errors import ModelError
from darkroom.networks import Conditioning, UNet, UNetConfig
from darkroom.train.pocket.grow import grown

SMALL = UNetConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    transformer_layers_per_block=(0, 1),
    num_attention_heads=2,
    cross_attention_dim=12,
    norm_num_groups=4,
)


@pytest.fixture(scope="module")
def trained():
    return randomise(UNet(SMALL).eval(), 3)


def inputs(size):
    generator = torch.Generator().manual_seed(0)
    x, context = (
        torch.randn(2, 4, size, size, generator=generator),
        torch.randn(2, 5, 12, generator=generator),
    )
    return x, torch.tensor([0.3, 0.9]), Conditioning(context)


def test_one_of_as_many_levels_is_the_trained_one(trained):
    unet = UNet(SMALL).eval()
    grown(unet, trained)
    with torch.no_grad():
        assert torch.equal(unet(*inputs(8)), trained(*inputs(8)))


@pytest.mark.parametrize("finer", [1, 2])
def test_finer_levels_begin_as_a_mean_and_an_enlargement(trained, finer):
    """On pictures twice (four times) as large, of even squares, the answer is the trained network's, enlarged. The
    first and the last kernel look at one pixel here: what they make of edges is not the inner network's."""
    small = UNet(SMALL).eval()
    small.load_state_dict(trained.state_dict())
    for conv in (small.conv_in, small.conv_out):
        centre_alone(conv)
    config = dataclasses.replace(
        SMALL,
        block_out_channels=(8,) * finer + (8, 16),
        transformer_layers_per_block=(0,) * finer + (1, 1),
    )
    unet = UNet(config).eval()
    grown(unet, small)
    x, time, told = inputs(8)
    with torch.no_grad():
        enlarged = unet(F.interpolate(x, scale_factor=2**finer), time, told)
        wanted = F.interpolate(small(x, time, told), scale_factor=2**finer)
    assert (enlarged - wanted).norm() < 1e-5 * wanted.norm()
    assert wanted.std() > 0.01


@pytest.mark.parametrize(
    "other",
    [
        {"block_out_channels": (8, 24)},
        {"block_out_channels": (16, 16)},
        {"block_out_channels": (16, 8, 16), "transformer_layers_per_block": (0, 0, 1)},
        {"block_out_channels": (16,), "transformer_layers_per_block": (1,)},
        {"transformer_layers_per_block": (0, 0), "mid_transformer_layers": 0},
    ],
)
def test_what_has_no_place_is_refused(trained, other):
    with pytest.raises(ModelError, match="U-Net to start from has"):
        grown(UNet(dataclasses.replace(SMALL, **other)), trained)


@torch.no_grad()
def centre_alone(conv: nn.Conv2d) -> None:
    centre = conv.weight[:, :, 1, 1].clone()
    conv.weight.zero_()
    conv.weight[:, :, 1, 1] = centre
