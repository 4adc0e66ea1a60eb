"""Drawing surfaces: a canvas for scenery and a pen for things, both in coordinates from 0 to 1, y down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from darkroom.world.layout import Box

RGB = tuple[int, int, int]
Point = tuple[float, float]

WHITE: RGB = (255, 255, 255)
BLACK: RGB = (0, 0, 0)


def mix(a: RGB, b: RGB, amount: float) -> RGB:
    """`a` turned towards `b` by the amount, 0 to 1."""
    keep = 1 - amount
    return (
        round(a[0] * keep + b[0] * amount),
        round(a[1] * keep + b[1] * amount),
        round(a[2] * keep + b[2] * amount),
    )


def luminance(colour: RGB) -> float:
    """Perceived brightness, 0 to 1 (the weights of Rec. 601)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def smooth(points: Sequence[Point], closed: bool = True, steps: int = 6) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    count = len(points)

    def at(i: int) -> Point:
        return points[i % count] if closed else points[min(max(i, 0), count - 1)]

    curve: list[Point] = []
    for i in range(count if closed else count - 1):
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = at(i - 1), at(i), at(i + 1), at(i + 2)
        for b0, b1, b2, b3 in _basis(steps):
            curve.append((b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3, b0 * y0 + b1 * y1 + b2 * y2 + b3 * y3))
    if not closed:
        curve.append(points[-1])
    return curve


@cache
def _basis(steps: int) -> list[tuple[float, float, float, float]]:
    rows = []
    for t in (k / steps for k in range(steps)):
        rows.append(
            (
                0.5 * (-t + 2 * t * t - t**3),
                0.5 * (2 - 5 * t * t + 3 * t**3),
                0.5 * (t + 4 * t * t - 3 * t**3),
                0.5 * (t**3 - t * t),
            )
        )
    return rows


def corners(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    """The four corners of a rectangle, clockwise."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 16) -> list[Point]:
    """Points along an ellipse's arc; degrees, 0 to the right, clockwise as seen."""
    angles = [math.radians(start + (end - start) * k / steps) for k in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


@dataclass(frozen=True, slots=True)
class Contour:
    """The line a style draws around shapes; `width` in fractions of the picture."""

    colour: RGB
    width: float


class Canvas:
    """A square picture under the brush: every scenery colour passes the style's tone on its way."""

    def __init__(
        self,
        side: int,
        tone: Callable[[RGB], RGB] = lambda c: c,
        lamp: Callable[[RGB], RGB] = lambda c: c,
        contour: Contour | None = None,
    ) -> None:
        self.side, self.tone, self.lamp, self.contour = side, tone, lamp, contour
        self._show(Image.new("RGB", (side, side)))

    def _show(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.glaze = ImageDraw.Draw(image, "RGBA")  # for colours that cover only partly

    def replace(self, image: Image.Image) -> None:
        """Go on with another picture of the same size."""
        self._show(image)

    def scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.side, y * self.side) for x, y in points]

    def gradient(self, stops: Sequence[tuple[float, RGB]], y0: float = 0.0, y1: float = 1.0) -> None:
        """A vertical gradient between the stops (heights in the picture), filling y0 to y1."""
        top, bottom = round(y0 * self.side), round(y1 * self.side)
        rows = (np.arange(top, bottom) + 0.5) / self.side
        heights = [height for height, _ in stops]
        colours = np.array([self.tone(colour) for _, colour in stops], dtype=np.float64)
        column = np.stack([np.interp(rows, heights, colours[:, c]) for c in range(3)], axis=-1)
        strip = Image.fromarray(np.round(column).astype(np.uint8)[:, None, :])
        self.image.paste(strip.resize((self.side, bottom - top), Image.Resampling.NEAREST), (0, top))

    def _ink(self, colour: RGB, shines: bool) -> RGB:
        return self.lamp(colour) if shines else self.tone(colour)

    def polygon(
        self,
        points: Sequence[Point],
        colour: RGB,
        cover: float = 1.0,
        edge: bool = True,
        shines: bool = False,
    ) -> None:
        """A filled shape, with the style's contour unless `edge` is off; `cover` below 1 lets the ground
        show through; what `shines` is a source of light."""
        if len(points) < 3:
            return
        where, ink = self.scaled(points), self._ink(colour, shines)
        if cover < 1:
            self.glaze.polygon(where, (*ink, round(255 * cover)))
        else:
            self.draw.polygon(where, ink)
            if edge and self.contour:
                self._outline(where)

    def _outline(self, where: list[Point]) -> None:
        assert self.contour is not None
        width = max(1, round(self.contour.width * self.side))
        self.draw.line([*where, where[0], where[1]], self.contour.colour, width, joint="curve")

    def horizon(self, y: float) -> None:
        """The style's contour straight across the picture."""
        if self.contour:
            self._outline(self.scaled([(-0.05, y), (1.05, y)]))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: RGB, cover: float = 1.0, shines: bool = False
    ) -> None:
        """A filled ellipse around (x, y), without contour."""
        s, ink = self.side, self._ink(colour, shines)
        where = ((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s)
        if cover < 1:
            self.glaze.ellipse(where, (*ink, round(255 * cover)))
        else:
            self.draw.ellipse(where, ink)

    def line(self, points: Sequence[Point], colour: RGB, width: float, cover: float = 1.0) -> None:
        """An open line; `width` in fractions of the picture."""
        pen, fill = (self.draw, self.tone(colour)) if cover >= 1 else (self.glaze, None)
        ink = fill or (*self.tone(colour), round(255 * cover))
        pen.line(self.scaled(points), ink, max(1, round(width * self.side)), joint="curve")

    def pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.image)


@dataclass(frozen=True, slots=True)
class Shades:
    """A thing's paints: its colour, a lighter and a darker shade of it, and the rim around it."""

    main: RGB
    light: RGB
    dark: RGB
    rim: RGB


class Pen:
    """Draws one thing inside its box; coordinates from 0 to 1 within the box.

    Every thing is drawn twice with the same strokes: first swollen by `rim`, all in the rim's colour, which
    leaves a clean line of contrast around the silhouette, then in its paints.
    """

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        side: int,
        box: Box,
        shades: Shades,
        rim: float = 0.0,
        detail: Callable[[RGB], RGB] = lambda c: c,
    ) -> None:
        self.draw, self.side, self.box, self.shades, self._detail = draw, side, box, shades, detail
        self.rim = rim * side  # in canvas pixels; 0 paints
        self._x, self._y = box.x0 * side, box.y0 * side
        self._w, self._h = box.width * side, box.height * side

    @property
    def colour(self) -> str:
        return self.box.colour

    def _place(self, points: Sequence[Point]) -> list[Point]:
        return [(self._x + x * self._w, self._y + y * self._h) for x, y in points]

    def _paint(self, paint: str | RGB) -> RGB:
        if self.rim:
            return self.shades.rim
        if isinstance(paint, str):
            shade: RGB = getattr(self.shades, paint)
            return shade
        return self._detail(paint)

    def shape(self, points: Sequence[Point], paint: str | RGB = "main", inside: bool = False) -> None:
        """A filled polygon. `inside` says that it lies within shapes already drawn, so has no rim."""
        if self.rim and inside:
            return
        where = self._place(points)
        colour = self._paint(paint)
        self.draw.polygon(where, colour)
        if self.rim:
            self._swell([*where, where[0]], colour, 2 * self.rim)

    def curve(self, points: Sequence[Point], paint: str | RGB = "main", inside: bool = False) -> None:
        """A smooth filled shape through the points."""
        self.shape(smooth(points), paint, inside)

    def oval(
        self, x0: float, y0: float, x1: float, y1: float, paint: str | RGB = "main", inside: bool = False
    ) -> None:
        """A filled ellipse between two corners."""
        if self.rim and inside:
            return
        (left, top), (right, bottom) = self._place([(x0, y0), (x1, y1)])
        r = self.rim
        self.draw.ellipse((left - r, top - r, right + r, bottom + r), self._paint(paint))

    def stroke(
        self, points: Sequence[Point], width: float, paint: str | RGB = "main", inside: bool = False
    ) -> None:
        """An open line with round ends; `width` in fractions of the box's width."""
        if self.rim and inside:
            return
        self._swell(self._place(points), self._paint(paint), max(1.0, width * self._w) + 2 * self.rim)

    def _swell(self, where: Sequence[Point], colour: RGB, width: float) -> None:
        self.draw.line(list(where), colour, max(1, round(width)), joint="curve")
        r = width / 2
        ends = (where[0], where[-1]) if where[0] != where[-1] else (where[0],)
        corners = [
            b for (a, b), (_, c) in zip(pairwise(where), pairwise(where[1:]), strict=False) if _sharp(a, b, c)
        ]
        for x, y in (*ends, *corners):
            self.draw.ellipse((x - r, y - r, x + r, y + r), colour)


def _sharp(a: Point, b: Point, c: Point) -> bool:
    """Whether the line turns by more than about 50 degrees at b, where joints need a round cap."""
    ux, uy, vx, vy = b[0] - a[0], b[1] - a[1], c[0] - b[0], c[1] - b[1]
    return ux * vx + uy * vy < 0.64 * math.hypot(ux, uy) * math.hypot(vx, vy)
