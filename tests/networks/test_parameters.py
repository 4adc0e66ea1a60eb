"""What a network should hold, counted from its dimensions alone."""

from __future__ import annotations

import pytest

from darkroom.checkpoint.components import COMPONENTS, component_for
from darkroom.networks.configs import (
    CLIPTextConfig,
    CLIPVisionConfig,
    MMDiTConfig,
    NormalizerConfig,
    T5Config,
    TinyVAEConfig,
    UNetConfig,
    VAEConfig,
)
from darkroom.networks.roles import Role

LARGE = {
    "transformer_layers_per_block": (0, 2, 10),
    "block_out_channels": (320, 640, 1280),
    "mid_transformer_layers": 10,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CASES = [
    (Role.UNET, UNetConfig()),
    (Role.UNET, UNetConfig(**LARGE, num_attention_heads=(5, 10, 20), use_linear_projection=True)),
    (Role.UNET, UNetConfig(only_cross_attention=True, time_cond_proj_dim=256, num_class_embeds=1000)),
    (Role.UNET, UNetConfig(layers_per_block=(1, 2, 2, 3), mid_transformer_layers=None)),
    (Role.UNET, UNetConfig(class_embed_type="timestep", mid_transformer_layers=0)),
    (Role.UNET, UNetConfig(class_embed_type="projection", projection_class_embeddings_input_dim=96)),
    (
        Role.UNET,
        UNetConfig(
            transformer_layers_per_block=(0, (1, 0), 2, 3),
            up_transformer_layers_per_block=(0, (1, 0, 3), 2, 0),
        ),
    ),
    (Role.TRANSFORMER, MMDiTConfig()),
    (Role.TRANSFORMER, MMDiTConfig(qk_norm="rms_norm", dual_attention_layers=(0, 1, 5, 23), patch_size=1)),
    (Role.VAE, VAEConfig()),
    (
        Role.VAE,
        VAEConfig(
            block_out_channels=(32, 96, 64),
            latent_channels=16,
            layers_per_block=1,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
    ),
    (Role.VAE, TinyVAEConfig()),
    (
        Role.VAE,
        TinyVAEConfig(
            latent_channels=16,
            encoder_block_out_channels=(32,) * 4,
            num_encoder_blocks=(1, 2, 4, 1),
        ),
    ),
    (Role.TEXT_ENCODER, CLIPTextConfig()),
    (Role.TEXT_ENCODER, CLIPTextConfig(projection_dim=512, intermediate_size=1000)),
    (Role.IMAGE_ENCODER, CLIPVisionConfig()),
    (Role.IMAGE_ENCODER, CLIPVisionConfig(projection_dim=None, patch_size=16)),
    (Role.IMAGE_NORMALIZER, NormalizerConfig(1024)),
    (Role.TEXT_ENCODER_3, T5Config()),
    (Role.TEXT_ENCODER_3, T5Config(feed_forward_proj="relu", d_kv=32, num_layers=2)),
]


@pytest.mark.parametrize(("role", "config"), CASES)
def test_dimensions_tell_the_number_of_parameters(role, config):
    tiny = isinstance(config, TinyVAEConfig)
    component = component_for(role, "AutoencoderTiny" if tiny else "")
    built = sum(parameter.numel() for parameter in component.build(config).parameters())
    assert component.parameters(config) == built


def test_every_component_is_counted():
    counted = {
        component_for(role, "AutoencoderTiny" if isinstance(c, TinyVAEConfig) else "") for role, c in CASES
    }
    assert counted == set(COMPONENTS)
