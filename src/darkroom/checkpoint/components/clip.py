"""CLIP's two towers: transformers' CLIPTextModel and CLIPVisionModel, OpenCLIP's text transformer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from darkroom.checkpoint.components.component import (
    HEAD_WIDTH,
    HUGGING_FACE,
    ORIGINAL,
    Component,
    Names,
    Place,
)
from darkroom.checkpoint.components.fields import Config, Json, known, one_of, record, single
from darkroom.checkpoint.rules import AS_IT_IS, SAME, SPLIT, TRANSPOSE, Block, Change, Leaf
from darkroom.networks import parameters
from darkroom.networks.configs import CLIPTextConfig, CLIPVisionConfig, NormalizerConfig
from darkroom.networks.roles import Role

ACTIVATIONS = ("quick_gelu", "gelu")
OPENCLIP_WIDTHS = (1024, 1280)
"""Of its text encoders in Stable Diffusion; OpenAI's is 768 wide."""
_HEADS = {1280: 80, 1408: 88, 1664: 104}
"""How wide the heads of OpenCLIP's larger encoders of pictures are: ViT-H/14's, ViT-g/14's and ViT-bigG/14's."""
_TOWERS = {768: "ViT-L/14", 1024: "OpenCLIP ViT-H/14", 1280: "OpenCLIP ViT-bigG/14"}


# stable-diffusion.cpp's names: transformers', but for the projection, which is turned as OpenCLIP's; newer releases
# leave queries, keys and values stacked. What it makes of transformers' own files has their projection under that name.
GGML, GGML_STACKED, GGML_LINEAR = "ggml", "ggml, stacked", "ggml, linear"
_GGML_PROJECTION = "text_model.text_projection"
_OF_TRANSFORMERS = ("clip_l.", "clip_g.")


def _turned(layout: str, prefix: str, names: Names) -> str:
    """Which way the projection of such a file lies: by its shape, of a square one by the model that it is of."""
    if layout != GGML or _GGML_PROJECTION not in names:
        return layout
    first, second = names[_GGML_PROJECTION]
    width = names["text_model.encoder.layers.0.mlp.fc1.weight"][1]
    square = first == second
    linear = any(mark in prefix for mark in _OF_TRANSFORMERS) if square else second == width
    return GGML_LINEAR if linear else GGML


# From shapes


def _text_dimensions(names: Names, layout: str) -> CLIPTextConfig:
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
        if layout in (GGML, GGML_STACKED, GGML_LINEAR) and (own := names.shapes.get(_GGML_PROJECTION)):
            projection = own if layout == GGML_LINEAR else own[::-1]
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
        hidden_act="gelu" if layout == ORIGINAL or width in OPENCLIP_WIDTHS else "quick_gelu",
        projection_dim=projected,
    )


def _vision_dimensions(names: Names, layout: str) -> CLIPVisionConfig:
    if layout == ORIGINAL:
        patches, places = names["conv1.weight"], names["positional_embedding"]
        width, inner = names["transformer.resblocks.0.mlp.c_fc.weight"][::-1]
        projection = names.shapes["proj"][::-1] if "proj" in names else None
        layers = names.count("transformer.resblocks.{}")
    else:
        patches = names["vision_model.embeddings.patch_embedding.weight"]
        places = names["vision_model.embeddings.position_embedding.weight"]
        width, inner = names["vision_model.encoder.layers.0.mlp.fc1.weight"][::-1]
        projection = names.shapes.get("visual_projection.weight")
        layers = names.count("vision_model.encoder.layers.{}")
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(width // _HEADS.get(width, HEAD_WIDTH), 1),
        image_size=math.isqrt(places[0] - 1) * patches[-1],
        patch_size=patches[-1],
        hidden_act="quick_gelu" if width == 1024 else "gelu",
        projection_dim=projection[0] if projection else None,
    )


# From config.json and back


def _read_text(data: Json) -> CLIPTextConfig:
    """The record of a `text_encoder/config.json`, or of the text side of a whole CLIP's."""
    data = _side(data, "text_config")
    defaults = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    return _read("CLIP text config", CLIPTextConfig, data, defaults)


def _read_vision(data: Json) -> CLIPVisionConfig:
    """The record of an `image_encoder/config.json`, or of the picture side of a whole CLIP's."""
    data = _side(data, "vision_config")
    defaults = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12} | {
        "num_hidden_layers": 12,
        "patch_size": 32,
    }
    return _read("CLIP vision config", CLIPVisionConfig, data, defaults)


def _side(data: Json, name: str) -> Json:
    """One tower's settings: those of a file of its own, or of its side of a CLIPModel's, which has both projections."""
    side = data.get(name)
    if not isinstance(side, dict):
        return data
    return {
        **side,
        "projection_dim": data.get("projection_dim", 512),
        "architectures": ["CLIPModelWithProjection"],
    }


def _read(what: str, kind: type[Config], data: Json, defaults: Json) -> Config:
    """Only the class name tells whether the file holds a projection: all have a `projection_dim`."""
    one_of(what, data, "hidden_act", ACTIVATIONS, "quick_gelu")
    given = {**defaults, **{name: single(value) for name, value in known(kind, data).items()}}
    projected = any(name.endswith("WithProjection") for name in data.get("architectures") or ())
    given["projection_dim"] = data.get("projection_dim", 512) if projected else None
    return record(what, kind, given)


def _write(config: CLIPTextConfig | CLIPVisionConfig) -> dict[str, Any]:
    # Without a projection the field means nothing, and holds this.
    width = config.hidden_size if config.projection_dim is None else config.projection_dim
    return {**asdict(config), "projection_dim": width}


def _write_text(config: CLIPTextConfig) -> dict[str, Any]:
    return {"model_type": "clip_text_model", **_write(config)}


def _write_vision(config: CLIPVisionConfig) -> dict[str, Any]:
    return {"model_type": "clip_vision_model", **_write(config)}


# The authors' names


LAYER: Sequence[Leaf] = (
    ("layer_norm1", "ln_1", SAME),
    ("layer_norm2", "ln_2", SAME),
    ("mlp.fc1", "mlp.c_fc", SAME),
    ("mlp.fc2", "mlp.c_proj", SAME),
    ("self_attn.out_proj", "attn.out_proj", SAME),
    *(
        (f"self_attn.{part}_proj.{leaf}", f"attn.in_proj_{leaf}", SPLIT)
        for leaf in ("weight", "bias")
        for part in "qkv"
    ),
)


def _blocks(config: CLIPTextConfig) -> Iterator[Block]:
    for i in range(config.num_hidden_layers):
        yield f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}", LAYER
    yield "text_model.embeddings.token_embedding", "token_embedding", AS_IT_IS
    yield "text_model.embeddings.position_embedding.weight", "positional_embedding", AS_IT_IS
    yield "text_model.final_layer_norm", "ln_final", AS_IT_IS
    yield "text_projection.weight", "text_projection", (("", "", TRANSPOSE),)


def _vision_blocks(config: CLIPVisionConfig) -> Iterator[Block]:
    for i in range(config.num_hidden_layers):
        yield f"vision_model.encoder.layers.{i}", f"transformer.resblocks.{i}", LAYER
    yield "vision_model.embeddings.class_embedding", "class_embedding", AS_IT_IS
    yield "vision_model.embeddings.patch_embedding", "conv1", AS_IT_IS
    yield "vision_model.embeddings.position_embedding.weight", "positional_embedding", AS_IT_IS
    yield "vision_model.pre_layrnorm", "ln_pre", AS_IT_IS
    yield "vision_model.post_layernorm", "ln_post", AS_IT_IS
    yield "visual_projection.weight", "proj", (("", "", TRANSPOSE),)


def _ggml_blocks(config: CLIPTextConfig, projection: Change = TRANSPOSE) -> Iterator[Block]:
    yield "text_projection.weight", _GGML_PROJECTION, (("", "", projection),)
    yield "", "", AS_IT_IS


def _ggml_stacked_blocks(config: CLIPTextConfig) -> Iterator[Block]:
    for i in range(config.num_hidden_layers):
        for leaf in ("weight", "bias"):
            for part in "qkv":
                layer = f"text_model.encoder.layers.{i}.self_attn"
                yield f"{layer}.{part}_proj.{leaf}", f"{layer}.in_proj.{leaf}", (("", "", SPLIT),)
    yield from _ggml_blocks(config)


def _today_text(name: str) -> str:
    """Newer releases of transformers leave out `text_model.`."""
    bare = name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return f"text_model.{name}" if bare else name


def _today_vision(name: str) -> str:
    return name.removeprefix("vision_model.") if name.startswith("vision_model.vision_model.") else name


def _text_in_words(config: CLIPTextConfig) -> str:
    return _TOWERS.get(config.hidden_size, f"{config.hidden_size} wide")


CLIP_TEXT = Component(
    network="darkroom.networks.clip:CLIPText",
    roles=(Role.TEXT_ENCODER, Role.TEXT_ENCODER_2),
    kind="text-encoder",
    label="CLIP text encoder",
    library="transformers",
    class_name="CLIPTextModel",
    marks=(
        (ORIGINAL, "transformer.resblocks.0.attn.in_proj_weight"),
        (GGML_STACKED, "text_model.encoder.layers.0.self_attn.in_proj.weight"),
        (GGML, _GGML_PROJECTION),
        (HUGGING_FACE, "text_model.encoder.layers.0.self_attn.q_proj.weight"),
        (HUGGING_FACE, "encoder.layers.0.self_attn.q_proj.weight"),
    ),
    certain=lambda names: names.first("token_embedding.weight") is not None,
    dimensions=_text_dimensions,
    read=_read_text,
    write=_write_text,
    parameters=parameters.clip_text,
    today=_today_text,
    turned=_turned,
    layouts={
        ORIGINAL: _blocks,
        GGML: _ggml_blocks,
        GGML_STACKED: _ggml_stacked_blocks,
        GGML_LINEAR: partial(_ggml_blocks, projection=SAME),
    },
    detail=_text_in_words,
)
CLIP_VISION = Component(
    network="darkroom.networks.clip:CLIPVision",
    roles=(Role.IMAGE_ENCODER,),
    kind="image-encoder",
    label="CLIP image encoder",
    library="transformers",
    class_name="CLIPVisionModel",
    marks=(
        (HUGGING_FACE, "vision_model.encoder.layers.0.self_attn.q_proj.weight"),
        (ORIGINAL, "transformer.resblocks.0.attn.in_proj_weight"),
    ),
    certain=lambda names: "vision_model" in names or "conv1.weight" in names,
    dimensions=_vision_dimensions,
    read=_read_vision,
    write=_write_vision,
    parameters=parameters.clip_vision,
    today=_today_vision,
    layouts={ORIGINAL: _vision_blocks},
    place=Place("embedder.model.visual.", ORIGINAL),
)


# The statistics of embeddings of pictures that unCLIP's models go with


def _normalizer_dimensions(names: Names, layout: str) -> NormalizerConfig:
    return NormalizerConfig(names["data_mean" if layout == ORIGINAL else "mean"][-1])


def _read_normalizer(data: Json) -> NormalizerConfig:
    return record("image normalizer config", NormalizerConfig, known(NormalizerConfig, data))


def _normalizer_blocks(config: NormalizerConfig) -> Iterator[Block]:
    yield "mean", "data_mean", AS_IT_IS
    yield "std", "data_std", AS_IT_IS


NORMALIZER = Component(
    network="darkroom.networks.clip:EmbeddingNormalizer",
    roles=(Role.IMAGE_NORMALIZER,),
    kind="image-normalizer",
    label="statistics of picture embeddings",
    library="diffusers",
    class_name="StableUnCLIPImageNormalizer",
    module="stable_diffusion",
    marks=((ORIGINAL, "data_mean"), (HUGGING_FACE, "mean")),
    certain=lambda names: {"data_std", "data_mean"} <= {*names.shapes} or {*names.shapes} == {"mean", "std"},
    dimensions=_normalizer_dimensions,
    read=_read_normalizer,
    write=asdict,
    parameters=parameters.normalizer,
    layouts={ORIGINAL: _normalizer_blocks},
    place=Place("noise_augmentor.", ORIGINAL),
)
