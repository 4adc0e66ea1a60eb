"""Opening models, whatever their layout: headers and configuration files only, in milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from darkroom.checkpoint.beside import held_at, let_go, with_parts, with_vae
from darkroom.checkpoint.folder import open_folder
from darkroom.checkpoint.foreign import refuse_foreign
from darkroom.checkpoint.identify import ZERO_SNR_NOTE
from darkroom.checkpoint.single_file import assembled
from darkroom.checkpoint.source import Source
from darkroom.diffusion import Discrete, process
from darkroom.errors import InvalidRequest, ModelError
from darkroom.networks.configs import UNetConfig
from darkroom.networks.roles import Role
from darkroom.weights.names import INDEX


def open_source(
    path: Path,
    *,
    prediction: str | None = None,
    zero_snr: bool | None = None,
    variant: str | None = None,
    others: Sequence[Path] = (),
    t5: bool = True,
    vae: Path | None = None,
    without: Collection[Role] = (),
) -> Source:
    """What a file or a folder holds. Raises ModelError where it is no model, or a damaged one.

    `prediction` (epsilon, v_prediction, sample, flow) and `zero_snr` override what was found; `variant` picks among a
    folder's files ("fp16"); `others` are files or folders with text encoders to use in place of this one's, or with
    parts that it lacks; without `t5` a Stable Diffusion 3 does without its largest text encoder; `vae` is where the
    autoencoder is from instead. Networks in the roles of `without` are not needed, and may be damaged. The files stay
    open for their tensors to be read: use it as a context manager, or call `close`.
    """
    without = {*without, *(() if t5 else (Role.TEXT_ENCODER_3,)), *(() if vae is None else (Role.VAE,))}
    with ExitStack() as opened:
        beside = [held_at(each, variant, opened) for each in others]
        offers = {role for given in beside for part in given.parts for role in part.component.roles}
        spare = {role for role in without | offers if not role.denoises}
        if (path / INDEX).is_file():
            source = open_folder(path, variant, opened, spare)
        else:
            own = held_at(path, variant, opened, spare)
            refuse_foreign(path, own.shapes)
            source = assembled(own, beside)
        offered = [*source.parts.values(), *(part for given in beside for part in given.parts)]
        for given in beside:
            source = with_parts(source, given)
        let_go(offered, source)
        for role, error in source.damaged.items():
            if role not in source.parts and role not in without:
                raise error
        _check_widths(source)
        source = _without_t5(_overridden(source, prediction, zero_snr), t5)
        source = source if vae is None else with_vae(source, vae)
        opened.pop_all()
    return source


def _check_widths(source: Source) -> None:
    """Raises ModelError where a U-Net was made for other text encoders than those that it has."""
    network, roles = source.denoiser.config, [role for role in source.family.text if role in source.parts]
    if not isinstance(network, UNetConfig) or len(roles) < len(source.family.text):
        return
    widths = [source.parts[role].config.hidden_size for role in roles]
    if sum(widths) != network.cross_attention_dim:
        raise ModelError(
            f"{source.path}: its U-Net reads text {network.cross_attention_dim} wide, its "
            f"{' and '.join(roles)} make {' and '.join(map(str, widths))}: give the text encoders that belong to it"
        )


def _overridden(source: Source, prediction: str | None, zero_snr: bool | None) -> Source:
    family, notes = source.family, list(source.notes)
    if prediction is not None:
        family = replace(family, process=process(prediction))
        notes = [note for note in notes if not note.startswith("predicts ")]
        notes.append(f"predicts {family.process.name}: asked for")
        if zero_snr is None and prediction == "epsilon" and isinstance(family.schedule, Discrete):
            zero_snr = False  # Of pure noise it says nothing.
    if zero_snr is not None:
        if not isinstance(family.schedule, Discrete):
            raise InvalidRequest(f"{family.name} is a flow model: it has no terminal SNR to set")
        family = replace(family, schedule=replace(family.schedule, zero_terminal_snr=zero_snr))
        notes = [note for note in notes if note != ZERO_SNR_NOTE]
    return replace(source, family=family, notes=notes)


def _without_t5(source: Source, wanted: bool) -> Source:
    """The model with a note where its text goes without T5, which reads the long and the exact."""
    role = Role.TEXT_ENCODER_3
    if not wanted and role in source.parts:
        parts = {name: part for name, part in source.parts.items() if name != role}
        note = "reads prompts with its two CLIPs alone: as asked for"
        made = replace(source, parts=parts, notes=[*source.notes, note])
        let_go([source.parts[role]], made)
        return made
    if Role.TRANSFORMER not in source.parts or (role in source.parts and role in source.tokenizers):
        return source
    why = (
        "its T5 encoder has no tokenizer: give a folder that holds its tokenizer.json or spiece.model (`others=`)"
        if role in source.parts
        else "it has no T5 encoder"
    )
    return replace(source, notes=[*source.notes, f"reads prompts with its two CLIPs alone: {why}"])
