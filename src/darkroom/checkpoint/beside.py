"""What is given beside a model: text encoders, an autoencoder, from files, components' folders and other models."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from darkroom.checkpoint.components import CLIP_TEXT, T5
from darkroom.checkpoint.encoders import is_openclip, seated, seats_of
from darkroom.checkpoint.folder import component_holding, folder_holding
from darkroom.checkpoint.settings import read_json
from darkroom.checkpoint.single_file import Holding, assembled, file_holding, scaled, with_autoencoder
from darkroom.checkpoint.source import Part, Source, denoiser_of
from darkroom.errors import ModelError
from darkroom.networks.roles import Role
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.weights.names import INDEX, has_tokenizer, has_weights
from darkroom.weights.opening import open_weights


def held_at(path: Path, variant: str | None, opened: ExitStack, spare: Collection[Role] = ()) -> Holding:
    """The networks of a file, of a component's folder or of a model's, or T5's tokenizer from a folder of nothing else;
    `opened` takes the files that are opened. Raises ModelError where one is damaged, but for one in a `spare` role."""
    if (path / INDEX).is_file():
        return folder_holding(path, read_json(path / INDEX), variant, opened, spare)
    if path.is_dir():
        if has_tokenizer(path) and not has_weights(path):
            return Holding(path, (), {Role.TEXT_ENCODER_3: path})
        return component_holding(path, variant, opened)
    return file_holding(opened.enter_context(open_weights(path)), spare)


def lone_part(path: Path, opened: ExitStack, spare: Collection[Role] = ()) -> Holding | None:
    """A file or a component's folder that holds one network, none that denoises: such as an autoencoder's. None where
    it is anything else. Raises ModelError as `held_at` does."""
    if (path / INDEX).is_file():
        return None
    held = held_at(path, None, opened, spare)
    return held if len(held.parts) == 1 and not held.parts[0].role.denoises else None


def with_parts(source: Source, given: Holding) -> Source:
    """The model with networks that are given beside it: text encoders take the place of its own of the same width, what
    else there is is taken where the model has none. What was replaced is noted.

    Raises ModelError where the model has a use for none of them.
    """
    used = False
    for part in given.parts:
        if there := [role for role, own in source.parts.items() if _same(own, part)]:
            # It was lacking when the model was put together.
            source, used = _with_tokenizer(source, there[0], given.tokenizers.get(part.role)), True
        elif role := _role_of(part, source):
            source, used = _with_part(source, part, role, given), True
    if not given.parts:
        for role in given.tokenizers.keys() & source.parts.keys():
            source, used = _with_tokenizer(source, role, given.tokenizers[role]), True
    if not used:
        raise ModelError(_no_use(source, given))
    return source


def _same(one: Part, other: Part) -> bool:
    return one.weights is other.weights and one.prefix == other.prefix


def _with_tokenizer(source: Source, role: Role, tokenizer: Path | Tokenizer | None) -> Source:
    own = {} if tokenizer is None else {role: tokenizer}
    return replace(source, tokenizers={**source.tokenizers, **own})


def with_vae(source: Source, path: Path) -> Source:
    """The model with the autoencoder of another file, of an autoencoder's folder or of another model."""
    with ExitStack() as opened:
        part, given = autoencoder_at(path, opened)
        made = _with_part(source, part, Role.VAE, given)
        opened.pop_all()
    let_go([*source.parts.values(), *given.parts], made)
    return made


def autoencoder_at(path: Path, opened: ExitStack) -> tuple[Part, Holding]:
    """The autoencoder of a file, of an autoencoder's folder or of a model, and all that is there; `opened` takes the
    files that are opened. Raises ModelError where there is none."""
    given = held_at(path, None, opened)
    part = next((part for part in given.parts if part.role == Role.VAE), None)
    if part is None:
        raise ModelError(f"{path} holds no autoencoder{_but(given)}: give a VAE's file or folder, or a model")
    return _as_there(part, given), given


def _as_there(vae: Part, given: Holding) -> Part:
    """An autoencoder that scales latents as the model does whose single file it is from."""
    if vae.described is not None or denoiser_of({part.role: part for part in given.parts}) is None:
        return vae
    with suppress(ModelError):  # Of a model that is not supported, the usual.
        return replace(assembled(given, ()).parts[Role.VAE], described=given.path)
    return vae


def let_go(parts: Iterable[Part], source: Source) -> None:
    """Close the files of those networks that a model has come to do without."""
    kept = {id(part.weights) for part in source.parts.values()}
    for part in parts:
        if id(part.weights) not in kept:
            part.weights.close()


def _role_of(part: Part, source: Source) -> Role | None:
    """What a network that is given becomes in a model; None where the model has no use for it."""
    uses, parts = source.family.text, source.parts
    if part.component is T5:
        role = Role.TEXT_ENCODER_3
        same = role not in parts or parts[role].config.d_model == part.config.d_model
        return role if role in source.family.encoders and same else None
    if part.component is not CLIP_TEXT:
        return part.role if part.role == Role.VAE and Role.VAE not in parts else None
    width = part.config.hidden_size
    same_width = [role for role in uses if role in parts and parts[role].config.hidden_size == width]
    lacking = [role for role in seats_of([part], uses) if role not in parts]
    # Toys may be equally wide.
    return min(
        [*same_width, *lacking], key=lambda role: uses[role].openclip != is_openclip(part), default=None
    )


def _with_part(source: Source, part: Part, role: Role, given: Holding) -> Source:
    family, tokenizers, notes = source.family, dict(source.tokenizers), list(source.notes)
    there = part.role
    if role in family.text:
        part, use = seated(part, role, family.text[role])
        family = replace(family, text={**family.text, role: use})
    if role == Role.VAE:
        if part.config.latent_channels != family.latent_channels:
            raise ModelError(
                f"{given.path} makes latents of {part.config.latent_channels} channels, {family.name} needs "
                f"{family.latent_channels}"
            )
        part, usual = scaled(part, family), family.scaling
        family = with_autoencoder(family, part)
        if family.scaling != usual:
            notes.append(
                f"{given.path.name} scales latents by {family.scaling:g}, {family.name} by {usual:g}"
            )
    elif role in source.parts:
        notes.append(f"its {role} is that of {given.path.name}, in place of its own: as asked for")
    if role in source.parts and _words(part) != _words(source.parts[role]):
        tokenizers.pop(role, None)  # Of a text encoder with other words.
    parts = {**source.parts, role: part}
    made = replace(source, family=family, parts=parts, tokenizers=tokenizers, notes=notes)
    return _with_tokenizer(made, role, given.tokenizers.get(there))


def _words(part: Part) -> int | None:
    return getattr(part.config, "vocab_size", None)


def _no_use(source: Source, given: Holding) -> str:
    widths = {
        role: part.config.hidden_size for role, part in source.parts.items() if part.component is CLIP_TEXT
    }
    wanted = " and ".join(f"{role} of {width}" for role, width in widths.items())
    if given.tokenizers and not given.parts:
        return f"{source.family.name} has no use for {given.path}: it holds a tokenizer, and T5's alone is given so"
    return (
        f"{source.family.name} has no use for {given.path}{_but(given)}: give a text encoder as wide as the one whose "
        f"place it is to take ({wanted or 'it has none'}), or an autoencoder as `vae=`"
    )


def _but(given: Holding) -> str:
    """What something holds, as an addition to what it does not."""
    held = [part.component.described(part.config) for part in given.parts]
    return f" (it holds {'; '.join(held)})" if held else ""
