"""Canvases: where a latent begins, what becomes of it after each step, and of what comes out at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from darkroom.diffusion import Estimate, Noise, Point, Run
from darkroom.generation.frames import Rim
from darkroom.generation.work import Decode, Enlarge, Enlarger, Prepare, Work
from darkroom.pixels import Pixels


@dataclass(frozen=True)
class Canvas:
    """A picture of width x height, from noise alone; `full`: from the whole of it (see `Run.begin`). Not `decoded` it
    stays a latent, for a canvas after it that begins with one. seamless: along which axes its edges meet.

    It has no state: what a canvas must remember from one step to the next is in `run.memory`, so that a run that is
    restored goes on as it was.
    """

    width: int
    height: int
    full: bool = field(default=False, kw_only=True)
    decoded: bool = field(default=True, kw_only=True)
    seamless: str = field(default="", kw_only=True)

    def begin(self, source: Noise, point: Point, before: Any) -> Generator[Work, Any, Run]:
        """A run that starts at `point`. before: what the canvas before this one ended with, if there is one."""
        yield from ()
        return Run.begin(source, point, full=self.full)

    def answered(self, run: Run, answer: Estimate) -> Estimate:
        """What the sampler is told of the latent, where the network says `answer`: whatever becomes of it on the way
        becomes of it here, so that any sampler goes there in its own steps."""
        return answer

    def end(self, run: Run) -> Generator[Work, Any, Any]:
        """The picture, (height, width, 3) uint8, or the latent that it stays."""
        if not self.decoded:
            return run.x
        pixels: Pixels = yield Decode(run.x, self.seamless)
        return pixels


@dataclass(frozen=True)
class FromLatent(Canvas):
    """The latent of the canvas before, as it is but larger, drawn over from the noise of the first point. size: height
    and width of a latent of this one; way: one of `parts.LATENT`."""

    size: tuple[int, int]
    way: str

    def begin(self, source: Noise, point: Point, before: Any) -> Generator[Work, Any, Run]:
        yield from ()
        _, *words = self.way.split("-")
        antialias = words[-1:] == ["antialiased"]
        mode = "-".join(words[:-1] if antialias else words) or "bilinear"
        rim = Rim.around(before.shape[-2:], self.size, self.seamless)
        latent = F.interpolate(rim.laid(before), rim.size, mode=mode, antialias=antialias)
        latent = rim.taken_off(latent)
        return Run.begin(source, point, latent, self.full)


@dataclass(frozen=True)
class Enlarged(Canvas):
    """The picture of the canvas before made larger by an upscaler, drawn over from the noise of the first point."""

    by: Enlarger = field(repr=False, compare=False)

    def begin(self, source: Noise, point: Point, before: Any) -> Generator[Work, Any, Run]:
        rim = Rim.around(before.shape[:2], (self.height, self.width), self.seamless)
        high, wide = rim.size
        pixels = yield Enlarge(rim.laid(before), wide, high, self.by)
        latent = yield Prepare(rim.taken_off(pixels), self.seamless)
        return Run.begin(source, point, latent, self.full)


@dataclass(frozen=True)
class FromPicture(Canvas):
    """A picture, drawn over from the noise of the first point, `noise` times of it.

    brought: what makes it of the picture of the canvas before, None of the first, when it is needed: many a job is only
    looked at. Given and made are (height, width, 3) uint8.
    """

    brought: Callable[[Pixels | None], Pixels] = field(repr=False, compare=False)
    noise: float = field(default=1.0, kw_only=True)

    def begin(self, source: Noise, point: Point, before: Any) -> Generator[Work, Any, Run]:
        latent = yield Prepare(self.brought(before), self.seamless)
        return self._at(source, point, latent)

    def _at(self, source: Noise, point: Point, latent: Tensor | None) -> Run:
        louder = source if self.noise == 1 else lambda draw: self.noise * source(draw)
        return replace(Run.begin(louder, point, latent, self.full), source=source)


@dataclass(frozen=True)
class Masked(FromPicture):
    """A picture of which a share of each pixel is drawn over, in `steps`; where that is none it stays as it is.

    What is to be drawn over in part is so from a later step on, and is the picture with its noise until then
    (differential diffusion: Levin and Fried 2023, https://arxiv.org/abs/2306.00950, algorithm 1). known: what makes the
    picture, (height, width, 3) uint8; share: what makes the share of each latent pixel, (h, w) in [0, 1]. fill: with
    what it begins there, as `FILLS` says, or "fresh", which is noise alone.
    """

    known: Callable[[], Pixels] = field(repr=False, compare=False)
    share: Callable[[], NDArray[np.float32]] = field(repr=False, compare=False)
    steps: int = 0
    fill: str = "original"

    def begin(self, source: Noise, point: Point, before: Any) -> Generator[Work, Any, Run]:
        picture = self.known()
        known = latent = yield Prepare(picture, self.seamless)
        if self.fill == "fresh":
            latent = None
        elif self.fill == "noise":
            latent = source(0)
        elif self.fill == "nothing":
            latent = torch.zeros_like(known)
        elif not np.array_equal(picture, drawn := self.brought(before)):
            latent = yield Prepare(drawn, self.seamless)
        share = torch.from_numpy(self.share())[None, None]
        run, kept = self._at(source, point, latent), self._at(source, point, known)
        run.x = torch.where(share >= 1, run.x, kept.x)
        run.memory["canvas"] = {"known": known, "share": share}
        return run

    def answered(self, run: Run, answer: Estimate) -> Estimate:
        known, share = (run.memory["canvas"][name] for name in ("known", "share"))
        free = (share > 0) & (share >= 1 - run.step / self.steps)
        parts = (None if each is None else torch.where(free, each, known) for each in answer)
        return Estimate(*parts)

    def end(self, run: Run) -> Generator[Work, Any, Any]:
        # Some schedules end with a little noise.
        known, share = (run.memory["canvas"][name] for name in ("known", "share"))
        run.x = torch.where(share > 0, run.x, known)
        return (yield from super().end(run))
