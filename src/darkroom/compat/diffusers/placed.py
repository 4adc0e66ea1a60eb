"""Where a pipeline runs and how it uses memory, with diffusers' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import Source
from darkroom.engine import place
from darkroom.engine.devices import PRECISIONS, SHORT
from darkroom.errors import InvalidRequest
from darkroom.model import Model

Own = TypeVar("Own", bound="Placed")


def opened(path: Path, options: Mapping[str, Any]) -> Source:
    """What is at a path, for a model that is to be loaded with those options."""
    return open_source(
        path, variant=options.get("variant"), t5=options.get("t5", True), vae=options.get("vae")
    )


_SHORT = {**SHORT, "half": "float16", "float": "float32"}


def dtype_of(given: Any) -> torch.dtype | None:
    """What `torch_dtype` says, in any spelling: a type, its name, or one for each part, of which the default counts;
    None where it says nothing. Raises InvalidRequest for what is no type."""
    if isinstance(given, Mapping):
        given = given.get("default")
    if given is None or given == "auto" or isinstance(given, torch.dtype):
        return None if given == "auto" else given
    name = str(given).removeprefix("torch.")
    found = getattr(torch, _SHORT.get(name, name), None)
    if not isinstance(found, torch.dtype):
        raise InvalidRequest(f"torch_dtype is {given!r}: choose one of {', '.join(PRECISIONS)}")
    return found


def where_to(*where: Any, **named: Any) -> dict[str, Any]:
    """What `to` was given, as `device` and `dtype`: to("cuda"), to(torch.float16), to("cpu", torch.float32)."""
    found: dict[str, Any] = {}
    for each in (*where, *(value for name, value in named.items() if name in ("device", "dtype"))):
        if isinstance(each, torch.dtype):
            if each not in PRECISIONS.values():
                raise InvalidRequest(f"torch_dtype is {each}: choose one of {', '.join(PRECISIONS)}")
            found["dtype"] = each
        elif isinstance(each, str | torch.device):
            found["device"] = place(str(each)).device
        elif type(each) is int:
            found["device"] = place(f"cuda:{each}").device
        elif each is not None and not isinstance(each, bool):
            raise InvalidRequest(f"to({each!r}): give a device, or a type such as torch.float16")
    return found


class Placed:
    """Networks on a device, in a precision, some of which come and go."""

    dtype: torch.dtype
    device: torch.device
    _memory: str
    _tiled: bool
    _loaded: Model | None

    def to(self: Own, *where: Any, **named: Any) -> Own:
        """Have it run on a device, in a precision, or both: to("cuda"), to(torch.float16)."""
        self._reload(**where_to(*where, **named))
        return self

    def _reload(self, **changes: Any) -> None:
        """Change what networks are loaded by; they are loaded again when they are next needed."""
        if any(getattr(self, name) != value for name, value in changes.items()):
            self.__dict__.update(changes)
            self._loaded = None

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Networks come to the device one after the other: medium memory."""
        self._offload("medium", gpu_id, device)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Networks come to the device layer by layer: the lowest memory."""
        self._offload("lowest", gpu_id, device)

    def _offload(self, memory: str, gpu_id: int | None, device: Any) -> None:
        chosen = place(None if device is None else str(device)).device
        if gpu_id is not None and chosen.type != "cpu":
            chosen = place(f"{chosen.type}:{gpu_id}").device
        self._reload(device=chosen, _memory=memory)

    def remove_all_hooks(self) -> None:
        """Networks stay on the device."""
        self._reload(_memory="full")

    def maybe_free_model_hooks(self) -> None:
        """Nothing: networks that come and go do so by themselves."""

    def enable_vae_tiling(self) -> None:
        """Large pictures are decoded in tiles."""
        self._tiled = True

    def disable_vae_tiling(self) -> None:
        self._tiled = False

    def enable_vae_slicing(self) -> None:
        """Nothing: pictures are always decoded one by one."""

    def disable_vae_slicing(self) -> None:
        """Nothing: see enable_vae_slicing."""

    def enable_attention_slicing(self, slice_size: Any = None) -> None:
        """Nothing: attention here never holds the whole matrix of scores."""

    def disable_attention_slicing(self) -> None:
        """Nothing: see enable_attention_slicing."""

    def enable_xformers_memory_efficient_attention(self, attention_op: Any = None) -> None:
        """Nothing: attention here is torch's memory-efficient one."""

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Nothing: see enable_xformers_memory_efficient_attention."""

    def upcast_vae(self) -> None:
        """Nothing: an autoencoder that half precision does not suffice for runs in float32."""
