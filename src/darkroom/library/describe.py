"""A model on disk in words: what `darkroom inspect` prints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from darkroom.checkpoint.beside import held_at
from darkroom.checkpoint.foreign import kind_beside
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.single_file import no_model, use_alone
from darkroom.checkpoint.source import Part, Source, noted
from darkroom.checkpoint.upscalers import upscaler_in
from darkroom.errors import ModelError, UnsupportedModel
from darkroom.library.kinds import is_detector
from darkroom.networks.roles import DENOISERS, Role
from darkroom.weights.dtypes import SIZES
from darkroom.weights.hashes import sha256
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.modules import open_module
from darkroom.weights.names import INDEX

_MOST_SAID = 1000
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
    """What a file or folder is. family: "" where it is no whole model; native_size: the side in pixels of its
    pictures where none is asked for, any is a multiple of `unit`; defaults: what else a request gets that leaves it
    open; memory: bytes for its weights at each precision; hashes: empty unless asked for."""

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
    native_size: int | None = None
    unit: int = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)

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
    if is_detector(path):
        return _of_detector(path, hashes)
    try:
        source = open_source(path)
    except UnsupportedModel:
        raise
    except ModelError as error:
        if (path / INDEX).is_file():
            raise
        return _of_parts(path, hashes, error)
    with source:
        return _of_model(noted(source), hashes)


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
        {_called(file, source.path): sha256(file) for weights in files.values() for file in _paths(weights)}
        if hashes
        else {},
        native_size=source.family.native,
        unit=source.family.unit,
        defaults=asdict(source.family.preferences),
    )


def _of_parts(path: Path, hashes: bool, error: ModelError) -> Description:
    """What is no whole model: parts of one, or something else that goes with one; a file, or a component's folder.
    Raises the `error` that a whole one could not be opened for."""
    with ExitStack() as opened:
        held = held_at(path, None, opened)
        if any(part.role.denoises for part in held.parts) and kind_beside(held.shapes) is None:
            raise error
        weights = held.weights
        networks = [_network(part.component.label, part, part.stored()) for part in held.parts]
        what = None if networks else kind_beside(held.shapes)
        if what == "upscaler":
            networks = _upscaler(weights)
        if weights is None or not (networks or what):
            raise ModelError(f"{path} {no_model(held)}")
        files = _paths(weights)
        form = "folder of a component" if path.is_dir() else what or "part of a model"
        return Description(
            path,
            f"{form} ({weights.format})",
            "",
            "",
            networks,
            list(DENOISERS[:1]) if len(held.parts) > 1 else [],
            [use_alone(part.component for part in held.parts)] if held.parts else [],
            sum(file.stat().st_size for file in files),
            _memory(networks),
            {k: v for k, v in weights.metadata.items() if k != "format"},
            {file.name: sha256(file) for file in files} if hashes else {},
        )


def _of_detector(path: Path, hashes: bool) -> Description:
    """What finds things in pictures."""
    digests = {path.name: sha256(path)} if hashes else {}
    size = path.stat().st_size
    found = Description(path, "detector (ONNX)", "", "", [], [], [], size, {}, {}, digests)
    if path.suffix.lower() == ".onnx":
        return found
    weights, module = open_module(path)
    with weights:
        names = module.facts.get("names")
        several = (
            names.values() if isinstance(names, dict) else names if isinstance(names, list | tuple) else ()
        )
        said = ", ".join(map(str, several))
        kinds = "".join(sign if sign.isprintable() else "?" for sign in said[:_MOST_SAID])
        numbers = sum(math.prod(entry.shape) for entry in weights.entries.values())
        what = f"{module.name} of {kinds}" if kinds else module.name
        network = Network("detector", what, numbers, _precisions(weights, weights.entries))
    return replace(found, form="detector (torch)", networks=[network], memory=_memory([network]))


def _upscaler(weights: WeightsFile | None) -> list[Network]:
    """The network of an upscaler that Darkroom runs by itself."""
    if weights is None or (found := upscaler_in(weights.shapes)) is None:
        return []
    numbers = sum(math.prod(entry.shape) for entry in weights.entries.values())
    return [Network("upscaler", found.described, numbers, _precisions(weights, weights.entries))]


def _called(file: Path, model: Path) -> str:
    """A file of a model by its name, within a folder by its way there: several are called alike."""
    return file.relative_to(model).as_posix() if file != model and file.is_relative_to(model) else file.name


def _network(role: str, part: Part, names: Iterable[str]) -> Network:
    """A network in words; `names` are those of its tensors in the file."""
    what = part.component.described(part.config)
    return Network(role, what, part.parameters(), _precisions(part.weights, names))


def _precisions(weights: WeightsFile, names: Iterable[str]) -> tuple[str, ...]:
    """Those of some tensors of a file, that which most bytes are of first."""
    found: Counter[str] = Counter()
    for name in names:
        entry = weights.entries[name]
        found[entry.dtype] += entry.nbytes
    return tuple(name for name, _ in found.most_common())


def _memory(networks: Sequence[Network]) -> dict[str, int]:
    numbers = sum(network.numbers for network in networks)
    return {name: SIZES[name] * numbers for name in _PRECISIONS}


def _paths(weights: WeightsFile) -> list[Path]:
    return [mapped.path for mapped in weights.files]
