"""Models in single files, with the names of their authors' code or those of the Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.checkpoint.components import AUTOENCODER, CLIP_TEXT, HUGGING_FACE
from darkroom.checkpoint.family import Family, Shapes
from darkroom.checkpoint.identify import Evidence, family_of
from darkroom.checkpoint.infer import Found, networks_in
from darkroom.checkpoint.settings import scheduled, with_extra
from darkroom.checkpoint.source import Part, Source, denoiser_of, part_of
from darkroom.errors import ModelError
from darkroom.networks.roles import Role
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.opening import open_weights

DARKROOM = "darkroom"
"""The key of a single file's metadata under which `convert` keeps what such files have no place for: each component's
config.json, the scheduler's, darkroom.json's, how text is used, and vocabularies that are not CLIP's, as JSON."""


def open_file(path: Path, others: Sequence[Path], opened: ExitStack) -> Source:
    """The model in a file, with what it lacks from others; `opened` takes the files that are opened. Raises ModelError
    where they hold no denoising network."""
    files = [opened.enter_context(open_weights(each)) for each in (path, *others)]
    parts: dict[Role, Part] = {}
    texts: list[tuple[Found, WeightsFile]] = []
    said = said_of(files[0])
    for weights in files:
        for found in networks_in(weights.shapes):
            role = found.component.roles[0]
            if found.component is CLIP_TEXT:  # Which of several it is depends on the family.
                texts.append((found, weights))
            else:
                parts.setdefault(role, part_of(role, found, weights, said))
    texts.sort(key=lambda each: _rank(each[0], said))
    denoiser = denoiser_of(parts)
    if denoiser is None:
        raise ModelError(_not_whole(path, parts, texts))
    openclip = any(found.layout != HUGGING_FACE for found, _ in texts)
    family, notes = family_of(Shapes(denoiser.config, openclip, len(texts)), _evidence(denoiser))
    for role, (found, weights) in zip(family.text, texts, strict=False):
        parts[role] = part_of(role, found, weights, said)
    family = _without_the_unused_layer(family, parts)
    if vae := parts.get(Role.VAE):
        if Role.VAE not in said:
            parts[Role.VAE] = vae = scaled(vae, family)
        family = replace(family, latent_channels=vae.config.latent_channels, factor=vae.config.factor)
    if family.largest is not None:
        family = replace(family, native=min(family.native, family.largest))
    family, notes = _as_said(family, notes, said)
    tokenizers = {Role(role): Tokenizer.from_dict(each) for role, each in said.get("tokenizers", {}).items()}
    return Source(path, parts, family, tokenizers, notes, said.get("scheduler", {}), said.get("extra", {}))


SD2_LAYER = 23
"""The layer of OpenCLIP-H whose state Stable Diffusion 2 was trained on, of 24."""


def _without_the_unused_layer(family: Family, parts: Mapping[Role, Part]) -> Family:
    """The family as its encoder is used in a file made from a folder: these have no layer after the one used."""
    text = {
        role: replace(use, layer=-1)
        if use.normed and role in parts and parts[role].config.num_hidden_layers == SD2_LAYER
        else use
        for role, use in family.text.items()
    }
    return replace(family, text=text)


def said_of(weights: WeightsFile) -> dict[str, Any]:
    """What a file that Darkroom wrote says of itself."""
    try:
        said = json.loads(weights.metadata.get(DARKROOM, "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _as_said(family: Family, notes: list[str], said: Mapping[str, Any]) -> tuple[Family, list[str]]:
    if "scheduler" in said:
        family, notes = scheduled(family, said["scheduler"]), []
    if "extra" in said:
        family = with_extra(family, said["extra"])
    told = said.get("text", {})
    text = {
        role: replace(use, layer=layer) if (layer := told.get("layers", {}).get(role)) in (-1, -2) else use
        for role, use in family.text.items()
    }
    return replace(family, text=text, zero_empty=bool(told.get("zero_empty", family.zero_empty))), notes


def _rank(found: Found, said: Mapping[str, Any]) -> tuple[int, int]:
    """CLIP's encoders in the order that a model takes them: as the file numbers them, else the smaller one first."""
    place = next((i for i, marks in enumerate(_NUMBERED) if any(m in found.prefix for m in marks)), 0)
    return place, 0 if said else found.config.hidden_size


_NUMBERED = (("embedders.0.", "clip_l."), ("embedders.1.", "clip_g."))


def scaled(vae: Part, family: Family) -> Part:
    """An autoencoder that scales latents as the family's does, which no shape tells; a tiny one needs nothing."""
    if vae.component is not AUTOENCODER:
        return vae
    facts = {"scaling_factor": family.scaling, "shift_factor": family.shift, "sample_size": family.native}
    return replace(vae, config=replace(vae.config, **facts))


def _evidence(part: Part) -> Evidence:
    """What a single file, and a configuration of the same name beside it, say besides shapes."""
    path, weights = part.weights.path, part.weights

    def read(name: str) -> NDArray[np.float32] | None:
        whole = part.prefix + name
        return weights.floats(whole) if whole in weights.entries else None

    beside = ""
    for suffix in (".yaml", ".yml", ".json"):
        if (file := path.with_suffix(suffix)).is_file() and file.stat().st_size < 1 << 20:
            beside = file.read_text("utf-8", errors="replace")
            break
    said = {**weights.metadata, **{name: str(value) for name, value in weights.extra.items()}}
    return Evidence(said, beside, read, list(weights.entries), path.name)


def _not_whole(path: Path, parts: Mapping[Role, Part], texts: Sequence[tuple[Found, WeightsFile]]) -> str:
    """Why a file without U-Net and MMDiT is no model, and what to do with it."""
    if Role.VAE in parts:
        return f"{path} is an autoencoder alone: give it as --vae beside a model"
    if texts or parts:
        return f"{path} holds {', '.join(parts) or 'a text encoder'} alone: give it beside a model (--with)"
    return f"{path} holds none of the networks of Stable Diffusion: it is another kind of file"
