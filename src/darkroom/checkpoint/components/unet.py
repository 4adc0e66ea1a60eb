"""The U-Net of Stable Diffusion 1, 2 and XL: diffusers' UNet2DConditionModel, latent diffusion's UNetModel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from darkroom.checkpoint.components.component import (
    HEAD_WIDTH,
    HUGGING_FACE,
    ORIGINAL,
    Component,
    Names,
    Place,
    Shape,
)
from darkroom.checkpoint.components.fields import Json, all_of, fixed, frozen, known, one_of, record, single
from darkroom.checkpoint.rules import AS_IT_IS, SAME, Block, Leaf
from darkroom.errors import ModelError
from darkroom.networks import parameters
from darkroom.networks.configs import UNetConfig
from darkroom.networks.roles import Role

# What the network does, as config.json says it. A missing field means the same.
FIXED = {
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "num_attention_heads": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
MID, CROSS_MID = "UNetMidBlock2D", "UNetMidBlock2DCrossAttn"


# From shapes


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


def _dimensions(names: Names, layout: str) -> UNetConfig:
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


# From config.json and back


def _read(data: Json) -> UNetConfig:
    """The record of a `unet/config.json`; ModelError names a field that Darkroom does not support."""
    what = "U-Net config"
    fixed(what, data, FIXED)
    one_of(what, data, "class_embed_type", (None, "timestep", "projection"))
    one_of(what, data, "addition_embed_type", (None, "text_time"))
    one_of(what, data, "mid_block_type", (None, MID, CROSS_MID), CROSS_MID)
    widths = frozen(data.get("block_out_channels", (320, 640, 1280, 1280)))
    down_types = all_of(what, data, "down_block_types", (DOWN, CROSS_DOWN), (*[CROSS_DOWN] * 3, DOWN))
    up_types = all_of(what, data, "up_block_types", (UP, CROSS_UP), (UP, *[CROSS_UP] * 3))
    depths = _of_levels(data.get("transformer_layers_per_block", 1), down_types)
    reverse = data.get("reverse_transformer_layers_per_block")
    up_depths = depths if reverse is None else _of_levels(reverse, up_types)[::-1]
    if not isinstance(widths, tuple) or {len(v) for v in (down_types, up_types, depths, up_depths)} != {
        len(widths)
    }:
        raise ModelError(
            f"{what}: block_out_channels = {widths} has not as many levels as down_block_types, "
            "up_block_types or transformer_layers_per_block"
        )
    down = tuple(d if kind == CROSS_DOWN else 0 for d, kind in zip(depths, down_types, strict=True))
    up = tuple(d if kind == CROSS_UP else 0 for d, kind in zip(up_depths, up_types[::-1], strict=True))
    deepest = depths[-1][0] if isinstance(depths[-1], tuple) and depths[-1] else depths[-1]
    given = known(UNetConfig, data) | {
        "transformer_layers_per_block": down,
        "up_transformer_layers_per_block": None if up == down else up,
        "mid_transformer_layers": {CROSS_MID: deepest, MID: 0, None: None}[
            data.get("mid_block_type", CROSS_MID)
        ],
        "num_attention_heads": frozen(data.get("attention_head_dim", 8)),
        "cross_attention_dim": single(data.get("cross_attention_dim", 1280)),
        "sample_size": single(data.get("sample_size") or 64),
    }
    return record(what, UNetConfig, given)


def _write(config: UNetConfig) -> dict[str, Any]:
    """The `unet/config.json` of a record; ModelError where that file has no words for it."""
    levels = [config.level(i) for i in range(len(config.block_out_channels))]
    mid = config.mid_transformer_layers
    # The files give the middle the last level's number of transformer blocks, even if that level has none.
    depths = [_depth(level.down) or 1 for level in levels[:-1]] + [_depth(levels[-1].down) or mid or 1]
    if mid and levels[-1].down[0] not in (0, mid):
        raise ModelError(
            f"U-Net config: mid_transformer_layers = {mid} beside {levels[-1].down} on the last level "
            "cannot be written, config.json has one number for both: make them equal"
        )
    up_depths = [_depth(level.up) or depth for level, depth in zip(levels, depths, strict=True)]
    data = asdict(config)
    for ours in ("num_attention_heads", "mid_transformer_layers", "up_transformer_layers_per_block"):
        del data[ours]
    return FIXED | {
        **data,
        "down_block_types": [CROSS_DOWN if any(level.down) else DOWN for level in levels],
        "up_block_types": [CROSS_UP if any(level.up) else UP for level in reversed(levels)],
        "mid_block_type": None if mid is None else CROSS_MID if mid else MID,
        "transformer_layers_per_block": depths,
        "reverse_transformer_layers_per_block": None if up_depths == depths else up_depths[::-1],
        "attention_head_dim": config.num_attention_heads,
    }


def _depth(depths: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where all are equal, as the files have it."""
    return depths[0] if len(set(depths)) == 1 else depths


def _of_levels(value: Any, like: tuple[Any, ...]) -> tuple[Any, ...]:
    """Transformer depths, one entry a level; an entry may list different ones."""
    if not isinstance(value, list | tuple):
        return (value,) * len(like)
    return tuple(_depth(tuple(entry)) if isinstance(entry, list | tuple) else entry for entry in value)


# The authors' names


RESNET: Sequence[Leaf] = (
    ("norm1", "in_layers.0", SAME),
    ("conv1", "in_layers.2", SAME),
    ("time_emb_proj", "emb_layers.1", SAME),
    ("norm2", "out_layers.0", SAME),
    ("conv2", "out_layers.3", SAME),
    ("conv_shortcut", "skip_connection", SAME),
)


def _blocks(config: UNetConfig) -> Iterator[Block]:
    yield "time_embedding.linear_1", "time_embed.0", AS_IT_IS
    yield "time_embedding.linear_2", "time_embed.2", AS_IT_IS
    yield "time_embedding.cond_proj", "time_embed.cond_proj", AS_IT_IS
    for ours in ("add_embedding", "class_embedding"):
        yield f"{ours}.linear_1", "label_emb.0.0", AS_IT_IS
        yield f"{ours}.linear_2", "label_emb.0.2", AS_IT_IS
    yield "class_embedding.weight", "label_emb.weight", AS_IT_IS
    yield "conv_in", "input_blocks.0.0", AS_IT_IS
    yield "conv_norm_out", "out.0", AS_IT_IS
    yield "conv_out", "out.2", AS_IT_IS
    levels = range(len(config.block_out_channels))
    number = 0
    for i in levels:
        for j in range(len(config.level(i).down)):
            number += 1
            yield f"down_blocks.{i}.resnets.{j}", f"input_blocks.{number}.0", RESNET
            yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{number}.1", AS_IT_IS
        number += 1
        yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{number}.0.op", AS_IT_IS
    yield "mid_block.resnets.0", "middle_block.0", RESNET
    yield "mid_block.attentions.0", "middle_block.1", AS_IT_IS
    yield "mid_block.resnets.1", "middle_block.2", RESNET
    number = 0
    for k, i in enumerate(reversed(levels)):
        depths = config.level(i).up
        for j in range(len(depths)):
            theirs = f"output_blocks.{number + j}"
            yield f"up_blocks.{k}.resnets.{j}", f"{theirs}.0", RESNET
            yield f"up_blocks.{k}.attentions.{j}", f"{theirs}.1", AS_IT_IS
        number += len(depths)
        place = f"output_blocks.{number - 1}.{2 if any(depths) else 1}"
        yield f"up_blocks.{k}.upsamplers.0.conv", f"{place}.conv", AS_IT_IS


def _detail(config: UNetConfig) -> str:
    return f"{config.in_channels} channels in, {config.cross_attention_dim} wide text"


UNET = Component(
    network="darkroom.networks.unet:UNet",
    roles=(Role.UNET,),
    kind="model",
    label="U-Net",
    library="diffusers",
    class_name="UNet2DConditionModel",
    marks=(
        (ORIGINAL, "input_blocks.0.0.weight"),
        (HUGGING_FACE, "down_blocks.0.resnets.0.time_emb_proj.weight"),
    ),
    dimensions=_dimensions,
    read=_read,
    write=_write,
    parameters=parameters.unet,
    layouts={ORIGINAL: _blocks},
    place=Place("model.diffusion_model.", ORIGINAL),
    detail=_detail,
)
