"""A model on disk in words: what `darkroom inspect` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.checkpoint.infer import networks_in
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import Part, Source, part_of
from darkroom.errors import ModelError
from darkroom.library.kinds import kind_by_names
from darkroom.networks.roles import DENOISERS, Role
from darkroom.weights.dtypes import SIZES
from darkroom.weights.hashes import sha256
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.names import INDEX
from darkroom.weights.opening import open_weights

_PRECISIONS = ("float32", "bfloat16", "float16")


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
    needed = [source.denoiser.role, *source.family.text, Role.VAE]
    networks = [_network(role, part, part.names()) for role, part in parts.items()]
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
        parts = [part_of(found.component.roles[0], found, weights) for found in networks_in(weights.shapes)]
        networks = [_network(part.component.label, part, part.stored()) for part in parts]
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


def _network(role: str, part: Part, names: Iterable[str]) -> Network:
    """A network in words; `names` are those of its tensors in the file."""
    precisions: Counter[str] = Counter()
    for name in names:
        entry = part.weights.entries[name]
        precisions[entry.dtype] += entry.nbytes
    return Network(
        role,
        part.component.described(part.config),
        part.parameters(),
        tuple(name for name, _ in precisions.most_common()),
    )


def _memory(networks: Sequence[Network]) -> dict[str, int]:
    numbers = sum(network.numbers for network in networks)
    return {name: SIZES[name] * numbers for name in _PRECISIONS}


def _paths(weights: WeightsFile) -> list[Path]:
    return [mapped.path for mapped in weights.files]
