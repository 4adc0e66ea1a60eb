"""Light and weather: what the time of day does to colours, and everything that hangs in the air."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from darkroom.world.canvas import RGB, WHITE, Canvas, Point, mix
from darkroom.world.scene import Scene


@dataclass(frozen=True, slots=True)
class Light:
    """A time of day: the sky from top to horizon, what it does to everything below, sun and fog."""

    sky: tuple[RGB, RGB, RGB]
    filter: tuple[float, float, float]  # the share of red, green and blue that the land gives back
    air: RGB  # what lies between here and far away
    sun: RGB
    fog: RGB

    def on(self, colour: RGB, depth: float = 0.0) -> RGB:
        """The colour of land in this light; `depth` 0 is near, 1 far away and lost in the air."""
        r, g, b = (round(c * share) for c, share in zip(colour, self.filter, strict=True))
        return mix((r, g, b), self.air, 0.06 + 0.6 * depth)


LIGHTS = {
    "day": Light(
        ((58, 146, 232), (122, 194, 248), (208, 238, 252)),
        *((1.0, 1.0, 1.0), (196, 228, 246), (255, 248, 196), (226, 233, 238)),
    ),
    "sunrise": Light(
        ((124, 160, 232), (250, 184, 204), (255, 234, 176)),
        *((1.0, 0.9, 0.9), (252, 196, 206), (255, 251, 214), (250, 226, 218)),
    ),
    "sunset": Light(
        ((70, 38, 126), (226, 74, 98), (255, 178, 70)),
        *((0.68, 0.5, 0.62), (214, 84, 104), (255, 226, 116), (222, 158, 158)),
    ),
    "night": Light(
        ((10, 14, 48), (22, 34, 90), (54, 78, 144)),
        *((0.2, 0.3, 0.46), (34, 52, 116), (246, 242, 214), (74, 86, 126)),
    ),
}
CLOUD_COLOURS: dict[str, RGB] = {"white": (255, 255, 255), "golden": (255, 200, 74), "pink": (255, 158, 190)}


def light_of(scene: Scene) -> Light:
    """The light of the scene's time, dulled by its weather."""
    light = LIGHTS[scene.time]
    veil = {"rain": ((104, 114, 132), 0.5), "snow": ((214, 222, 234), 0.42), "fog": (light.fog, 0.72)}
    if scene.weather not in veil:
        return light
    colour, amount = veil[scene.weather]
    if scene.time == "night":
        colour = mix(colour, LIGHTS["night"].sky[1], 0.7)
    top, middle, low = (mix(c, colour, amount) for c in light.sky)
    return Light((top, middle, low), light.filter, mix(light.air, colour, 0.5 * amount), light.sun, light.fog)


def draw_sky(canvas: Canvas, scene: Scene, light: Light, rng: random.Random, horizon: float) -> float:
    """Sky, sun or moon, stars and clouds down to the horizon. Returns where the sun or moon is, across."""
    top, middle, low = light.sky
    canvas.gradient([(0.0, top), (0.55 * horizon, middle), (horizon, low)])
    x = rng.choice((rng.uniform(0.14, 0.3), rng.uniform(0.7, 0.86)))
    if scene.time == "night":
        if scene.weather in ("clear", "cloudy"):
            _stars(canvas, rng, horizon)
            _moon(canvas, light, x, rng.uniform(0.13, 0.2))
    elif scene.weather in ("clear", "cloudy"):
        low_sun = scene.time != "day"
        y = horizon - rng.uniform(0.0, 0.05) if low_sun else rng.uniform(0.13, 0.2)
        if scene.place == "sky" and low_sun:
            y = rng.uniform(0.8, 0.9)
        x = 0.5 + (x - 0.5) * 0.8 if low_sun else x
        _sun(canvas, light, x, y, 0.11 if low_sun else 0.075)
    if scene.weather == "cloudy":
        _clouds(canvas, scene, light, rng, horizon)
    elif scene.weather in ("rain", "snow"):
        _overcast(canvas, scene, light, rng)
    return x


def _sun(canvas: Canvas, light: Light, x: float, y: float, r: float) -> None:
    for ring, cover in ((2.5, 0.16), (1.9, 0.2), (1.4, 0.28)):
        canvas.ellipse(x, y, r * ring, r * ring, light.sun, cover, shines=True)
    canvas.ellipse(x, y, r, r, light.sun, shines=True)


def _moon(canvas: Canvas, light: Light, x: float, y: float) -> None:
    r = 0.062
    for ring, cover in ((2.2, 0.1), (1.5, 0.14)):
        canvas.ellipse(x, y, r * ring, r * ring, light.sun, cover, shines=True)
    # The crescent is the part of the disc that a shifted disc leaves free.
    angles = np.linspace(0.35 * np.pi, 1.85 * np.pi, 24)
    outer = [(x + r * np.cos(a), y + r * np.sin(a)) for a in angles]
    (ax, ay), (bx, by) = outer[0], outer[-1]
    cx, cy = x + 0.42 * r, y - 0.2 * r
    start, end = np.arctan2(by - cy, bx - cx), np.arctan2(ay - cy, ax - cx)
    inner_r = float(np.hypot(ax - cx, ay - cy))
    if start < end:
        start += 2 * np.pi
    inner = [(cx + inner_r * np.cos(a), cy + inner_r * np.sin(a)) for a in np.linspace(start, end, 18)]
    canvas.polygon([*outer, *inner], light.sun, edge=False, shines=True)


def _stars(canvas: Canvas, rng: random.Random, horizon: float) -> None:
    for _ in range(34):
        x, y, r = rng.random(), rng.random() * horizon * 0.95, rng.choice((0.0028, 0.0035, 0.0055))
        canvas.ellipse(x, y, r, r, (236, 238, 255), 0.9, shines=True)


def cloud_shape(rng: random.Random, x: float, y: float, width: float) -> list[Point]:
    """A cloud's outline: flat below, a row of bumps above; (x, y) is the middle of its base."""
    bumps = []
    for k in range(4):
        middle = x + width * (-0.3 + 0.2 * k + rng.uniform(-0.03, 0.03))
        bumps.append((middle, width * ((0.15, 0.24, 0.22, 0.14)[k] + rng.uniform(-0.02, 0.02))))
    left, right = bumps[0][0] - bumps[0][1], bumps[-1][0] + bumps[-1][1]
    xs = np.linspace(left, right, 36)
    rise = np.max([np.sqrt(np.maximum(r * r - (xs - m) ** 2, 0)) for m, r in bumps], axis=0)
    base = 0.035 * width
    top = [(float(a), y - float(b)) for a, b in zip(xs, rise, strict=True)]
    return [*top, (right - base, y + base), (left + base, y + base)]


def _clouds(canvas: Canvas, scene: Scene, light: Light, rng: random.Random, horizon: float) -> None:
    colour = CLOUD_COLOURS[scene.clouds]
    if scene.time == "night":
        colour = mix(colour, (70, 84, 140), 0.5 if scene.clouds == "white" else 0.25)
    elif scene.clouds == "white" and scene.time == "sunset":
        colour = (250, 240, 246)
    shade = mix(colour, light.sky[0], 0.24)
    lanes = [(0.22, 0.14), (0.74, 0.2), (0.5, 0.34), (0.08, 0.4), (0.92, 0.46)]
    for x, y in lanes[: 5 if horizon > 0.5 else 3]:
        x += rng.uniform(-0.08, 0.08)
        y = (y + rng.uniform(-0.03, 0.03)) * min(horizon / 0.62, 1.35)
        outline = cloud_shape(rng, x, y, rng.uniform(0.34, 0.5) * (1.1 - 0.5 * y))
        canvas.polygon([(px, py + 0.018) for px, py in outline], shade, edge=False)
        canvas.polygon(outline, colour)


def _overcast(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    """A ceiling of heavy clouds."""
    base = (92, 102, 122) if scene.weather == "rain" else (232, 238, 246)
    if scene.time != "day":
        base = mix(base, light.sky[0], 0.45 if scene.time != "night" else 0.62)
    for row, (y, colour) in enumerate(((0.17, mix(base, WHITE, 0.22)), (0.09, base))):
        for k in range(4):
            x, base_line = (k + 0.5 * row) / 3 + rng.uniform(-0.05, 0.05), y - 0.07 + rng.uniform(-0.02, 0.02)
            outline = cloud_shape(rng, x, base_line, 0.46)
            canvas.polygon([(px, 2 * base_line - py) for px, py in outline], colour)  # bumps hang down
        canvas.polygon([(0, 0), (1, 0), (1, y - 0.05), (0, y - 0.05)], colour, edge=False)


def haze(canvas: Canvas, scene: Scene, light: Light, cover: float = 0.3) -> None:
    """The fog between one layer of the land and the next."""
    if scene.weather == "fog":
        canvas.polygon([(0, 0), (1, 0), (1, 1), (0, 1)], light.fog, cover)


def fog_banks(canvas: Canvas, light: Light, rng: random.Random) -> None:
    """Long soft drifts of fog over the land, behind the things."""
    colour = mix(light.fog, WHITE, 0.25)
    for y in (0.42, 0.56, 0.68, 0.8, 0.93):
        x, y, rx = rng.uniform(0.0, 1.0), y + rng.uniform(-0.04, 0.04), rng.uniform(0.5, 0.8)
        for grow in (1.0, 0.86, 0.72, 0.58):
            canvas.ellipse(x, y, rx * grow, 0.062 * grow, colour, 0.16)


def falling(canvas: Canvas, scene: Scene, rng: random.Random) -> None:
    """Rain or snow in the air, thin enough to see every colour through it."""
    night = scene.time == "night"
    if scene.weather == "rain":
        colour = (150, 170, 215) if night else (236, 244, 255)
        for k in range(70):
            x, y, length = rng.random() * 1.15, (k + rng.random()) / 70, rng.uniform(0.035, 0.065)
            canvas.line([(x, y), (x - 0.3 * length, y + length)], colour, 0.005, 0.62)
    elif scene.weather == "snow":
        for k in range(70):
            r = rng.choice((0.005, 0.0065, 0.009))
            canvas.ellipse(rng.random(), (k + rng.random()) / 70, r, r, (250, 252, 255), 0.92)
