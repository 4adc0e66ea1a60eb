"""Where models are: the embedded ones, those of a models folder, and any folder given by path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from darkroom.errors import ModelError, nearest

INDEX = "model_index.json"


def folders() -> Iterator[Path]:
    """Folders that hold one folder a model: $DARKROOM_MODELS, then the embedded models."""
    if chosen := os.environ.get("DARKROOM_MODELS"):
        yield Path(chosen)
    package = Path(__file__).resolve().parents[1]
    yield package / "models"  # An installed wheel.
    yield package.parents[1] / "models"  # A checkout.


def available() -> dict[str, Path]:
    """The models that can be loaded by name."""
    found: dict[str, Path] = {}
    for folder in folders():
        if folder.is_dir():
            for index in sorted(folder.glob(f"*/{INDEX}")):
                found.setdefault(index.parent.name, index.parent)
    return found


def locate(model: str | Path) -> Path:
    """The folder or the file of a model given by name or path. Raises ModelError with what to do."""
    known = available()
    if str(model) in known:
        return known[str(model)]
    path = Path(model).expanduser()
    if path.is_file() or (path / INDEX).is_file():
        return path
    if path.is_dir():
        raise ModelError(f"{path} has no {INDEX}: give a model folder in the Hugging Face layout, or a file")
    if not known:
        raise ModelError(f"unknown model {str(model)!r}, and no model is installed: give a folder")
    raise ModelError(f"unknown model {str(model)!r}: {nearest(str(model), known)}, or give a folder")
