"""Autoencoders by themselves, with diffusers' names: what a pipeline takes as `vae`, and what scripts encode with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import torch

from darkroom.checkpoint.beside import autoencoder_at
from darkroom.checkpoint.load import Reader
from darkroom.compat.diffusers.placed import dtype_of, where_to
from darkroom.compat.diffusers.vae import autoencoder
from darkroom.errors import InvalidRequest
from darkroom.library.locate import OF_A_VAE, locate

Own = TypeVar("Own", bound="Autoencoder")


class Autoencoder:
    """An autoencoder on disk. Its weights are read when it is first asked to `encode`, `decode` or for what else
    `pipe.vae` has; a pipeline reads its own."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        self.path, self._dtype, self._device = path, dtype, torch.device("cpu")
        self._tiled = False
        self._loaded: Any = None
        self._lock = RLock()

    @classmethod
    def from_pretrained(
        cls: type[Own],
        path: str | Path,
        subfolder: str | None = None,
        torch_dtype: Any = None,
        dtype: Any = None,
        **_: Any,
    ) -> Own:
        """That of a folder, of a model's folder, or known to `darkroom models`."""
        found = locate(path, *OF_A_VAE)
        wanted = dtype_of(torch_dtype if torch_dtype is not None else dtype)
        return cls(found / subfolder if subfolder else found, wanted or torch.float32)

    @classmethod
    def from_single_file(cls: type[Own], path: str | Path, **settings: Any) -> Own:
        """That of a file."""
        return cls.from_pretrained(path, **{**settings, "subfolder": None})

    @staticmethod
    def path_of(value: Any) -> Path:
        """Where an autoencoder is: one of these, or another pipeline's. Raises InvalidRequest for anything else."""
        owner = value if isinstance(value, Autoencoder) else getattr(value, "_pipe", None)
        if isinstance(owner, Autoencoder):
            return owner.path
        if owner is None:
            raise InvalidRequest(
                f"vae is {type(value).__module__}.{type(value).__name__}: give AutoencoderKL.from_pretrained(...)"
            )
        return Path(owner._options.get("vae", owner.path))

    def to(self: Own, *where: Any, **named: Any) -> Own:
        """Have it run on a device, in a precision, or both; in a pipeline it goes where that goes."""
        wanted = where_to(*where, **named)
        self._device, self._dtype = wanted.get("device", self._device), wanted.get("dtype", self._dtype)
        self._loaded = None
        return self

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Copies and pickles ask for these before there is anything to load.
            raise AttributeError(name)
        return getattr(self._network(), name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_lock": RLock()}

    def _network(self) -> Any:
        with self._lock:
            if self._loaded is None:
                with ExitStack() as opened:
                    part = autoencoder_at(self.path, opened)[0]
                    network: Any = Reader(part, self._device, self._dtype).fill()
                self._loaded = autoencoder(network, self._lock, self)
            return self._loaded


class AutoencoderKL(Autoencoder):
    """Stable Diffusion's autoencoder."""


class AutoencoderTiny(Autoencoder):
    """TAESD and its kin."""
