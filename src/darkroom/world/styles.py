"""The six styles: each a set of paints, a tone for scenery, a line, and a finish."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from darkroom.world import textures
from darkroom.world.canvas import RGB, WHITE, Canvas, Contour, Shades, luminance, mix
from darkroom.world.scene import Scene

Paints = dict[str, RGB]

_FLAT: Paints = {
    **{"red": (224, 38, 44), "orange": (250, 134, 18), "yellow": (254, 216, 38), "green": (40, 164, 70)},
    **{"blue": (36, 98, 222), "purple": (128, 54, 180), "pink": (250, 136, 190), "brown": (122, 74, 42)},
    **{"black": (30, 30, 36), "white": (250, 250, 252), "grey": (140, 145, 152)},
}


def saturate(colour: RGB, amount: float) -> RGB:
    """The colour with its distance from grey multiplied."""
    grey = 255 * luminance(colour)
    r, g, b = (min(max(round(grey + (c - grey) * amount), 0), 255) for c in colour)
    return r, g, b


def contrast(main: RGB, ground: RGB) -> RGB:
    """A line between a colour and its ground: a deep shade of it on bright ground, a pale one on dark."""
    if luminance(ground) < 0.36:
        return mix(main, WHITE, 0.62)
    return mix(main, (16, 16, 40), 0.58 if luminance(main) < 0.85 else 0.5)


def glow(canvas: Canvas, lights: Image.Image, reach: float) -> None:
    """Add the lights to the canvas, blurred by `reach` (of the picture)."""
    small = lights.resize((canvas.side // 8,) * 2, Image.Resampling.BOX)
    halo = small.filter(ImageFilter.GaussianBlur(canvas.side / 8 * reach))
    halo = halo.resize(canvas.image.size, Image.Resampling.BILINEAR)
    canvas.replace(ImageChops.screen(canvas.image, halo))


class Style:
    """The flat illustration, and the hooks by which the others differ from it."""

    paints: ClassVar[Paints] = _FLAT
    rim = 0.009  # half the contrast line around things, in fractions of the picture
    glows = False  # whether things light up what is around them

    def tone(self, colour: RGB) -> RGB:
        """What becomes of a scenery colour."""
        return colour

    def lamp(self, colour: RGB) -> RGB:
        """What becomes of the colour of sun, moon, stars and lit windows."""
        return self.tone(colour)

    def detail(self, colour: RGB) -> RGB:
        """What becomes of the small neutral parts of things."""
        return colour

    def contour(self, scene: Scene) -> Contour | None:
        """The line around the shapes of the scenery, if the style draws one."""
        return None

    def shades(self, colour: str, ground: RGB) -> Shades:
        """The paints for a thing of this colour in front of scenery that averages `ground`."""
        main = self.paints[colour]
        return Shades(main, mix(main, WHITE, 0.32), self.darker(colour, main), contrast(main, ground))

    @staticmethod
    def darker(colour: str, main: RGB) -> RGB:
        """The shade for far sides. Mixing black in would turn yellow into olive, orange into brown."""
        towards, amount = {
            "white": ((150, 164, 190), 0.4),
            "yellow": ((216, 130, 10), 0.3),
            "orange": ((206, 60, 0), 0.28),
            "pink": ((206, 52, 140), 0.28),
        }.get(colour, ((8, 4, 20), 0.2))
        return mix(main, towards, amount)

    def prepare(self, canvas: Canvas, scene: Scene) -> None:
        """Work on the scenery before the things are drawn."""

    def finish(self, image: Image.Image, scene: Scene, size: int) -> NDArray[np.uint8]:
        """The canvas made into the picture, (size, size, 3)."""
        return np.asarray(image.resize((size, size), Image.Resampling.BOX))


class Watercolour(Style):
    """Washes on white paper: wandering edges, pigment that gathers there, an unpainted margin."""

    paints: ClassVar[Paints] = {
        **{"red": (220, 56, 58), "orange": (244, 146, 48), "yellow": (251, 217, 68), "green": (70, 162, 88)},
        **{"blue": (58, 112, 210), "purple": (132, 76, 178), "pink": (246, 150, 190), "brown": (132, 88, 58)},
        **{"black": (46, 46, 54), "white": (253, 252, 249), "grey": (148, 152, 158)},
    }
    rim = 0.007
    _PAPER = (253, 250, 242)

    def tone(self, colour: RGB) -> RGB:
        return mix(saturate(colour, 1.25), self._PAPER, 0.18 + 0.24 * luminance(colour))

    def detail(self, colour: RGB) -> RGB:
        return mix(colour, self._PAPER, 0.12)

    def finish(self, image: Image.Image, scene: Scene, size: int) -> NDArray[np.uint8]:
        kind, side = scene.seed % 4, image.size[0]
        packed = np.asarray(image.convert("RGBA")).view(np.uint32).reshape(-1)
        bent = packed[textures.warp(side, 10 * kind, 0.006).reshape(-1)].view(np.uint8).reshape(side, side, 4)
        washes = Image.fromarray(np.ascontiguousarray(bent[..., :3])).resize(
            (size, size), Image.Resampling.BOX
        )
        x = np.asarray(washes, dtype=np.float32)
        soft = np.asarray(washes.filter(ImageFilter.BoxBlur(size / 64)), dtype=np.float32)
        x += 0.45 * np.clip(x - soft, -60, 20)
        # Dark washes carry more pigment, so they vary more.
        wander = 0.06 * textures.noise(size, 6, kind) + 0.02 * textures.noise(size, 24, kind + 50)
        x *= 1 + wander[..., None] * (1.15 - soft / 255) + 0.012 * textures.paper(size)[..., None]
        paper = np.array(self._PAPER, dtype=np.float32)
        x = paper + (x - paper) * textures.border(size, kind)[..., None]
        return np.clip(np.rint(x), 0, 255).astype(np.uint8)


class Ink(Style):
    """Ink lines and hatching on warm paper, the colours laid on as light washes."""

    paints: ClassVar[Paints] = {
        **{"red": (216, 46, 48), "orange": (244, 138, 40), "yellow": (250, 214, 58), "green": (60, 154, 78)},
        **{"blue": (52, 102, 204), "purple": (126, 68, 172), "pink": (244, 148, 186), "brown": (126, 82, 52)},
        **{"black": (42, 40, 46), "white": (255, 254, 250), "grey": (148, 150, 153)},
    }
    rim = 0.012
    _PAPER = (250, 243, 226)
    _INK = (38, 34, 44)

    def tone(self, colour: RGB) -> RGB:
        return mix(saturate(colour, 1.0), self._PAPER, 0.34 + 0.24 * luminance(colour))

    def contour(self, scene: Scene) -> Contour | None:
        return Contour(self._INK, 0.0065)

    def shades(self, colour: str, ground: RGB) -> Shades:
        main = self.paints[colour]
        rim = self._INK if luminance(ground) > 0.3 else mix(main, self._PAPER, 0.75)
        return Shades(main, mix(main, WHITE, 0.4), self.darker(colour, main), rim)

    def prepare(self, canvas: Canvas, scene: Scene) -> None:
        """Hatching where the scenery is dark, crossed where it is darkest."""
        brightness = np.asarray(canvas.image.convert("L"))
        light, dark = {"night": (126, 92), "sunset": (160, 126)}.get(scene.time, (166, 138))
        lines = textures.hatching(canvas.side, 0.036, 0.007, False) & (brightness < light)
        lines |= textures.hatching(canvas.side, 0.036, 0.007, True) & (brightness < dark)
        canvas.image.paste(self._INK, (0, 0), Image.fromarray(lines.astype(np.uint8) * 105))


class Pixel(Style):
    """64 by 64 coarse pixels, few colours in the scenery, a dark outline one pixel wide."""

    rim = 0.0085
    _CELLS = (64, 64)

    def prepare(self, canvas: Canvas, scene: Scene) -> None:
        """The scenery in few colours, with a little dithering between them."""
        small = np.asarray(canvas.image.resize(self._CELLS, Image.Resampling.BOX), dtype=np.float32)
        step = 255 / 12
        few = np.rint(small / step + 0.34 * textures.bayer(64)) * step
        image = Image.fromarray(np.clip(few, 0, 255).astype(np.uint8))
        canvas.replace(image.resize(canvas.image.size, Image.Resampling.NEAREST))

    def shades(self, colour: str, ground: RGB) -> Shades:
        shades = super().shades(colour, ground)
        if luminance(ground) < 0.3:
            return shades
        return replace(shades, rim=mix(shades.main, (10, 8, 30), 0.78))

    def finish(self, image: Image.Image, scene: Scene, size: int) -> NDArray[np.uint8]:
        small = image.resize(self._CELLS, Image.Resampling.NEAREST)
        return np.asarray(small.resize((size, size), Image.Resampling.NEAREST))


class Neon(Style):
    """Dark scenery drawn in glowing lines; things burn in their colour and light what is behind them."""

    paints: ClassVar[Paints] = {
        **{"red": (255, 30, 50), "orange": (255, 136, 10), "yellow": (255, 232, 40), "green": (30, 224, 90)},
        **{"blue": (34, 104, 255), "purple": (160, 50, 250), "pink": (255, 124, 208), "brown": (156, 92, 50)},
        **{"black": (14, 12, 20), "white": (255, 255, 255), "grey": (140, 144, 152)},
    }
    rim = 0.011
    glows = True
    _NIGHT = (12, 6, 34)
    _LINES: ClassVar[Paints] = {
        "day": (0, 214, 255),
        "sunrise": (255, 140, 206),
        "sunset": (255, 74, 84),
        "night": (116, 92, 255),
    }

    def tone(self, colour: RGB) -> RGB:
        level = luminance(colour)
        violet = mix(saturate(colour, 2.4), (84, 40, 220), 0.3 * level)
        return mix(self._NIGHT, violet, 0.42 - 0.2 * level)

    def lamp(self, colour: RGB) -> RGB:
        return mix(saturate(colour, 1.8), self._NIGHT, 0.08)

    def contour(self, scene: Scene) -> Contour | None:
        return Contour(self._LINES[scene.time], 0.006)

    def detail(self, colour: RGB) -> RGB:
        return mix(colour, self._NIGHT, 0.25)

    def shades(self, colour: str, ground: RGB) -> Shades:
        bright = self.paints[colour]
        if colour == "black":
            return Shades(bright, (54, 50, 72), (4, 2, 8), (158, 148, 200))
        main = mix(bright, self._NIGHT, 0.06 if colour != "white" else 0.0)
        return Shades(main, mix(bright, WHITE, 0.4), self.darker(colour, main), mix(bright, WHITE, 0.4))

    def prepare(self, canvas: Canvas, scene: Scene) -> None:
        """Light spills from the bright lines of the scenery."""
        glow(canvas, ImageChops.multiply(canvas.image, canvas.image), 0.016)


class Pastel(Style):
    """Soft light colours with a breath of chalk."""

    paints: ClassVar[Paints] = {
        **{
            "red": (238, 88, 90),
            "orange": (252, 166, 88),
            "yellow": (254, 225, 108),
            "green": (108, 192, 120),
        },
        **{
            "blue": (96, 148, 230),
            "purple": (162, 110, 208),
            "pink": (253, 172, 208),
            "brown": (160, 116, 88),
        },
        **{"black": (68, 66, 78), "white": (255, 255, 255), "grey": (164, 168, 176)},
    }

    def tone(self, colour: RGB) -> RGB:
        return saturate(mix(colour, (255, 248, 248), 0.42 + 0.15 * luminance(colour)), 1.6)

    def detail(self, colour: RGB) -> RGB:
        return mix(colour, (255, 247, 246), 0.22)

    def shades(self, colour: str, ground: RGB) -> Shades:
        main = self.paints[colour]
        return Shades(main, mix(main, WHITE, 0.38), self.darker(colour, main), mix(main, (84, 74, 116), 0.5))

    def finish(self, image: Image.Image, scene: Scene, size: int) -> NDArray[np.uint8]:
        x = np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
        chalk = textures.paper(size) * 2.2 + textures.noise(size, 9, scene.seed % 4 + 20) * 2.0
        return np.clip(np.rint(x + chalk[..., None]), 0, 255).astype(np.uint8)


@cache
def style(name: str) -> Style:
    """The style of that name (one of scene.STYLES)."""
    makers: dict[str, type[Style]] = {
        **{"flat illustration": Style, "watercolour": Watercolour, "ink drawing": Ink},
        **{"pixel art": Pixel, "neon": Neon, "pastel": Pastel},
    }
    return makers[name]()
