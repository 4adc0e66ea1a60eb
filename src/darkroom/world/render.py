"""Scenes to pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from darkroom.world.layout import layout
from darkroom.world.scene import Scene

_RGB = {
    **{"red": (222, 40, 44), "orange": (246, 134, 28), "yellow": (250, 212, 46), "green": (52, 160, 72)},
    **{"blue": (42, 98, 208), "purple": (128, 60, 170), "pink": (245, 140, 185), "brown": (122, 76, 42)},
    **{"black": (28, 28, 32), "white": (250, 250, 250), "grey": (140, 144, 150)},
}


def render(scene: Scene, size: int = 128) -> NDArray[np.uint8]:
    """The picture of the scene: (size, size, 3) uint8 RGB. The same scene gives the same bytes."""
    picture = Image.new("RGB", (size, size), (205, 220, 235))
    draw = ImageDraw.Draw(picture)
    for box in layout(scene):
        edges = [value * size for value in (box.x0, box.y0, box.x1, box.y1)]
        draw.rounded_rectangle(edges, size * 0.03, fill=_RGB[box.colour], outline=(60, 60, 60))
    return np.asarray(picture)
