"""Names of single files: our rules against diffusers' converters, which are written out key by key."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from darkroom.checkpoint.components import AUTOENCODER, ORIGINAL, UNET, component_of
from darkroom.checkpoint.infer import networks_in
from darkroom.networks import VAE, CLIPText, CLIPTextConfig, MMDiT, MMDiTConfig, UNet, UNetConfig, VAEConfig

UNETS = {
    "one": UNetConfig(
        block_out_channels=(32, 64), transformer_layers_per_block=(1, 0), cross_attention_dim=24
    ),
    "two": UNetConfig(
        block_out_channels=(32, 64, 64, 64),
        num_attention_heads=8,
        cross_attention_dim=48,
        use_linear_projection=True,
        layers_per_block=1,
    ),
    "inpainting": UNetConfig(in_channels=9, block_out_channels=(32, 32), transformer_layers_per_block=(0, 1)),
    "xl": UNetConfig(
        block_out_channels=(32, 64, 64),
        transformer_layers_per_block=(0, 2, 3),
        mid_transformer_layers=3,
        use_linear_projection=True,
        cross_attention_dim=40,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1600,
    ),
}
VAES = {
    "one": VAEConfig(block_out_channels=(32, 32, 64), layers_per_block=1),
    "three": VAEConfig(
        block_out_channels=(32, 64), latent_channels=16, use_quant_conv=False, use_post_quant_conv=False
    ),
}
MMDITS = {
    "medium": MMDiTConfig(
        num_layers=3,
        num_attention_heads=2,
        joint_attention_dim=40,
        caption_projection_dim=128,
        pooled_projection_dim=24,
        pos_embed_max_size=12,
    ),
    "3.5 medium": MMDiTConfig(
        num_layers=3,
        num_attention_heads=2,
        joint_attention_dim=40,
        caption_projection_dim=128,
        pooled_projection_dim=24,
        pos_embed_max_size=12,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    ),
}


def weights(network: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=generator) for name, t in network.state_dict().items()}


def written(network: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rules = component_of(type(network)).rules(network, ORIGINAL)
    return {rule.theirs: rule.write([tensors[name] for name in rule.ours]).clone() for rule in rules}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name].reshape(tensor.shape), tensor), name


def network_of(kind: str, name: str) -> nn.Module:
    made = {"unet": (UNet, UNETS), "vae": (VAE, VAES), "mmdit": (MMDiT, MMDITS), "text": (CLIPText, TEXTS)}
    network, configs = made[kind]
    return network(configs[name])


TEXTS = {
    "H": CLIPTextConfig(
        vocab_size=50,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        hidden_act="gelu",
        num_attention_heads=2,
    ),
    "G": CLIPTextConfig(
        vocab_size=50,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        hidden_act="gelu",
        num_attention_heads=2,
        projection_dim=96,
    ),
}
ALL = [
    *(("unet", name) for name in UNETS),
    *(("vae", name) for name in VAES),
    *(("mmdit", name) for name in MMDITS),
    *(("text", name) for name in TEXTS),
]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_what_a_rule_writes_it_reads_back_bit_for_bit(kind, name):
    network = network_of(kind, name)
    tensors = weights(network)
    file = written(network, tensors)
    found = {}
    for rule in component_of(type(network)).rules(network, ORIGINAL):
        found |= rule.read(file[rule.theirs])
    same(found, tensors)
    assert all(t.is_contiguous() for t in file.values())


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_dimensions_are_inferred_from_either_layout(kind, name):
    """All that shapes hold; the rest is the family's."""
    network = network_of(kind, name)
    original = {name: tuple(t.shape) for name, t in written(network, weights(network)).items()}
    ours = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    for prefix, shapes, layout in (("some.prefix.", original, ORIGINAL), ("", ours, "huggingface")):
        (found,) = networks_in({prefix + name: shape for name, shape in shapes.items()})
        assert (found.component, found.prefix, found.layout) == (component_of(type(network)), prefix, layout)
        built = found.component.build(found.config)
        assert {name: tuple(t.shape) for name, t in built.state_dict().items()} == ours


@pytest.mark.peer
@pytest.mark.parametrize("name", UNETS)
def test_unets_as_diffusers_converts_them(name):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network = UNet(UNETS[name])
    tensors = weights(network)
    file = {f"model.diffusion_model.{key}": value for key, value in written(network, tensors).items()}
    same(convert_ldm_unet_checkpoint(file, UNET.to_json(network.config)), tensors)


@pytest.mark.peer
@pytest.mark.parametrize("name", VAES)
def test_autoencoders_as_diffusers_converts_them(name):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    network = VAE(VAES[name])
    tensors = weights(network)
    file = {f"first_stage_model.{key}": value for key, value in written(network, tensors).items()}
    same(convert_ldm_vae_checkpoint(file, AUTOENCODER.to_json(network.config)), tensors)


@pytest.mark.peer
@pytest.mark.parametrize("name", MMDITS)
def test_mmdits_as_diffusers_converts_them(name):
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    network = MMDiT(MMDITS[name])
    tensors = weights(network)
    same(convert_sd3_transformer_checkpoint_to_diffusers(written(network, tensors)), tensors)


@pytest.mark.peer
def test_openclip_as_diffusers_converts_it():
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    network = CLIPText(TEXTS["G"])
    tensors = weights(network)
    file = {f"conditioner.embedders.1.model.{key}": value for key, value in written(network, tensors).items()}

    class Peer:
        config = None

        def state_dict(self):
            return tensors

    same(convert_open_clip_checkpoint(Peer(), file, prefix="conditioner.embedders.1.model."), tensors)
