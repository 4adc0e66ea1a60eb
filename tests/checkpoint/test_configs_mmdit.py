from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel

from darkroom.checkpoint.components import MMDIT
from darkroom.errors import ModelError
from darkroom.networks import MMDiT, MMDiTConfig

# Facts of published folders.
MEDIUM = {
    "_class_name": "SD3Transformer2DModel",
    "_diffusers_version": "0.29.0",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "sample_size": 128,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "medium": MEDIUM,
    "large": MEDIUM
    | {
        "caption_projection_dim": 2432,
        "dual_attention_layers": [],
        "num_attention_heads": 38,
        "num_layers": 38,
        "qk_norm": "rms_norm",
    },
    "medium_3_5": MEDIUM
    | {"dual_attention_layers": list(range(13)), "pos_embed_max_size": 384, "qk_norm": "rms_norm"},
    "nothing_said": {"_class_name": "SD3Transformer2DModel"},
    "out_as_in": MEDIUM | {"in_channels": 32, "out_channels": None},
}


def layout(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


@pytest.mark.peer
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_transformers_have_their_peer_s_keys_and_come_back(name):
    config = MMDIT.read(PUBLISHED[name])
    with torch.device("meta"):
        ours, theirs = MMDiT(config), SD3Transformer2DModel.from_config(PUBLISHED[name])
        again = SD3Transformer2DModel.from_config(json.loads(json.dumps(MMDIT.to_json(config))))
    assert layout(ours) == layout(theirs) == layout(again)
    assert MMDIT.read(json.loads(json.dumps(MMDIT.to_json(config)))) == config
    assert MMDIT.read(theirs.config) == config
    assert MMDIT.read(json.loads(theirs.to_json_string())) == config


def test_values_that_are_easily_misread():
    assert MMDIT.read(MEDIUM) == MMDiTConfig()
    large, medium = MMDIT.read(PUBLISHED["large"]), MMDIT.read(PUBLISHED["medium_3_5"])
    assert (large.width, large.dual_attention_layers, large.qk_norm) == (2432, (), "rms_norm")
    assert (medium.width, medium.dual_attention_layers) == (1536, tuple(range(13)))
    assert MMDIT.read(PUBLISHED["out_as_in"]).out_channels == 32
    assert MMDIT.read({}).pos_embed_max_size == 96


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("qk_norm", "layer_norm"),
        ("qk_norm", "rms_norm_across_heads"),
        ("pos_embed_max_size", None),
        ("caption_projection_dim", 1152),
        ("num_attention_heads", 23),
        ("attention_head_dim", [64]),
        ("dual_attention_layers", [0, "1"]),
        ("dual_attention_layers", 13),
        ("num_layers", -1),
        ("in_channels", "16"),
        ("sample_size", True),
    ],
)
def test_what_cannot_be_run_is_named(field, value):
    with pytest.raises(ModelError, match=field):
        MMDIT.read({**MEDIUM, field: value})
