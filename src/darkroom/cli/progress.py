"""Bars on a terminal, of bytes read or written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from darkroom.checkpoint.load import Progress

Bar = Callable[[str, int, int | None], None]
"""Told what is being read or written, the bytes of it done, and the bytes in all if that is known."""


@contextmanager
def byte_bar() -> Iterator[Bar]:
    """A bar, on a terminal."""
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, disable=None, leave=False) as bar:
        last = ""

        def told(what: str, done: int, total: int | None) -> None:
            nonlocal last
            if what != last:
                last = what
                bar.set_description_str(what, refresh=False)
                bar.reset(total)
            bar.update(done - bar.n)

        yield told


def counted(bar: Bar, what: str, total: int) -> Callable[[int], None]:
    """A bar that is told how many bytes were done since it was last told."""
    done = 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        bar(what, done, total)

    return told


@contextmanager
def loading_bar(quiet: bool) -> Iterator[Progress]:
    """A bar of the bytes read, for models that take longer than a moment."""
    from tqdm import tqdm

    read: dict[str, int] = {}
    totals: dict[str, int] = {}
    with tqdm(unit="B", unit_scale=True, disable=quiet or None, leave=False, delay=0.5) as bar:

        def told(component: str, done: int, total: int) -> None:
            read[component], totals[component] = done, total
            bar.total = sum(totals.values())
            bar.set_description(f"loading {component}", refresh=False)
            bar.update(sum(read.values()) - bar.n)

        yield told
