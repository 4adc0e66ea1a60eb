"""TAESD and its kin, tiny autoencoders in place of the whole one: diffusers' AutoencoderTiny."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from darkroom.checkpoint.components.component import HUGGING_FACE, ORIGINAL, Component, Names, Place
from darkroom.checkpoint.components.fields import Json, fixed, known, record
from darkroom.checkpoint.components.vae import latents_in_words
from darkroom.checkpoint.rules import AS_IT_IS, Block
from darkroom.networks import parameters
from darkroom.networks.configs import TinyVAEConfig
from darkroom.networks.roles import Role

# What the network does, as config.json says it. A missing field means the same.
FIXED = {"act_fn": "relu", "upsample_fn": "nearest"}


def _dimensions(names: Names, layout: str) -> TinyVAEConfig:
    """The decoder's first convolution tells the latent channels."""
    first = "decoder.layers.0.weight" if layout == HUGGING_FACE else "decoder.1.weight"
    return TinyVAEConfig(latent_channels=names[first][1])


def _is_one(names: Names) -> bool:
    return "encoder.0.weight" in names or "encoder.layers.0.weight" in names


def _read(data: Json) -> TinyVAEConfig:
    """The record of a `vae/config.json` of class AutoencoderTiny."""
    what = "tiny autoencoder config"
    fixed(what, data, FIXED)
    return record(what, TinyVAEConfig, known(TinyVAEConfig, data))


def _write(config: TinyVAEConfig) -> dict[str, Any]:
    return FIXED | asdict(config)


_LAYERS = 40  # More than any tiny autoencoder has.


def _blocks(config: TinyVAEConfig) -> Iterator[Block]:
    for i in range(_LAYERS):
        yield f"encoder.layers.{i}", f"encoder.{i}", AS_IT_IS
        yield f"decoder.layers.{i}", f"decoder.{i + 1}", AS_IT_IS  # Theirs counts the limiter before it.


TINY = Component(
    network="darkroom.networks.tiny:TinyVAE",
    roles=(Role.VAE,),
    kind="vae",
    label="tiny autoencoder",
    library="diffusers",
    class_name="AutoencoderTiny",
    marks=((HUGGING_FACE, "decoder.layers.1.weight"), (ORIGINAL, "decoder.1.weight")),
    certain=_is_one,
    dimensions=_dimensions,
    read=_read,
    write=_write,
    parameters=parameters.tiny,
    layouts={ORIGINAL: _blocks},
    place=Place("first_stage_model.", ORIGINAL),
    detail=latents_in_words,
)
