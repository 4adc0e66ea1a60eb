from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from darkroom.checkpoint.components import TINY
from darkroom.errors import ModelError
from darkroom.networks import VAE, TinyVAE, TinyVAEConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "taesd": {},
    "taesd3": {"latent_channels": 16},
    "narrow": {
        "encoder_block_out_channels": (12,) * 3,
        "decoder_block_out_channels": (20,) * 3,
        "num_encoder_blocks": (2, 0, 1),
        "num_decoder_blocks": (1, 2, 0),
        "latent_channels": 5,
    },
    "four_channels_at_once": {
        "encoder_block_out_channels": (8,) * 3,
        "decoder_block_out_channels": (8,) * 2,
        "num_encoder_blocks": (1, 1, 1),
        "num_decoder_blocks": (1, 1),
        "upsampling_scaling_factor": 4,
        "in_channels": 4,
        "out_channels": 4,
    },
    "one_level": {
        "encoder_block_out_channels": (8,),
        "decoder_block_out_channels": (8,),
        "num_encoder_blocks": (1,),
        "num_decoder_blocks": (1,),
    },
}


def error(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference beside the greatest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def pair(variant: str, randomise: Any, seed: int = 0) -> tuple[TinyVAE, AutoencoderTiny]:
    theirs = randomise(AutoencoderTiny(**VARIANTS[variant]), seed)
    with torch.device("meta"):
        ours = TinyVAE(TINY.read(theirs.config))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours.eval().requires_grad_(False), theirs


def of_width(width: int, randomise: Any) -> TinyVAE:
    config = TinyVAEConfig(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4)
    return randomise(TinyVAE(config))


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("height", "width", "seed"), [(32, 48, 0), (16, 56, 1)])
def test_every_module_gives_what_its_peer_gives(variant, height, width, seed, randomise, compare_modules):
    ours, theirs = pair(variant, randomise, seed)
    g = torch.Generator().manual_seed(seed)
    image = torch.rand(2, ours.config.in_channels, height, width, generator=g) * 2 - 1
    z = 3 * torch.randn(2, ours.config.latent_channels, height // 8, width // 8, generator=g)
    out: dict[str, Any] = {}

    def run(vae: Any, who: str) -> None:
        out[who] = vae.encode(image), vae.decode(z)

    names = compare_modules(ours, lambda: run(ours, "ours"), theirs, lambda: run(theirs, "theirs"))
    assert names == {name for name, _ in ours.named_modules() if name}
    (mean, logvar), picture = out["ours"]
    assert error(mean, out["theirs"][0].latents) <= 1e-4
    assert error(picture, out["theirs"][1].sample) <= 1e-4
    assert torch.equal(logvar, torch.full_like(mean, -30))
    assert mean.shape[-2:] == (height // ours.config.factor, width // ours.config.factor)
    assert picture.shape[-2:] == (height // 8 * ours.config.factor, width // 8 * ours.config.factor)


@pytest.mark.peer
@pytest.mark.parametrize(("height", "width"), [(33, 47), (9, 8)])
def test_odd_pictures_are_encoded_as_the_peer_encodes_them(height, width, randomise):
    ours, theirs = pair("taesd", randomise, 5)
    image = torch.rand(1, 3, height, width) * 2 - 1
    assert error(ours.encode(image)[0], theirs.encode(image).latents) <= 1e-4


def test_it_stands_in_for_a_large_one(randomise):
    config = TinyVAEConfig(latent_channels=16, scaling_factor=1.5, shift_factor=0.2)
    vae = randomise(TinyVAE(config))
    assert isinstance(vae, VAE)
    assert (config.factor, config.sample_size, config.force_upcast) == (8, 512, False)
    image = torch.rand(1, 3, 32, 40) * 2 - 1
    z, _ = vae.encode(image)
    latent = vae.to_latent(image)
    torch.testing.assert_close(latent, (z - 0.2) * 1.5)
    torch.testing.assert_close(vae.from_latent(latent), vae.decode(z))
    torch.testing.assert_close(vae.unscale(vae.scale(z)), z)


def test_tiles_are_close_to_the_whole_picture(randomise, relative_error):
    vae = of_width(8, randomise)
    g = torch.Generator().manual_seed(0)
    z, image = torch.randn(1, 4, 80, 96, generator=g), torch.rand(1, 3, 640, 320, generator=g) * 2 - 1
    whole, tiled = vae.decode(z), vae.decode_tiled(z)
    assert 0 < relative_error(tiled, whole) < 0.02
    for parts in ("tiles", "bands"):
        assert torch.equal(vae.from_latent(z, parts), tiled)
    far = (..., slice(0, 80), slice(0, 100))  # From any seam.
    torch.testing.assert_close(tiled[far], whole[far])
    assert 0 < relative_error(vae.to_latent(image, "tiles"), vae.to_latent(image)) < 0.02
    small = z[..., :64, :64]
    assert torch.equal(vae.decode_tiled(small), vae.decode(small))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision(dtype, limit, randomise, relative_error):
    vae = randomise(TinyVAE(TinyVAEConfig()))
    image = torch.rand(1, 3, 16, 24) * 2 - 1
    latent = vae.to_latent(image)
    picture = vae.from_latent(latent)
    half = vae.to(dtype, memory_format=torch.channels_last)
    assert half.to_latent(image).dtype == half.from_latent(latent, "tiles").dtype == dtype
    assert relative_error(half.to_latent(image), latent) < limit
    assert relative_error(half.from_latent(latent), picture) < limit


def test_it_is_tiny():
    with torch.device("meta"):
        vae = TinyVAE(TinyVAEConfig())
    assert sum(p.numel() for p in vae.parameters()) == 2_445_063
    assert not any(isinstance(module, nn.GroupNorm) for module in vae.modules())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_block_out_channels", (64, 64, 64, 32)),
        ("decoder_block_out_channels", (64, 64, 64)),
        ("num_encoder_blocks", (1, 3, 3)),
        ("num_decoder_blocks", ()),
        ("upsampling_scaling_factor", 3),
    ],
)
def test_dimensions_that_do_not_fit_together_are_named(field, value):
    with pytest.raises(ModelError, match=field):
        TinyVAEConfig(**{field: value})
