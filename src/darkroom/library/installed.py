"""What is there without having been recorded: what comes with Darkroom, and what lies in $DARKROOM_MODELS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from darkroom.weights.names import INDEX


def folders() -> Iterator[Path]:
    """Folders that hold one folder a model: $DARKROOM_MODELS, then the embedded models."""
    if chosen := os.environ.get("DARKROOM_MODELS"):
        yield Path(chosen)
    package = Path(__file__).resolve().parents[1]
    yield package / "models"  # An installed wheel.
    yield package.parents[1] / "models"  # A checkout.


_COMING = {
    "model": (f"*/{INDEX}",),
    "upscaler": ("upscalers/*.safetensors",),
    "detector": ("detectors/*.onnx", "detectors/*.pt", "detectors/*.pth"),
}
"""The kinds of what those folders hold, by where it is."""


def installed(kind: str = "model") -> dict[str, Path]:
    """What of a kind is in those folders, by its name."""
    found: dict[str, Path] = {}
    for folder in folders():
        if folder.is_dir():
            there = [path for pattern in _COMING.get(kind, ()) for path in sorted(folder.glob(pattern))]
            for path in there:
                whole = path.parent if path.name == INDEX else path
                found.setdefault(whole.stem if whole.is_file() else whole.name, whole)
    return found


def all_installed() -> dict[str, Path]:
    """What of weights is in those folders, of any kind."""
    return {name: path for kind in ("model", "upscaler") for name, path in installed(kind).items()}
