"""Which networks a file of weights holds, and their dimensions: from names and shapes alone.

No configuration file is needed and no number is read. What shapes do not say (how many heads share a width, which
activation, how latents are scaled) is a property of the model's family: see `darkroom.checkpoint.family`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from darkroom.errors import ModelError
from darkroom.networks import (
    VAE,
    CLIPText,
    CLIPTextConfig,
    CLIPVision,
    CLIPVisionConfig,
    MMDiT,
    MMDiTConfig,
    T5Config,
    T5Encoder,
    TinyVAE,
    TinyVAEConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)

Shape = tuple[int, ...]
HUGGING_FACE, ORIGINAL = "huggingface", "original"
HEAD_WIDTH = 64  # Of every attention in Stable Diffusion's networks but the U-Net of version 1.


class Names:
    """The tensors of one network: shapes by name, and which names begin with a block's."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self._starts = {name[:i] for name in shapes for i, sign in enumerate(name) if sign == "."}

    def __contains__(self, start: str) -> bool:
        return start in self._starts or start in self.shapes

    def __getitem__(self, name: str) -> Shape:
        if name not in self.shapes:
            raise ModelError(f"the tensor {name} is missing: the file is incomplete")
        return self.shapes[name]

    def count(self, form: str) -> int:
        """How many blocks there are whose names are `form` with 0, 1, 2 ... in it."""
        number = 0
        while form.format(number) in self:
            number += 1
        return number

    def first(self, end: str) -> Shape | None:
        """The shape of any tensor whose name ends so."""
        return next((shape for name, shape in self.shapes.items() if name.endswith(end)), None)


@dataclass(frozen=True)
class Found:
    """A network in a file: its class, where its names begin, whose names they are, and its tensors."""

    kind: type[nn.Module]
    prefix: str
    layout: str
    names: Names

    @cached_property
    def config(self) -> Any:
        """Its dimensions. Raises ModelError where a tensor that tells them is missing, or they fit no network."""
        return _CONFIGS[self.kind](self.names, self.layout)


# What of each sort of network every file has, and only that sort, in each layout.
_MARKS: Sequence[tuple[type[nn.Module], str, str]] = (
    (UNet, ORIGINAL, "input_blocks.0.0.weight"),
    (UNet, HUGGING_FACE, "down_blocks.0.resnets.0.time_emb_proj.weight"),
    (MMDiT, ORIGINAL, "joint_blocks.0.x_block.attn.qkv.weight"),
    (MMDiT, HUGGING_FACE, "transformer_blocks.0.attn.add_q_proj.weight"),
    (VAE, ORIGINAL, "decoder.up.0.block.0.conv1.weight"),
    (VAE, HUGGING_FACE, "decoder.up_blocks.0.resnets.0.conv1.weight"),
    (TinyVAE, HUGGING_FACE, "decoder.layers.1.weight"),
    (TinyVAE, ORIGINAL, "decoder.1.weight"),
    (CLIPText, ORIGINAL, "transformer.resblocks.0.attn.in_proj_weight"),
    (CLIPText, HUGGING_FACE, "text_model.encoder.layers.0.self_attn.q_proj.weight"),
    (CLIPText, HUGGING_FACE, "encoder.layers.0.self_attn.q_proj.weight"),
    (CLIPVision, HUGGING_FACE, "vision_model.encoder.layers.0.self_attn.q_proj.weight"),
    (T5Encoder, HUGGING_FACE, "encoder.block.0.layer.0.SelfAttention.q.weight"),
)
_OTHERS = (
    "control_model.",
    "controlnet_",
    "depth_model.",
    "model_ema.",
    "visual.",
    "text_model.",
    "vision_model.",
)
"""Beginnings of what looks like one of ours and is not, or is a part of one."""


def networks_in(shapes: Mapping[str, Shape]) -> list[Found]:
    """Every network found among the tensors of a file, in the order of the sorts."""
    found: dict[str, Found] = {}
    for kind, layout, mark in _MARKS:
        for name in shapes:
            if not name.endswith(mark):
                continue
            prefix = name.removesuffix(mark)
            if (prefix and not prefix.endswith(".")) or prefix in found or _another(prefix, shapes):
                continue
            names = Names(within(shapes, prefix))
            if not _is(kind, names):
                continue
            found[prefix] = Found(kind, prefix, layout, names)
    return list(found.values())


def within(shapes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What begins with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in shapes.items() if name.startswith(prefix)}


def _another(prefix: str, shapes: Mapping[str, Shape]) -> bool:
    return any(mark in prefix for mark in _OTHERS) or any(
        f"{prefix}{mark}" in shapes for mark in ("input_hint_block.0.weight", "zero_convs.0.0.weight")
    )


def _is(kind: type[nn.Module], names: Names) -> bool:
    """Whether what bears the mark is what it seems."""
    if kind is CLIPText:
        return names.first("token_embedding.weight") is not None
    if kind is MMDiT:
        return "x_embedder.proj.weight" in names or "pos_embed.proj.weight" in names  # Flux has neither.
    if kind is TinyVAE:
        return "encoder.0.weight" in names or "encoder.layers.0.weight" in names
    return True


# U-Net


@dataclass(frozen=True)
class _Level:
    """One resolution of a U-Net: its width, the transformer depth after each ResNet block, and whether what should be
    self-attention looks at the text (the upscaler's upper levels)."""

    width: int
    depths: tuple[int, ...]
    only_cross: bool

    @classmethod
    def of(cls, names: Names, width: Shape, transformers: Sequence[str]) -> _Level:
        depths = tuple(names.count(f"{place}.transformer_blocks.{{}}") for place in transformers)
        keys = names.shapes.get(f"{transformers[0]}.transformer_blocks.0.attn1.to_k.weight")
        return cls(width[0], depths, keys is not None and keys[1] != width[0])


def _unet(names: Names, layout: str) -> UNetConfig:
    original = layout == ORIGINAL
    downs, mid, ups = (_original_levels if original else _levels)(names)
    if len(ups) != len(downs):
        raise ModelError(f"the U-Net has {len(downs)} levels down and {len(ups)} up: the file is damaged")
    depths = [_shortest(level.depths) for level in downs]
    up_depths = [_shortest(level.depths) for level in reversed(ups)]
    mirrored = [d if isinstance(d, int) else None for d in depths] == up_depths
    layers = [len(level.depths) for level in downs]
    only_cross = tuple(level.only_cross for level in downs)
    context = names.first("attn2.to_k.weight")
    linear = names.first("proj_in.weight")
    widths = tuple(level.width for level in downs)
    cross = context[1] if context else 0
    return UNetConfig(
        in_channels=names["input_blocks.0.0.weight" if original else "conv_in.weight"][1],
        out_channels=names["out.2.weight" if original else "conv_out.weight"][0],
        block_out_channels=widths,
        layers_per_block=layers[0] if len(set(layers)) == 1 else tuple(layers),
        transformer_layers_per_block=tuple(depths),
        up_transformer_layers_per_block=None if mirrored else tuple(up_depths),
        mid_transformer_layers=mid,
        num_attention_heads=_heads(names, widths, cross),
        cross_attention_dim=cross,
        only_cross_attention=only_cross if any(only_cross) else False,
        use_linear_projection=linear is not None and len(linear) == 2,
        **_extra_conditioning(names, cross, original),
    )


def _levels(names: Names) -> tuple[list[_Level], int | None, list[_Level]]:
    """Down, middle and up, of the Hugging Face layout."""

    def level(place: str) -> _Level:
        transformers = [f"{place}.attentions.{j}" for j in range(names.count(f"{place}.resnets.{{}}"))]
        return _Level.of(names, names[f"{place}.resnets.0.conv2.weight"], transformers)

    downs = [level(f"down_blocks.{i}") for i in range(names.count("down_blocks.{}"))]
    ups = [level(f"up_blocks.{i}") for i in range(names.count("up_blocks.{}"))]
    mid = names.count("mid_block.attentions.0.transformer_blocks.{}") if "mid_block" in names else None
    return downs, mid, ups


def _original_levels(names: Names) -> tuple[list[_Level], int | None, list[_Level]]:
    """The same of the original layout, where blocks are numbered through."""

    def levels(side: str, first: int, ends: Callable[[str], bool], apart: bool) -> Iterator[_Level]:
        blocks = [f"{side}.{n}" for n in range(first, names.count(f"{side}.{{}}"))]
        level: list[str] = []
        for block in [*blocks, ""]:
            ending = not block or ends(block)
            if block and not (ending and apart):
                level.append(block)
            if ending and level:
                width = names[f"{level[0]}.0.out_layers.3.weight"]
                yield _Level.of(names, width, [f"{block}.1" for block in level])
                level = []

    downs = levels("input_blocks", 1, lambda block: f"{block}.0.op" in names, apart=True)
    ups = levels("output_blocks", 0, lambda b: f"{b}.1.conv" in names or f"{b}.2.conv" in names, apart=False)
    return list(downs), names.count("middle_block.1.transformer_blocks.{}"), list(ups)


def _shortest(depths: tuple[int, ...]) -> int | tuple[int, ...]:
    return depths[0] if len(set(depths)) == 1 else depths


def _heads(names: Names, widths: tuple[int, ...], context: int) -> int | tuple[int, ...]:
    """Stable Diffusion 1 and the upscaler have 8 heads on every level, all others heads of 64."""
    upscaler = names.first("label_emb.weight") or names.first("class_embedding.weight")
    if context < 1024 or upscaler or any(width % HEAD_WIDTH for width in widths):
        return 8
    return tuple(width // HEAD_WIDTH for width in widths)


def _extra_conditioning(names: Names, context: int, original: bool) -> dict[str, Any]:
    """What the U-Net is told besides time and text."""
    scale = names.first("cond_proj.weight")
    guidance = {"time_cond_proj_dim": scale[1]} if scale else {}
    table = names.shapes.get("label_emb.weight" if original else "class_embedding.weight")
    if table is not None:
        return guidance | {"num_class_embeds": table[0]}
    if original:
        shape = names.shapes.get("label_emb.0.0.weight")
        # Stable Diffusion 2 is told an image (unCLIP), XL the pooled text and sizes.
        sort = "class_embedding" if context == 1024 else "add_embedding"
    else:
        sort = next((s for s in ("class_embedding", "add_embedding") if s in names), "")
        shape = names.shapes.get(f"{sort}.linear_1.weight")
    if shape is None:
        return guidance
    if sort == "class_embedding":
        return guidance | {
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": shape[1],
        }
    return guidance | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": shape[1],
    }


# The other networks


def _vae(names: Names, layout: str) -> VAEConfig:
    original = layout == ORIGINAL
    block = "encoder.down.{}" if original else "encoder.down_blocks.{}"
    resnet = ".block.{}" if original else ".resnets.{}"
    places = [block.format(i) for i in range(names.count(block))]
    if not places:
        raise ModelError("the autoencoder has a decoder but no encoder: a whole one is needed")
    return VAEConfig(
        in_channels=names["encoder.conv_in.weight"][1],
        out_channels=names["decoder.conv_out.weight"][0],
        latent_channels=names["decoder.conv_in.weight"][1],
        block_out_channels=tuple(names[f"{p}{resnet.format(0)}.conv2.weight"][0] for p in places),
        layers_per_block=names.count(places[0] + resnet),
        mid_block_add_attention=("encoder.mid.attn_1" if original else "encoder.mid_block.attentions")
        in names,
        use_quant_conv="quant_conv" in names,
        use_post_quant_conv="post_quant_conv" in names,
    )


def _tiny(names: Names, layout: str) -> TinyVAEConfig:
    """TAESD and its kin: the decoder's first convolution tells the latent channels."""
    first = "decoder.layers.0.weight" if layout == HUGGING_FACE else "decoder.1.weight"
    return TinyVAEConfig(latent_channels=names[first][1])


def _clip_text(names: Names, layout: str) -> CLIPTextConfig:
    if layout == ORIGINAL:
        width, inner = names["transformer.resblocks.0.mlp.c_fc.weight"][::-1]
        layers = names.count("transformer.resblocks.{}")
        projection = names.shapes.get("text_projection")
        tokens, places = names["token_embedding.weight"], names["positional_embedding"]
        projected = projection[1] if projection else None
    else:
        start = "text_model." if "text_model" in names else ""
        width, inner = names[f"{start}encoder.layers.0.mlp.fc1.weight"][::-1]
        layers = names.count(f"{start}encoder.layers.{{}}")
        projection = names.shapes.get("text_projection.weight")
        tokens = names[f"{start}embeddings.token_embedding.weight"]
        places = names[f"{start}embeddings.position_embedding.weight"]
        projected = projection[0] if projection else None
    return CLIPTextConfig(
        vocab_size=tokens[0],
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        max_position_embeddings=places[0],
        # OpenCLIP's have names or, in Stable Diffusion 3's files, widths of their own; the others are OpenAI's.
        hidden_act="gelu" if layout == ORIGINAL or width in (1024, 1280) else "quick_gelu",
        projection_dim=projected,
    )


def _clip_vision(names: Names, layout: str) -> CLIPVisionConfig:
    patches = names["vision_model.embeddings.patch_embedding.weight"]
    places = names["vision_model.embeddings.position_embedding.weight"]
    width, inner = names["vision_model.encoder.layers.0.mlp.fc1.weight"][::-1]
    projection = names.shapes.get("visual_projection.weight")
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=names.count("vision_model.encoder.layers.{}"),
        num_attention_heads=width // (80 if width == 1280 else HEAD_WIDTH),  # ViT-H/14 has 16 heads of 80.
        image_size=math.isqrt(places[0] - 1) * patches[-1],
        patch_size=patches[-1],
        hidden_act="quick_gelu" if width == 1024 else "gelu",
        projection_dim=projection[0] if projection else None,
    )


def _t5(names: Names, layout: str) -> T5Config:
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


def _mmdit(names: Names, layout: str) -> MMDiTConfig:
    original = layout == ORIGINAL
    block = "joint_blocks.{}" if original else "transformer_blocks.{}"
    layers = names.count(block)
    second = ".x_block.attn2" if original else ".attn2"
    normed = ".x_block.attn.ln_q" if original else ".attn.norm_q"
    width, channels, patch, _ = names["x_embedder.proj.weight" if original else "pos_embed.proj.weight"]
    pooled = "y_embedder.mlp.0" if original else "time_text_embed.text_embedder.linear_1"
    out = names["final_layer.linear.weight" if original else "proj_out.weight"][0]
    places = names["pos_embed" if original else "pos_embed.pos_embed"][1]
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


_CONFIGS: dict[type[nn.Module], Callable[[Names, str], Any]] = {
    UNet: _unet,
    VAE: _vae,
    TinyVAE: _tiny,
    CLIPText: _clip_text,
    CLIPVision: _clip_vision,
    T5Encoder: _t5,
    MMDiT: _mmdit,
}
