"""Modules of torch's that were pickled whole, as some programs save networks: read as data, of which nothing is run.

Such a file names classes, whose code is elsewhere; what of each object is in the file are the names and numbers that it
held. Whoever knows the classes can put a network together of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from darkroom.weights.mapped import MOST_TENSORS, Mapped, WeightsFile
from darkroom.weights.torch_files import unpickled, unzipped, weights_of
from darkroom.weights.unpickled import Opaque, StoredTensor

_MOST, _DEEPEST, _LONGEST = 20_000, 40, 1_000
"""Of modules, one within another, and of the signs of their names together."""
_MOST_FACTS, _DEEPEST_FACT = 500_000, 8


@dataclass(frozen=True)
class StoredModule:
    """A module: the name of its class with that of its package, the modules within by their names (None where there
    could be one), the names that its own tensors have in the file, and its other attributes that are plain data."""

    kind: str
    modules: Mapping[str, StoredModule | None] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its class's own name."""
        return self.kind.rpartition(".")[2]


def open_module(path: Path) -> tuple[WeightsFile, StoredModule]:
    """The module that a file by torch.save holds, itself or in a dict under "ema" or "model", the tensors of all within
    it by their names, and as `extra` what else is in that dict. Use the file as a context manager. Raises ModelError
    where it is no such file, is damaged or malicious."""
    file = Mapped(path)
    try:
        head = file.read(0, min(file.size, 4))
        understood = partial(_understood, file)
        if head.startswith(b"PK\3\4"):
            return unzipped(file, understood)
        if re.match(rb"\x80[\x00-\x05]", head):
            return unpickled(file, understood)
        raise file.error("is no file by torch.save: fetch it anew")
    except BaseException:
        file.close()
        raise


def _understood(file: Mapped, value: Any, start: Callable[[str], int]) -> tuple[WeightsFile, StoredModule]:
    around = value if isinstance(value, dict) else {}
    candidates = (around.get("ema"), around.get("model"), value)
    module = next((each for each in candidates if _is_module(each)), None)
    if module is None:
        raise file.error("holds no network that was saved whole: get one that was, or its export as ONNX")
    reader = _Reader()
    try:
        found = reader.read(module, "")
        extra = {str(key): each for key, each in around.items() if reader.is_plain(each)}
    except (TypeError, ValueError, AttributeError) as error:
        raise file.error(f"holds a damaged network ({error}): fetch it anew") from None
    return weights_of(file, "torch", reader.tensors, start, extra), found


def _is_module(value: Any) -> bool:
    return isinstance(value, Opaque) and isinstance(value.state, dict) and "_modules" in value.state


class _Reader:
    def __init__(self) -> None:
        self.tensors: dict[str, StoredTensor] = {}
        self._count = self._facts = 0

    def read(self, module: Opaque, place: str, depth: int = 0) -> StoredModule:
        self._count += 1
        if self._count > _MOST or depth > _DEEPEST or len(place) > _LONGEST:
            raise ValueError("it has more parts than any network")
        state = module.state
        tensors = {}
        for kept in ("_parameters", "_buffers"):
            for name, each in state.get(kept, {}).items():
                if isinstance(each, StoredTensor):
                    tensors[name] = self._kept(f"{place}{name}", each)
        facts = {}
        for name, each in state.items():
            if isinstance(each, StoredTensor):
                tensors[name] = self._kept(f"{place}{name}", each)
            elif not str(name).startswith("_") and self.is_plain(each):
                facts[str(name)] = each
        modules = {
            str(name): self.read(each, f"{place}{name}.", depth + 1) if _is_module(each) else None
            for name, each in state["_modules"].items()
        }
        return StoredModule(module.name, modules, tensors, facts)

    def _kept(self, name: str, tensor: StoredTensor) -> str:
        self.tensors[name] = tensor
        if len(self.tensors) > MOST_TENSORS or len(name) > 2 * _LONGEST:
            raise ValueError("it has more tensors than any network")
        return name

    def is_plain(self, value: Any, depth: int = 0) -> bool:
        """Whether a value is a number, a text, nothing, or a container of these, not too deep. What has more of them
        than any network is refused: a small file may hold one list a million times."""
        self._facts += 1
        if self._facts > _MOST_FACTS:
            raise ValueError("it says more than any network")
        if value is None or isinstance(value, bool | int | float | str):
            return True
        if depth > _DEEPEST_FACT or not isinstance(value, list | tuple | dict):
            return False
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return all(self.is_plain(each, depth + 1) for each in inner)
