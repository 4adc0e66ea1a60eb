"""A pipeline written to disk as it is now."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from darkroom.checkpoint.export import convert
from darkroom.compat.diffusers.parts import Parts
from darkroom.compat.diffusers.placed import Placed, opened
from darkroom.compat.diffusers.signatures import refuse
from darkroom.errors import InvalidRequest
from darkroom.files import expanded
from darkroom.networks.roles import Role


class Saved(Parts, Placed):
    """What writes its networks, with what was fused or changed in them, and its scheduler."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **_: Any,
    ) -> None:
        """Write a folder in the Hugging Face layout, which `from_pretrained` reads here and in diffusers, with numbers
        of the pipeline's type. Files that are there under the same names are replaced, when all is written.

        `max_shard_size` changes nothing: a network is one file. Raises InvalidRequest for what cannot be honoured, and
        where it cannot write.
        """
        refuse(variant=variant, push_to_hub=push_to_hub or None)
        if not safe_serialization:
            raise InvalidRequest(
                "safe_serialization is False: Darkroom writes safetensors alone, leave it out"
            )
        folder, networks = expanded(save_directory), self._networks()
        modules: dict[Role, nn.Module] = {**self._expert.networks, Role.VAE: networks.vae}
        with opened(self.path, self._options) as source, networks.lock:
            parts = {
                role: replace(part, change=_in_memory(modules[role])) if role in modules else part
                for role, part in source.parts.items()
            }
            now = replace(source, parts=parts, scheduler=self.scheduler.to_json())
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as beside:
                    convert(now, Path(beside) / "model", self.dtype, prune=True)
                    _move(Path(beside) / "model", folder)
            except OSError as error:
                raise InvalidRequest(f"cannot write {folder}: {error.strerror or error}") from error


def _in_memory(network: nn.Module) -> Callable[[str, Tensor], Tensor]:
    """What takes the place of a network's tensors on disk: those in memory, where they are there."""
    state: Mapping[str, Tensor] = network.state_dict()
    return lambda name, tensor: tensor if state[name].is_meta else state[name].to("cpu")


def _move(written: Path, folder: Path) -> None:
    for file in sorted(each for each in written.rglob("*") if each.is_file()):
        target = folder / file.relative_to(written)
        target.parent.mkdir(exist_ok=True)
        os.replace(file, target)
