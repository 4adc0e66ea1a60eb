"""What a pipeline takes as `vae`, with diffusers' names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import InvalidRequest
from darkroom.library.locate import OF_A_VAE, locate


@dataclass(frozen=True)
class Autoencoder:
    """Where an autoencoder is: what a pipeline takes as `vae`."""

    path: Path

    @classmethod
    def from_pretrained(cls, path: str | Path, subfolder: str | None = None, **_: Any) -> Autoencoder:
        """That of a folder, of a model's folder, or known to `darkroom models`."""
        found = locate(path, *OF_A_VAE)
        return cls(found / subfolder if subfolder else found)

    @classmethod
    def from_single_file(cls, path: str | Path, **_: Any) -> Autoencoder:
        """That of a file."""
        return cls(locate(path, *OF_A_VAE))

    @staticmethod
    def path_of(value: Any) -> Path:
        """Where an autoencoder is: one of these, or another pipeline's. Raises InvalidRequest for anything else."""
        if isinstance(value, Autoencoder):
            return value.path
        pipe = getattr(value, "_pipe", None)
        if pipe is None:
            raise InvalidRequest(
                f"vae is {type(value).__module__}.{type(value).__name__}: give AutoencoderKL.from_pretrained(...)"
            )
        return Path(pipe._options.get("vae", pipe.path))

    def to(self, *_: Any, **__: Any) -> Autoencoder:
        """It goes where its pipeline goes."""
        return self


class AutoencoderKL(Autoencoder):
    """Stable Diffusion's autoencoder."""


class AutoencoderTiny(Autoencoder):
    """TAESD and its kin."""
