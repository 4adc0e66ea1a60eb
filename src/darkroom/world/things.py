"""The things of the world: each a short function that fills its unit box with one readable silhouette.

The body, most of the silhouette, is in the thing's colour and its shades; details are small and neutral.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from darkroom.world.canvas import RGB, Pen, arc, smooth

INK: RGB = (44, 40, 52)
GLASS: RGB = (214, 236, 248)
CREAM: RGB = (255, 246, 220)
LAMP: RGB = (255, 226, 120)
WOOD: RGB = (132, 88, 56)
LEAF: RGB = (74, 150, 78)
SILVER: RGB = (176, 182, 192)
FLAME: RGB = (255, 150, 50)


def _contrast(pen: Pen, usual: RGB, other: RGB, clashing: tuple[str, ...]) -> RGB:
    """The usual detail colour, or another where it would vanish in the body's."""
    return other if pen.colour in clashing else usual


def tree(pen: Pen) -> None:
    pen.shape([(0.42, 0.6), (0.58, 0.6), (0.62, 1.0), (0.38, 1.0)], WOOD)
    lobes = (
        (0.5, 0.2, 0.29),
        (0.24, 0.34, 0.24),
        (0.76, 0.34, 0.24),
        (0.22, 0.53, 0.22),
        (0.78, 0.53, 0.22),
        (0.5, 0.5, 0.3),
    )
    for x, y, r in lobes:
        pen.oval(x - r, y - 0.72 * r, x + r, y + 0.72 * r, "dark")
    for x, y, r in lobes:
        pen.oval(x - r, y - 0.72 * r, x + 0.82 * r, y + 0.5 * r, "main", inside=True)
    for x, y in ((0.36, 0.16), (0.16, 0.32), (0.5, 0.38)):
        pen.oval(x, y - 0.03, x + 0.17, y + 0.05, "light", inside=True)


def flower(pen: Pen) -> None:
    pen.stroke([(0.5, 0.5), (0.49, 0.8), (0.51, 0.98)], 0.08, LEAF)
    pen.curve([(0.5, 0.93), (0.66, 0.76), (0.92, 0.74), (0.78, 0.9)], LEAF)
    pen.curve([(0.5, 0.96), (0.34, 0.84), (0.1, 0.82), (0.24, 0.95)], LEAF)
    # Five petals; in units of the width, so that the blossom is round (the box is 0.66 wide to 1 high).
    for turn in range(5):
        a = math.radians(turn * 72 - 90)
        x, y = 0.5 + 0.275 * math.cos(a), 0.345 + 0.197 * math.sin(a)
        pen.oval(x - 0.225, y - 0.148, x + 0.225, y + 0.148, "main")
    for turn in range(5):
        a = math.radians(turn * 72 - 90)
        x, y = 0.5 + 0.2 * math.cos(a), 0.345 + 0.14 * math.sin(a)
        pen.stroke([(x, y), (x + 0.13 * math.cos(a), y + 0.09 * math.sin(a))], 0.035, "dark", inside=True)
    pen.oval(
        0.36,
        0.255,
        0.64,
        0.44,
        _contrast(pen, (255, 214, 92), (150, 92, 40), ("yellow", "orange", "white")),
        True,
    )


def mushroom(pen: Pen) -> None:
    pen.curve(
        [(0.38, 0.5), (0.62, 0.5), (0.66, 0.8), (0.7, 0.98), (0.5, 1.0), (0.3, 0.98), (0.34, 0.8)], CREAM
    )
    pen.shape([*arc(0.5, 0.56, 0.5, 0.56, 180, 360, 24), *arc(0.5, 0.56, 0.5, 0.1, 0, 180, 16)], "dark")
    pen.shape(
        [*arc(0.47, 0.53, 0.46, 0.51, 180, 360, 20), *arc(0.47, 0.53, 0.46, 0.06, 0, 180)], "main", True
    )
    spots = _contrast(pen, CREAM, SILVER, ("white",))
    for x, y, r in ((0.46, 0.2, 0.09), (0.22, 0.36, 0.065), (0.72, 0.34, 0.075), (0.48, 0.45, 0.05)):
        pen.oval(x - r, y - 0.9 * r, x + r, y + 0.9 * r, spots, inside=True)


def house(pen: Pen) -> None:
    pen.shape([(0.72, 0.04), (0.84, 0.04), (0.84, 0.3), (0.72, 0.3)], "dark")
    pen.shape([(0.1, 0.4), (0.9, 0.4), (0.9, 1.0), (0.1, 1.0)], "main")
    pen.shape([(0.28, 0.0), (0.72, 0.0), (1.0, 0.44), (0.0, 0.44)], "main")
    pen.shape([(0.02, 0.4), (0.98, 0.4), (0.9, 0.52), (0.1, 0.52)], "dark", inside=True)
    pen.stroke([(0.3, 0.05), (0.08, 0.38)], 0.03, "light", inside=True)
    pen.stroke([(0.2, 0.26), (0.8, 0.26)], 0.02, "dark", inside=True)
    pen.shape(
        [(0.4, 0.66), (0.6, 0.66), (0.6, 1.0), (0.4, 1.0)],
        _contrast(pen, (96, 62, 44), CREAM, ("brown", "black")),
        True,
    )
    for x in (0.18, 0.66):
        pen.shape(
            [(x, 0.56), (x + 0.16, 0.56), (x + 0.16, 0.74), (x, 0.74)],
            _contrast(pen, LAMP, GLASS, ("yellow",)),
            True,
        )
        pen.stroke([(x + 0.08, 0.56), (x + 0.08, 0.74)], 0.025, "dark", inside=True)


def lighthouse(pen: Pen) -> None:
    pen.shape([(0.3, 0.26), (0.7, 0.26), (0.92, 1.0), (0.08, 1.0)], "main")
    pen.shape([(0.62, 0.26), (0.7, 0.26), (0.92, 1.0), (0.76, 1.0)], "dark", inside=True)
    band = _contrast(pen, CREAM, SILVER, ("white", "yellow"))
    for y in (0.44, 0.7):
        a, b = 0.3 - 0.22 * (y - 0.26) / 0.74, 0.3 - 0.22 * (y - 0.19) / 0.74
        pen.shape([(a, y), (1 - a, y), (1 - b, y + 0.07), (b, y + 0.07)], band, inside=True)
    pen.shape([(0.32, 0.12), (0.68, 0.12), (0.68, 0.24), (0.32, 0.24)], LAMP)
    pen.shape([(0.5, 0.0), (0.78, 0.13), (0.22, 0.13)], "dark")
    pen.shape([(0.16, 0.22), (0.84, 0.22), (0.84, 0.28), (0.16, 0.28)], "dark")
    pen.shape([*arc(0.5, 0.91, 0.13, 0.06, 180, 360), (0.63, 1.0), (0.37, 1.0)], (84, 60, 52), inside=True)
    pen.stroke([(0.08, 0.985), (0.92, 0.985)], 0.04, "dark", inside=True)


def cat(pen: Pen) -> None:
    pen.stroke([(0.72, 0.9), (0.9, 0.88), (0.93, 0.72), (0.88, 0.6)], 0.12, "dark")
    pen.curve(
        [
            (0.5, 0.4),
            (0.68, 0.5),
            (0.8, 0.75),
            (0.82, 0.98),
            (0.5, 1.0),
            (0.14, 0.98),
            (0.16, 0.75),
            (0.3, 0.5),
        ]
    )
    pen.shape([(0.1, 0.0), (0.38, 0.12), (0.13, 0.32)], "main")
    pen.shape([(0.82, 0.0), (0.54, 0.12), (0.79, 0.32)], "main")
    pen.curve(
        [
            (0.46, 0.09),
            (0.72, 0.13),
            (0.86, 0.3),
            (0.76, 0.47),
            (0.46, 0.55),
            (0.16, 0.47),
            (0.06, 0.3),
            (0.2, 0.13),
        ]
    )
    pen.shape([(0.16, 0.07), (0.3, 0.14), (0.17, 0.24)], "light", inside=True)
    pen.shape([(0.76, 0.07), (0.62, 0.14), (0.75, 0.24)], "light", inside=True)
    eye = _contrast(pen, INK, (190, 230, 90), ("black",))
    for x in (0.23, 0.57):
        pen.oval(x, 0.24, x + 0.12, 0.36, CREAM, inside=True)
        pen.oval(x + 0.025, 0.25, x + 0.095, 0.35, eye, inside=True)
    pen.shape(
        [(0.41, 0.39), (0.51, 0.39), (0.46, 0.435)],
        _contrast(pen, (240, 150, 160), INK, ("pink", "red")),
        True,
    )
    for sign in (-1, 1):
        for y in (0.4, 0.44):
            pen.stroke(
                [(0.46 + sign * 0.13, y), (0.46 + sign * 0.32, y - 0.02 + (y - 0.4))],
                0.016,
                "dark",
                inside=True,
            )
    pen.stroke([(0.36, 0.72), (0.36, 0.97)], 0.03, "dark", inside=True)
    pen.stroke([(0.6, 0.72), (0.6, 0.97)], 0.03, "dark", inside=True)


def bird(pen: Pen) -> None:
    beak = _contrast(pen, (250, 160, 40), INK, ("orange", "yellow"))
    pen.shape([(0.88, 0.3), (1.0, 0.4), (0.86, 0.46)], beak)
    pen.shape([(0.3, 0.52), (0.02, 0.48), (0.0, 0.68), (0.14, 0.72), (0.36, 0.72)], "dark")
    pen.curve(
        [
            (0.28, 0.62),
            (0.46, 0.44),
            (0.58, 0.28),
            (0.74, 0.18),
            (0.89, 0.28),
            (0.9, 0.48),
            (0.8, 0.74),
            (0.58, 0.9),
            (0.38, 0.82),
        ]
    )
    pen.curve(
        [(0.66, 0.62), (0.5, 0.42), (0.36, 0.1), (0.2, 0.0), (0.18, 0.24), (0.28, 0.52), (0.46, 0.72)], "dark"
    )
    pen.curve(
        [(0.58, 0.6), (0.46, 0.42), (0.34, 0.18), (0.25, 0.12), (0.27, 0.3), (0.36, 0.52), (0.48, 0.66)],
        "main",
        True,
    )
    pen.stroke([(0.5, 0.86), (0.48, 0.98)], 0.035, beak)
    pen.stroke([(0.64, 0.86), (0.64, 0.98)], 0.035, beak)
    pen.oval(0.74, 0.27, 0.85, 0.41, CREAM, inside=True)
    pen.oval(0.775, 0.3, 0.835, 0.38, INK, inside=True)


def fish(pen: Pen) -> None:
    pen.curve([(0.36, 0.2), (0.52, 0.0), (0.74, 0.1), (0.66, 0.26)], "dark")
    pen.curve([(0.44, 0.8), (0.5, 1.0), (0.64, 0.96), (0.62, 0.76)], "dark")
    pen.shape([(0.3, 0.5), (0.06, 0.1), (0.0, 0.16), (0.07, 0.5), (0.0, 0.86), (0.06, 0.9)], "dark")
    pen.curve(
        [
            (0.18, 0.5),
            (0.36, 0.24),
            (0.62, 0.12),
            (0.86, 0.26),
            (1.0, 0.5),
            (0.86, 0.76),
            (0.62, 0.88),
            (0.36, 0.76),
        ]
    )
    for x in (0.36, 0.5):
        pen.stroke(arc(x - 0.1, 0.5, 0.14, 0.24, -50, 50, 8), 0.03, "dark", inside=True)
    pen.stroke(arc(0.66, 0.5, 0.08, 0.26, -70, 70, 8), 0.025, "light", inside=True)
    pen.oval(0.78, 0.32, 0.9, 0.5, CREAM, inside=True)
    pen.oval(0.815, 0.36, 0.885, 0.47, INK, inside=True)


def butterfly(pen: Pen) -> None:
    for side in (-1, 1):

        def at(x: float, y: float, side: int = side) -> tuple[float, float]:
            return 0.5 + side * x, y

        pen.curve(
            [at(0.03, 0.55), at(0.2, 0.5), at(0.4, 0.58), at(0.42, 0.8), at(0.3, 0.98), at(0.14, 0.9)], "dark"
        )
        pen.curve(
            [
                at(0.03, 0.5),
                at(0.1, 0.22),
                at(0.3, 0.03),
                at(0.48, 0.06),
                at(0.5, 0.28),
                at(0.38, 0.52),
                at(0.16, 0.6),
            ]
        )
        pen.curve(
            [at(0.1, 0.62), at(0.26, 0.6), at(0.35, 0.72), at(0.28, 0.88), at(0.17, 0.82)], "main", True
        )
        pen.oval(*_between(at(0.26, 0.16), at(0.4, 0.34)), "light", inside=True)
        pen.stroke([at(0.01, 0.26), at(0.05, 0.12), at(0.11, 0.03)], 0.025, INK)
    pen.oval(0.455, 0.2, 0.545, 0.92, INK)


def _between(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box between two corners."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])


def boat(pen: Pen) -> None:
    pen.stroke([(0.47, 0.02), (0.47, 0.72)], 0.045, WOOD)
    pen.curve([(0.53, 0.02), (0.7, 0.2), (0.86, 0.44), (0.95, 0.6), (0.74, 0.62), (0.53, 0.62)], "main")
    pen.curve([(0.41, 0.1), (0.3, 0.28), (0.1, 0.6), (0.26, 0.62), (0.41, 0.62)], "light")
    pen.shape(
        [
            (0.0, 0.7),
            (1.0, 0.7),
            (0.94, 0.8),
            (0.82, 0.96),
            (0.74, 1.0),
            (0.24, 1.0),
            (0.16, 0.95),
            (0.05, 0.8),
        ]
    )
    pen.shape(
        [(0.12, 0.9), (0.87, 0.9), (0.82, 0.96), (0.74, 1.0), (0.24, 1.0), (0.16, 0.95)], "dark", inside=True
    )
    pen.stroke(
        [(0.03, 0.735), (0.97, 0.735)], 0.04, _contrast(pen, CREAM, SILVER, ("white", "yellow")), inside=True
    )


def car(pen: Pen) -> None:
    for x in (0.23, 0.77):
        pen.oval(x - 0.125, 0.56, x + 0.125, 1.0, INK)
    cabin = [(0.2, 0.42), (0.28, 0.08), (0.34, 0.0), (0.66, 0.0), (0.72, 0.06), (0.84, 0.42)]
    pen.shape(cabin, "main")
    body = [
        (0.03, 0.42),
        (0.08, 0.36),
        (0.84, 0.36),
        (0.96, 0.42),
        (1.0, 0.52),
        (1.0, 0.78),
        (0.97, 0.82),
        (0.03, 0.82),
        (0.0, 0.78),
        (0.0, 0.5),
    ]
    pen.shape(body, "main")
    pen.shape(
        [(0.0, 0.73), (1.0, 0.73), (1.0, 0.78), (0.97, 0.82), (0.03, 0.82), (0.0, 0.78)], "dark", inside=True
    )
    pen.shape([(0.28, 0.36), (0.34, 0.11), (0.47, 0.11), (0.47, 0.36)], GLASS, inside=True)
    pen.shape([(0.53, 0.36), (0.53, 0.11), (0.65, 0.11), (0.74, 0.36)], GLASS, inside=True)
    for x in (0.23, 0.77):
        pen.oval(x - 0.125, 0.56, x + 0.125, 1.0, INK, inside=True)
        pen.oval(x - 0.055, 0.68, x + 0.055, 0.88, SILVER, inside=True)
    pen.oval(0.93, 0.48, 0.99, 0.6, LAMP, inside=True)


def balloon(pen: Pen) -> None:
    for x in (0.36, 0.64):
        pen.stroke([(x, 0.7), (0.5 + (x - 0.5) * 0.7, 0.88)], 0.025, WOOD)
    pen.shape([(0.37, 0.86), (0.63, 0.86), (0.6, 1.0), (0.4, 1.0)], WOOD)
    pen.shape([*arc(0.5, 0.36, 0.5, 0.36, 160, 380, 28), (0.66, 0.76), (0.34, 0.76)], "dark")
    pen.shape([*arc(0.5, 0.36, 0.4, 0.36, 160, 380, 24), (0.62, 0.76), (0.38, 0.76)], "main", inside=True)
    pen.shape([*arc(0.5, 0.36, 0.15, 0.355, 160, 380, 20), (0.55, 0.76), (0.45, 0.76)], "light", inside=True)
    pen.stroke([(0.36, 0.76), (0.64, 0.76)], 0.05, "dark", inside=True)


def rocket(pen: Pen) -> None:
    pen.curve([(0.36, 0.82), (0.64, 0.82), (0.6, 0.92), (0.5, 1.0), (0.4, 0.92)], FLAME)
    pen.shape([(0.26, 0.52), (0.0, 0.74), (0.02, 0.9), (0.32, 0.8)], "dark")
    pen.shape([(0.74, 0.52), (1.0, 0.74), (0.98, 0.9), (0.68, 0.8)], "dark")
    pen.curve(
        [
            (0.5, 0.0),
            (0.66, 0.12),
            (0.77, 0.34),
            (0.77, 0.6),
            (0.68, 0.83),
            (0.32, 0.83),
            (0.23, 0.6),
            (0.23, 0.34),
            (0.34, 0.12),
        ]
    )
    pen.curve(
        [(0.5, 0.0), (0.64, 0.1), (0.72, 0.22), (0.5, 0.25), (0.28, 0.22), (0.36, 0.1)], "dark", inside=True
    )
    pen.oval(0.34, 0.34, 0.66, 0.53, "dark", inside=True)
    pen.oval(0.39, 0.37, 0.61, 0.5, GLASS, inside=True)
    pen.stroke([(0.5, 0.68), (0.5, 0.88)], 0.09, "dark", inside=True)


def circle(pen: Pen) -> None:
    pen.oval(0.0, 0.0, 1.0, 1.0, "dark")
    pen.oval(0.0, 0.0, 0.93, 0.93, "main", inside=True)
    pen.oval(0.2, 0.14, 0.42, 0.34, "light", inside=True)


def square(pen: Pen) -> None:
    pen.shape([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)], "dark")
    pen.shape([(0.0, 0.0), (0.91, 0.0), (0.91, 0.91), (0.0, 0.91)], "main", inside=True)
    pen.stroke([(0.14, 0.34), (0.14, 0.14), (0.34, 0.14)], 0.06, "light", inside=True)


def triangle(pen: Pen) -> None:
    pen.shape([(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)], "main")
    pen.shape([(0.5, 0.0), (1.0, 1.0), (0.76, 1.0)], "dark", inside=True)
    pen.stroke([(0.46, 0.3), (0.3, 0.64)], 0.05, "light", inside=True)


def star(pen: Pen) -> None:
    # A five-pointed star stretched to fill its box: the points reach 0.095 short of the circle below.
    tips = []
    for k in range(10):
        r, a = (1.0, 0.44)[k % 2], math.radians(36 * k - 90)
        tips.append((0.5 + 0.526 * r * math.cos(a), (1 + r * math.sin(a)) / 1.809))
    pen.shape(tips, "main")
    centre = (0.5, 1 / 1.809)
    for k in (2, 4, 6):  # the facets away from the light
        pen.shape([centre, tips[k], tips[k + 1]], "dark", inside=True)


def heart(pen: Pen) -> None:
    left = [
        (0.5, 0.17),
        (0.42, 0.05),
        (0.27, 0.0),
        (0.09, 0.07),
        (0.0, 0.27),
        (0.06, 0.48),
        (0.2, 0.68),
        (0.36, 0.86),
        (0.5, 1.0),
    ]
    half = smooth(left, closed=False)
    outline = [*half, *[(1 - x, y) for x, y in reversed(half[1:-1])]]
    pen.shape(outline, "dark")
    pen.shape([(0.48 + (x - 0.5) * 0.91, 0.01 + y * 0.91) for x, y in outline], "main", inside=True)
    pen.oval(0.14, 0.14, 0.32, 0.34, "light", inside=True)


DRAW: dict[str, Callable[[Pen], None]] = {
    **{"tree": tree, "flower": flower, "mushroom": mushroom, "house": house, "lighthouse": lighthouse},
    **{"cat": cat, "bird": bird, "fish": fish, "butterfly": butterfly},
    **{"boat": boat, "car": car, "balloon": balloon, "rocket": rocket},
    **{"circle": circle, "square": square, "triangle": triangle, "star": star, "heart": heart},
}
