"""A call in float32 of a network whose weights are not."""

from __future__ import annotations

import pytest
import torch

from darkroom.networks import VAE, VAEConfig
from darkroom.networks.precise import in_float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_numbers_are_those_of_the_widened_weights(dtype):
    torch.manual_seed(0)
    vae = VAE(VAEConfig(block_out_channels=(32, 32), layers_per_block=1)).to(dtype).requires_grad_(False)
    before = {name: tensor.data_ptr() for name, tensor in vae.state_dict().items()}
    z = torch.randn(1, 4, 4, 4).to(dtype)
    with in_float32(vae):
        image = vae.decode(z)
    assert image.dtype == torch.float32
    assert {name: tensor.data_ptr() for name, tensor in vae.state_dict().items()} == before
    assert vae.decode(z).dtype == dtype
    assert torch.equal(image, vae.float().decode(z.float()))
