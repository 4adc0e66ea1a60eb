"""Canvases: where a latent begins, what becomes of it after each step, and of what comes out at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from darkroom.diffusion import Noise, Point, Run
from darkroom.generation.work import Decode, Prepare, Work
from darkroom.pixels import Pixels


@dataclass(frozen=True)
class Canvas:
    """A picture of width x height, from noise alone; `full`: from the whole of it (see `Run.begin`).

    It has no state: what a canvas must remember from one step to the next is in `run.memory`, so that a run that is
    restored goes on as it was.
    """

    width: int
    height: int
    full: bool = field(default=False, kw_only=True)

    def begin(self, source: Noise, point: Point, before: Pixels | None) -> Generator[Work, Any, Run]:
        """A run that starts at `point`. before: the picture of the canvas before this one, if there is one."""
        yield from ()
        return Run.begin(source, point, full=self.full)

    def stepped(self, run: Run, point: Point) -> None:
        """What becomes of run.x, which is at `point` now."""

    def end(self, run: Run) -> Generator[Work, Any, Pixels]:
        """The picture, (height, width, 3) uint8."""
        pixels: Pixels = yield Decode(run.x)
        return pixels


@dataclass(frozen=True)
class FromPicture(Canvas):
    """A picture, drawn over from the noise of the first point, `noise` times of it.

    brought: what makes it of the picture of the canvas before, None of the first, when it is needed: many a job is only
    looked at. Given and made are (height, width, 3) uint8.
    """

    brought: Callable[[Pixels | None], Pixels] = field(repr=False, compare=False)
    noise: float = 1.0

    def begin(self, source: Noise, point: Point, before: Pixels | None) -> Generator[Work, Any, Run]:
        latent = yield Prepare(self.brought(before))
        louder = source if self.noise == 1 else lambda draw: self.noise * source(draw)
        return replace(Run.begin(louder, point, latent, self.full), source=source)
