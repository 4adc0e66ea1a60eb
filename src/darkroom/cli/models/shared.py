"""What several of `darkroom models`' subcommands need."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from darkroom.errors import InvalidRequest, nearest

if TYPE_CHECKING:
    from darkroom.library.records import Entry, Recorded

Command = Callable[..., Any]
"""Adds a subcommand: its name, what runs it, its help, and more of that."""


def add_kind(
    parser: argparse.ArgumentParser, help: str = "where a name is used for several kinds: which"
) -> None:
    parser.add_argument("--kind", help=help)


def entries_of(names: Sequence[str], kind: str | None) -> list[Entry]:
    """The entries of some names, or all, embedded models first."""
    from darkroom.library.locate import embedded
    from darkroom.library.records import Library

    check_kind(kind)
    library, there = Library.read(), embedded()
    if not names:
        return [*(e for e in there if kind in (None, e.kind)), *sorted(library.of_kind(kind), key=_order)]
    known = {entry.name: entry for entry in there if kind in (None, entry.kind)}
    return [known.get(name) or library.find(name, kind) for name in names]


def _order(entry: Entry) -> tuple[int, str]:
    from darkroom.library.kinds import KINDS

    return (KINDS.index(entry.kind) if entry.kind in KINDS else len(KINDS)), entry.name.casefold()


def check_kind(kind: str | None) -> None:
    from darkroom.library.kinds import KINDS

    if kind is not None and kind not in KINDS:
        raise InvalidRequest(f"unknown kind {kind!r}: {nearest(kind, KINDS)}")


def told(recorded: Recorded) -> str:
    """What became of something, in a line."""
    entry, version = recorded.entry, recorded.version
    what = ", ".join(filter(None, (entry.kind, version.family, size_of(version.size))))
    current = " (current)" if recorded.number == entry.current else f" ({entry.current + 1} stays current)"
    news = {
        "new": f"{entry.name}: {what}",
        "version": f"{entry.name}: {what}, version {recorded.number + 1}{current}",
        "moved": f"{entry.name}: found again at {version.path}",
        "changed": f"{entry.name}: has changed since it was recorded, {version.path}",
        "known": f"{entry.name}: already in the library, {version.path}",
    }
    return news[recorded.news]


def size_of(count: int) -> str:
    """A number of bytes in three digits: 4.3 MB, 1.99 GB."""
    power = min(4, max(0, (len(str(count)) - 1) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
