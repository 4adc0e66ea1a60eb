"""The T5 encoder of Stable Diffusion 3: transformers' T5EncoderModel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from darkroom.checkpoint.components.component import HUGGING_FACE, Component, Names, Place
from darkroom.checkpoint.components.fields import Json, known, one_of, record
from darkroom.checkpoint.rules import AS_IT_IS, SAME, Block, Leaf
from darkroom.networks import parameters
from darkroom.networks.configs import FEED_FORWARDS, T5Config
from darkroom.networks.roles import Role

LLAMA = "llama.cpp"
"""The layout of T5 by itself in GGUF."""
_ATTENTION: Sequence[Leaf] = (
    *((part, f"attn_{part}", SAME) for part in "qkvo"),
    ("relative_attention_bias", "attn_rel_b", SAME),
)
_DENSE: Sequence[Leaf] = (
    ("wi_0", "ffn_gate", SAME),
    ("wi_1", "ffn_up", SAME),
    ("wi", "ffn_up", SAME),
    ("wo", "ffn_down", SAME),
)


def _llama_blocks(config: T5Config) -> Iterator[Block]:
    for i in range(config.num_layers):
        ours, theirs = f"encoder.block.{i}.layer", f"enc.blk.{i}"
        yield f"{ours}.0.SelfAttention", theirs, _ATTENTION
        yield f"{ours}.0.layer_norm", f"{theirs}.attn_norm", AS_IT_IS
        yield f"{ours}.1.DenseReluDense", theirs, _DENSE
        yield f"{ours}.1.layer_norm", f"{theirs}.ffn_norm", AS_IT_IS
    yield "encoder.final_layer_norm", "enc.output_norm", AS_IT_IS
    yield "shared", "token_embd", AS_IT_IS


def _llama_dimensions(names: Names) -> T5Config:
    inner, width = names["enc.blk.0.attn_q.weight"]
    buckets, heads = names["enc.blk.0.attn_rel_b.weight"]
    gated = "enc.blk.0.ffn_gate" in names
    return T5Config(
        vocab_size=names["token_embd.weight"][0],
        d_model=width,
        d_kv=inner // heads,
        d_ff=names["enc.blk.0.ffn_up.weight"][0],
        num_layers=names.count("enc.blk.{}"),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )


def _dimensions(names: Names, layout: str) -> T5Config:
    if layout == LLAMA:
        return _llama_dimensions(names)
    inner, width = names["encoder.block.0.layer.0.SelfAttention.q.weight"]
    buckets, heads = names["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    dense = "encoder.block.0.layer.1.DenseReluDense"
    gated = f"{dense}.wi_0" in names
    embedding = "shared.weight" if "shared.weight" in names else "encoder.embed_tokens.weight"
    return T5Config(
        vocab_size=names[embedding][0],
        d_model=width,
        d_kv=inner // heads,
        d_ff=names[f"{dense}.{'wi_0' if gated else 'wi'}.weight"][0],
        num_layers=names.count("encoder.block.{}"),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )


def _read(data: Json) -> T5Config:
    """The record of a `text_encoder_3/config.json` of class T5EncoderModel."""
    what = "T5 config"
    one_of(what, data, "model_type", ("t5",), "t5")
    one_of(what, data, "feed_forward_proj", FEED_FORWARDS, "relu")
    defaults = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu"}
    return record(what, T5Config, {**defaults, **known(T5Config, data)})


def _write(config: T5Config) -> dict[str, Any]:
    return {"model_type": "t5", **asdict(config)}


def _today(name: str) -> str:
    """The table of tokens has two names."""
    return "shared.weight" if name == "encoder.embed_tokens.weight" else name


T5 = Component(
    network="darkroom.networks.t5:T5Encoder",
    roles=(Role.TEXT_ENCODER_3,),
    kind="text-encoder",
    label="T5 text encoder",
    library="transformers",
    class_name="T5EncoderModel",
    marks=(
        (HUGGING_FACE, "encoder.block.0.layer.0.SelfAttention.q.weight"),
        (LLAMA, "enc.blk.0.attn_q.weight"),
    ),
    layouts={LLAMA: _llama_blocks},
    dimensions=_dimensions,
    read=_read,
    write=_write,
    parameters=parameters.t5,
    today=_today,
    place=Place("text_encoders.t5xxl.transformer.", HUGGING_FACE),
)
