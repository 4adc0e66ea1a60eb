"""The autoencoder of Stable Diffusion: diffusers' AutoencoderKL, latent diffusion's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from darkroom.checkpoint.components.component import HUGGING_FACE, ORIGINAL, Component, Names, Place
from darkroom.checkpoint.components.fields import Json, all_of, fixed, known, record, single
from darkroom.checkpoint.rules import AS_IT_IS, SAME, SQUEEZE, Block, Leaf
from darkroom.errors import ModelError
from darkroom.networks import parameters
from darkroom.networks.configs import TinyVAEConfig, VAEConfig
from darkroom.networks.roles import Role

# What the network does, as config.json says it. A missing field means the same.
FIXED = {"act_fn": "silu", "latents_mean": None, "latents_std": None}


def _dimensions(names: Names, layout: str) -> VAEConfig:
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


def _read(data: Json) -> VAEConfig:
    """The record of a `vae/config.json` of class AutoencoderKL, old (few fields) or new."""
    what = "VAE config"
    fixed(what, data, FIXED)
    all_of(what, data, "down_block_types", ("DownEncoderBlock2D",), ())
    all_of(what, data, "up_block_types", ("UpDecoderBlock2D",), ())
    given = {"block_out_channels": (64,), "layers_per_block": 1, **known(VAEConfig, data)}
    given["shift_factor"] = data.get("shift_factor") or 0.0
    given["sample_size"] = single(data.get("sample_size") or 32)
    return record(what, VAEConfig, given)


def _write(config: VAEConfig) -> dict[str, Any]:
    """The `vae/config.json` of a record."""
    levels = len(config.block_out_channels)
    return FIXED | {
        **asdict(config),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "shift_factor": config.shift_factor or None,
    }


_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _today(name: str) -> str:
    """Older releases name an attention's layers otherwise."""
    if ".attentions." not in name:
        return name
    return ".".join(_OLD_NAMES.get(word, word) for word in name.split("."))


RESNET: Sequence[Leaf] = (("conv_shortcut", "nin_shortcut", SAME), *AS_IT_IS)
ATTENTION: Sequence[Leaf] = (
    ("group_norm", "norm", SAME),
    *(
        (f"{ours}.{leaf}", f"{theirs}.{leaf}", SQUEEZE if leaf == "weight" else SAME)
        for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))
        for leaf in ("weight", "bias")
    ),
)


def _blocks(config: VAEConfig) -> Iterator[Block]:
    levels = len(config.block_out_channels)
    for part, sort, layers in (("encoder", "down", 0), ("decoder", "up", 1)):
        for i in range(levels):
            theirs = f"{part}.{sort}.{i if sort == 'down' else levels - 1 - i}"
            for j in range(config.layers_per_block + layers):
                yield f"{part}.{sort}_blocks.{i}.resnets.{j}", f"{theirs}.block.{j}", RESNET
            yield f"{part}.{sort}_blocks.{i}.{sort}samplers.0", f"{theirs}.{sort}sample", AS_IT_IS
        yield f"{part}.mid_block.resnets.0", f"{part}.mid.block_1", RESNET
        yield f"{part}.mid_block.attentions.0", f"{part}.mid.attn_1", ATTENTION
        yield f"{part}.mid_block.resnets.1", f"{part}.mid.block_2", RESNET
        yield f"{part}.conv_norm_out", f"{part}.norm_out", AS_IT_IS
    yield "", "", AS_IT_IS


def latents_in_words(config: VAEConfig | TinyVAEConfig) -> str:
    """The latents of an autoencoder."""
    return f"{config.latent_channels} latent channels at 1/{config.factor}, scaled by {config.scaling_factor}"


AUTOENCODER = Component(
    network="darkroom.networks.vae:VAE",
    roles=(Role.VAE,),
    kind="vae",
    label="autoencoder",
    library="diffusers",
    class_name="AutoencoderKL",
    marks=(
        (ORIGINAL, "decoder.up.0.block.0.conv1.weight"),
        (HUGGING_FACE, "decoder.up_blocks.0.resnets.0.conv1.weight"),
    ),
    dimensions=_dimensions,
    read=_read,
    write=_write,
    parameters=parameters.vae,
    today=_today,
    layouts={ORIGINAL: _blocks},
    place=Place("first_stage_model.", ORIGINAL),
    detail=latents_in_words,
)
