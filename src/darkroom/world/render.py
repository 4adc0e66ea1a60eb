"""Scenes to pixels: scenery, then things, then weather, through the scene's style."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from darkroom import pixels
from darkroom.errors import InvalidRequest
from darkroom.world.canvas import RGB, WHITE, Canvas, Pen, Shades
from darkroom.world.layout import Box, layout, stands
from darkroom.world.places import draw_place, scenery
from darkroom.world.scene import Group, Scene
from darkroom.world.sky import falling
from darkroom.world.styles import Style, glow, style
from darkroom.world.things import DRAW


def render(scene: Scene, size: int = 128) -> NDArray[np.uint8]:
    """The picture of the scene: (size, size, 3) uint8 RGB. The same scene gives the same bytes.

    Raises InvalidRequest for sizes outside 32 to 2048.
    """
    if not 32 <= size <= 2048:
        raise InvalidRequest(f"a drawn picture is 32 to 2048 pixels wide, not {size}")
    how = style(scene.style)
    rng = scenery(scene)
    # Everything is drawn larger and reduced at the end, which smooths every edge.
    side = size * (4 if size <= 160 else 3 if size <= 320 else 2)
    canvas = Canvas(side, how.tone, how.lamp, how.contour(scene))
    draw_place(canvas, scene, rng)
    how.prepare(canvas, scene)
    _draw_things(canvas, how, scene)
    if scene.place not in ("plain", "room"):
        falling(canvas, scene, rng)
    return how.finish(canvas.image, scene, size)


def silhouette(scene: Scene, group: Group, size: int = 128) -> NDArray[np.bool_]:
    """Where the things of one of a scene's groups are in its picture: (size, size). What they cast or shine on is not
    theirs; where things are in front of one another both are."""
    side, image = size * 4, Image.new("RGB", (size * 4, size * 4))
    white = Shades(WHITE, WHITE, WHITE, WHITE)
    for box in layout(scene):
        if (box.kind, box.colour) == (group.kind, group.colour):
            pen = Pen(ImageDraw.Draw(image), side, box, white, style(scene.style).rim, lambda _: WHITE)
            DRAW[box.kind](pen)
    drawn = np.asarray(image)[..., 0] > 0
    return np.asarray(drawn.reshape(size, 4, size, 4).mean(axis=(1, 3)) >= 0.5)


def sheet(scenes: Sequence[Scene], columns: int = 8, size: int = 128, gap: int = 4) -> Image.Image:
    """The scenes rendered at `size` in rows of `columns`, on white, `gap` pixels apart."""
    return pixels.sheet([render(scene, size) for scene in scenes], columns, gap)


def _draw_things(canvas: Canvas, how: Style, scene: Scene) -> None:
    boxes = layout(scene)
    if scene.relation == "on":
        boxes.reverse()  # what stands on a seat is in front of it
    things = [(box, how.shades(box.colour, _mean(canvas, box))) for box in boxes]
    for box in boxes:
        if stands(box.kind, scene.place) and scene.place != "sea" and box.y1 > 0.78:
            canvas.ellipse(box.centre[0], box.y1, 0.56 * box.width, 0.022, (30, 26, 50), 0.3)
    if how.glows and things:
        lights = Image.new("RGB", canvas.image.size)
        pen = ImageDraw.Draw(lights)
        for box, paints in things:
            DRAW[box.kind](Pen(pen, canvas.side, box, paints, how.rim, how.detail))
        glow(canvas, lights, 0.035)
    for rim in (how.rim, 0.0):
        for box, paints in things:
            DRAW[box.kind](Pen(canvas.draw, canvas.side, box, paints, rim, how.detail))


def _mean(canvas: Canvas, box: Box) -> RGB:
    """The mean colour of the scenery behind a box."""
    s = canvas.side
    where = (int(box.x0 * s), int(box.y0 * s), int(box.x1 * s), int(box.y1 * s))
    r, g, b = canvas.image.resize((1, 1), Image.Resampling.BOX, box=where).getpixel((0, 0))  # type: ignore[misc]
    return int(r), int(g), int(b)
