"""The MMDiT of Stable Diffusion 3: diffusers' SD3Transformer2DModel, Stability's MMDiT."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from darkroom.checkpoint.components.component import (
    HEAD_WIDTH,
    HUGGING_FACE,
    ORIGINAL,
    Component,
    Names,
    Place,
)
from darkroom.checkpoint.components.fields import Json, known, one_of, record
from darkroom.checkpoint.rules import AS_IT_IS, SAME, SPLIT, SWAP, Block, Leaf
from darkroom.networks import parameters
from darkroom.networks.configs import MMDiTConfig
from darkroom.networks.roles import Role


def _dimensions(names: Names, layout: str) -> MMDiTConfig:
    original = layout == ORIGINAL
    block = "joint_blocks.{}" if original else "transformer_blocks.{}"
    layers = names.count(block)
    second = ".x_block.attn2" if original else ".attn2"
    normed = ".x_block.attn.ln_q" if original else ".attn.norm_q"
    width, channels, patch, _ = names["x_embedder.proj.weight" if original else "pos_embed.proj.weight"]
    pooled = "y_embedder.mlp.0" if original else "time_text_embed.text_embedder.linear_1"
    out = names["final_layer.linear.weight" if original else "proj_out.weight"][0]
    # ggml drops a first dimension of 1.
    places = names["pos_embed" if original else "pos_embed.pos_embed"][-2]
    return MMDiTConfig(
        patch_size=patch,
        in_channels=channels,
        out_channels=out // patch**2,
        num_layers=layers,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=width // HEAD_WIDTH,
        joint_attention_dim=names["context_embedder.weight"][1],
        caption_projection_dim=names["context_embedder.weight"][0],
        pooled_projection_dim=names[f"{pooled}.weight"][1],
        pos_embed_max_size=math.isqrt(places),
        dual_attention_layers=tuple(i for i in range(layers) if block.format(i) + second in names),
        qk_norm="rms_norm" if block.format(0) + normed in names else None,
    )


def _is_one(names: Names) -> bool:
    return "x_embedder.proj.weight" in names or "pos_embed.proj.weight" in names  # Flux has neither.


def _read(data: Json) -> MMDiTConfig:
    """The record of a `transformer/config.json` of class SD3Transformer2DModel."""
    what = "MMDiT config"
    one_of(what, data, "qk_norm", (None, "rms_norm"))
    # Of a missing field the files mean a network narrower than any that was published.
    defaults = {"num_layers": 18, "num_attention_heads": 18, "caption_projection_dim": 1152}
    given = {**defaults, "pos_embed_max_size": 96, **known(MMDiTConfig, data)}
    given["out_channels"] = data.get("out_channels", 16) or data.get("in_channels", 16)
    if not given.get("dual_attention_layers"):
        given.pop("dual_attention_layers", None)  # None have one: the record's default.
    return record(what, MMDiTConfig, given)


def _write(config: MMDiTConfig) -> dict[str, Any]:
    return asdict(config)


def _blocks(config: MMDiTConfig) -> Iterator[Block]:
    layers = config.num_layers
    yield "pos_embed.proj", "x_embedder.proj", AS_IT_IS
    yield "pos_embed.pos_embed", "pos_embed", AS_IT_IS
    for ours, theirs in (("timestep", "t"), ("text", "y")):
        for k in (1, 2):
            place = f"time_text_embed.{ours}_embedder.linear_{k}"
            yield place, f"{theirs}_embedder.mlp.{2 * k - 2}", AS_IT_IS
    for i in range(layers):
        yield f"transformer_blocks.{i}", f"joint_blocks.{i}", tuple(_joint_block(last=i == layers - 1))
    yield "norm_out.linear", "final_layer.adaLN_modulation.1", (("", "", SWAP),)
    yield "proj_out", "final_layer.linear", AS_IT_IS
    yield "", "", AS_IT_IS


def _joint_block(last: bool) -> Iterator[Leaf]:
    yield "norm1.linear", "x_block.adaLN_modulation.1", SAME
    # The last block keeps nothing of the text: its norm has a shift and a scale only, in the other order.
    yield "norm1_context.linear", "context_block.adaLN_modulation.1", SWAP if last else SAME
    for attention in ("attn", "attn2"):
        for ours, theirs, added in (("to_{}", "x_block", ""), ("add_{}_proj", "context_block", "added_")):
            for leaf in ("weight", "bias"):
                for part in "qkv":
                    name = f"{attention}.{ours.format(part)}.{leaf}"
                    yield name, f"{theirs}.{attention}.qkv.{leaf}", SPLIT
            for part in "qk":
                yield f"{attention}.norm_{added}{part}", f"{theirs}.{attention}.ln_{part}", SAME
        yield f"{attention}.to_out.0", f"x_block.{attention}.proj", SAME
        yield f"{attention}.to_add_out", f"context_block.{attention}.proj", SAME
    for ours, theirs in (("ff", "x_block"), ("ff_context", "context_block")):
        yield f"{ours}.net.0.proj", f"{theirs}.mlp.fc1", SAME
        yield f"{ours}.net.2", f"{theirs}.mlp.fc2", SAME


MMDIT = Component(
    network="darkroom.networks.mmdit:MMDiT",
    roles=(Role.TRANSFORMER,),
    kind="model",
    label="MMDiT",
    library="diffusers",
    class_name="SD3Transformer2DModel",
    marks=(
        (ORIGINAL, "joint_blocks.0.x_block.attn.qkv.weight"),
        (HUGGING_FACE, "transformer_blocks.0.attn.add_q_proj.weight"),
    ),
    certain=_is_one,
    dimensions=_dimensions,
    read=_read,
    write=_write,
    parameters=parameters.mmdit,
    layouts={ORIGINAL: _blocks},
    place=Place("model.diffusion_model.", ORIGINAL),
    computed=frozenset({"pos_embed.pos_embed", "pos_embed"}),
    detail=lambda config: f"{config.num_layers} blocks of width {config.width}",
)
