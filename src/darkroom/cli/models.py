"""`darkroom models`: the models that there are, and the library that knows them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.progress import byte_bar, counted
from darkroom.errors import InvalidRequest, ModelError

if TYPE_CHECKING:
    from darkroom.checkpoint.library import Entry, Library, Recorded, Version
    from darkroom.checkpoint.locked import Locked

_DESCRIPTION = """\
Without a subcommand: list the models that can be used by name.

The library records models, LoRAs, autoencoders and so on where they lie, and fetches new ones.
Only `pull` uses the network.
"""
_EXAMPLES = """\
examples:
  darkroom models scan                                    # what A1111, ComfyUI, InvokeAI, the HF cache have
  darkroom models scan /data/models --hash
  darkroom models add dreamshaper_8.safetensors --alias ds
  darkroom models pull stabilityai/sdxl-turbo --variant fp16
  darkroom models pull https://civitai.com/models/4384
  darkroom models rollback dreamshaper                    # back to the version before
  darkroom models verify                                  # are the files what they were, and sound
  darkroom models lock && git add models.lock             # pin a project's models by hash
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = commands.add_parser(
        "models",
        help="list, find, fetch and check models",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument("--json", action="store_true", help="print JSON, an object an entry")
    models.set_defaults(run=run_list, name=[], kind=None)
    parts = models.add_subparsers(title="subcommands", metavar="SUBCOMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, more: str = "") -> Any:
        sub = parts.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}. {more}".strip())
        sub.set_defaults(run=run)
        return sub

    _add_recording(command)
    _add_fetching(command)
    _add_naming(command)
    _add_checking(command)


def _add_recording(command: Callable[..., Any]) -> None:
    sub = command("list", run_list, "list what there is; of the names given, every version")
    sub.add_argument("name", nargs="*", help="names, aliases or hashes (default: everything)")
    _add_kind(sub, "only this kind: model, lora, vae, ...")
    sub.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, an object an entry"
    )

    sub = command(
        "add",
        run_add,
        "record a file or a model folder, where it lies",
        "Under a name that is there already it becomes that entry's newest version.",
    )
    sub.add_argument("path", type=Path, help="a file, or a folder in the Hugging Face layout")
    sub.add_argument("--name", help="what to call it (default: as the file is called)")
    sub.add_argument("--alias", action="append", default=[], help="another name; may be given several times")
    _add_kind(sub, "what it is, if its header does not tell")

    sub = command(
        "scan",
        run_scan,
        "record what other programs have, where it lies",
        "Knows the folders of A1111, ComfyUI (extra_model_paths.yaml included), InvokeAI and the Hugging Face "
        "cache; any other folder is searched for models. Files are told by their headers, neither copied nor changed.",
    )
    sub.add_argument(
        "folder", nargs="*", type=Path, help="folders (default: where those programs usually are)"
    )
    sub.add_argument(
        "--hash", action="store_true", help="also compute each file's SHA-256, which reads it whole"
    )


def _add_fetching(command: Callable[..., Any]) -> None:
    sub = command(
        "pull",
        run_pull,
        "fetch a model from the Hugging Face hub, Civitai or an address",
        "Tokens for models that want one: HF_TOKEN and CIVITAI_TOKEN, or --token. Mirrors: HF_ENDPOINT, "
        "CIVITAI_ENDPOINT. What was interrupted goes on where it stopped when the same is asked for again.",
    )
    sub.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="ORG/NAME[@REVISION], civitai:MODEL[@VERSION], an address, or a name in the library: its newest version",
    )
    sub.add_argument("--name", help="what to call it")
    _add_kind(sub, "what it is, if its header does not tell")
    sub.add_argument("--file", help="which file, where there are several")
    sub.add_argument("--variant", help="which variant, where there are several: fp16, ...")
    sub.add_argument("--token", help="a token for whoever is asked; it is sent to nobody else")
    sub.add_argument(
        "--insecure", action="store_true", help="allow http, which anybody on the way can change"
    )
    sub.add_argument(
        "--locked", action="store_true", help="fetch exactly what models.lock lists (or WHAT of it)"
    )
    sub.add_argument("--lock", type=Path, help="a lock elsewhere (with --locked)")

    sub = command(
        "remove",
        run_remove,
        "forget an entry",
        "Deletes files only if `pull` fetched them and nothing else uses them.",
    )
    sub.add_argument("name", nargs="+", help="names, aliases or hashes")
    sub.add_argument("--version", type=int, metavar="N", help="only this version")
    sub.add_argument("--keep-files", action="store_true", help="delete no files")
    _add_kind(sub)


def _add_naming(command: Callable[..., Any]) -> None:
    sub = command("alias", run_alias, "give an entry another name")
    sub.add_argument("name", help="its name")
    sub.add_argument("alias", nargs="+", help="further names")
    sub.add_argument("--remove", action="store_true", help="take these names away instead")
    _add_kind(sub)

    for name, help in (
        ("pin", "keep the current version current when a newer one is added or pulled"),
        ("unpin", "let newer versions become current again"),
    ):
        sub = command(name, run_pin, help)
        sub.add_argument("name", nargs="+", help="names")
        sub.set_defaults(pinned=name == "pin")
        _add_kind(sub)

    sub = command("rollback", run_rollback, "make the version before the current one current")
    sub.add_argument("name", help="its name")
    sub.add_argument(
        "--to", metavar="N", help="a version by its number or hash (`darkroom models list NAME`)"
    )
    _add_kind(sub)


def _add_checking(command: Callable[..., Any]) -> None:
    sub = command(
        "verify",
        run_verify,
        "read files whole: are they what was recorded, are there NaN or infinite weights",
        "Checks what models.lock lists against it as well. Exits with 1 if anything is wrong.",
    )
    sub.add_argument("name", nargs="*", help="names (default: everything)")
    sub.add_argument("--lock", type=Path, help="a lock (default: models.lock, if there is one)")
    _add_kind(sub)

    sub = command(
        "lock",
        run_lock,
        "write models.lock: the models of a project by hash",
        "Where it lies in the working directory, a name that it lists loads the files that it lists and no others. "
        "Given names are added to what it lists.",
    )
    sub.add_argument("name", nargs="*", help="names (default: every model, LoRA and so on)")
    sub.add_argument("--file", type=Path, default=Path("models.lock"), help="where (default: models.lock)")
    _add_kind(sub)


def _add_kind(
    parser: argparse.ArgumentParser, help: str = "where a name is used for several kinds: which"
) -> None:
    parser.add_argument("--kind", help=help)


# Listing


def run_list(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.registry import embedded

    entries = _entries(args.name, args.kind)
    if args.json:
        for entry in entries:
            print(json.dumps(_plain(entry), ensure_ascii=False))
    elif args.name:
        print("\n\n".join(_in_full(entry) for entry in entries))
    elif entries:
        print(_table(entries))
    elif args.kind is None and not embedded():
        print("no model is known yet: `darkroom models scan`, `add` or `pull` one")
        return 1
    return 0


def _entries(names: Sequence[str], kind: str | None) -> list[Entry]:
    """The entries of some names, or all, embedded models first."""
    from darkroom.checkpoint.library import Library
    from darkroom.checkpoint.registry import embedded

    _check_kind(kind)
    library, there = Library.read(), embedded()
    if not names:
        return [*(e for e in there if kind in (None, e.kind)), *sorted(library.of_kind(kind), key=_order)]
    known = {entry.name: entry for entry in there if kind in (None, entry.kind)}
    return [known.get(name) or library.find(name, kind) for name in names]


def _order(entry: Entry) -> tuple[int, str]:
    from darkroom.checkpoint.kinds import KINDS

    return (KINDS.index(entry.kind) if entry.kind in KINDS else len(KINDS)), entry.name.casefold()


def _check_kind(kind: str | None) -> None:
    from darkroom.checkpoint.kinds import KINDS
    from darkroom.errors import nearest

    if kind is not None and kind not in KINDS:
        raise InvalidRequest(f"unknown kind {kind!r}: {nearest(kind, KINDS)}")


def _table(entries: Sequence[Entry]) -> str:
    rows = [("name", "kind", "what", "version", "size", "where")]
    for entry in entries:
        version = entry.version
        number = f"{entry.current + 1} of {len(entry.versions)}" if len(entry.versions) > 1 else ""
        number = ", ".join(filter(None, (number, "pinned" if entry.pinned else "")))
        state = version.state()
        where = f"{version.path}{f'  ({state.upper()})' if state else ''}"
        name = ", ".join((entry.name, *(each for each in entry.aliases)))
        rows.append((name, entry.kind, version.family, number, size_of(version.size), where))
    return _aligned(rows)


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
    return f"{entry.name}: {', '.join(facts)}\n{_aligned(rows)}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
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
        "current": entry.current + 1,
        "versions": [{"number": number, **version(each)} for number, each in enumerate(entry.versions, 1)],
    }


def size_of(count: int) -> str:
    """A number of bytes in three digits: 4.3 MB, 1.99 GB."""
    power = min(4, max(0, (len(str(count)) - 1) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


# Recording


def run_add(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.kinds import identify
    from darkroom.checkpoint.library import changing, version_of

    _check_kind(args.kind)
    path = args.path.expanduser().absolute()
    if not path.exists():
        raise ModelError(f"there is no file or folder {args.path}")
    found = identify(path, args.kind)
    version = version_of(path, found.root, found.files, family=found.family)
    with byte_bar() as bar:
        version = version.hashed(counted(bar, path.name, version.size))
    with changing() as library:
        recorded = library.record(found.kind, args.name or path.stem, version, args.alias)
        if args.name and args.name not in (recorded.entry.name, *recorded.entry.aliases):
            raise InvalidRequest(
                f"{path} is in the library as {recorded.entry.name!r}: `darkroom models alias {recorded.entry.name} "
                f"{args.name}` gives it another name"
            )
    print(_told(recorded))
    return 0


def _told(recorded: Recorded) -> str:
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


def run_scan(args: argparse.Namespace) -> int:
    from collections import Counter

    from darkroom.checkpoint.scan import program, scan, usual_places

    folders = [folder.expanduser() for folder in args.folder] or usual_places()
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
            print(_told(recorded))
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
    from darkroom.checkpoint.library import changing
    from darkroom.checkpoint.pull import remove

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
    from darkroom.checkpoint.library import installed

    _check_kind(kind)
    if kind in (None, "model") and name in installed():
        raise InvalidRequest(
            f"{name!r} comes with Darkroom or lies in $DARKROOM_MODELS: the library has no say in it"
        )
    return library.find(name, kind)


def run_alias(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.library import changing

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
    from darkroom.checkpoint.library import changing

    with changing() as library:
        for name in args.name:
            entry = _find(library, name, args.kind)
            entry.pinned = args.pinned
            words = f"pinned to version {entry.current + 1}" if args.pinned else "no longer pinned"
            print(f"{entry.name}: {words}")
    return 0


def run_rollback(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.library import changing

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


# Fetching, checking, locking


def run_pull(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.locked import LOCK, read_lock
    from darkroom.checkpoint.pull import pull, pull_locked

    _check_kind(args.kind)
    if args.lock is not None and not args.locked:
        raise InvalidRequest("--lock goes with --locked")
    if not args.locked:
        if not args.what:
            raise InvalidRequest("pull what? Give ORG/NAME, civitai:NUMBER or an address, or --locked")
        if len(args.what) > 1 and (args.name or args.file):
            raise InvalidRequest("--name and --file go with one model: pull them one by one")
        for what in args.what:
            with byte_bar() as bar:
                recorded = pull(
                    what,
                    name=args.name,
                    kind=args.kind,
                    file=args.file,
                    variant=args.variant,
                    token=args.token,
                    insecure=args.insecure,
                    progress=bar,
                )
            print(_told(recorded))
        return 0
    path = args.lock or Path(LOCK)
    listed = [each for each in read_lock(path) if not args.what or each.name in args.what]
    if unknown := set(args.what) - {each.name for each in listed}:
        raise InvalidRequest(f"{path} does not list {', '.join(sorted(unknown))}")
    failed = False
    for wanted in listed:
        try:
            if not _embedded_as_locked(wanted):
                with byte_bar() as bar:
                    fetched = pull_locked(wanted, token=args.token, insecure=args.insecure, progress=bar)
                print(_told(fetched) if fetched else f"{wanted.name}: is there as locked")
        except ModelError as error:
            print(f"darkroom: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _embedded_as_locked(wanted: Locked) -> bool:
    """Whether a lock's entry is a model that comes with Darkroom, unchanged. Raises ModelError where it is changed."""
    from darkroom.checkpoint.library import installed
    from darkroom.checkpoint.registry import embedded

    if wanted.kind != "model" or wanted.name not in installed():
        return False
    wanted.choose([next(entry.version for entry in embedded() if entry.name == wanted.name)])
    print(f"{wanted.name}: is there as locked")
    return True


def run_verify(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.library import changing
    from darkroom.checkpoint.locked import lock_file, read_lock
    from darkroom.checkpoint.verify import verify

    path = args.lock or lock_file()
    listed = {} if path is None else {(each.kind, each.name): each for each in read_lock(path)}
    bad = 0
    for entry in _entries(args.name, args.kind):
        for number, version in enumerate(entry.versions):
            which = entry.name if len(entry.versions) == 1 else f"{entry.name} version {number + 1}"
            with byte_bar() as bar:
                found, problems = verify(entry, number, counted(bar, which, version.size))
            if not problems and found != version and version.how != "embedded":
                with changing() as library:
                    library.record(entry.kind, entry.name, found)
            names = (entry.name, *entry.aliases) if number == entry.current else ()
            wanted = next((listed.pop((entry.kind, n)) for n in names if (entry.kind, n) in listed), None)
            if wanted and not problems and wanted.digest not in {each.digest for each in entry.versions}:
                problems = [words] if (words := wanted.difference(found)) else []
                problems = [f"is not what {path} lists: {words}" for words in problems]
            bad += bool(problems)
            print(f"{'BAD' if problems else 'ok '}  {which}: {_files(version)}")
            for words in problems:
                print(f"     {words}")
    for wanted in listed.values():
        if not args.name or wanted.name in args.name:
            bad += 1
            print(
                f"BAD  {wanted.name}: {path} lists it, and it is not there: `darkroom models pull --locked`"
            )
    return 1 if bad else 0


def _files(version: Version) -> str:
    count = len(version.files)
    return f"{count} file{'s' * (count > 1)}, {size_of(version.size)}"


def run_lock(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.library import changing
    from darkroom.checkpoint.locked import lock_of, read_lock, write_lock

    entries = _entries(args.name, args.kind)
    for entry in entries:
        with byte_bar() as bar:
            version = entry.version.hashed(counted(bar, entry.name, entry.version.size))
        if version.how != "embedded" and version != entry.version:
            with changing() as library:
                library.record(entry.kind, entry.name, version)
        entry.versions[entry.current] = version
    before = read_lock(args.file) if args.name and args.file.exists() else []
    listed = {(each.kind, each.name): each for each in before}
    listed |= {(entry.kind, entry.name): lock_of(entry, args.file) for entry in entries}
    write_lock(args.file, listed.values())
    print(f"{args.file}: lists {len(listed)}")
    return 0
