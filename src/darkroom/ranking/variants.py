"""Several pictures of one request, ranked: how many are drawn, finished and kept, and what came of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from darkroom.generation.picture import Picture
from darkroom.generation.request import Request
from darkroom.pixels import over_white
from darkroom.ranking.judge import Judgement


@dataclass(frozen=True)
class Variant:
    """A picture among others: `picture` where it was finished, else how it `looked` after `done` of its `total` network
    calls; what is said of it then, and of how it looked if it was looked at on the way."""

    index: int
    request: Request
    judgement: Judgement
    done: int
    total: int
    picture: Picture | None = None
    looked: Image.Image | None = field(default=None, compare=False, repr=False)
    early: Judgement | None = None

    @property
    def image(self) -> Image.Image:
        """Its picture, or how it looked."""
        found = self.looked if self.picture is None else self.picture.image
        assert found is not None
        return found

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """Sorts: those that were finished before those that were not, of these what is right, then what is better."""
        return self.picture is None, not self.judgement.right, -self.judgement.score, self.index

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        noise = self.request.noise
        found: dict[str, Any] = {"index": self.index, "seed": self.request.seed}
        if noise.variation_strength:
            found |= {"variation_seed": noise.variation_seed, "variation_strength": noise.variation_strength}
        found |= {"finished": self.picture is not None, "done": self.done, "total": self.total}
        if self.early is not None and self.picture is not None:
            found["early"] = self.early.to_dict()
        return found | self.judgement.to_dict()


@dataclass(frozen=True)
class Choice:
    """Variants, the best first, of which the first `keep` are kept; who judged them, and what of the request was not
    judged."""

    judge: str
    variants: tuple[Variant, ...]
    keep: int
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> list[Picture]:
        """The pictures that were chosen, the best first."""
        return [each.picture for each in self.variants[: self.keep] if each.picture is not None]

    def noted(self) -> Choice:
        """The same, with what was said of each picture in its metadata."""
        for rank, each in enumerate(self.variants, 1):
            if each.picture is not None:
                said = {
                    "judge": self.judge,
                    "rank": rank,
                    "of": len(self.variants),
                    **each.judgement.to_dict(),
                }
                each.picture.metadata["chosen"] = said
        return self

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain data."""
        return {
            "judge": self.judge,
            "keep": self.keep,
            "notes": [*self.notes],
            "variants": [{"rank": rank, **each.to_dict()} for rank, each in enumerate(self.variants, 1)],
        }

    def lines(self) -> list[str]:
        """The ranking for people, a line each."""
        found = []
        for rank, each in enumerate(self.variants, 1):
            mark = "*" if rank <= self.keep and each.picture is not None else " "
            found.append(f"{mark}{rank:3}  {_called(each):24} {_told(each)}")
        return found

    def sheet(self) -> Image.Image:
        """All of them side by side, the best first, with what is said of each; what was kept is framed, what was given
        up is dimmed."""
        return _sheet(self.variants, self.keep)


def _called(variant: Variant) -> str:
    noise = variant.request.noise
    more = f" + {noise.variation_seed}" if noise.variation_strength else ""
    return f"seed {variant.request.seed}{more}"


def _told(variant: Variant) -> str:
    judgement = variant.judgement
    said = f"{judgement.score:.3f}"
    if judgement.right is not None:
        said += " right" if judgement.right else f" not: {', '.join(judgement.missing) or 'as asked'}"
    if variant.picture is None:
        said += f" (given up after {variant.done} of {variant.total} steps)"
    return said


_GROUND, _INK, _FAINT, _FRAME = (24, 24, 27), (235, 235, 235), (150, 150, 155), (80, 200, 120)
_GAP, _LINE, _SIDE, _EDGE = 10, 14, 192, 3
_LONGEST = 16_000
"""Of a sheet in pixels: WebP files are no larger (`generation.picture.LONGEST_SIDE`)."""


def _sheet(variants: Sequence[Variant], keep: int) -> Image.Image:
    columns = math.ceil(math.sqrt(len(variants)))
    rows = math.ceil(len(variants) / columns)
    side = max(min(max(max(each.image.size) for each in variants), 512), _SIDE)
    side = min(side, _LONGEST // columns - _GAP, _LONGEST // rows - _GAP - 3 * _LINE)
    font = ImageFont.load_default(11)
    step = side + 3 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, rows * step + _GAP), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, each in enumerate(variants):
        left, top = _GAP + number % columns * (side + _GAP), _GAP + number // columns * step
        image = _fitted(each.image, side)
        if each.picture is None:
            image = Image.blend(image, Image.new("RGB", image.size, _GROUND), 0.55)
        x, y = left + (side - image.width) // 2, top + (side - image.height) // 2
        sheet.paste(image, (x, y))
        kept = number < keep and each.picture is not None
        if kept:
            box = (x - _EDGE, y - _EDGE, x + image.width + _EDGE - 1, y + image.height + _EDGE - 1)
            draw.rectangle(box, outline=_FRAME, width=_EDGE)
        head, (first, second) = f"{number + 1}.  {_called(each)}", _wrapped(_told(each), side)
        draw.text((left, top + side + 4), head, _FRAME if kept else _INK, font)
        draw.text((left, top + side + 4 + _LINE), first, _FAINT, font)
        draw.text((left, top + side + 4 + 2 * _LINE), second, _FAINT, font)
    return sheet


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side is that long."""
    share = side / max(image.size)
    size = max(round(image.width * share), 1), max(round(image.height * share), 1)
    whole = share >= 1 and share == int(share)
    return over_white(image).resize(size, Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS)


def _wrapped(text: str, width: int) -> tuple[str, str]:
    """A text in two lines; what has no room is left out."""
    room, lines = width // 6, [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 2:
        lines[1] = lines[1][: room - 3] + "..."
    return lines[0], lines[1] if len(lines) > 1 else ""
