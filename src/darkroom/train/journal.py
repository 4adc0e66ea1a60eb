"""What a run leaves to read: a line of JSON per event, and the learning curves drawn from them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from darkroom.files import write_bytes

_INK = ((31, 97, 158), (196, 78, 40), (46, 125, 80), (120, 70, 150), (150, 110, 30), (90, 90, 90))
_WIDTH, _HEIGHT, _EDGE = 560, 220, 46


class Journal:
    """`log.jsonl` in the run's folder. Lines past the step that a run resumes from are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        self.rows = [row for row in read(self.path) if row["step"] <= step]
        write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        row = {"step": step, **values}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def draw(self, path: Path) -> None:
        """Write the learning curves as a PNG."""
        curves(self.rows).save(path)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal; a last line cut short by a crash is left out."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def curves(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """One small chart per number in the rows, over the steps: dots as they are, a line through their mean."""
    names = [
        name for name in dict.fromkeys(key for row in rows for key in row) if name not in ("step", "seconds")
    ]
    series = {name: [(row["step"], row[name]) for row in rows if _number(row.get(name))] for name in names}
    series = {name: points for name, points in series.items() if len(points) > 1}
    columns = 2 if len(series) > 1 else 1
    lines = max(1, math.ceil(len(series) / columns))
    sheet = Image.new("RGB", (columns * _WIDTH, lines * _HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, points) in enumerate(series.items()):
        corner = ((i % columns) * _WIDTH, (i // columns) * _HEIGHT)
        _chart(draw, corner, name, points, _INK[i % len(_INK)])
    return sheet


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _chart(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    name: str,
    points: Sequence[tuple[int, float]],
    ink: tuple[int, int, int],
) -> None:
    left, top = corner[0] + _EDGE + 12, corner[1] + 24
    right, bottom = corner[0] + _WIDTH - 14, corner[1] + _HEIGHT - 24
    # The first few values are often far out and would flatten the rest.
    values = sorted(value for _, value in points)
    low, high = values[len(values) // 200], values[-1 - len(values) // 50]
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    span = (high - low) or abs(high) or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        part = min(max((value - low) / span, 0.0), 1.0)
        return left + (right - left) * (step - first) / (last - first), bottom - (bottom - top) * part

    draw.rectangle((left, top, right, bottom), outline=(205, 205, 205))
    draw.text((left, top - 17), f"{name}  {points[-1][1]:.4g}", fill=(40, 40, 40))
    for value in (low, low + span):
        draw.text((corner[0] + 4, place(first, value)[1] - 6), f"{value:.3g}", fill=(110, 110, 110))
    draw.text((left, bottom + 5), f"{first}", fill=(110, 110, 110))
    draw.text((right - 7 * len(str(last)), bottom + 5), f"{last}", fill=(110, 110, 110))
    faint = tuple((shade + 2 * 255) // 3 for shade in ink)
    for step, value in points:
        x, y = place(step, value)
        draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=faint)
    draw.line([place(step, value) for step, value in _smooth(points)], fill=ink, width=2)


def _smooth(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means over windows of about a hundredth of the points, at least one."""
    width = max(1, len(points) // 100)
    chunks = [points[at : at + width] for at in range(0, len(points), width)]
    return [tuple(sum(column) / len(chunk) for column in zip(*chunk, strict=True)) for chunk in chunks]
