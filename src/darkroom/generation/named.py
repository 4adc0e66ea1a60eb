"""Things in a picture by their names: a mask of where a model's own network reads them.

As in "What the DAAM" (Tang et al. 2022, https://arxiv.org/abs/2210.04885), but of a picture that there is: the network
is shown it with a little noise and told a text, and where it looks for a word, brought along the picture's edges by a
guided filter (He et al. 2010, "Guided Image Filtering", eq. 14 to 16), is where the thing is. How well that does is
measured by `benchmarks/named.py`: a word that its text does not tell from another thing is read at that one, too.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from darkroom.checkpoint.family import MASKS, Family
from darkroom.diffusion import FlowSchedule, Point, SeededNoise
from darkroom.errors import InvalidRequest
from darkroom.generation.attention import AttentionMaps, Observer
from darkroom.generation.canvas import Canvas
from darkroom.generation.frames import stretched
from darkroom.generation.job import sizes
from darkroom.generation.masks import Box, Found, Share, around_mask
from darkroom.generation.passes import native_size
from darkroom.generation.picture import made_by
from darkroom.generation.request import Request
from darkroom.generation.sources import Source, a_source
from darkroom.generation.wording import Wording
from darkroom.generation.work import Denoise, Encode, Networks, Prepare, Row, Work, alone
from darkroom.language import Moment
from darkroom.photos import Photo
from darkroom.pixels import Pixels
from darkroom.prompt.conditioning import TextConditioner

# How much of what the network is shown is noise. Measured: with half of it things are lost.
_NOISE = (0.1, 0.25)
# How far an edge may be from where a word is read, in places of the latent, and how little of a colour is an edge.
_REACH, _EDGE = 3, 1e-3
_KEPT = 4
# Of a thing that is read in several places, what is one: what hangs together in cells of so many pixels, and is not
# smaller than this share of the picture.
_PIECE, _LEAST_PIECE = 8, 1 / 400


class Finder:
    """Finds things in pictures by a model's networks; `text` and `joint` are its own one's."""

    def __init__(
        self, networks: Networks, text: TextConditioner, joint: bool, family: Family, name: str
    ) -> None:
        self._networks, self._text, self._joint = networks, text, joint
        self.family, self.name = family, name
        self._found: OrderedDict[tuple[Any, ...], Source] = OrderedDict()

    def __call__(self, source: Source, photo: Photo, thing: str, request: Request) -> Source:
        """A mask of a thing in a picture: white where the picture's own prompt, or else the request's, or else the name
        alone, is read so. Raises InvalidRequest for a name without a word, for one that is read all over the picture,
        and for models that do not draw from text alone."""
        words = self._words("mask", thing)
        texts = _saying(_prompt_of(source), words), _saying(request.prompt, words)
        text = next(filter(None, texts), thing)
        key = source.sha256, request.edit.frame, text, words, request.text.dialect
        if key not in self._found:
            with torch.no_grad():
                mask = alone(self.mask(photo.over(), text, words, request), self._networks)
            if mask.all():
                raise InvalidRequest(
                    f"mask is {thing!r}, which {self.name} reads all over the picture: give a file, or a box"
                )
            self._found[key] = a_source("mask", (mask * 255).astype(np.uint8))
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return self._found[key]

    def forget(self) -> None:
        """Look anew, for the networks have changed."""
        self._found.clear()

    def seeker(self, thing: str) -> ThingSeeker:
        """What finds a thing in a picture that a job has made. Raises InvalidRequest as for a mask of it."""
        return ThingSeeker(self, thing, self._words("a detail", thing))

    def _words(self, what: str, thing: str) -> str:
        words = re.sub(r"^\s*(the|an?)\s+", "", thing.strip().lower())
        if not re.search(r"\w", words):
            raise InvalidRequest(f"{what} is {thing!r}: name a thing that the picture shows, or give a file")
        if self.family.needs not in ("", MASKS):
            raise InvalidRequest(
                f"{what} is {thing!r}, but {self.name} ({self.family.name}) does not say where things are: give a file"
                f"{', or a box' * (what == 'mask')}"
            )
        return words

    def mask(
        self, whole: Pixels, text: str, words: str, request: Request
    ) -> Generator[Work, Any, NDArray[np.bool_]]:
        """Where in a picture, (height, width, 3) uint8, a text is read that says these words."""
        size = whole.shape[1], whole.shape[0]
        width, height = native_size(*size, self.family)
        pixels = stretched(whole, width, height)
        maps = yield from self._look(pixels, text, request)
        try:
            heat = maps.of(words)
        except InvalidRequest:
            # A text may be read in other pieces than it is written in.
            heat = np.asarray(maps.maps.mean(axis=0))
        large = _resized(heat, (width, height)).astype(np.float64)
        large = (large - large.min()) / max(float(large.max() - large.min()), 1e-12)
        there = _resized(along_edges(large, pixels, _REACH * self.family.factor), size)
        # Of what is smoothed away no half may be left.
        return np.asarray(there > min(0.5, 0.75 * float(there.max())))

    def _look(self, pixels: Pixels, text: str, request: Request) -> Generator[Work, Any, AttentionMaps]:
        """What the network reads of a text in a picture that is (almost) there."""
        family, (height, width) = self.family, pixels.shape[:2]
        plain = Request(text, dialect=request.text.dialect, emphasis=request.text.emphasis).checked()
        ((prompt, _),) = Wording(plain).told("positive", Moment(0, 1, 0), adapted=False)
        (told,) = yield Encode((prompt,))
        numbers = sizes("positive", plain, family, Canvas(width, height))
        told = replace(
            told,
            sizes=torch.tensor([numbers], dtype=torch.float32) if numbers else None,
            guidance=torch.zeros(1) if family.embeds_guidance else None,
        )
        latent: Tensor = yield Prepare(pixels)
        noise, observer = SeededNoise(0, latent.shape), Observer(self._text, self._joint)
        for draw, share in enumerate(_NOISE):
            point = self._point(share)
            x, time = family.process.network_input(point.alpha * latent + point.sigma * noise(draw), point)
            if family.sees_masks:
                x = torch.cat([x, torch.zeros_like(x[:, :1]), latent], dim=1)
            watched = replace(told, attention=observer(prompt, x, told))
            yield Denoise((Row(x, time, watched),))
        return observer.maps()

    def _point(self, share: float) -> Point:
        schedule = self.family.schedule
        return schedule.at(share if isinstance(schedule, FlowSchedule) else share / (1 - share))


class ThingSeeker:
    """Finds a thing by its name in a picture that a job has made (`darkroom.generation.work.Seeker`): each place where
    its prompt, or else the name alone, is read so."""

    path = None

    def __init__(self, finder: Finder, name: str, words: str) -> None:
        self._finder, self.name, self._words = finder, name, words

    def seek(self, pixels: Pixels, request: Request) -> Generator[Work, Any, list[Found]]:
        """Nothing where it is read all over the picture."""
        text = _saying(request.prompt, self._words) or self.name
        mask = yield from self._finder.mask(pixels, text, self._words, request)
        return [] if mask.all() else [Found(self.name, 1.0, *each) for each in pieces(mask, _PIECE)]


def pieces(mask: NDArray[np.bool_], cell: int) -> list[tuple[Box, Share]]:
    """The pieces of a mask that hang together, in cells of so many pixels, but for the smallest: the box of each, and
    the share of each of its pixels."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % cell), (0, -width % cell)))
    cells = np.asarray(padded.reshape(padded.shape[0] // cell, cell, -1, cell).any(axis=(1, 3)))
    number = np.zeros(cells.shape, int)
    for start in zip(*np.nonzero(cells), strict=True):
        if number[start]:
            continue
        count, open_ends = int(number.max()) + 1, [start]
        number[start] = count
        while open_ends:
            y, x = open_ends.pop()
            for there in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= there[0] < cells.shape[0] and 0 <= there[1] < cells.shape[1]
                if inside and cells[there] and not number[there]:
                    number[there] = count
                    open_ends.append(there)
    of_pixels = number.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
    found = []
    for each in range(1, int(number.max()) + 1):
        share = (mask & (of_pixels == each)).astype(np.float32)
        if share.sum() >= _LEAST_PIECE * mask.size:
            box = around_mask(share, 0)
            found.append((box, share[box.slices]))
    return found


def _saying(text: str, words: str) -> str | None:
    """What of a prompt has those words, one after the other: of several that are joined by AND, the first that does."""
    parts = re.split(r"\bAND\b", text)
    return next(
        (each for each in parts if re.search(rf"(?<!\w){re.escape(words)}(?!\w)", each.lower())), None
    )


@lru_cache(maxsize=_KEPT)
def _prompt_of(source: Source) -> str:
    """The prompt that Darkroom made a picture of, as its file says; nothing where it does not."""
    made = made_by(source.path or source.content)
    return "" if made is None else made.prompt


def _resized(soft: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map at a width and height."""
    found = Image.fromarray(soft.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(found, np.float32)


def along_edges(soft: NDArray[np.floating[Any]], pixels: Pixels, reach: int) -> NDArray[np.floating[Any]]:
    """A map (height, width) as what of it is linear in a picture's colours, within so many pixels around each: its
    edges become those of the picture."""
    colors = pixels.astype(np.float64) / 255
    height, width = soft.shape
    count = _sums(np.ones((height, width, 1)), reach)

    def mean(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return np.asarray(_sums(values, reach) / count)

    color, level = mean(colors), mean(soft[..., None])
    together = mean(colors * soft[..., None]) - color * level
    squares = mean((colors[..., :, None] * colors[..., None, :]).reshape(height, width, 9))
    spread = squares.reshape(height, width, 3, 3) - color[..., :, None] * color[..., None, :]
    slope = np.linalg.solve(spread + _EDGE * np.eye(3), together[..., None])[..., 0]
    offset = level[..., 0] - (slope * color).sum(axis=-1)
    return np.asarray((mean(slope) * colors).sum(axis=-1) + mean(offset[..., None])[..., 0])


def _sums(values: NDArray[np.floating[Any]], reach: int) -> NDArray[np.floating[Any]]:
    """The sums of the squares around each place, cut off at the edges: (height, width, n)."""
    for axis in (0, 1):
        size = values.shape[axis]
        start = np.zeros_like(np.take(values, [0], axis))
        total = np.concatenate([start, np.cumsum(values, axis)], axis)
        ends = np.arange(size)
        upper = np.take(total, np.minimum(ends + reach + 1, size), axis)
        values = upper - np.take(total, np.maximum(ends - reach, 0), axis)
    return values
