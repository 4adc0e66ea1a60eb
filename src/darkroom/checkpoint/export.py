"""Models written in either layout: a single file with its authors' names, or a Hugging Face folder.

Tensors are read, changed and written one at a time, so a model larger than memory can be converted. What the other
layout has no place for is kept (`original.safetensors` in a folder), so that there and back again changes no bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.checkpoint.components import HUGGING_FACE, T5
from darkroom.checkpoint.components.component import Place
from darkroom.checkpoint.families import SD2
from darkroom.checkpoint.family import SMALL
from darkroom.checkpoint.rules import Rule
from darkroom.checkpoint.settings import scheduler_json
from darkroom.checkpoint.single_file import AUGMENTATION, DARKROOM
from darkroom.checkpoint.source import Part, Source, leftovers
from darkroom.diffusion import Discrete
from darkroom.errors import InvalidRequest
from darkroom.files import replacing, write_json
from darkroom.networks.configs import CLIP_MEAN, CLIP_STD
from darkroom.networks.roles import Role
from darkroom.prompt.t5_tokenizer import TEXT, T5Tokenizer
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.prompt.use import TextUse
from darkroom.weights.dtypes import SIZES, torch_dtype
from darkroom.weights.names import SUFFIXES, TOKENIZER, WRITTEN_AS
from darkroom.weights.opening import open_weights
from darkroom.weights.writing import Pending, Progress, write_safetensors

LEFTOVERS = "original.safetensors"


def convert(
    source: Source,
    out: Path,
    dtype: torch.dtype | None = None,
    prune: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a model as a single file (`out` ends in .safetensors) or as a folder (any other name).

    `dtype`: of all floating-point numbers (None: as they are); `prune`: leave out what no network needs. Raises
    InvalidRequest where `out` is there already, ModelError where the model is not whole.
    """
    networks = source.build()
    with ExitStack() as opened:
        if _is_file(out):
            rows, metadata = _single_file(source, networks, prune, opened)
            write_safetensors(out, [_as(row, dtype) for row in rows], metadata, progress, new=True)
        else:
            _folder(source, networks, out, dtype, prune, progress, opened)


def convert_part(
    part: Part,
    out: Path,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    tokenizer: Path | Tokenizer | None = None,
) -> None:
    """Write one network by itself: as a file (`out` ends in .safetensors), an autoencoder's with the names by which
    other programs know it, or as a component's folder; a text encoder with its `tokenizer`, if it has one of its own.
    Raises InvalidRequest as `convert` does."""
    network, component = part.build(), part.component
    layout = component.place.layout if component.place is not None and _is_file(out) else HUGGING_FACE
    rows = [_as(row, dtype) for row in _renamed(part, network, component.rules(network, layout))]
    config = component.to_json(part.config)
    if _is_file(out):
        said: dict[str, Any] = {part.role: config} if part.described is not None else {}
        metadata = {"format": "pt"}
        if part.component is T5:
            metadata |= _t5_text(tokenizer)
        elif tokenizer is not None:
            said = {part.role: config, "tokenizers": {part.role: _loaded(tokenizer).to_dict()}}
        write_safetensors(out, rows, {**metadata, DARKROOM: json.dumps(said)}, progress, new=True)
    else:
        with replacing(out) as temporary:
            write_safetensors(
                temporary / f"{component.weights_stem}.safetensors", rows, {"format": "pt"}, progress
            )
            write_json(temporary / "config.json", config)
            if tokenizer is not None:
                _save_tokenizer(tokenizer, temporary)


def _is_file(out: Path) -> bool:
    """Whether a model is to be written as a file, or else as a folder. Raises InvalidRequest where `out` is neither."""
    if os.path.lexists(out):
        raise InvalidRequest(f"{out} is there already: choose another name")
    if (suffix := out.suffix.lower()) in SUFFIXES and suffix not in (".safetensors", ".sft"):
        raise InvalidRequest(f"{out.name}: Darkroom writes .safetensors files and folders")
    return suffix in SUFFIXES


def _as(row: Pending, dtype: torch.dtype | None) -> Pending:
    return replace(row, dtype=dtype) if dtype is not None and row.dtype.is_floating_point else row


# Into a single file


def _place(source: Source, role: Role) -> Place:
    """Where a single file keeps a component."""
    place = source.family.places.get(role) or source.parts[role].component.place
    if place is None:
        raise InvalidRequest(
            f"a single file of {source.family.name} has no place for its {role}: convert without it"
        )
    return place


def _single_file(
    source: Source, networks: Mapping[Role, nn.Module], prune: bool, opened: ExitStack
) -> tuple[list[Pending], dict[str, str]]:
    rows: list[Pending] = []
    for role, part in source.parts.items():
        place = _place(source, role)
        theirs = part.component.rules(networks[role], place.layout)
        rows += [replace(row, name=place.prefix + row.name) for row in _renamed(part, networks[role], theirs)]
    taken = {row.name for row in rows}
    rest = [row for row in _rest(source, networks, prune, opened) if row.name not in taken]
    rows += _marked(source, rest)
    metadata = _with_prediction(source, source.denoiser.weights.metadata)
    metadata = {name: value for name, value in metadata.items() if name != TEXT}
    if Role.TEXT_ENCODER_3 in source.parts:
        metadata |= _t5_text(source.tokenizers.get(Role.TEXT_ENCODER_3))
    return rows, {**metadata, DARKROOM: json.dumps(_stated(source))}


# What other programs know a U-Net by that predicts velocity, and on a schedule that ends in pure noise. Those of Stable
# Diffusion 2 they tell by the weights.
_V, _ZERO_SNR = "v_pred", "ztsnr"


def _marked(source: Source, rest: Sequence[Pending]) -> list[Pending]:
    """What no network needs, with the marks that the model should have and no others."""
    family = source.family
    if not isinstance(family.schedule, Discrete):
        return [*rest]
    v = family.process.name == "v_prediction"
    wanted = {_V: v and not family.id.startswith(SD2.id), _ZERO_SNR: v and family.schedule.zero_terminal_snr}
    kept = [row for row in rest if wanted.get(row.name, True) or (v and row.name == _V)]
    there = {row.name for row in kept}
    return kept + [
        Pending(name, (0,), torch.float32, lambda: torch.empty(0))
        for name, want in wanted.items()
        if want and name not in there
    ]


def _with_prediction(source: Source, metadata: Mapping[str, str]) -> dict[str, str]:
    """A single file's metadata with what the network predicts, as model specs say it, where that is not the usual."""
    word = {"v_prediction": "v", "epsilon": "epsilon"}.get(source.family.process.name)
    keys = ("modelspec.prediction_type", "modelspec.predict_key")
    said = {key for key in keys if key in metadata} | (set(keys) if word == "v" else set())
    return {**metadata, **(dict.fromkeys(sorted(said), word) if word else {})}


def _stated(source: Source) -> dict[str, Any]:
    """What a single file has no place for, for its metadata."""
    stated: dict[str, Any] = {}
    for role, part in source.parts.items():
        stated[role] = part.component.to_json(part.config)
    layers = {role: use.layer for role, use in source.family.text.items()}
    stated["text"] = {"layers": layers, "zero_empty": source.family.zero_empty}
    stated["scheduler"] = scheduler_json(source)
    stated["extra"] = _extra(source)
    if (augmentation := source.family.augmentation) is not None:
        stated[AUGMENTATION] = {"config": augmentation.config, "most": augmentation.most}
    stated["tokenizers"] = {
        role: tokenizer.to_dict()
        for role, use in source.family.text.items()
        if not (tokenizer := _tokenizer(source, role)).is_clip(use.pad)
    }
    return stated


def _extra(source: Source) -> dict[str, Any]:
    family = source.family
    preview = None if family.preview is None else [list(row) for row in family.preview]
    facts = {"native_size": family.native, "preferences": family.preferences.to_dict(), "preview": preview}
    facts |= {"judge": family.judge} if family.judge else {}
    return {**source.extra, **facts}


def _tokenizer(source: Source, role: Role) -> Tokenizer:
    found = source.tokenizers.get(role)
    return Tokenizer.clip(source.family.text[role].pad) if found is None else _loaded(found)


def _loaded(tokenizer: Path | Tokenizer) -> Tokenizer:
    return Tokenizer.load(tokenizer) if isinstance(tokenizer, Path) else tokenizer


def _t5_text(tokenizer: Path | Tokenizer | None) -> dict[str, str]:
    """T5's tokenizer for a file's metadata, if there is one."""
    return {TEXT: T5Tokenizer.load(tokenizer).to_text()} if isinstance(tokenizer, Path) else {}


def _save_tokenizer(tokenizer: Path | Tokenizer, folder: Path) -> None:
    """Write a tokenizer's files: those that it has, where it lies in a folder."""
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder)
    elif not tokenizer.is_dir():
        T5Tokenizer.load(tokenizer).save(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, folder / name)


def _renamed(part: Part, network: nn.Module, target: list[Rule]) -> list[Pending]:
    """The part's tensors under the names of other rules."""
    by_name = {name: rule for rule in part.rules(network) for name in rule.ours}
    entries = part.weights.entries
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    rows = []
    for rule in target:
        present = [name for name in rule.ours if name in by_name]
        if len(present) < len(rule.ours):
            continue  # A table that the network computes where a file lacks it.
        first = by_name[present[0]]
        same = first.theirs == rule.theirs and first.change is rule.change
        dtype = _plain(entries[part.prefix + first.theirs].dtype)

        def make(rule: Rule = rule) -> Tensor:
            return rule.write([part.read(by_name[name])[name].reshape(shapes[name]) for name in rule.ours])

        shape = tuple(rule.write([torch.empty(shapes[n], device="meta") for n in rule.ours]).shape)
        if same:
            shape = entries[part.prefix + first.theirs].shape
        rows.append(Pending(rule.theirs, shape, dtype, make))
    return rows


def _rest(
    source: Source, networks: Mapping[Role, nn.Module], prune: bool, opened: ExitStack
) -> list[Pending]:
    """What no network needs, under the names it has in single files."""
    if prune:
        return []
    kept = source.path / LEFTOVERS
    if source.path.is_dir():
        if not kept.is_file():
            return []
        weights = opened.enter_context(open_weights(kept))
        return [_pending(weights, name) for name in weights.entries]
    usual, strange = leftovers(source)
    rows = []
    for part in source.parts.values():
        if part.weights.path.is_relative_to(source.path):
            rows += [
                _pending(part.weights, name) for name in [*usual, *strange] if name in part.weights.entries
            ]
    return list({row.name: row for row in rows}.values())


def _pending(weights: Any, name: str) -> Pending:
    entry = weights.entries[name]
    return Pending(name, entry.shape, _plain(entry.dtype), lambda: weights.get(name))


def _plain(dtype: str) -> torch.dtype:
    """What a tensor is written as: quantised ones as the float16 that they unfold to."""
    return torch_dtype(dtype) if dtype in SIZES else torch.float16


# Into a folder


def _folder(
    source: Source,
    networks: Mapping[Role, nn.Module],
    out: Path,
    dtype: torch.dtype | None,
    prune: bool,
    progress: Progress | None,
    opened: ExitStack,
) -> None:
    rows = {role: _component_rows(source, role, networks[role], dtype) for role in source.parts}
    total = sum(row.nbytes for part in rows.values() for row in part[0])
    done = 0

    def told(written: int, of: int) -> None:
        if progress is not None:
            progress(done + written, total)

    with replacing(out) as temporary:
        for role, (tensors, config) in rows.items():
            component = source.parts[role].component
            file = temporary / role / f"{component.weights_stem}.safetensors"
            write_safetensors(file, tensors, {"format": "pt"}, told)
            write_json(temporary / role / "config.json", component.to_json(config))
            done += sum(row.nbytes for row in tensors)
        rest = _unplaced(source, networks, rows, prune, opened)
        if rest:
            write_safetensors(temporary / LEFTOVERS, rest, {"format": "pt"})
        _write_settings(source, temporary)


def _component_rows(
    source: Source, role: Role, network: nn.Module, dtype: torch.dtype | None
) -> tuple[list[Pending], Any]:
    """A component's tensors under our names, and its dimensions as the folder is to have them."""
    part = source.parts[role]
    ours = part.component.rules(network, HUGGING_FACE)
    rows = [_as(row, dtype) for row in _renamed(part, network, ours)]
    config = part.config
    if _drops_last_layer(source.family.text.get(role)):
        # diffusers takes the last layer there is: the one after the layer in use must go.
        config = replace(config, num_hidden_layers=config.num_hidden_layers - 1)
        dropped = f"text_model.encoder.layers.{config.num_hidden_layers}."
        rows = [row for row in rows if not row.name.startswith(dropped)]
    return rows, config


def _drops_last_layer(use: TextUse | None) -> bool:
    return use is not None and use.layer == -2 and use.normed


def _unplaced(
    source: Source,
    networks: Mapping[Role, nn.Module],
    rows: Mapping[Role, Any],
    prune: bool,
    opened: ExitStack,
) -> list[Pending]:
    """What a folder has no place for: what no network needs, and dropped layers, under their single-file names."""
    if prune:
        return []
    rest = _rest(source, networks, prune, opened)
    for role, (kept, _) in rows.items():
        names = {row.name for row in kept}
        if len(names) < len(networks[role].state_dict()) and _drops_last_layer(source.family.text.get(role)):
            place, part = _place(source, role), source.parts[role]
            theirs = {rule.theirs: rule for rule in part.component.rules(networks[role], place.layout)}
            for row in _renamed(part, networks[role], list(theirs.values())):
                if not names & set(theirs[row.name].ours):
                    rest.append(replace(row, name=place.prefix + row.name))
    return rest


def _looking(source: Source) -> dict[str, Any]:
    """The preprocessor_config.json of a model's image encoder: how CLIP's are shown pictures."""
    part = source.parts.get(Role.IMAGE_ENCODER)
    side = 224 if part is None else part.config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        **dict.fromkeys(
            ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True
        ),
    }


_CHECKED = tuple(f"StableDiffusion{kind}Pipeline" for kind in ("", "Inpaint", "InstructPix2Pix"))
_LACKING = {
    **dict.fromkeys(_CHECKED, ("safety_checker", "feature_extractor")),
    "StableDiffusionUpscalePipeline": ("safety_checker", "feature_extractor", "watermarker"),
    "StableDiffusionDepth2ImgPipeline": ("depth_estimator", "feature_extractor"),
}
"""What diffusers' pipelines look for in a folder that is not part of a model here."""


def _write_settings(source: Source, out: Path) -> None:
    """model_index.json, the scheduler's settings and the tokenizers."""
    family = source.family
    index: dict[str, Any] = {"_class_name": family.pipeline, **WRITTEN_AS}
    index |= {name: [None, None] for role in family.encoders for name in (role, role.tokenizer)}
    for role, part in source.parts.items():
        index[role] = [part.component.module or part.component.library, part.component.class_for(part.config)]
    index["scheduler"] = ["diffusers", scheduler_json(source)["_class_name"]]
    write_json(out / "scheduler/scheduler_config.json", scheduler_json(source))
    for role in family.text:
        _save_tokenizer(source.tokenizers.get(role) or _tokenizer(source, role), out / role.tokenizer)
        index[role.tokenizer] = ["transformers", "CLIPTokenizer"]
    if (t5 := Role.TEXT_ENCODER_3) in source.parts:
        if own := source.tokenizers.get(t5):
            _save_tokenizer(own, out / t5.tokenizer)
            index[t5.tokenizer] = ["transformers", "T5TokenizerFast"]
        else:
            # Without its tokenizer T5 is of no use: say that there is none, as diffusers needs both or neither.
            index[t5] = [None, None]
    if family.sizes:
        index["force_zeros_for_empty_prompt"] = family.zero_empty
    if (augmentation := family.augmentation) is not None:
        write_json(out / augmentation.component / "scheduler_config.json", augmentation.config)
        index[augmentation.component] = ["diffusers", augmentation.config.get("_class_name", "DDPMScheduler")]
        if family.needs == SMALL:
            index["max_noise_level"] = augmentation.most
    if family.looks:
        write_json(out / "feature_extractor/preprocessor_config.json", _looking(source))
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    if family.sizes == "refiner":
        index["requires_aesthetics_score"] = True
    index |= {name: [None, None] for name in _LACKING.get(family.pipeline, ())}
    if family.pipeline in _CHECKED:
        index["requires_safety_checker"] = False
    write_json(out / "model_index.json", index)
    write_json(out / "darkroom.json", _extra(source))
