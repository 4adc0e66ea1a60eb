"""Where a job can go on, as plain data: what whoever runs jobs writes down between two of their steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from darkroom.diffusion import Snapshot
from darkroom.errors import InvalidRequest
from darkroom.generation.request import Request

VERSION = 1
"""Of what `Saved.to_bytes` writes."""
_KEY = "darkroom.saved"


class Saved(NamedTuple):
    """The pass that a job is in, the run's state at the top of a step, the number of calls behind it, and its request's
    mark (`mark_of`). Of one that is past all passes, where its details have come to, `Underway` as plain data, and as
    `thing` where the job of a thing among them has."""

    stage: int
    run: Snapshot | None
    done: int
    request: str
    details: Mapping[str, Any] | None = None
    thing: Saved | None = None

    def to_bytes(self) -> bytes:
        """A safetensors file: arrays as tensors, all else in its metadata."""
        tensors: dict[str, Tensor] = {}
        metadata = {_KEY: json.dumps(_without({**self._said(), "version": VERSION}, tensors))}
        return safetensors.torch.save(tensors, metadata)

    def _said(self) -> dict[str, Any]:
        run = None if self.run is None else self.run._asdict()
        return {**self._asdict(), "run": run, "thing": None if self.thing is None else self.thing._said()}

    @classmethod
    def _of(cls, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Saved:
        run, thing = said["run"], said.get("thing")
        return cls(
            said["stage"],
            None if run is None else Snapshot(**_with(run, tensors)),
            said["done"],
            said["request"],
            _with(said.get("details"), tensors),
            None if thing is None else cls._of(thing, tensors),
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Saved:
        """The inverse of `to_bytes`, to the bit. Raises InvalidRequest for what is damaged or of another version."""
        try:
            length = int.from_bytes(content[:8], "little")
            said = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_KEY])
            tensors = safetensors.torch.load(content)
        except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
            raise InvalidRequest(
                f"this is no saved job ({type(error).__name__}): begin the job again"
            ) from error
        if said.get("version") != VERSION:
            raise InvalidRequest(
                f"the saved job is of version {said.get('version')!r}, {VERSION} is read: begin it again"
            )
        try:
            return cls._of(said, tensors)
        except (KeyError, TypeError) as error:
            raise InvalidRequest(f"the saved job is damaged ({error}): begin it again") from error


def mark_of(request: Request) -> str:
    """What tells a settled request from others: the SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(request.to_dict(), sort_keys=True).encode()).hexdigest()


def _without(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON has it: each array's name in its place, the array under it in `tensors`."""
    if isinstance(value, Tensor):
        name = f"tensor {len(tensors)}"
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {name: _without(each, tensors) for name, each in value.items()}
    return [_without(each, tensors) for each in value] if isinstance(value, tuple | list) else value


def _with(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        return {name: _with(each, tensors) for name, each in value.items()}
    return tuple(_with(each, tensors) for each in value) if isinstance(value, list) else value
