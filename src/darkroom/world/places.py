"""The places of the world, painted from far to near. Each leaves room for things and competes with none."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from darkroom.world.canvas import RGB, WHITE, Canvas, Point, corners, mix, smooth
from darkroom.world.layout import HORIZON
from darkroom.world.scene import Scene
from darkroom.world.sky import Light, draw_sky, falling, fog_banks, haze, light_of

SNOW: RGB = (240, 246, 252)


def scenery(scene: Scene) -> random.Random:
    """The chances of everything but the layout, from their beginning."""
    return random.Random(scene.seed ^ 0x5EED)


def draw_place(canvas: Canvas, scene: Scene, rng: random.Random) -> None:
    """Everything behind the things."""
    light = light_of(scene)
    if scene.place in ("plain", "room"):
        (_plain if scene.place == "plain" else _room)(canvas, scene, light, rng)
        return
    sun = draw_sky(canvas, scene, light, rng, min(HORIZON[scene.place], 0.98))
    if scene.place == "sea":
        _sea(canvas, scene, light, rng, sun)
    else:
        _LAND[scene.place](canvas, scene, light, rng)
    if scene.weather == "fog":
        fog_banks(canvas, light, rng)


def _snowed(scene: Scene, colour: RGB, cover: float = 0.8) -> RGB:
    """The colour of ground, under snow where it snows."""
    return mix(colour, SNOW, cover) if scene.weather == "snow" else colour


def _land(canvas: Canvas, heights: Sequence[Point], colour: RGB) -> None:
    """A layer of land: filled from the line of heights down to the picture's foot."""
    canvas.polygon([(-0.05, 1.05), *heights, (1.05, 1.05)], colour)


def _hills(rng: random.Random, y: float, swing: float, count: int = 5) -> list[Point]:
    points = [(-0.05 + 1.1 * k / count, y + swing * rng.uniform(-1, 1)) for k in range(count + 1)]
    return smooth(points, closed=False)


def _ridge(rng: random.Random, base: float, height: float, count: int) -> list[Point]:
    """Peaks and saddles in turn."""
    points: list[Point] = []
    for k in range(2 * count + 1):
        x = -0.08 + 1.16 * k / (2 * count) + rng.uniform(-0.25, 0.25) / (2 * count)
        peak = k % 2 == 1
        points.append((x, base - height * (rng.uniform(0.7, 1.0) if peak else rng.uniform(0.2, 0.42))))
    return points


def _mountains(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    for base, height, count, depth in ((0.66, 0.42, 3, 0.7), (0.73, 0.4, 2, 0.3)):
        ridge = _ridge(rng, base, height, count)
        rock = light.on((92, 104, 150), depth)
        _land(canvas, ridge, rock)
        _shade_peaks(
            canvas, ridge, mix(rock, light.on((60, 66, 110), depth), 0.55), light.on(SNOW, depth * 0.6)
        )
        haze(canvas, scene, light)
    for y, colour in ((0.7, (70, 120, 104)), (0.8, (88, 148, 92))):
        line = _hills(rng, y, 0.035)
        _land(canvas, line, _snowed(scene, light.on(colour)))
        if y < 0.75:
            colour = light.on(_snowed(scene, (48, 92, 84), 0.35))
            for x, foot in line[2::3]:  # small pointed trees
                h = 0.05 * rng.uniform(0.7, 1.15)
                canvas.polygon(
                    [(x, foot - h), (x + 0.3 * h, foot + 0.01), (x - 0.3 * h, foot + 0.01)], colour
                )


def _shade_peaks(canvas: Canvas, ridge: Sequence[Point], shadow: RGB, snow: RGB) -> None:
    """The side away from the light, and a cap of snow with a ragged edge, on each peak of a ridge."""
    for (lx, ly), (px, py), (rx, ry) in zip(ridge[0::2], ridge[1::2], ridge[2::2], strict=False):
        side = [
            (px + 0.18 * (rx - px), (py + ry) / 2),
            (px + 0.02 * (rx - px), 0.5 * (ry + 0.8)),
            (px + 0.3 * (rx - px), 0.9),
        ]
        canvas.polygon([(px, py), (rx, ry), (rx, 0.9), *reversed(side)], shadow, edge=False)
        low = 0.42
        left, right = (
            (px + low * (lx - px), py + low * (ly - py)),
            (px + low * (rx - px), py + low * (ry - py)),
        )
        drop = 0.35 * (min(left[1], right[1]) - py)
        zigzag = [right, (px + 0.5 * (right[0] - px), right[1] - drop), (px, (left[1] + right[1]) / 2 + drop)]
        zigzag += [(px + 0.5 * (left[0] - px), left[1] - drop), left]
        canvas.polygon([(px, py), *zigzag], snow, edge=False)
        canvas.polygon([(px, py), *zigzag[:3]], mix(snow, shadow, 0.3), edge=False)


def _sea(canvas: Canvas, scene: Scene, light: Light, rng: random.Random, sun: float) -> None:
    horizon = HORIZON["sea"]
    far, near = light.on((72, 164, 216)), light.on((20, 88, 172))
    if scene.time in ("sunrise", "sunset"):
        far, near = mix(far, light.sky[1], 0.5), mix(near, light.sky[0], 0.3)
    if scene.weather in ("rain", "snow", "fog"):
        far, near = mix(far, light.sky[1], 0.4), mix(near, light.sky[0], 0.3)
    canvas.gradient([(horizon, far), (1.0, near)], horizon, 1.0)
    canvas.line([(-0.05, horizon), (1.05, horizon)], mix(far, WHITE, 0.35), 0.008)
    canvas.horizon(horizon)
    for row in range(7):
        y = horizon + 0.04 + 0.055 * row + rng.uniform(-0.01, 0.01)
        colour = mix(mix(far, WHITE, 0.4), near, 0.08 * row)
        for _ in range(3):
            canvas.ellipse(
                rng.random(), y + rng.uniform(-0.012, 0.012), 0.04 + 0.012 * row, 0.0055, colour, 0.75
            )
    if scene.time != "day" and scene.weather in ("clear", "cloudy"):
        for row in range(8):  # the sun's or the moon's path on the water
            y, reach = horizon + 0.02 + 0.042 * row, 0.1 - 0.008 * row
            cover = 0.8 - 0.07 * row if scene.time != "night" else 0.45 - 0.04 * row
            canvas.ellipse(
                sun + rng.uniform(-0.02, 0.02), y, reach * rng.uniform(0.6, 1), 0.009, light.sun, cover, True
            )
    haze(canvas, scene, light, 0.35)


def _city(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    lit = scene.time in ("night", "sunset")
    for base, depth, colour in ((0.34, 0.62, (98, 112, 158)), (0.5, 0.22, (84, 96, 140))):
        x = -0.04
        while x < 1.02:
            width, top = rng.uniform(0.09, 0.16), base + rng.uniform(-0.08, 0.1)
            wall = light.on(mix(colour, (150, 130, 150), rng.uniform(0, 0.35)), depth)
            canvas.polygon(corners(x, top, x + width, 0.86), wall)
            if rng.random() < 0.3:
                canvas.line([(x + width / 2, top), (x + width / 2, top - 0.05)], wall, 0.008)
            glass = mix((255, 216, 120) if lit else mix(wall, WHITE, 0.4), wall, 0.35 * depth + 0.12)
            _windows(canvas, rng, (x, top, width), glass, lit)
            x += width
        haze(canvas, scene, light)
    road = _snowed(scene, light.on((120, 126, 142)), 0.7)
    canvas.polygon(corners(-0.05, 0.8, 1.05, 1.05), road)
    canvas.polygon(corners(-0.05, 0.8, 1.05, 0.82), mix(road, WHITE, 0.35), edge=False)


def _windows(
    canvas: Canvas, rng: random.Random, wall: tuple[float, float, float], glass: RGB, lit: bool
) -> None:
    """Rows of windows on a wall (left, top, width), most of them, or those that are lit."""
    x, top, width = wall
    columns = 2 if width < 0.12 else 3
    step = width / (columns + 0.5)
    for row in range(int((0.78 - top) / 0.06)):
        for column in range(columns):
            if rng.random() < (0.5 if lit else 0.85):
                left, upper = x + step * (column + 0.5), top + 0.03 + 0.06 * row
                canvas.polygon(
                    corners(left, upper, left + 0.5 * step, upper + 0.028),
                    glass,
                    edge=False,
                    shines=lit,
                )


def _desert(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    for y, swing, colour, depth in (
        (0.62, 0.03, (236, 196, 128), 0.4),
        (0.7, 0.04, (240, 192, 112), 0.12),
        (0.83, 0.05, (226, 168, 92), 0.0),
    ):
        peak, foot = rng.uniform(0.25, 0.75), 0.7 * swing
        ends = [(-0.05, y + foot), (peak - 0.28, y + 0.3 * foot), (peak, y - swing)]
        crest = smooth([*ends, (peak + 0.28, y + 0.3 * foot), (1.05, y + foot)], closed=False)
        sand = _snowed(scene, light.on(colour, depth), 0.55)
        _land(canvas, crest, sand)
        # The lee side of the dune lies in shadow, behind its edge.
        slope = [point for point in crest if peak - 0.001 <= point[0] <= peak + 0.29]
        x, top = slope[0]
        edge = smooth([(x, top), (x + 0.02, top + 0.05), (x + 0.12, top + 0.085), slope[-1]], closed=False)
        canvas.polygon([*reversed(slope), *edge], mix(sand, light.on((176, 106, 64)), 0.4), edge=False)
        haze(canvas, scene, light, 0.22)
    x = rng.choice((0.07, 0.93))
    _cactus(canvas, light.on((92, 140, 92), 0.25), x, 0.72)


def _cactus(canvas: Canvas, colour: RGB, x: float, foot: float) -> None:
    canvas.line([(x, foot), (x, foot - 0.13)], colour, 0.022)
    canvas.line([(x, foot - 0.05), (x - 0.035, foot - 0.06), (x - 0.035, foot - 0.1)], colour, 0.015)
    canvas.line([(x, foot - 0.03), (x + 0.033, foot - 0.045), (x + 0.033, foot - 0.08)], colour, 0.015)


def _forest(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    for foot, height, spacing, depth, green in (
        (0.6, 0.34, 0.09, 0.7, (84, 140, 116)),
        (0.68, 0.42, 0.13, 0.38, (62, 124, 92)),
        (0.76, 0.52, 0.19, 0.08, (40, 98, 70)),
    ):
        colour = light.on(_snowed(scene, green, 0.3), depth)
        cap = mix(colour, SNOW, 0.7) if scene.weather == "snow" else None
        canvas.polygon(corners(-0.05, foot - 0.06, 1.05, 0.9), colour, edge=False)
        x = -rng.random() * spacing
        while x < 1.05:
            _fir(canvas, x, foot, height * rng.uniform(0.8, 1.1), colour, cap)
            x += spacing * rng.uniform(0.8, 1.2)
        haze(canvas, scene, light, 0.28)
    _land(canvas, _hills(rng, 0.76, 0.015), _snowed(scene, light.on((84, 140, 72))))
    _land(canvas, _hills(rng, 0.87, 0.02), _snowed(scene, light.on((100, 158, 80))))


def _fir(canvas: Canvas, x: float, foot: float, height: float, colour: RGB, cap: RGB | None) -> None:
    outline: list[Point] = [(x, foot - height)]
    half = 0.2 * height
    for k in (1, 2, 3):
        y, w = foot - height * (1 - k / 3), half * (0.4 + 0.2 * k)
        outline += [(x + w, y), (x + 0.55 * w, y)]
    left = [(2 * x - px, py) for px, py in reversed(outline[1:])]
    canvas.polygon([*outline, *left], colour)
    if cap is not None:
        tip = height * 0.22
        top, half = foot - height, 0.38 * tip
        canvas.polygon([(x, top), (x + half, top + tip), (x - half, top + tip)], cap, edge=False)


def _meadow(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    for y, swing, colour, depth in (
        (0.58, 0.04, (110, 176, 128), 0.42),
        (0.66, 0.035, (118, 190, 96), 0.12),
        (0.8, 0.03, (98, 176, 74), 0.0),
    ):
        _land(canvas, _hills(rng, y, swing, 3), _snowed(scene, light.on(colour, depth)))
        haze(canvas, scene, light, 0.22)
    for _ in range(14 if scene.weather != "snow" else 0):  # daisies
        canvas.ellipse(rng.random(), rng.uniform(0.72, 0.96), 0.0065, 0.0065, light.on((255, 250, 225)))
    blade = _snowed(scene, light.on((66, 142, 60)), 0.5)
    for k in range(16):
        x, y = (k + rng.random()) / 16, rng.uniform(0.84, 0.97)
        canvas.line([(x - 0.012, y - 0.02), (x, y), (x + 0.012, y - 0.022)], blade, 0.006)


def _open_sky(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    """Nothing but air: faint bands of light, or nothing."""
    if scene.weather == "clear" and scene.time != "night":
        for y in (0.3, 0.56, 0.8):
            x, rx = rng.random(), rng.uniform(0.2, 0.34)
            canvas.ellipse(x, y + rng.uniform(-0.05, 0.05), rx, 0.012, mix(light.sky[2], WHITE, 0.5), 0.4)


_LAND: dict[str, Callable[[Canvas, Scene, Light, random.Random], None]] = {
    **{"mountains": _mountains, "city": _city, "desert": _desert},
    **{"forest": _forest, "meadow": _meadow, "sky": _open_sky},
}

_BACKDROPS: tuple[RGB, ...] = (
    (214, 230, 242),
    (240, 228, 214),
    (222, 236, 222),
    (234, 224, 240),
    (236, 236, 236),
)


def _plain(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    colour = rng.choice(_BACKDROPS)
    bright, deep = mix(colour, WHITE, 0.55), mix(colour, (120, 120, 140), 0.12)
    canvas.gradient([(0.0, bright), (0.7, colour), (0.74, deep), (1.0, mix(colour, WHITE, 0.35))])
    canvas.horizon(HORIZON["plain"])


_WINDOW = 0.08, 0.4  # its top and its width


def _furnished(rng: random.Random) -> tuple[RGB, float]:
    """A room's wall and the left edge of its window, the first that is drawn by lot."""
    wall = rng.choice(((244, 224, 196), (208, 228, 224), (230, 216, 236)))
    return wall, rng.choice((0.08, 0.3, 0.52)) + rng.uniform(-0.03, 0.03)


def window(scene: Scene) -> tuple[float, float, float, float]:
    """The edges x0, y0, x1, y1 of the window of a room, in fractions of the picture."""
    top, width = _WINDOW
    left = _furnished(scenery(scene))[1]
    return left, top, left + width, top + width


def _room(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    # Indoors the light is the same but gentler.
    r, g, b = (share**0.6 for share in light.filter)

    def lit(colour: RGB) -> RGB:
        return round(colour[0] * r), round(colour[1] * g), round(colour[2] * b)

    wall, left = _furnished(rng)
    wall = lit(wall)
    floor = lit((200, 146, 100))
    canvas.gradient([(0.0, wall), (0.72, mix(wall, WHITE, 0.12))])
    canvas.polygon(corners(-0.05, 0.72, 1.05, 1.05), floor)
    canvas.polygon(corners(-0.05, 0.69, 1.05, 0.725), mix(wall, WHITE, 0.5))
    for k in range(-2, 9):
        x = 0.16 * k
        board = [(0.5 + (x - 0.5) * 0.9, 0.735), (0.5 + (x - 0.5) * 1.6, 1.0)]
        canvas.line(board, mix(floor, (90, 56, 40), 0.25), 0.005)
    cloth = rng.choice(((206, 128, 116), (110, 144, 182), (140, 164, 118)))
    _window(canvas, scene, light, rng, (left, *_WINDOW), lit((252, 250, 246)), lit(cloth))
    canvas.ellipse(0.5, 0.89, 0.4, 0.075, mix(lit(cloth), wall, 0.15))
    canvas.ellipse(0.5, 0.89, 0.33, 0.055, mix(lit(cloth), wall, 0.4))


def _window(
    canvas: Canvas,
    scene: Scene,
    light: Light,
    rng: random.Random,
    place: tuple[float, float, float],
    frame: RGB,
    cloth: RGB,
) -> None:
    """A curtained window (left, top, width) with the time and the weather in it."""
    x, y, w = place
    view = Canvas(math.ceil(w * canvas.side), canvas.tone, canvas.lamp)
    draw_sky(view, scene, light, rng, 0.75)
    _land(view, _hills(rng, 0.8, 0.05, 3), _snowed(scene, light.on((98, 168, 110), 0.2)))
    if scene.weather == "fog":
        fog_banks(view, light, rng)
    falling(view, scene, rng)
    t = 0.022
    canvas.polygon(corners(x - t, y - t, x + w + t, y + w + t), frame)
    canvas.image.paste(view.image, (round(x * canvas.side), round(y * canvas.side)))
    for line in ([(x + w / 2, y), (x + w / 2, y + w)], [(x, y + w / 2), (x + w, y + w / 2)]):
        canvas.line(line, frame, 0.018)
    sill = mix(frame, (120, 90, 70), 0.25)
    canvas.polygon(
        corners(x - 0.05, y + w + t, x + w + 0.05, y + w + 0.05),
        sill,
    )
    for edge, inward in ((x - 0.05, 1), (x + w + 0.05, -1)):
        hem = [(edge + 0.11 * inward, y - 0.05), (edge + 0.09 * inward, y + 0.3 * w)]
        fall = smooth([*hem, (edge + 0.05 * inward, y + 0.62 * w)], closed=False)
        canvas.polygon(
            [(edge, y - 0.05), *fall, (edge + 0.075 * inward, y + w + 0.06), (edge, y + w + 0.06)], cloth
        )
    canvas.polygon(
        corners(x - 0.08, y - 0.065, x + w + 0.08, y - 0.045),
        sill,
    )
