"""Opening models, whatever their layout: headers and configuration files only, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from darkroom.checkpoint.components import component_for
from darkroom.checkpoint.family import Family
from darkroom.checkpoint.folder import component_at, open_folder
from darkroom.checkpoint.infer import networks_in
from darkroom.checkpoint.single_file import open_file, said_of, scaled
from darkroom.checkpoint.source import Part, Source, part_of
from darkroom.diffusion import Discrete, process
from darkroom.errors import InvalidRequest, ModelError
from darkroom.networks.roles import Role
from darkroom.weights.names import INDEX
from darkroom.weights.opening import weights_at


def open_source(
    path: Path,
    *,
    prediction: str | None = None,
    zero_snr: bool | None = None,
    variant: str | None = None,
    others: Sequence[Path] = (),
    t5: bool = True,
) -> Source:
    """What a file or a folder holds. Raises ModelError where it is no model, or a damaged one.

    `prediction` (epsilon, v_prediction, sample, flow) and `zero_snr` override what was found; `variant` picks among a
    folder's files ("fp16"); `others` are files with parts that this one lacks; without `t5` a Stable Diffusion 3 does
    without its largest text encoder. The files stay open for their tensors to be read: use it as a context manager, or
    call `close`.
    """
    with ExitStack() as opened:
        if (path / INDEX).is_file():
            source = open_folder(path, variant, opened)
        else:
            source = open_file(path, others, opened)
        source = _without_t5(_overridden(source, prediction, zero_snr), t5)
        opened.pop_all()
    return source


def _overridden(source: Source, prediction: str | None, zero_snr: bool | None) -> Source:
    family, notes = source.family, list(source.notes)
    if prediction is not None:
        family, notes = (
            replace(family, process=process(prediction)),
            [*notes, f"predicts {prediction}: asked for"],
        )
    if zero_snr is not None:
        if not isinstance(family.schedule, Discrete):
            raise InvalidRequest(f"{family.name} is a flow model: it has no terminal SNR to set")
        family = replace(family, schedule=replace(family.schedule, zero_terminal_snr=zero_snr))
    return replace(source, family=family, notes=notes)


def _without_t5(source: Source, wanted: bool) -> Source:
    """The model with a note where its text goes without T5, which reads the long and the exact."""
    role = Role.TEXT_ENCODER_3
    if not wanted and role in source.parts:
        parts = {name: part for name, part in source.parts.items() if name != role}
        if all(part.weights is not source.parts[role].weights for part in parts.values()):
            source.parts[role].weights.close()
        note = "reads prompts with its two CLIPs alone: as asked for"
        return replace(source, parts=parts, notes=[*source.notes, note])
    if Role.TRANSFORMER not in source.parts or (role in source.parts and role in source.tokenizers):
        return source
    why = (
        "its T5 encoder has no tokenizer, which only folders hold"
        if role in source.parts
        else "it has no T5 encoder"
    )
    return replace(source, notes=[*source.notes, f"reads prompts with its two CLIPs alone: {why}"])


def with_vae(source: Source, path: Path) -> Source:
    """The model with the autoencoder of another file, of an autoencoder's folder or of another model."""
    with ExitStack() as opened:
        part = _vae_of(path, source.family, opened)
        if part is None:
            raise ModelError(f"{path} holds no autoencoder: give a VAE's file or folder")
        wanted = source.family.latent_channels
        if part.config.latent_channels != wanted:
            raise ModelError(
                f"{path} makes latents of {part.config.latent_channels} channels, {source.family.name} needs {wanted}"
            )
        opened.pop_all()
    if (own := source.parts.get(Role.VAE)) and sum(
        p.weights is own.weights for p in source.parts.values()
    ) == 1:
        own.weights.close()
    family = replace(source.family, factor=part.config.factor)
    return replace(source, parts={**source.parts, Role.VAE: part}, family=family)


def _vae_of(path: Path, family: Family, opened: ExitStack) -> Part | None:
    if (path / INDEX).is_file():
        return opened.enter_context(open_source(path)).parts.get(Role.VAE)
    weights = opened.enter_context(weights_at(path))
    if path.is_dir():
        return component_at(Role.VAE, path, component_for(Role.VAE), weights)
    found = [each for each in networks_in(weights.shapes) if Role.VAE in each.component.roles]
    if not found:
        return None
    said = said_of(weights)
    part = part_of(Role.VAE, found[0], weights, said)
    return part if Role.VAE in said else scaled(part, family)
