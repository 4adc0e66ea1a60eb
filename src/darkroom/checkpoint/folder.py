"""Models in folders of the Hugging Face layout: a folder a component, a config.json in each."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom.checkpoint.components import CLIP_TEXT, T5, Component, component_for
from darkroom.checkpoint.distilled import names_of, with_speed
from darkroom.checkpoint.encoders import seated
from darkroom.checkpoint.family import Family, Shapes
from darkroom.checkpoint.foreign import UNKNOWN
from darkroom.checkpoint.identify import Evidence, family_of
from darkroom.checkpoint.infer import networks_in
from darkroom.checkpoint.settings import augmented, read_json, scheduled, with_extra
from darkroom.checkpoint.single_file import (
    Holding,
    file_holding,
    sparing,
    with_autoencoder,
    without_pictures,
)
from darkroom.checkpoint.source import Part, Source, denoiser_of, part_of
from darkroom.errors import DarkroomError, ModelError, UnsupportedModel
from darkroom.networks.configs import CLIPTextConfig
from darkroom.networks.roles import DENOISERS, Role
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.names import INDEX, has_tokenizer, has_weights
from darkroom.weights.opening import weights_at

_T5 = Role.TEXT_ENCODER_3


def open_folder(folder: Path, variant: str | None, opened: ExitStack, spare: Collection[Role] = ()) -> Source:
    """The model in a folder, its weights of a variant where there is one; `opened` takes the files that are opened.

    Raises ModelError where a component is missing or damaged (but for one in a `spare` role), or a setting cannot be
    used.
    """
    index = read_json(folder / INDEX)
    own = folder_holding(folder, index, variant, opened, spare)
    parts = {part.role: part for part in own.parts}
    denoiser = denoiser_of(parts)
    if denoiser is None:
        _refuse(folder, index)
        held = "; ".join(part.component.described(part.config) for part in own.parts)
        raise ModelError(
            f"{folder / INDEX} lists no unet and no transformer: it is no Stable Diffusion model but "
            f"{index.get('_class_name', 'another pipeline')}" + (f" (it holds {held})" if held else "")
        )
    scheduler, extra = (
        read_json(folder / name) if (folder / name).exists() else {}
        for name in ("scheduler/scheduler_config.json", "darkroom.json")
    )
    family, notes = _folder_family(folder, index, denoiser, parts, scheduler, extra)
    notes += _without_variant(parts, variant)
    used = without_pictures(parts, family)
    for role in parts.keys() - used.keys():
        parts[role].weights.close()
        notes.append(f"its {role} is left out: {family.name} has no use for it")
    return Source(folder, used, family, own.tokenizers, notes, scheduler, extra, own.damaged)


def _refuse(folder: Path, index: Mapping[str, Any]) -> None:
    """Raises ModelError where a folder's network that denoises is not there, or is another pipeline's."""
    listed = _listed(folder, index)
    for role in (role for role in DENOISERS if role in listed):
        if (name := listed[role]) != component_for(role, name).class_name:
            called = index.get("_class_name", "a pipeline")
            raise UnsupportedModel(f"{folder} is of {called}, with a {name}, {UNKNOWN}")
        raise ModelError(f"{folder / role} is missing: the model folder is incomplete")


def _without_variant(parts: Mapping[Role, Part], variant: str | None) -> list[str]:
    """What is read in place of a variant that was asked for and is not there."""
    others = {
        role: part.weights.path.name
        for role, part in parts.items()
        if variant and f".{variant}." not in part.weights.path.name
    }
    each = ", ".join(f"{role} from {name}" for role, name in others.items())
    return [f"there is no variant {variant} of all its weights: reads {each}"] if others else []


def folder_holding(
    folder: Path,
    index: Mapping[str, Any],
    variant: str | None,
    opened: ExitStack,
    spare: Collection[Role] = (),
) -> Holding:
    """The networks of a model's folder, as its index lists them. Raises ModelError where one is damaged, but for one in
    a `spare` role."""
    parts: list[Part] = []
    damaged: dict[Role, ModelError] = {}
    listed = _listed(folder, index)
    if has_weights(folder / _T5) and not (folder / _T5.tokenizer).exists():
        listed.setdefault(_T5, T5.class_name)  # Without its tokenizer it is listed as none: see `export`.
    for role, name in listed.items():
        component = component_for(role, name)
        if not (folder / role).is_dir() or (role.denoises and name != component.class_name):
            continue  # To be given, or no business of who takes another part.
        with sparing(role, spare, damaged), ExitStack() as own:
            weights = own.enter_context(weights_at(folder / role, variant))
            parts.append(component_at(role, folder / role, component, weights))
            opened.push(own.pop_all())
    tokenizers = {
        part.role: folder / part.role.tokenizer
        for part in parts
        if part.role.reads_text and (folder / part.role.tokenizer).is_dir()
    }
    return Holding(folder, parts, tokenizers, damaged=damaged)


def _listed(folder: Path, index: Mapping[str, Any]) -> dict[Role, str]:
    """The networks that a model's index lists, by their classes. Raises ModelError where an entry makes no sense."""
    found: dict[Role, str] = {}
    for role in Role:
        match index.get(role):
            case None | [None, *_]:
                continue
            case [str(), str(name)]:
                found[role] = name
            case other:
                raise ModelError(
                    f"{folder / INDEX} lists {json.dumps(other)} as {role}: it must be [library, class], or "
                    "[null, null] for none"
                )
    return found


def component_holding(folder: Path, variant: str | None, opened: ExitStack) -> Holding:
    """The network in a component's folder; with its tokenizer where that lies beside it, as in a model's folder, or
    among its own files."""
    weights = opened.enter_context(weights_at(folder, variant))
    found = networks_in(weights.shapes)
    if len(found) != 1 or not (folder / "config.json").is_file():
        return replace(file_holding(weights), path=folder)
    component = found[0].component
    role = next((role for role in component.roles if role == folder.name), component.roles[0])
    part = component_at(role, folder, component, weights)
    tokenizer = _tokenizer_of(part, folder)
    return Holding(folder, [part], {} if tokenizer is None else {role: tokenizer}, weights=weights)


def _tokenizer_of(part: Part, folder: Path) -> Path | None:
    """The folder of a text encoder's tokenizer, if there is one."""
    role = part.role
    if role == folder.name and role.reads_text and (folder.parent / role.tokenizer).is_dir():
        return folder.parent / role.tokenizer
    # CLIP's own is known, and how it is padded is the business of the model that reads with it.
    known = part.component is CLIP_TEXT and part.config.vocab_size == CLIPTextConfig().vocab_size
    return folder if role.reads_text and not known and has_tokenizer(folder) else None


def component_at(role: Role, folder: Path, component: Component, weights: WeightsFile) -> Part:
    """A component by its config.json, or by its shapes where there is none."""
    file = folder / "config.json"
    if file.is_file():
        try:
            config = component.read(read_json(file))
            if component is CLIP_TEXT and config.projection_dim is None:
                # Whether it is loaded with one is the business of whoever loads it, to transformers.
                projection = weights.shapes.get("text_projection.weight", (None,))
                config = replace(config, projection_dim=projection[0])
            return Part(role, component, config, weights, described=file)
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
    parts: dict[Role, Part],
    scheduler: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> tuple[Family, list[str]]:
    """The family that the networks are of, as the folder's own settings change it; text encoders are fitted to it."""
    widths = tuple(part.config.hidden_size for part in parts.values() if part.component is CLIP_TEXT)
    first = parts.get(Role.TEXT_ENCODER)
    openclip = first is not None and getattr(first.config, "hidden_act", "") == "gelu"
    shapes = Shapes(denoiser.config, openclip and len(widths) == 1, widths)
    family, notes = family_of(shapes, Evidence({}, "", lambda name: None))
    text = dict(family.text)
    for role, use in family.text.items():
        if role in parts:
            parts[role], text[role] = seated(parts[role], role, use)
    try:
        if (vae := parts.get(Role.VAE)) is not None:
            family = with_autoencoder(family, vae)
        family = replace(
            family,
            text=text,
            native=denoiser.config.sample_size * family.factor,
            zero_empty=bool(index.get("force_zeros_for_empty_prompt", family.zero_empty)),
        )
        if scheduler:
            family, notes = scheduled(family, scheduler), []
        family, fast = with_speed(family, [*names_of(folder), Path(str(index.get("_name_or_path", ""))).name])
        notes += [] if "preferences" in extra else fast
        family = with_extra(family, extra)
        if family.augmentation is not None:
            noise = folder / family.augmentation.component / "scheduler_config.json"
            config = read_json(noise) if noise.exists() else {}
            family = augmented(family, config, index.get("max_noise_level"))
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{folder} {error}") from None
    except (TypeError, ValueError, ArithmeticError, DarkroomError) as error:
        raise ModelError(f"{folder}: its settings cannot be used: {error}") from error
    return family, notes
