"""Models in single files, with the names of their authors' code or those of the Hugging Face folders."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.checkpoint.components import AUTOENCODER, CLIP_TEXT, HUGGING_FACE, T5, Component
from darkroom.checkpoint.distilled import names_of, with_speed
from darkroom.checkpoint.encoders import in_order, is_openclip, seated, seats_of
from darkroom.checkpoint.family import Family, Shapes
from darkroom.checkpoint.foreign import BESIDE_SETTINGS, a_kind, kind_beside
from darkroom.checkpoint.identify import Evidence, family_of
from darkroom.checkpoint.infer import Found, networks_in
from darkroom.checkpoint.settings import augmented, scheduled, with_extra
from darkroom.checkpoint.source import Part, Source, denoiser_of, part_of
from darkroom.errors import DarkroomError, ModelError, UnsupportedModel
from darkroom.networks.roles import Role
from darkroom.prompt.t5_tokenizer import has_t5_tokenizer
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.weights.mapped import WeightsFile

DARKROOM = "darkroom"
"""The key of a single file's metadata under which `convert` keeps what such files have no place for: each component's
config.json, the scheduler's, darkroom.json's, how text is used, and vocabularies that are not CLIP's, as JSON."""


AUGMENTATION = "augmentation"
"""What it says there of the noise over what a network is shown."""


@dataclass(frozen=True)
class Holding:
    """The networks of one file or folder, before it is known what model they make. CLIP's text encoders are in the
    order that a model takes them, in the roles that the files state, else all in the first: which it is depends on the
    family. tokenizers: by the encoder's role here; said: what a file that Darkroom wrote says of itself; weights: of a
    file or of a component's folder, None of a model's; damaged: as a `Source` has it."""

    path: Path
    parts: Sequence[Part]
    tokenizers: Mapping[Role, Path | Tokenizer] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightsFile | None = None
    damaged: Mapping[Role, ModelError] = field(default_factory=dict)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of all tensors there are, whatever network they are of; none where a model's folder lists its own."""
        return self.weights.shapes if self.weights is not None else {}


def file_holding(weights: WeightsFile, spare: Collection[Role] = ()) -> Holding:
    """The networks in a file. Raises ModelError where the dimensions of one make no sense, but for one in a `spare`
    role."""
    said = said_of(weights)
    found = networks_in(weights.shapes)
    texts = [each for each in found if each.component is CLIP_TEXT]
    texts.sort(key=lambda each: in_order(each.prefix, 0 if said else _width(each)))
    roles = [role for role in CLIP_TEXT.roles if role in said] or [CLIP_TEXT.roles[0]] * len(texts)
    try:
        tokenizers: dict[Role, Path | Tokenizer] = {
            Role(role): Tokenizer.from_dict(each) for role, each in said.get("tokenizers", {}).items()
        }
    except (TypeError, ValueError, AttributeError, ModelError) as error:
        raise ModelError(f"{weights.path}: what it says of itself cannot be used: {error}") from error
    others = [each for each in found if each.component is not CLIP_TEXT]
    # Of several of a sort, the one where single files keep it, else the first.
    others.sort(key=lambda each: each.component.place is None or each.prefix != each.component.place.prefix)
    first = {each.component.roles[0]: each for each in reversed(others)}
    others = [each for each in others if first[each.component.roles[0]] is each]
    if has_t5_tokenizer(weights):
        tokenizers |= {each.component.roles[0]: weights.path for each in others if each.component is T5}
    seats = [*zip(roles, texts, strict=False), *((each.component.roles[0], each) for each in others)]
    parts: list[Part] = []
    damaged: dict[Role, ModelError] = {}
    for role, each in seats:
        with sparing(role, spare, damaged):
            parts.append(part_of(role, each, weights, said))
    return Holding(weights.path, parts, tokenizers, said, weights, damaged)


def _width(encoder: Found) -> int:
    """How wide a text encoder is, or 0 where it is damaged."""
    try:
        return int(encoder.config.hidden_size)
    except ModelError:
        return 0


@contextmanager
def sparing(role: Role, spare: Collection[Role], damaged: dict[Role, ModelError]) -> Iterator[None]:
    """Within which a network in a `spare` role may be found damaged, which is kept in `damaged`."""
    try:
        yield
    except ModelError as error:
        if role not in spare:
            raise
        damaged[role] = error


def assembled(own: Holding, beside: Sequence[Holding]) -> Source:
    """The model that networks make which nothing but themselves describes, with what they lack of those that are given
    beside them. Raises ModelError where there is no denoising network among them."""
    given = [part for each in beside for part in each.parts]
    texts = [part for part in own.parts if part.component is CLIP_TEXT]
    parts = {part.role: part for part in own.parts if part.component is not CLIP_TEXT}
    for part in given:
        # A T5 is for a family that has one: `beside` decides.
        lacking = denoiser_of(parts) is None if part.role.denoises else part.role not in parts
        if part.component not in (CLIP_TEXT, T5) and lacking:
            parts[part.role] = part
    denoiser = denoiser_of(parts)
    if denoiser is None:
        raise ModelError(f"{own.path} {no_model(own)}")
    widths = {part.config.hidden_size for part in texts}
    more = [part for part in given if part.component is CLIP_TEXT and part.config.hidden_size not in widths]
    if more:
        texts = sorted([*texts, *more], key=lambda part: (is_openclip(part), part.config.hidden_size))
    openclip = any(part.layout != HUGGING_FACE for part in texts)
    shapes = Shapes(denoiser.config, openclip, tuple(part.config.hidden_size for part in texts))
    try:
        family, notes = family_of(shapes, _evidence(denoiser))
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{denoiser.weights.path} {error}") from None
    for role, part in seats_of(texts, family.text).items():
        parts[role], use = seated(part, role, family.text[role])
        family = replace(family, text={**family.text, role: use})
    parts = without_pictures(parts, family)
    if vae := parts.get(Role.VAE):
        parts[Role.VAE] = vae = scaled(vae, family)
        family = with_autoencoder(family, vae)
    if family.largest is not None:
        family = replace(family, native=min(family.native, family.largest))
    usual, (family, fast) = family, with_speed(family, _called(own.path, denoiser))
    if family.process is not usual.process:
        notes = [note for note in notes if not note.startswith("predicts ")]
    try:
        family, notes = _as_said(family, [*notes, *fast], own.said)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, DarkroomError) as error:
        raise ModelError(f"{own.path}: what it says of itself cannot be used: {error!r}") from error
    scheduler, extra = own.said.get("scheduler", {}), own.said.get("extra", {})
    return Source(own.path, parts, family, own.tokenizers, notes, scheduler, extra, own.damaged)


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
    shown = said.get(AUGMENTATION, {})
    family = augmented(family, shown.get("config", {}), shown.get("most"))
    told = said.get("text", {})
    text = {
        role: replace(use, layer=layer) if (layer := told.get("layers", {}).get(role)) in (-1, -2) else use
        for role, use in family.text.items()
    }
    return replace(family, text=text, zero_empty=bool(told.get("zero_empty", family.zero_empty))), notes


def without_pictures(parts: Mapping[Role, Part], family: Family) -> dict[Role, Part]:
    """A model's networks without those that look at pictures, such as a safety checker's, where its family has none."""
    return {role: part for role, part in parts.items() if not role.looks or family.looks}


def scaled(vae: Part, family: Family) -> Part:
    """An autoencoder that scales latents as the family's does, where no file tells; a tiny one needs nothing."""
    if vae.component is not AUTOENCODER or vae.described is not None:
        return vae
    facts = {"scaling_factor": family.scaling, "shift_factor": family.shift, "sample_size": family.native}
    return replace(vae, config=replace(vae.config, **facts))


def with_autoencoder(family: Family, vae: Part) -> Family:
    """The family with the latents of an autoencoder; a tiny one makes them scaled, by whatever."""
    config = vae.config
    family = replace(family, latent_channels=config.latent_channels, factor=config.factor)
    if vae.component is not AUTOENCODER:
        return family
    return replace(family, scaling=config.scaling_factor, shift=config.shift_factor)


# Configurations that lie beside a file and are called like it: A1111's, ComfyUI's and kohya's, Civitai's and those of
# the programs that fetch from there.
_BESIDE = (".yaml", ".yml", ".json", ".safetensors.json", ".civitai.info", ".metadata.json", ".cm-info.json")


def _text_of(path: Path) -> str:
    """The text of a configuration without what is commented out; nothing where there is none."""
    try:
        if path.stat().st_size >= 1 << 20:
            return ""
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return ""
    return re.sub(r"(?m)(^|\s)#.*$", "", text) if path.suffix in (".yaml", ".yml") else _facts(text)


def _facts(text: str) -> str:
    """What a JSON text says in a word each, a line each: what people write in sentences decides nothing."""
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return text
    lines = []
    while left:
        match left.pop():
            case dict(named):
                left += named.values()
                lines += [
                    f"{json.dumps(key)}: {json.dumps(value)}"
                    for key, value in named.items()
                    if _is_word(value)
                ]
            case list(several):
                left += several
    return "\n".join(lines)


def _is_word(value: object) -> bool:
    return isinstance(value, bool | int) or (
        isinstance(value, str) and re.fullmatch(r"[\w.-]+( [\w.-]+){0,2}", value) is not None
    )


def _evidence(part: Part) -> Evidence:
    """What a single file, and a configuration of the same name beside it, say besides shapes."""
    path, weights = part.weights.path, part.weights

    def read(name: str) -> NDArray[np.float32] | None:
        whole = part.prefix + name
        return weights.floats(whole) if whole in weights.entries else None

    beside = [text for ending in _BESIDE if (text := _text_of(path.with_suffix(ending)))]
    said = {**weights.metadata, **{name: str(value) for name, value in weights.extra.items()}}
    return Evidence(said, "\n".join(beside), read, list(weights.entries))


def _called(path: Path, denoiser: Part) -> list[str]:
    """What a model is called: by its file, by itself, and by the file of its U-Net where that is another."""
    weights = denoiser.weights
    return [*names_of(path), weights.metadata.get("modelspec.title", ""), *names_of(weights.path)]


def no_model(own: Holding) -> str:
    """What something is that has neither U-Net nor MMDiT."""
    if own.tokenizers and not own.parts:
        return "holds a tokenizer and no weights: give it beside a model (`others=`)"
    kind = kind_beside(own.shapes)
    if kind is not None:
        place = f": give it as `{BESIDE_SETTINGS[kind]}=` beside a model" if kind in BESIDE_SETTINGS else ""
        return f"is no model but {a_kind(kind)}{place}"
    if own.parts:
        return f"is {use_alone(part.component for part in own.parts)}"
    return "holds none of the networks of Stable Diffusion: it is another kind of file"


def use_alone(components: Iterable[Component]) -> str:
    """What networks are that are no model without U-Net and MMDiT, and what to do with them."""
    each = list(dict.fromkeys(components))
    vae = any(Role.VAE in component.roles for component in each)
    labels = " and ".join(component.label for component in each)
    return f"{labels} alone: give it {'as `vae=` beside a model' if vae else 'beside a model (`others=`)'}"
