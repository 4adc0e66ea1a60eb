"""`darkroom models add`, `scan`, `remove`, `alias`, `pin`, `unpin`, `rollback`: what the library knows."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from darkroom.cli.arguments import a_path
from darkroom.cli.models.shared import Command, add_kind, check_kind, size_of, told
from darkroom.cli.progress import byte_bar, counted
from darkroom.errors import InvalidRequest, ModelError

if TYPE_CHECKING:
    from darkroom.library.records import Entry, Library


def add(command: Command) -> None:
    sub = command(
        "add",
        run_add,
        "record a file or a model folder, where it lies",
        "Under a name that is there already it becomes that entry's newest version.",
    )
    sub.add_argument("path", type=a_path, help="a file, or a folder in the Hugging Face layout")
    sub.add_argument("--name", help="what to call it (default: as the file is called)")
    sub.add_argument("--alias", action="append", default=[], help="another name; may be given several times")
    add_kind(sub, "what it is, if its header does not tell")

    sub = command(
        "scan",
        run_scan,
        "record what other programs have, where it lies",
        "Knows the folders of A1111, ComfyUI (extra_model_paths.yaml included), InvokeAI and the Hugging Face "
        "cache; any other folder is searched for models. Files are told by their headers, neither copied nor changed.",
    )
    sub.add_argument(
        "folder", nargs="*", type=a_path, help="folders (default: where those programs usually are)"
    )
    sub.add_argument(
        "--hash", action="store_true", help="also compute each file's SHA-256, which reads it whole"
    )

    sub = command(
        "remove",
        run_remove,
        "forget an entry",
        "Deletes files only if `pull` fetched them and nothing else uses them.",
    )
    sub.add_argument("name", nargs="+", help="names, aliases or hashes")
    sub.add_argument("--version", type=int, metavar="N", help="only this version")
    sub.add_argument("--keep-files", action="store_true", help="delete no files")
    add_kind(sub)

    sub = command("alias", run_alias, "give an entry another name")
    sub.add_argument("name", help="its name")
    sub.add_argument("alias", nargs="+", help="further names")
    sub.add_argument("--remove", action="store_true", help="take these names away instead")
    add_kind(sub)

    for name, help in (
        ("pin", "keep the current version current when a newer one is added or pulled"),
        ("unpin", "let newer versions become current again"),
    ):
        sub = command(name, run_pin, help)
        sub.add_argument("name", nargs="+", help="names")
        sub.set_defaults(pinned=name == "pin")
        add_kind(sub)

    sub = command("rollback", run_rollback, "make the version before the current one current")
    sub.add_argument("name", help="its name")
    sub.add_argument(
        "--to", metavar="N", help="a version by its number or hash (`darkroom models list NAME`)"
    )
    add_kind(sub)


def run_add(args: argparse.Namespace) -> int:
    from darkroom.library.kinds import identify
    from darkroom.library.records import changing, version_of
    from darkroom.library.scan import tidy

    check_kind(args.kind)
    path = args.path.absolute()
    if not path.exists():
        raise ModelError(f"there is no file or folder {args.path}")
    found = identify(path, args.kind)
    version = version_of(path, found.root, found.files, family=found.family)
    with byte_bar() as bar:
        version = version.hashed(counted(bar, path.name, version.size))
    name = args.name if args.name is not None else tidy(path.name if path.is_dir() else path.stem)
    with changing() as library:
        recorded = library.record(found.kind, name, version, args.alias)
        if args.name is not None and name not in (recorded.entry.name, *recorded.entry.aliases):
            raise InvalidRequest(
                f"{path} is in the library as {recorded.entry.name!r}: `darkroom models alias {recorded.entry.name} "
                f"{name}` gives it another name"
            )
    print(told(recorded))
    return 0


def run_scan(args: argparse.Namespace) -> int:
    from collections import Counter

    from darkroom.library.scan import program, scan, usual_places

    folders = args.folder or usual_places()
    if not folders:
        print("none of the usual places is there: give folders with models in them", file=sys.stderr)
        return 1
    for folder in folders:
        print(f"{folder}: {program(folder)}", file=sys.stderr)
    with byte_bar() as bar:
        found = scan(
            folders,
            lambda words: print(f"skipped: {words}", file=sys.stderr),
            args.hash,
            lambda done, total: bar("hashing", done, total),
        )
    for recorded in found:
        if recorded.news != "known":
            print(told(recorded))
            if recorded.news == "changed":
                print(
                    f"  `darkroom models add {recorded.version.path}` records it as it is now",
                    file=sys.stderr,
                )
    counts = Counter(recorded.news for recorded in found)
    known = f", {counts['known']} known already" if counts["known"] else ""
    print(f"{counts['new'] + counts['version']} recorded{known}", file=sys.stderr)
    return 0


def run_remove(args: argparse.Namespace) -> int:
    from darkroom.library.fetch.pull import remove
    from darkroom.library.records import changing

    with changing() as library:
        for name in args.name:
            entry = _find(library, name, args.kind)
            numbers = range(len(entry.versions))
            if args.version is not None:
                numbers = range(*_range(entry, args.version))
            freed = remove(entry, numbers, library, args.keep_files)
            which = "" if args.version is None else f", version {args.version}"
            print(f"{entry.name}{which}: forgotten" + (f", {size_of(freed)} deleted" if freed else ""))
    return 0


def _range(entry: Entry, number: int) -> tuple[int, int]:
    if not 1 <= number <= len(entry.versions):
        raise InvalidRequest(f"{entry.name} has no version {number}: it has {len(entry.versions)}")
    return number - 1, number


def _find(library: Library, name: str, kind: str | None) -> Entry:
    from darkroom.library.installed import all_installed, installed

    check_kind(kind)
    if name in (all_installed() if kind is None else installed(kind)):
        raise InvalidRequest(
            f"{name!r} comes with Darkroom or lies in $DARKROOM_MODELS: the library has no say in it"
        )
    return library.find(name, kind)


def run_alias(args: argparse.Namespace) -> int:
    from darkroom.library.records import changing

    with changing() as library:
        entry = _find(library, args.name, args.kind)
        for alias in args.alias:
            if not args.remove:
                library.alias(entry, alias)
            elif alias in entry.aliases:
                entry.aliases.remove(alias)
            else:
                raise InvalidRequest(
                    f"{entry.name} has no alias {alias!r}: it has {', '.join(entry.aliases) or 'none'}"
                )
    print(f"{entry.name}: also {', '.join(entry.aliases) or 'nothing else'}")
    return 0


def run_pin(args: argparse.Namespace) -> int:
    from darkroom.library.records import changing

    with changing() as library:
        for name in args.name:
            entry = _find(library, name, args.kind)
            entry.pinned = args.pinned
            words = f"pinned to version {entry.current + 1}" if args.pinned else "no longer pinned"
            print(f"{entry.name}: {words}")
    return 0


def run_rollback(args: argparse.Namespace) -> int:
    from darkroom.library.records import changing

    with changing() as library:
        entry = _find(library, args.name, args.kind)
        number = entry.current - 1 if args.to is None else _number(entry, args.to)
        if number < 0:
            raise InvalidRequest(f"{entry.name} is at its first version: there is none before it")
        version = entry.versions[number]
        if version.state() == "missing":
            raise ModelError(
                f"version {number + 1} of {entry.name} is gone from {version.path}: it cannot be used"
            )
        before, entry.current = entry.current, number
    print(f"{entry.name}: version {before + 1} -> {number + 1}, {version.path}")
    return 0


def _number(entry: Entry, text: str) -> int:
    """The version that a number or the first digits of a hash mean."""
    if text.isdigit() and int(text) <= len(entry.versions):
        return _range(entry, int(text))[0]
    found = [
        number for number, version in enumerate(entry.versions) if version.digest.startswith(text.lower())
    ]
    if len(found) != 1 or len(text) < 4:
        raise InvalidRequest(
            f"{entry.name} has no version {text!r}: `darkroom models list {entry.name}` lists them"
        )
    return found[0]
