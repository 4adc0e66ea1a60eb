"""Darkroom: a complete Stable Diffusion system.

    import darkroom

    model = darkroom.load("pocket")
    pictures = model.generate("a red boat on a calm sea", seed=42)
    pictures[0].image.save("boat.png")

Names are imported when first used: `import darkroom` itself loads neither torch nor numpy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from darkroom.errors import Cancelled, DarkroomError, GenerationError, InvalidRequest, ModelError
from darkroom.lazy import lazily
from darkroom.version import __version__

# Torch's threads spin long while they wait for one another, unless told otherwise before it is imported: beside one
# busy program a small network then runs ten times slower: a spinning thread keeps the processor from the awaited one.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from darkroom.generation import Picture, Request
    from darkroom.generation.between import between
    from darkroom.loading import Loading
    from darkroom.model import Model, load
    from darkroom.series import Step
    from darkroom.shelf import Shelf
    from darkroom.upscaling.upscaler import Upscaler, load_upscaler

__all__ = [
    "Cancelled",
    "DarkroomError",
    "GenerationError",
    "InvalidRequest",
    "Loading",
    "Model",
    "ModelError",
    "Picture",
    "Request",
    "Shelf",
    "Step",
    "Upscaler",
    "__version__",
    "between",
    "load",
    "load_upscaler",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "generation": "Picture Request",
        "generation.between": "between",
        "loading": "Loading",
        "model": "Model load",
        "series": "Step",
        "shelf": "Shelf",
        "upscaling.upscaler": "Upscaler load_upscaler",
    },
)
