"""The adapters and embeddings of one model: found by name, read when they are first asked for, and kept."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from darkroom.adapters.adapter import Adapter, read_adapter
from darkroom.adapters.embeddings import checked, for_encoders, not_used, read_embedding
from darkroom.adapters.hypernetwork import is_hypernetwork, read_hypernetwork
from darkroom.checkpoint.infer import networks_in
from darkroom.checkpoint.single_file import use_alone
from darkroom.errors import ModelError
from darkroom.language.tags import OF_LIBRARY, Tag
from darkroom.library.locate import locate
from darkroom.library.records import Library
from darkroom.networks import CLIPText
from darkroom.networks.roles import Role
from darkroom.prompt.vocabulary import Embedding
from darkroom.weights.hashes import sha256
from darkroom.weights.opening import open_weights

_MOST = 16
"""How many adapters are kept in memory."""

Stamp = tuple[str, int, int]


class Collection:
    """Adapters and embeddings for a model of these networks, by their roles, called `model`."""

    def __init__(self, networks: Mapping[Role, nn.Module], model: str) -> None:
        self._networks, self._model = dict(networks), model
        self._widths = {
            role: network.config.hidden_size
            for role, network in networks.items()
            if isinstance(network, CLIPText)
        }
        self._lock = threading.Lock()
        self._adapters: OrderedDict[tuple[Stamp, bool], Adapter] = OrderedDict()
        self._inversions: dict[Stamp, Embedding] = {}

    def adapters(self, tags: Iterable[Tag]) -> dict[Tag, Adapter]:
        """What each tag names. Raises ModelError where there is none of that name, or it does not fit the model."""
        return {tag: self.adapter(tag) for tag in tags}

    def adapter(self, tag: Tag) -> Adapter:
        """What a tag names: in the library, where it is of the tag's kind, or at a path. Raises ModelError."""
        path = locate(tag.name, kind=OF_LIBRARY[tag.kind])
        key = _stamp(path), tag.partial
        with self._lock:
            if key not in self._adapters:
                try:
                    self._adapters[key] = self._read_adapter(path, tag.partial)
                except ModelError:
                    if what := _what_else(path):
                        raise ModelError(f"{path} is no adapter but {what}") from None
                    raise
                while len(self._adapters) > _MOST:
                    self._adapters.popitem(last=False)
            self._adapters.move_to_end(key)
            return self._adapters[key]

    def _read_adapter(self, path: Path, partial: bool) -> Adapter:
        if _is_hypernetwork(path):
            return read_hypernetwork(path, self._networks, self._model)
        return read_adapter(path, self._networks, self._model, partial=partial)

    def forget(self) -> None:
        """Forget what was computed from the model's weights: they have changed."""
        for adapter in self._adapters.values():
            adapter.made.clear()

    def embeddings(
        self, texts: Sequence[str], files: Sequence[str], adapters: Iterable[Adapter]
    ) -> tuple[dict[str, Embedding], list[str]]:
        """The embeddings that texts name, and what is to be said of those that are not used.

        Those of `files` (NAME=FILE, or a name or file alone) and those that came with `adapters` go before the
        library's. Raises ModelError where one of `files` cannot be used.
        """
        found: dict[str, Embedding] = {}
        notes = []
        for name, path in self._named(texts):
            try:
                found[name] = self._embedding(path)
            except ModelError as error:
                notes.append(f"the embedding {name} is not used: {error}")
        whole = "\n".join(texts).lower()
        for adapter in adapters:
            for name, tensors in adapter.embeddings.items():
                if name.lower() not in whole:
                    continue
                where = f"the embedding {name} in {adapter.name}"
                arrays = for_encoders(checked(tensors, where), self._widths, where, self._model)
                found[name] = Embedding(arrays, adapter.sha256)
                if unused := not_used(tensors):
                    notes.append(f"{where}: its {', '.join(unused)} are not used")
        for text in files:
            name, equals, where = text.rpartition("=")
            path = locate(where, kind="embedding")
            found[name if equals else _word(path)] = self._embedding(path)
        return found, notes

    def _named(self, texts: Sequence[str]) -> list[tuple[str, Path]]:
        """The library's embeddings whose names occur in the texts."""
        whole = "\n".join(texts).lower()
        return [
            (name, entry.version.path)
            for entry in Library.read().of_kind("embedding")
            for name in dict.fromkeys([entry.name, *entry.aliases, _word(entry.version.path)])
            if name.lower() in whole and entry.version.path.is_file()
        ]

    def _embedding(self, path: Path) -> Embedding:
        stamp = _stamp(path)
        if stamp not in self._inversions:
            arrays = for_encoders(read_embedding(path), self._widths, str(path), self._model)
            self._inversions[stamp] = Embedding(arrays, sha256(path))
        return self._inversions[stamp]


def _what_else(path: Path) -> str:
    """What a file is that holds networks, and where it is given; "" where it holds none."""
    if not path.is_file():
        return ""
    with open_weights(path) as weights:
        components = [found.component for found in networks_in(weights.shapes)]
    if any(component.roles[0].denoises for component in components):
        return "a model: give it as `model=`"
    return use_alone(components) if components else ""


def _is_hypernetwork(path: Path) -> bool:
    if path.is_dir():
        return False
    with open_weights(path) as weights:
        return is_hypernetwork(weights)


def _word(path: Path) -> str:
    """What stands for the embedding in a file: the file's name without its ending, as in A1111."""
    return re.sub(r"[<>]", "", path.stem)


def _stamp(path: Path) -> Stamp:
    files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
    stats = [file.stat() for file in files]
    return (
        str(path.resolve()),
        sum(stat.st_size for stat in stats),
        max((stat.st_mtime_ns for stat in stats), default=0),
    )
