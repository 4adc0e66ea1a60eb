"""What a pipeline takes as `vae`, with diffusers' names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.library.locate import locate


@dataclass(frozen=True)
class Autoencoder:
    """Where an autoencoder is: what a pipeline takes as `vae`."""

    path: Path

    @classmethod
    def from_pretrained(cls, path: str | Path, subfolder: str | None = None, **_: Any) -> Autoencoder:
        """That of a folder, of a model's folder, or known to `darkroom models`."""
        return cls(locate(path, "vae", "model") / subfolder if subfolder else locate(path, "vae", "model"))

    @classmethod
    def from_single_file(cls, path: str | Path, **_: Any) -> Autoencoder:
        """That of a file."""
        return cls(locate(path, "vae", "model"))

    def to(self, *_: Any, **__: Any) -> Autoencoder:
        """It goes where its pipeline goes."""
        return self


class AutoencoderKL(Autoencoder):
    """Stable Diffusion's autoencoder."""


class AutoencoderTiny(Autoencoder):
    """TAESD and its kin."""
