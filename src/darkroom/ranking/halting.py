"""Jobs that halt halfway: what becomes of them is looked at, and they go on later, or never.

What a network sees of a picture early on is a blur, in which nothing can be counted. A few large steps from there show
what the picture will show (`benchmarks/variants.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

from torch import Tensor

from darkroom.checkpoint.family import Family
from darkroom.generation.job import Job
from darkroom.generation.request import Request
from darkroom.generation.work import Decode, Work
from darkroom.pixels import Pixels


class Half:
    """A part of a job, as an engine runs it and a series tells of it: `develop` ends where the part does."""

    def __init__(self, job: Job, develop: Callable[[], Generator[Work, Any, Pixels]]) -> None:
        self.job, self.develop = job, develop

    @property
    def done(self) -> int:
        return self.job.done

    @property
    def total(self) -> int:
        return self.job.total

    @property
    def request(self) -> Request:
        return self.job.request

    @property
    def family(self) -> Family:
        return self.job.family

    @property
    def denoised(self) -> Tensor | None:
        return self.job.denoised


_AHEAD = 3
"""In how many network calls at most the rest of the way is foreseen: more of them see no more."""


class Halting:
    """A job in two halves. The first takes this `share` of the network calls, at least two: it halts and foresees in a
    few more what becomes of it, which is its picture, (height, width, 3) uint8. `whole` ends with what the job makes,
    which it need not have halted for."""

    def __init__(self, job: Job, share: float) -> None:
        self.job, self._share = job, share
        self.first, self.whole = Half(job, self._begin), Half(job, self._go_on)
        self._steps = job.develop()
        self._work: Work | None = None
        self._made: Pixels | None = None

    def _begin(self) -> Generator[Work, Any, Pixels]:
        job = self.job
        try:
            work = next(self._steps)
            while job.denoised is None or job.done < halts_after(job.total, self._share)[0]:
                work = self._steps.send((yield work))
        except StopIteration as finished:  # It is over.
            made: Pixels = finished.value
            self._made = made
            return made
        self._work = work
        latent = yield from job.outlook(halts_after(job.total, self._share)[1])
        pixels: Pixels = yield Decode(latent, job.request.tiling.seamless or "")
        return pixels

    def _go_on(self) -> Generator[Work, Any, Pixels]:
        if self._made is not None:
            return self._made
        try:
            work = next(self._steps) if self._work is None else self._work
            while True:
                work = self._steps.send((yield work))
        except StopIteration as finished:
            whole: Pixels = finished.value
            return whole


def halts_after(total: int, share: float) -> tuple[int, int]:
    """Of a share of so many network calls, those before a job halts and those in which the rest is foreseen; more than
    there are where that would save nothing."""
    budget = max(math.ceil(total * share), 2)
    if budget >= total:
        return total + 1, 0
    ahead = min(_AHEAD, budget // 2)
    return budget - ahead, ahead
