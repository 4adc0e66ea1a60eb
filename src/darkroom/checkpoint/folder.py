"""Models in folders of the Hugging Face layout: a folder a component, a config.json in each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom.checkpoint.components import CLIP_TEXT, Component, component_for
from darkroom.checkpoint.family import Family, Shapes
from darkroom.checkpoint.identify import Evidence, family_of
from darkroom.checkpoint.infer import networks_in
from darkroom.checkpoint.settings import read_json, scheduled, with_extra
from darkroom.checkpoint.source import Part, Source, denoiser_of, part_of
from darkroom.errors import DarkroomError, ModelError
from darkroom.networks.roles import Role
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.names import INDEX
from darkroom.weights.opening import weights_at


def open_folder(folder: Path, variant: str | None, opened: ExitStack) -> Source:
    """The model in a folder, its weights of a variant where there is one; `opened` takes the files that are opened.

    Raises ModelError where a component is missing, or a setting cannot be used.
    """
    index = read_json(folder / INDEX)
    parts: dict[Role, Part] = {}
    for role in Role:
        named = index.get(role)
        if not named or named[0] is None:
            continue
        if not (folder / role).is_dir():
            raise ModelError(f"{folder / role} is missing: the model folder is incomplete")
        component = component_for(role, str(named[-1]))
        weights = opened.enter_context(weights_at(folder / role, variant))
        parts[role] = component_at(role, folder / role, component, weights)
    denoiser = denoiser_of(parts)
    if denoiser is None:
        raise ModelError(
            f"{folder / INDEX} lists no unet and no transformer: it is no Stable Diffusion model"
        )
    scheduler, extra = (
        read_json(folder / name) if (folder / name).exists() else {}
        for name in ("scheduler/scheduler_config.json", "darkroom.json")
    )
    family, notes = _folder_family(folder, index, denoiser, parts, scheduler, extra)
    tokenizers = {
        role: folder / role.tokenizer
        for role in parts
        if role.reads_text and (folder / role.tokenizer).is_dir()
    }
    return Source(folder, parts, family, tokenizers, notes, scheduler, extra)


def component_at(role: Role, folder: Path, component: Component, weights: WeightsFile) -> Part:
    """A component by its config.json, or by its shapes where there is none."""
    file = folder / "config.json"
    if file.is_file():
        try:
            return Part(role, component, component.read(read_json(file)), weights, described=file)
        except DarkroomError as error:
            raise ModelError(f"{file}: {error}") from error
    found = [each for each in networks_in(weights.shapes) if each.component is component]
    if not found:
        raise ModelError(f"{folder} has no config.json, and {weights.path.name} holds no {component.label}")
    return part_of(role, found[0], weights)


def _folder_family(
    folder: Path,
    index: Mapping[str, Any],
    denoiser: Part,
    parts: Mapping[Role, Part],
    scheduler: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> tuple[Family, list[str]]:
    """The family that the networks are of, as the folder's own settings change it."""
    encoders = sum(part.component is CLIP_TEXT for part in parts.values())
    first = parts.get(Role.TEXT_ENCODER)
    openclip = first is not None and getattr(first.config, "hidden_act", "") == "gelu"
    called = Evidence({}, "", lambda name: None, file=_called(folder, index))
    family, notes = family_of(Shapes(denoiser.config, openclip and encoders == 1, encoders), called)
    # A folder's encoder of Stable Diffusion 2 was saved without the layer that is not used.
    text = {
        role: replace(use, layer=-1) if use.normed else use
        for role, use in family.text.items()
        if role in parts
    }
    try:
        vae = parts[Role.VAE].config if Role.VAE in parts else None
        native = denoiser.config.sample_size * (vae.factor if vae else family.factor)
        family = replace(
            family,
            text=text,
            native=native,
            zero_empty=bool(index.get("force_zeros_for_empty_prompt", family.zero_empty)),
            latent_channels=vae.latent_channels if vae else family.latent_channels,
            factor=vae.factor if vae else family.factor,
        )
        if scheduler:
            family, notes = scheduled(family, scheduler), []
        family = with_extra(family, extra)
    except (TypeError, ValueError, DarkroomError) as error:
        raise ModelError(f"{folder}: its settings cannot be used: {error}") from error
    return family, notes


def _called(folder: Path, index: Mapping[str, Any]) -> str:
    """What a folder is called: by itself, by who wrote it, by the hub's cache around it."""
    cached = folder.parents[1].name if folder.parent.name == "snapshots" else ""
    return f"{folder.name} {cached} {Path(str(index.get('_name_or_path', ''))).name}"
