"""Contact sheets: many scenes in one picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from darkroom.world.render import render
from darkroom.world.scene import Scene


def sheet(scenes: Sequence[Scene], columns: int = 8, size: int = 128, gap: int = 4) -> Image.Image:
    """The scenes rendered at `size` in rows of `columns`, on white, `gap` pixels apart."""
    rows = -(-len(scenes) // columns)
    step = size + gap
    picture = Image.new("RGB", (columns * step + gap, rows * step + gap), "white")
    for k, scene in enumerate(scenes):
        tile = Image.fromarray(render(scene, size))
        picture.paste(tile, (gap + k % columns * step, gap + k // columns * step))
    return picture
