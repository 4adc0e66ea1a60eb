"""The configurations of T5 encoders and tiny autoencoders."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from diffusers import AutoencoderTiny

from darkroom.checkpoint.components import T5, TINY
from darkroom.errors import ModelError
from darkroom.networks import T5Config, T5Encoder, TinyVAE, TinyVAEConfig

# Facts of published folders.
XXL = {
    "architectures": ["T5EncoderModel"],
    "classifier_dropout": 0.0,
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 24,
    "num_heads": 64,
    "num_layers": 24,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 32128,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "xxl": XXL,
    "first_small": {
        "model_type": "t5",
        "d_model": 512,
        "d_ff": 2048,
        "d_kv": 64,
        "num_heads": 8,
        "num_layers": 6,
        "layer_norm_epsilon": 1e-06,
        "relative_attention_num_buckets": 32,
        "vocab_size": 32128,
    },
    "nothing_said": {},
}
TAESD = {
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0.dev0",
    "act_fn": "relu",
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}
TINIES: dict[str, dict[str, Any]] = {
    "taesd": TAESD,
    "taesd3": TAESD
    | {
        "block_out_channels": [64, 64, 64, 64],
        "latent_channels": 16,
        "shift_factor": 0.0,
        "upsample_fn": "nearest",
    },
    "nothing_said": {},
}


def layout(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


def through_a_file(data: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(data))


@pytest.mark.peer
@pytest.mark.parametrize("name", ENCODERS)
def test_published_encoders_have_their_peer_s_keys_and_come_back(name):
    config = T5.read(ENCODERS[name])
    with torch.device("meta"):
        ours = T5Encoder(config)
        theirs = transformers.T5EncoderModel(transformers.T5Config(**ENCODERS[name]))
        again = transformers.T5EncoderModel(transformers.T5Config(**through_a_file(T5.to_json(config))))
    twin = {"encoder.embed_tokens.weight": layout(ours)["shared.weight"]}
    assert layout(ours) | twin == layout(theirs) == layout(again)
    assert T5.read(through_a_file(T5.to_json(config))) == config
    assert T5.read(through_a_file(theirs.config.to_dict())) == config


@pytest.mark.peer
@pytest.mark.parametrize("name", TINIES)
def test_published_tiny_autoencoders_have_their_peer_s_keys_and_come_back(name):
    config = TINY.read(TINIES[name])
    with torch.device("meta"):
        ours, theirs = TinyVAE(config), AutoencoderTiny.from_config(TINIES[name])
        again = AutoencoderTiny.from_config(through_a_file(TINY.to_json(config)))
    assert layout(ours) == layout(theirs) == layout(again)
    assert TINY.read(through_a_file(TINY.to_json(config))) == config
    assert TINY.read(theirs.config) == config


def test_values_that_are_easily_misread():
    assert T5.read(XXL) == T5Config()
    assert T5.read({}).feed_forward_proj == "relu"
    assert TINY.read(TAESD) == TinyVAEConfig()
    assert TINY.read(TINIES["taesd3"]).latent_channels == 16
    with torch.device("meta"):
        assert sum(p.numel() for p in T5Encoder(T5Config()).parameters()) == 4_762_310_656


@pytest.mark.parametrize(
    ("read", "base", "field", "value"),
    [
        (T5.read, XXL, "feed_forward_proj", "gated-relu"),
        (T5.read, XXL, "feed_forward_proj", None),
        (T5.read, XXL, "model_type", "umt5"),
        (T5.read, XXL, "d_model", "4096"),
        (T5.read, XXL, "num_heads", -1),
        (T5.read, XXL, "relative_attention_num_buckets", 0),
        (T5.read, XXL, "relative_attention_max_distance", 0),
        (TINY.read, TAESD, "act_fn", "silu"),
        (TINY.read, TAESD, "upsample_fn", "bilinear"),
        (TINY.read, TAESD, "encoder_block_out_channels", [64, 64, 64, 128]),
        (TINY.read, TAESD, "num_decoder_blocks", [3, 3, 3]),
        (TINY.read, TAESD, "num_encoder_blocks", 3),
        (TINY.read, TAESD, "upsampling_scaling_factor", 4),
        (TINY.read, TAESD, "latent_channels", None),
    ],
)
def test_what_cannot_be_run_is_named(read, base, field, value):
    with pytest.raises(ModelError, match=field):
        read({**base, field: value})
