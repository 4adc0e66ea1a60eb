"""`darkroom models [list]`: what there is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from darkroom.cli.models.shared import Command, add_kind, entries_of, size_of
from darkroom.files import as_json

if TYPE_CHECKING:
    from darkroom.library.about import About
    from darkroom.library.records import Entry, Version

_WORDS = 40


def add(command: Command) -> None:
    sub = command("list", run_list, "list what there is; of the names given, every version")
    sub.add_argument("name", nargs="*", help="names, aliases or hashes (default: everything)")
    add_kind(sub, "only this kind: model, lora, vae, ...")
    sub.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, an object an entry"
    )


def run_list(args: argparse.Namespace) -> int:
    from darkroom.library.locate import embedded

    entries = entries_of(args.name, args.kind)
    if args.json:
        for entry in entries:
            print(as_json(_plain(entry)))
    elif args.name:
        print("\n\n".join(_in_full(entry) for entry in entries))
    elif entries:
        print(_table(entries))
    elif args.kind is None and not embedded():
        print("no model is known yet: `darkroom models scan`, `add` or `pull` one")
        return 1
    return 0


def _table(entries: Sequence[Entry]) -> str:
    rows = [("name", "kind", "what", "version", "size", "where")]
    for entry in entries:
        version = entry.version
        number = f"{entry.current + 1} of {len(entry.versions)}" if len(entry.versions) > 1 else ""
        number = ", ".join(filter(None, (number, "pinned" if entry.pinned else "")))
        state = version.state()
        where = f"{version.path}{f'  ({state.upper()})' if state else ''}"
        name = ", ".join((entry.name, *(each for each in entry.aliases)))
        rows.append((name, entry.kind, version.family or _said(entry), number, size_of(version.size), where))
    return _aligned(rows)


def _about(entry: Entry) -> About | None:
    """What is said of an adapter; None of anything else."""
    from darkroom.library.about import about

    return about(entry.version.path) if entry.kind == "lora" else None


def _said(entry: Entry) -> str:
    """What an adapter is for, and the words that call it, in short."""
    if (found := _about(entry)) is None:
        return ""
    words = ", ".join(found.triggers)
    return "; ".join(filter(None, (found.base, f"{words[:_WORDS]}..." if len(words) > _WORDS else words)))


def _in_full(entry: Entry) -> str:
    """An entry with all its versions."""
    facts = [entry.kind, *(["pinned"] if entry.pinned else []), *(f"also {alias}" for alias in entry.aliases)]
    rows = []
    for number, version in enumerate(entry.versions):
        mark = "*" if number == entry.current else " "
        digest = version.digest[:10] or "-"
        how = " ".join(filter(None, (version.how, version.origin, version.when[:10])))
        where = f"{version.path}{f'  ({version.state().upper()})' if version.state() else ''}"
        rows.append((f" {mark} {number + 1}", digest, size_of(version.size), version.family, how, where))
    said = found.rows() if (found := _about(entry)) else []
    lines = [f"{entry.name}: {', '.join(facts)}", _aligned(rows)]
    return "\n".join([*lines, *([_aligned([(f"   {name}", value) for name, value in said])] if said else [])])


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    # The names of files may hold line breaks.
    rows = [tuple(re.sub(r"[\x00-\x1f\x7f]", "?", cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _plain(entry: Entry) -> dict[str, Any]:
    def version(each: Version) -> dict[str, Any]:
        return {
            **vars(each),
            "path": str(each.path),
            "files": {name: vars(file) for name, file in each.files.items()},
            "sha256": each.digest,
            "size": each.size,
            "state": each.state() or "ok",
        }

    return {
        **vars(entry),
        **({"about": found.to_dict()} if (found := _about(entry)) else {}),
        "current": entry.current + 1,
        "versions": [{"number": number, **version(each)} for number, each in enumerate(entry.versions, 1)],
    }
