"""Batches made ahead by other processes, in order, from any position on. No torch is imported here."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[np.generic]]
Source: TypeAlias = Callable[[int, int], Arrays]
"""(start, count) to the samples start .. start + count - 1, each a pure function of its number."""


def feed(source: Source, start: int, batch: int, workers: int = 0, ahead: int = 4) -> Generator[Arrays]:
    """Batches of `source` from sample `start` on, without end.

    With workers (0: none, in this process) up to `ahead` batches are made in advance in processes of their own, at a
    lower priority than training. `source` must be picklable then. Close the generator to end them.
    """
    if not workers:
        while True:
            yield source(start, batch)
            start += batch
    # A fresh interpreter each: forking a process that runs threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _settle, (source,)) as pool:
        waiting: deque[Future[Arrays]] = deque()
        try:
            while True:
                while len(waiting) < max(ahead, workers):
                    waiting.append(pool.submit(_make, start, batch))
                    start += batch
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_source: Source


def _settle(source: Source) -> None:
    global _source
    _source = source
    os.nice(5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which closes the pool.


def _make(start: int, count: int) -> Arrays:
    return _source(start, count)
