from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from tests.tables import pairs
from torch.nn import functional as F

from darkroom.checkpoint.components import AUTOENCODER
from darkroom.networks import VAE, VAEConfig, bands
from darkroom.networks.precise import in_float32
from darkroom.networks.vae import Block

VARIANTS: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (16, 32, 32)},
    "four_levels": {"block_out_channels": (8, 16, 24, 24), "layers_per_block": 1, "norm_num_groups": 4},
    "sixteen_channels": {
        "block_out_channels": (16, 32),
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
    },
    "without_attention": {"block_out_channels": (16, 32), "mid_block_add_attention": False},
    "deep": {"block_out_channels": (16, 32), "layers_per_block": 3},
    "one_level": {"block_out_channels": (16,)},
}


def pair(variant: str, randomise: Any) -> tuple[VAE, AutoencoderKL]:
    kwargs = {"layers_per_block": 2, "norm_num_groups": 8} | VARIANTS[variant]
    levels = len(kwargs["block_out_channels"])
    theirs = randomise(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            **kwargs,
        )
    )
    with torch.device("meta"):
        ours = VAE(AUTOENCODER.read(theirs.config))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours.eval().requires_grad_(False), theirs


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("height", "width"), [(32, 48), (16, 56)])
def test_every_module_gives_what_its_peer_gives(variant, height, width, randomise, compare_modules, close):
    ours, theirs = pair(variant, randomise)
    g = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, height, width, generator=g)
    z = torch.randn(2, ours.config.latent_channels, height // 8, width // 8, generator=g)
    out: dict[str, Any] = {}

    def run(vae: Any, who: str) -> None:
        out[who] = vae.encode(image), vae.decode(z)

    names = compare_modules(ours, lambda: run(ours, "ours"), theirs, lambda: run(theirs, "theirs"))
    containers = (torch.nn.ModuleList, torch.nn.Identity, torch.nn.ZeroPad2d, Block)
    assert names == {
        name for name, module in ours.named_modules() if name and not isinstance(module, containers)
    }
    (mean, logvar), picture = out["ours"]
    close(mean, out["theirs"][0].latent_dist.mean)
    close(logvar, out["theirs"][0].latent_dist.logvar)
    close(picture, out["theirs"][1].sample)
    assert picture.shape[-2:] == (height // 8 * ours.config.factor, width // 8 * ours.config.factor)


def test_latents_are_scaled_and_shifted_there_and_back(randomise, close):
    config = VAEConfig(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=16, scaling_factor=1.5, shift_factor=0.2
    )
    vae = randomise(VAE(config))
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    latent = vae.to_latent(image)
    close(latent, (vae.encode(image)[0] - 0.2) * 1.5)
    close(vae.from_latent(latent), vae.decode(vae.encode(image)[0]))
    close(vae.unscale(vae.scale(latent)), latent)


class Local(VAE):
    """An autoencoder that looks at no neighbours: tiles must then change nothing at all."""

    def decode(self, z, seamless=""):
        return F.interpolate(z[:, :3], scale_factor=self.config.factor)

    def encode(self, image, seamless=""):
        small = image[..., :: self.config.factor, :: self.config.factor].repeat(1, 2, 1, 1)[:, :4]
        return small, small * 2


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 40), (5, 33), (31, 16)])
@pytest.mark.parametrize(("tile", "overlap"), [(16, 4), (16, 8), (8, 7), (16, 0)])
def test_tiles_cover_everything_once(height, width, tile, overlap):
    vae = Local(VAEConfig(block_out_channels=(8, 8, 8), norm_num_groups=4))
    z = torch.randn(2, 4, height, width)
    image = torch.randn(2, 3, 4 * height, 4 * width)
    for axes in ("", "x", "y", "xy"):
        torch.testing.assert_close(vae.decode_tiled(z, tile, overlap, axes), vae.decode(z))
        for ours, whole in zip(vae.encode_tiled(image, tile, overlap, axes), vae.encode(image), strict=True):
            torch.testing.assert_close(ours, whole)


def test_tiled_is_close_to_whole_and_has_no_seams(randomise, relative_error):
    torch.manual_seed(0)
    vae = randomise(VAE(VAEConfig(block_out_channels=(16, 32, 32), norm_num_groups=8)))
    z, image = torch.randn(1, 4, 48, 72), torch.randn(1, 3, 192, 288)
    with torch.no_grad():
        whole, tiled = vae.decode(z), vae.decode_tiled(z, tile=32, overlap=16)
        assert relative_error(tiled, whole) < 0.06
        assert relative_error(vae.encode_tiled(image, 32, 16)[0], vae.encode(image)[0]) < 0.06
    # A seam would be a column where neighbours differ more than in the whole picture.
    jumps = [(x[..., 1:] - x[..., :-1]).abs().mean(dim=(0, 1, 2)) for x in (tiled, whole)]
    assert (jumps[0] < 1.1 * jumps[1]).all()
    assert torch.equal(vae.decode_tiled(z[..., :32, :32], 32), vae.decode(z[..., :32, :32]))


@pytest.mark.parametrize(("axes", "numbers"), pairs(["", "x", "y", "xy"], [1 << 13, 1 << 10, 1 << 23]))
def test_bands_are_the_whole(randomise, relative_error, monkeypatch, axes, numbers):
    monkeypatch.setattr(bands, "_BAND", numbers)
    monkeypatch.setattr("darkroom.networks.vae.TILE", 4)
    torch.manual_seed(0)
    vae = randomise(VAE(VAEConfig(block_out_channels=(16, 32, 32), norm_num_groups=8)))
    z, image = torch.randn(2, 4, 21, 18), torch.randn(2, 3, 84, 72)
    with torch.no_grad():
        assert relative_error(vae.decode(z, "bands", axes), vae.decode(z, seamless=axes)) < 1e-5
        for ours, whole in zip(
            vae.encode(image, "bands", axes), vae.encode(image, seamless=axes), strict=True
        ):
            assert relative_error(ours, whole) < 1e-5
        half = vae.to(torch.bfloat16)
        assert relative_error(half.decode(z, "bands", axes), half.decode(z, seamless=axes)) < 0.02
        with in_float32(half):
            assert half.decode(z, "bands", axes).dtype == torch.float32


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
@pytest.mark.parametrize("parts", ["whole", "bands"])
def test_what_is_seamless_may_be_rolled(randomise, relative_error, monkeypatch, axes, parts):
    monkeypatch.setattr("darkroom.networks.vae.TILE", 4)
    torch.manual_seed(0)
    vae = randomise(VAE(VAEConfig(block_out_channels=(16, 32, 32), norm_num_groups=8)))
    z, image = torch.randn(1, 4, 12, 16), torch.randn(1, 3, 48, 64)
    by = 5 * ("y" in axes), 3 * ("x" in axes)

    def rolled(x, factor=1):
        return torch.roll(x, [factor * each for each in by], (2, 3))

    padding = [each.padding for each in vae.modules() if isinstance(each, torch.nn.Conv2d)]
    with torch.no_grad():
        picture = rolled(vae.decode(z, parts, axes), 4)
        assert relative_error(vae.decode(rolled(z), parts, axes), picture) < 1e-5
        assert relative_error(vae.decode(rolled(z)), rolled(vae.decode(z), 4)) > 0.01
        mean, logvar = vae.encode(rolled(image, 4), parts, axes)
        for ours, whole in zip((mean, logvar), vae.encode(image, parts, axes), strict=True):
            assert relative_error(ours, rolled(whole)) < 1e-5
    assert padding == [each.padding for each in vae.modules() if isinstance(each, torch.nn.Conv2d)]


def test_half_precision(randomise, relative_error):
    vae = randomise(VAE(VAEConfig(block_out_channels=(16, 32), norm_num_groups=8)))
    image = torch.randn(1, 3, 16, 24)
    latent = vae.to_latent(image)
    picture = vae.from_latent(latent)
    half = vae.to(torch.bfloat16, memory_format=torch.channels_last)
    assert half.to_latent(image).dtype == torch.bfloat16
    assert relative_error(half.to_latent(image), latent) < 0.05
    assert relative_error(half.from_latent(latent), picture) < 0.05
    assert relative_error(half.from_latent(latent, "tiles"), picture) < 0.05


@pytest.mark.peer
@pytest.mark.wide
def test_full_width(randomise, relative_error):
    config = VAEConfig()
    with torch.device("meta"):
        theirs, ours = AutoencoderKL.from_config(AUTOENCODER.to_json(config)), VAE(config)
    theirs = randomise(theirs.to_empty(device="cpu"))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    image, z = torch.randn(1, 3, 256, 192), torch.randn(1, 4, 32, 24)
    with torch.inference_mode():
        mean, logvar = ours.encode(image)
        dist = theirs.encode(image).latent_dist
        picture = theirs.decode(z).sample
        errors = [
            relative_error(a, b)
            for a, b in ((mean, dist.mean), (logvar, dist.logvar), (ours.decode(z), picture))
        ]
    print("mean, logvar, picture:", *(f"{error:.1e}" for error in errors))
    assert max(errors) <= 1e-4
