"""A model on disk in words: what `darkroom inspect` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from darkroom.checkpoint.infer import Found, networks_in
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import DENOISERS, Part, Source
from darkroom.errors import ModelError
from darkroom.library.kinds import kind_by_names
from darkroom.networks import VAE, CLIPText, CLIPVision, MMDiT, T5Encoder, TinyVAE, UNet, unfilled
from darkroom.weights.hashes import sha256
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.names import INDEX
from darkroom.weights.opening import open_weights

PRECISIONS = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMES: Mapping[type[nn.Module], str] = {
    UNet: "U-Net",
    MMDiT: "MMDiT",
    VAE: "autoencoder",
    TinyVAE: "tiny autoencoder",
    CLIPText: "CLIP text encoder",
    CLIPVision: "CLIP image encoder",
    T5Encoder: "T5 text encoder",
}
_CLIPS = {768: "ViT-L/14", 1024: "OpenCLIP ViT-H/14", 1280: "OpenCLIP ViT-bigG/14"}


@dataclass(frozen=True)
class Network:
    """One network: its role in the model, what it is, its numbers, and their precisions in the file."""

    role: str
    what: str
    numbers: int
    precisions: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """What a file or folder is. family: "" where it is no whole model; memory: bytes for its weights at each
    precision; hashes: empty unless asked for."""

    path: Path
    form: str
    family: str
    predicts: str
    networks: Sequence[Network]
    missing: Sequence[str]
    notes: Sequence[str]
    size: int
    memory: Mapping[str, int]
    metadata: Mapping[str, str]
    hashes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("path", "networks")},
            "path": str(self.path),
            "networks": [vars(network) for network in self.networks],
        }


def describe(path: Path, hashes: bool = False) -> Description:
    """Say what a file or a folder is, from its headers alone (but for the hashes, which read it whole).

    Raises ModelError where it cannot be read, or is nothing that Darkroom knows.
    """
    try:
        source = open_source(path)
    except ModelError:
        if (path / INDEX).is_file():
            raise
        return _of_one_file(path, hashes)
    with source:
        return _of_model(source, hashes)


def _of_model(source: Source, hashes: bool) -> Description:
    parts = source.parts
    needed = [source.denoiser.role, *source.family.text, "vae"]
    networks = [_network(role, part.kind, part.config, part) for role, part in parts.items()]
    files = {part.weights.path: part.weights for part in parts.values()}
    form = (
        f"folder of {len(files)} files"
        if source.path.is_dir()
        else f"single file ({next(iter(files.values())).format})"
    )
    metadata: dict[str, str] = {}
    for weights in files.values():
        metadata |= {k: v for k, v in weights.metadata.items() if k != "format"}
    return Description(
        source.path,
        form,
        source.family.name,
        source.family.process.name,
        networks,
        [role for role in needed if role not in parts],
        source.notes,
        sum(file.stat().st_size for weights in files.values() for file in _paths(weights)),
        _memory(networks),
        metadata,
        {str(file.name): sha256(file) for weights in files.values() for file in _paths(weights)}
        if hashes
        else {},
    )


def _of_one_file(path: Path, hashes: bool) -> Description:
    """A file that is no whole model: parts of one, or something else that goes with one."""
    with open_weights(path) as weights:
        networks = [_found(found, weights) for found in networks_in(weights.shapes)]
        what = None if networks else kind_by_names(weights.entries)
        if not networks and what is None:
            raise ModelError(
                f"{path} holds none of the networks of Stable Diffusion: it is another kind of file"
            )
        return Description(
            path,
            f"{what or 'part of a model'} ({weights.format})",
            "",
            "",
            networks,
            list(DENOISERS[:1]) if networks else [],
            [],
            path.stat().st_size,
            _memory(networks),
            {k: v for k, v in weights.metadata.items() if k != "format"},
            {path.name: sha256(path)} if hashes else {},
        )


def _network(role: str, kind: type[nn.Module], config: Any, part: Part) -> Network:
    network = part.build()
    names = [part.prefix + rule.theirs for rule in part.rules(network)]
    return Network(role, _what(kind, config), _numbers(network), _precisions(part.weights, names))


def _found(found: Found, weights: WeightsFile) -> Network:
    with unfilled():
        network = found.kind(found.config)
    names = [name for name in weights.entries if name.startswith(found.prefix)]
    return Network(
        _NAMES[found.kind], _what(found.kind, found.config), _numbers(network), _precisions(weights, names)
    )


def _numbers(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _what(kind: type[nn.Module], config: Any) -> str:
    name = _NAMES[kind]
    if kind is CLIPText:
        return f"CLIP text encoder {_CLIPS.get(config.hidden_size, f'of width {config.hidden_size}')}"
    if kind is UNet:
        return f"{name}, {config.in_channels} channels in, {config.cross_attention_dim} wide text"
    if kind is MMDiT:
        return f"{name}, {config.num_layers} blocks of width {config.width}"
    if kind in (VAE, TinyVAE):
        channels = f"{config.latent_channels} latent channels at 1/{config.factor}"
        return f"{name}, {channels}, scaled by {config.scaling_factor}"
    return name


def _precisions(weights: WeightsFile, names: Sequence[str]) -> tuple[str, ...]:
    """The types of the numbers, the commonest first."""
    counted: Counter[str] = Counter()
    for name in names:
        entry = weights.entries[name]
        counted[str(entry.dtype).removeprefix("torch.")] += entry.nbytes
    return tuple(name for name, _ in counted.most_common())


def _memory(networks: Sequence[Network]) -> dict[str, int]:
    numbers = sum(network.numbers for network in networks)
    return {name: size * numbers for name, size in PRECISIONS.items()}


def _paths(weights: WeightsFile) -> list[Path]:
    return [mapped.path for mapped in weights.files]
