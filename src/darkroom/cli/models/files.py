"""`darkroom models pull`, `verify`, `lock`: the files themselves."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.cli.arguments import a_path
from darkroom.cli.models.shared import Command, add_kind, check_kind, entries_of, size_of, told
from darkroom.cli.progress import byte_bar, counted
from darkroom.cli.words import aside
from darkroom.errors import InvalidRequest, ModelError

if TYPE_CHECKING:
    from darkroom.library.lock import Locked
    from darkroom.library.records import Version


def add(command: Command) -> None:
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
    add_kind(sub, "what it is, if its header does not tell")
    sub.add_argument("--file", help="which file, where there are several")
    sub.add_argument("--variant", help="which variant, where there are several: fp16, ...")
    sub.add_argument("--token", help="a token for whoever is asked; it is sent to nobody else")
    sub.add_argument(
        "--insecure", action="store_true", help="allow http, which anybody on the way can change"
    )
    sub.add_argument(
        "--locked", action="store_true", help="fetch exactly what models.lock lists (or WHAT of it)"
    )
    sub.add_argument("--lock", type=a_path, help="a lock elsewhere (with --locked)")

    sub = command(
        "verify",
        run_verify,
        "read files whole: are they what was recorded, are there NaN or infinite weights",
        "Checks what models.lock lists against it as well. Exits with 1 if anything is wrong.",
    )
    sub.add_argument("name", nargs="*", help="names (default: everything)")
    sub.add_argument("--lock", type=a_path, help="a lock (default: models.lock, if there is one)")
    add_kind(sub)

    sub = command(
        "lock",
        run_lock,
        "write models.lock: the models of a project by hash",
        "Where it lies in the working directory, a name that it lists loads the files that it lists and no others. "
        "Given names are added to what it lists.",
    )
    sub.add_argument("name", nargs="*", help="names (default: every model, LoRA and so on)")
    sub.add_argument("--file", type=a_path, default=Path("models.lock"), help="where (default: models.lock)")
    add_kind(sub)


def run_pull(args: argparse.Namespace) -> int:
    from darkroom.library.fetch.pull import pull, pull_locked
    from darkroom.library.lock import LOCK, read_lock

    check_kind(args.kind)
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
            print(told(recorded))
        return 0
    path = args.lock or Path(os.environ.get("DARKROOM_LOCK") or LOCK)
    listed = [each for each in read_lock(path) if not args.what or each.name in args.what]
    if unknown := set(args.what) - {each.name for each in listed}:
        raise InvalidRequest(f"{path} does not list {', '.join(sorted(unknown))}")
    failed = False
    for wanted in listed:
        try:
            if not _embedded_as_locked(wanted):
                with byte_bar() as bar:
                    fetched = pull_locked(wanted, token=args.token, insecure=args.insecure, progress=bar)
                print(told(fetched) if fetched else f"{wanted.name}: is there as locked")
        except ModelError as error:
            aside("darkroom", error)
            failed = True
    return 1 if failed else 0


def _embedded_as_locked(wanted: Locked) -> bool:
    """Whether a lock's entry is a model that comes with Darkroom, unchanged. Raises ModelError where it is changed."""
    from darkroom.library.installed import installed
    from darkroom.library.locate import embedded

    if wanted.name not in installed(wanted.kind):
        return False
    there = next(each for each in embedded() if (each.name, each.kind) == (wanted.name, wanted.kind))
    wanted.choose([there.version])
    print(f"{wanted.name}: is there as locked")
    return True


def run_verify(args: argparse.Namespace) -> int:
    from darkroom.library.lock import lock_file, read_lock
    from darkroom.library.records import changing
    from darkroom.library.verify import verify

    path = args.lock or lock_file()
    listed = {} if path is None else {(each.kind, each.name): each for each in read_lock(path)}
    bad = 0
    for entry in entries_of(args.name, args.kind):
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
    from darkroom.library.lock import lock_of, read_lock, write_lock
    from darkroom.library.records import changing

    entries = entries_of(args.name, args.kind)
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
