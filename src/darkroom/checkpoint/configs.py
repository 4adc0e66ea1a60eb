"""The `config.json` of a published folder to our records of dimensions, and back.

Fields whose one supported value is built into the networks are checked, so that a file which needs
something else is refused by name instead of running wrong. Fields that change nothing at inference
(dropout, initialisation, training state) are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from darkroom.errors import ModelError
from darkroom.networks import (
    CLIPTextConfig,
    CLIPVisionConfig,
    MMDiTConfig,
    T5Config,
    TinyVAEConfig,
    UNetConfig,
    VAEConfig,
)
from darkroom.networks.t5 import FEED_FORWARDS

Json = Mapping[str, Any]
Record = TypeVar(
    "Record",
    UNetConfig,
    VAEConfig,
    TinyVAEConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    T5Config,
    MMDiTConfig,
)

# What the networks do, as the files say it. A missing field means the same.
UNET_FIXED = {
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
VAE_FIXED = {"act_fn": "silu", "latents_mean": None, "latents_std": None}
TINY_FIXED = {"act_fn": "relu", "upsample_fn": "nearest"}
DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
MID, CROSS_MID = "UNetMidBlock2D", "UNetMidBlock2DCrossAttn"
ACTIVATIONS = ("quick_gelu", "gelu")


def unet_config(data: Json) -> UNetConfig:
    """The record of a `unet/config.json`; ModelError names a field that Darkroom does not support."""
    what = "U-Net config"
    _fixed(what, data, UNET_FIXED)
    _one_of(what, data, "class_embed_type", (None, "timestep", "projection"))
    _one_of(what, data, "addition_embed_type", (None, "text_time"))
    _one_of(what, data, "mid_block_type", (None, MID, CROSS_MID), CROSS_MID)
    widths = _frozen(data.get("block_out_channels", (320, 640, 1280, 1280)))
    down_types = _all_of(what, data, "down_block_types", (DOWN, CROSS_DOWN), (*[CROSS_DOWN] * 3, DOWN))
    up_types = _all_of(what, data, "up_block_types", (UP, CROSS_UP), (UP, *[CROSS_UP] * 3))
    depths = _levels(data.get("transformer_layers_per_block", 1), down_types)
    reverse = data.get("reverse_transformer_layers_per_block")
    up_depths = depths if reverse is None else _levels(reverse, up_types)[::-1]
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
    given = _known(UNetConfig, data) | {
        "transformer_layers_per_block": down,
        "up_transformer_layers_per_block": None if up == down else up,
        "mid_transformer_layers": {CROSS_MID: deepest, MID: 0, None: None}[
            data.get("mid_block_type", CROSS_MID)
        ],
        "num_attention_heads": _frozen(data.get("attention_head_dim", 8)),
        "cross_attention_dim": _single(data.get("cross_attention_dim", 1280)),
        "sample_size": _single(data.get("sample_size") or 64),
    }
    return _record(what, UNetConfig, given)


def unet_json(config: UNetConfig) -> dict[str, Any]:
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
    return UNET_FIXED | {
        "_class_name": "UNet2DConditionModel",
        **data,
        "down_block_types": [CROSS_DOWN if any(level.down) else DOWN for level in levels],
        "up_block_types": [CROSS_UP if any(level.up) else UP for level in reversed(levels)],
        "mid_block_type": None if mid is None else CROSS_MID if mid else MID,
        "transformer_layers_per_block": depths,
        "reverse_transformer_layers_per_block": None if up_depths == depths else up_depths[::-1],
        "attention_head_dim": config.num_attention_heads,
    }


def mmdit_config(data: Json) -> MMDiTConfig:
    """The record of a `transformer/config.json` of class SD3Transformer2DModel."""
    what = "MMDiT config"
    _one_of(what, data, "qk_norm", (None, "rms_norm"))
    # Of a missing field the files mean a network narrower than any that was published.
    defaults = {"num_layers": 18, "num_attention_heads": 18, "caption_projection_dim": 1152}
    given = {**defaults, "pos_embed_max_size": 96, **_known(MMDiTConfig, data)}
    given["out_channels"] = data.get("out_channels", 16) or data.get("in_channels", 16)
    if not given.get("dual_attention_layers"):
        given.pop("dual_attention_layers", None)  # None have one: the record's default.
    return _record(what, MMDiTConfig, given)


def mmdit_json(config: MMDiTConfig) -> dict[str, Any]:
    """The `transformer/config.json` of a record."""
    return {"_class_name": "SD3Transformer2DModel", **asdict(config)}


def vae_config(data: Json) -> VAEConfig:
    """The record of a `vae/config.json` of class AutoencoderKL, old (few fields) or new."""
    what = "VAE config"
    _fixed(what, data, VAE_FIXED)
    _all_of(what, data, "down_block_types", ("DownEncoderBlock2D",), ())
    _all_of(what, data, "up_block_types", ("UpDecoderBlock2D",), ())
    given = {"block_out_channels": (64,), "layers_per_block": 1, **_known(VAEConfig, data)}
    given["shift_factor"] = data.get("shift_factor") or 0.0
    given["sample_size"] = _single(data.get("sample_size") or 32)
    return _record(what, VAEConfig, given)


def vae_json(config: VAEConfig) -> dict[str, Any]:
    """The `vae/config.json` of a record."""
    levels = len(config.block_out_channels)
    return VAE_FIXED | {
        "_class_name": "AutoencoderKL",
        **asdict(config),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "shift_factor": config.shift_factor or None,
    }


def tiny_config(data: Json) -> TinyVAEConfig:
    """The record of a `vae/config.json` of class AutoencoderTiny."""
    what = "tiny autoencoder config"
    _fixed(what, data, TINY_FIXED)
    return _record(what, TinyVAEConfig, _known(TinyVAEConfig, data))


def tiny_json(config: TinyVAEConfig) -> dict[str, Any]:
    """The `vae/config.json` of a record."""
    return TINY_FIXED | {"_class_name": "AutoencoderTiny", **asdict(config)}


def text_config(data: Json) -> CLIPTextConfig:
    """The record of a `text_encoder/config.json`."""
    defaults = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    return _clip_config("CLIP text config", CLIPTextConfig, data, defaults)


def text_json(config: CLIPTextConfig) -> dict[str, Any]:
    """The `text_encoder/config.json` of a record."""
    return _clip_json(config, "CLIPTextModel", "clip_text_model")


def vision_config(data: Json) -> CLIPVisionConfig:
    """The record of an `image_encoder/config.json`."""
    defaults = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12} | {
        "num_hidden_layers": 12,
        "patch_size": 32,
    }
    return _clip_config("CLIP vision config", CLIPVisionConfig, data, defaults)


def vision_json(config: CLIPVisionConfig) -> dict[str, Any]:
    """The `image_encoder/config.json` of a record."""
    return _clip_json(config, "CLIPVisionModel", "clip_vision_model")


def t5_config(data: Json) -> T5Config:
    """The record of a `text_encoder_3/config.json` of class T5EncoderModel."""
    what = "T5 config"
    _one_of(what, data, "model_type", ("t5",), "t5")
    _one_of(what, data, "feed_forward_proj", tuple(FEED_FORWARDS), "relu")
    defaults = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu"}
    return _record(what, T5Config, {**defaults, **_known(T5Config, data)})


def t5_json(config: T5Config) -> dict[str, Any]:
    """The `text_encoder_3/config.json` of a record."""
    return {"architectures": ["T5EncoderModel"], "model_type": "t5", **asdict(config)}


def _clip_config(what: str, record: type[Record], data: Json, defaults: Json) -> Record:
    """Only the class name tells whether the file holds a projection: all have a `projection_dim`."""
    _one_of(what, data, "hidden_act", ACTIVATIONS, "quick_gelu")
    given = {**defaults, **{name: _single(value) for name, value in _known(record, data).items()}}
    projected = any(name.endswith("WithProjection") for name in data.get("architectures") or ())
    given["projection_dim"] = data.get("projection_dim", 512) if projected else None
    return _record(what, record, given)


def _clip_json(config: CLIPTextConfig | CLIPVisionConfig, name: str, kind: str) -> dict[str, Any]:
    projected = config.projection_dim is not None
    return {
        "architectures": [name + "WithProjection" if projected else name],
        "model_type": kind,
        **asdict(config),
        "projection_dim": config.projection_dim if projected else config.hidden_size,
    }


def _known(record: type[Record], data: Json) -> dict[str, Any]:
    """The fields of a record that the JSON has under the same name."""
    return {f.name: _frozen(data[f.name]) for f in fields(record) if f.name in data}


def _record(what: str, record: type[Record], given: Json) -> Record:
    """The record, if every value is of its field's type."""
    hints = get_type_hints(record)
    for name, value in given.items():
        if not _fits(value, hints[name]):
            kind = record.__annotations__[name]
            raise ModelError(f"{what}: {name} = {value!r} should be {kind}; the file is damaged or unusual")
    return record(**given)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a type, numbers not negative."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and bool(value) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint in (int, float):
        kinds = int if hint is int else int | float
        return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0
    return isinstance(value, hint)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def _depth(depths: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where all are equal, as the files have it."""
    return depths[0] if len(set(depths)) == 1 else depths


def _levels(value: Any, like: tuple[Any, ...]) -> tuple[Any, ...]:
    """Transformer depths, one entry a level; an entry may list different ones."""
    if not isinstance(value, list | tuple):
        return (value,) * len(like)
    return tuple(_depth(tuple(entry)) if isinstance(entry, list | tuple) else entry for entry in value)


def _single(value: Any) -> Any:
    """One number where the files may list equal ones."""
    return (
        value[0] if isinstance(value, list | tuple) and value and all(v == value[0] for v in value) else value
    )


def _fixed(what: str, data: Json, supported: Json) -> None:
    for name, value in supported.items():
        _one_of(what, data, name, (value,), value)


def _one_of(what: str, data: Json, name: str, supported: Sequence[Any], default: Any = None) -> None:
    value = data.get(name, default)
    if value not in supported:
        known = ", ".join(map(repr, supported))
        raise ModelError(f"{what}: {name} = {value!r} is not supported; what Darkroom can run: {known}")


def _all_of(
    what: str, data: Json, name: str, supported: Sequence[str], default: Sequence[str]
) -> tuple[str, ...]:
    kinds = _frozen(data.get(name, default))
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        _one_of(what, {name: kind}, name, supported)
    return kinds  # type: ignore[no-any-return]
