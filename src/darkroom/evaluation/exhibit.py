"""Sheets of pictures with words under them."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from darkroom.oracle.judging import Reading

RIGHT, WRONG, PLAIN = (46, 160, 67), (218, 54, 51), (205, 205, 205)
_INK, _FAINT = (25, 25, 30), (115, 115, 120)
_SIDE, _FRAME, _GAP, _LINE, _LETTERS = 144, 3, 8, 12, 26


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture, the colour of its frame, what is written under it, and a fainter remark."""

    image: Image.Image
    frame: tuple[int, int, int]
    caption: str
    remark: str = ""


def exhibit(rows: Sequence[tuple[str, Sequence[Cell]]]) -> Image.Image:
    """One sheet: each row has a title and cells."""
    font = ImageFont.load_default(10)
    lines = 4 if any(cell.remark for _, cells in rows for cell in cells) else 2
    width, height = _SIDE + 2 * _FRAME, _SIDE + 2 * _FRAME + lines * _LINE + 2
    columns = max((len(cells) for _, cells in rows), default=0)
    step = height + _GAP + 2 * _LINE
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, len(rows) * step + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for r, (title, cells) in enumerate(rows):
        top = _GAP + r * step
        draw.text((_GAP, top), title, _INK, ImageFont.load_default(13))
        for c, cell in enumerate(cells):
            x, y = _GAP + c * (width + _GAP), top + int(1.6 * _LINE)
            draw.rectangle((x, y, x + width - 1, y + width - 1), cell.frame)
            sheet.paste(_fitted(cell.image), (x + _FRAME, y + _FRAME))
            text = _wrapped(cell.caption)
            for k, line in enumerate(text + _wrapped(cell.remark)[: lines - len(text)]):
                draw.text((x, y + width + 2 + k * _LINE), line, _INK if k < len(text) else _FAINT, font)
    return sheet


def _fitted(image: Image.Image) -> Image.Image:
    smaller = image.width <= _SIDE
    return image.convert("RGB").resize(
        (_SIDE, _SIDE),
        Image.Resampling.NEAREST if smaller and _SIDE % image.width == 0 else Image.Resampling.LANCZOS,
    )


def _wrapped(text: str, lines: int = 2) -> list[str]:
    return textwrap.wrap(text, _LETTERS, max_lines=lines, placeholder=" ...") if text else []


def said(reading: Reading) -> str:
    """A reading in words: "2 red boats; sea, day, clear, neon"."""
    things = Counter(f"{thing.colour} {thing.kind}" for thing in reading.things)
    seen = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in things.items())
    return f"{seen or 'nothing'}; {reading.place.name}, {reading.time.name}, {reading.style.name}"
