from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel

from darkroom.checkpoint.components import AUTOENCODER, CLIP_TEXT, CLIP_VISION, UNET
from darkroom.errors import ModelError
from darkroom.networks import (
    VAE,
    CLIPText,
    CLIPTextConfig,
    CLIPVision,
    CLIPVisionConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)

# Facts of published folders, fields that all files share left out.
CROSS_FIRST = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SD1 = CROSS_FIRST | {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
}
SD2 = SD1 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}
UPSCALER = SD2 | {
    "attention_head_dim": 8,
    "block_out_channels": [256, 512, 512, 1024],
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"],
    "in_channels": 7,
    "num_class_embeds": 1000,
    "only_cross_attention": [True, True, True, False],
    "sample_size": 128,
}
XL = SD2 | {
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "attention_type": "default",
    "block_out_channels": [320, 640, 1280],
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "projection_class_embeddings_input_dim": 2816,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_type": "positional",
    "transformer_layers_per_block": [1, 2, 10],
    "upcast_attention": None,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd1": SD1,
    "inpainting": SD1 | {"in_channels": 9},
    "sd2": SD2,
    "unclip": SD2 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048},
    "upscaler": UPSCALER,
    "xl": XL,
    "refiner": XL
    | CROSS_FIRST
    | {
        "attention_head_dim": [6, 12, 24, 24],
        "block_out_channels": [384, 768, 1536, 1536],
        "cross_attention_dim": 1280,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "projection_class_embeddings_input_dim": 2560,
        "transformer_layers_per_block": 4,
    },
    "distilled_xl": XL
    | {
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    },
    "tiny": SD1 | {"layers_per_block": 1, "mid_block_type": None},
    "plain_middle": SD1 | {"mid_block_type": "UNetMidBlock2D", "layers_per_block": [1, 2, 1, 2]},
}
VAES: dict[str, dict[str, Any]] = {
    "sd1": {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "out_channels": 3,
        "sample_size": 512,
    },
    "xl": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "force_upcast": True,
        "layers_per_block": 2,
        "latents_mean": None,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "shift_factor": None,
    },
    "sd3": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 16,
        "layers_per_block": 2,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": True,
    },
}


def layout(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


def through_a_file(data: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(data))


@pytest.mark.peer
@pytest.mark.parametrize("name", UNETS)
def test_published_unets_have_their_peer_s_keys_and_come_back(name):
    config = UNET.read(UNETS[name])
    with torch.device("meta"):
        ours, theirs = UNet(config), UNet2DConditionModel.from_config(UNETS[name])
        again = UNet2DConditionModel.from_config(through_a_file(UNET.to_json(config)))
    assert layout(ours) == layout(theirs) == layout(again)
    assert UNET.read(through_a_file(UNET.to_json(config))) == config
    assert UNET.read(theirs.config) == config


@pytest.mark.peer
@pytest.mark.parametrize("name", VAES)
def test_published_vaes_have_their_peer_s_keys_and_come_back(name):
    config = AUTOENCODER.read(VAES[name])
    with torch.device("meta"):
        ours, theirs = VAE(config), AutoencoderKL.from_config(VAES[name])
        again = AutoencoderKL.from_config(through_a_file(AUTOENCODER.to_json(config)))
    assert layout(ours) == layout(theirs) == layout(again)
    assert AUTOENCODER.read(through_a_file(AUTOENCODER.to_json(config))) == config
    assert AUTOENCODER.read(theirs.config) == config


def test_values_that_are_easily_misread():
    sd1, xl, upscaler = (UNET.read(UNETS[name]) for name in ("sd1", "xl", "upscaler"))
    assert sd1 == UNetConfig()
    assert [level.heads for level in map(xl.level, range(3))] == [5, 10, 20]
    assert [(level.down, level.up) for level in map(xl.level, range(3))] == [
        ((0, 0), (0, 0, 0)),
        ((2, 2), (2, 2, 2)),
        ((10, 10), (10, 10, 10)),
    ]
    assert (sd1.mid_transformer_layers, xl.mid_transformer_layers) == (1, 10)
    assert [upscaler.level(i).only_cross for i in range(4)] == [True, True, True, False]
    old, new = AUTOENCODER.read(VAES["sd1"]), AUTOENCODER.read(VAES["sd3"])
    assert old == VAEConfig()
    assert (new.scaling_factor, new.shift_factor, AUTOENCODER.read(VAES["xl"]).shift_factor) == (
        1.5305,
        0.0609,
        0.0,
    )


@pytest.mark.peer
@pytest.mark.parametrize("projected", [False, True])
def test_clip_configs_there_and_back(projected):
    text_name, vision_name = ("CLIPTextModel", "CLIPVisionModel")
    if projected:
        text_name, vision_name = text_name + "WithProjection", vision_name + "WithProjection"
    text = transformers.CLIPTextConfig(hidden_act="gelu", eos_token_id=2).to_dict() | {
        "architectures": [text_name]
    }
    vision = transformers.CLIPVisionConfig().to_dict() | {"architectures": [vision_name]}
    mine, seen = CLIP_TEXT.read(text), CLIP_VISION.read(vision)
    assert (mine.hidden_act, mine.eos_token_id, mine.projection_dim) == (
        "gelu",
        2,
        512 if projected else None,
    )
    assert CLIP_TEXT.read({"architectures": [text_name], "hidden_act": "gelu", "eos_token_id": 2}) == mine
    assert CLIP_VISION.read({"architectures": [vision_name]}) == seen
    assert CLIP_TEXT.read(through_a_file(CLIP_TEXT.to_json(mine))) == mine
    assert CLIP_VISION.read(through_a_file(CLIP_VISION.to_json(seen))) == seen
    with torch.device("meta"):
        ours = layout(CLIPText(mine)) | layout(CLIPVision(seen))
        theirs = layout(
            getattr(transformers, text_name)(transformers.CLIPTextConfig(**CLIP_TEXT.to_json(mine)))
        ) | layout(
            getattr(transformers, vision_name)(transformers.CLIPVisionConfig(**CLIP_VISION.to_json(seen)))
        )
    without_tower = {key.replace("text_model.", "").replace("vision_model.", ""): ours[key] for key in ours}
    assert without_tower == {
        key.replace("text_model.", "").replace("vision_model.", ""): theirs[key] for key in theirs
    }


def test_a_record_round_trips_from_its_defaults():
    assert CLIP_TEXT.read(CLIP_TEXT.to_json(CLIPTextConfig())) == CLIPTextConfig()
    assert CLIP_VISION.read(CLIP_VISION.to_json(CLIPVisionConfig())) == CLIPVisionConfig()
    assert CLIP_VISION.read({"image_size": [64, 64], "patch_size": 8}).image_size == 64


@pytest.mark.parametrize(
    ("read", "base", "field", "value"),
    [
        (UNET.read, SD1, "act_fn", "gelu"),
        (UNET.read, SD1, "resnet_time_scale_shift", "scale_shift"),
        (UNET.read, SD1, "encoder_hid_dim_type", "text_proj"),
        (UNET.read, SD1, "addition_embed_type", "image"),
        (UNET.read, SD1, "class_embed_type", "simple_projection"),
        (UNET.read, SD1, "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        (UNET.read, SD1, "down_block_types", ["AttnDownBlock2D"] * 4),
        (UNET.read, SD1, "up_block_types", None),
        (UNET.read, SD1, "block_out_channels", [320, 640]),
        (UNET.read, SD1, "block_out_channels", 320),
        (UNET.read, SD1, "cross_attention_dim", [768, 1024]),
        (UNET.read, SD1, "in_channels", "4"),
        (UNET.read, SD1, "norm_eps", None),
        (UNET.read, SD1, "layers_per_block", [2, 2]),
        (UNET.read, SD1, "transformer_layers_per_block", [1, [], 1, 1]),
        (AUTOENCODER.read, VAES["sd1"], "act_fn", "relu"),
        (AUTOENCODER.read, VAES["sd1"], "latents_mean", [0.1, 0.2, 0.3, 0.4]),
        (AUTOENCODER.read, VAES["sd1"], "down_block_types", ["AttnDownEncoderBlock2D"]),
        (AUTOENCODER.read, VAES["sd1"], "block_out_channels", []),
        (AUTOENCODER.read, VAES["sd1"], "latent_channels", -4),
        (CLIP_TEXT.read, {}, "hidden_act", "relu"),
        (AUTOENCODER.read, VAES["sd1"], "norm_num_groups", 0),
        (UNET.read, SD1, "norm_num_groups", 31),
        (CLIP_TEXT.read, {}, "hidden_size", True),
        (CLIP_TEXT.read, {}, "num_attention_heads", 7),
        (CLIP_VISION.read, {}, "num_attention_heads", 0),
        (CLIP_VISION.read, {}, "image_size", [224, 448]),
    ],
)
def test_what_cannot_be_run_is_named(read, base, field, value):
    with pytest.raises(ModelError, match=field):
        read({**base, field: value})


def test_a_record_that_the_file_cannot_say_is_refused():
    with pytest.raises(ModelError, match="mid_transformer_layers = 3"):
        UNET.to_json(UNetConfig(transformer_layers_per_block=(1, 1, 1, 2), mid_transformer_layers=3))
