"""The library: which models, LoRAs, autoencoders and so on there are, by what name, in which versions.

It is one JSON file, `library.json` in $DARKROOM_HOME, that records files where they lie; only what `pull` fetched lies
below $DARKROOM_HOME itself. It is read freely and changed under a lock (`changing`), whole or not at all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from darkroom.checkpoint.foreign import a_kind
from darkroom.errors import InvalidRequest, ModelError, nearest
from darkroom.files import expanded, write_json
from darkroom.files import home as user_home
from darkroom.library.installed import installed
from darkroom.library.secrets import without_secrets
from darkroom.weights.hashes import sha256

RECORD = "library.json"
_FORMAT = 1
_SHORTEST_HASH = 8
_PATIENCE = 30.0  # Seconds to wait for another process that changes the library.


def home() -> Path:
    """Where the library and what it fetched are: $DARKROOM_HOME, else $XDG_DATA_HOME/darkroom (~/.local/share)."""
    if chosen := os.environ.get("DARKROOM_HOME"):
        return expanded(chosen).absolute()
    base = os.environ.get("XDG_DATA_HOME") or user_home() / ".local" / "share"
    return Path(base) / "darkroom"


@dataclass(frozen=True)
class File:
    """A file as it was recorded: its size in bytes and its SHA-256, "" where nobody has computed it yet."""

    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Version:
    """One version of an entry: a file, or a folder of files, where it lies.

    files: by name relative to `root`; family: of a model; how: "added", "scanned", "pulled" or "embedded"; origin:
    what `pull` fetches it with, if anything (see `darkroom.library.fetch.origin`); when: UTC, ISO 8601.
    """

    path: Path
    files: Mapping[str, File]
    family: str = ""
    how: str = "added"
    origin: str = ""
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def root(self) -> Path:
        """The folder that the names of the files are relative to."""
        return self.path.parent if list(self.files) == [self.path.name] else self.path

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """Its SHA-256: the file's, or of a folder that of its files' hashes and names; "" where one is unknown."""
        return digest_of(self.files)

    def state(self) -> str:
        """What is wrong with its files at a glance: "" (nothing), "missing" or "changed" (another size)."""
        for name, file in self.files.items():
            try:
                if (self.root / name).stat().st_size != file.size:
                    return "changed"
            except OSError:
                return "missing"
        return ""

    def hashed(self, progress: Callable[[int], object] | None = None) -> Version:
        """The same with the hashes that are unknown computed; `progress` is told the bytes of each file done."""
        files = {}
        for name, file in self.files.items():
            files[name] = file if file.sha256 else replace(file, sha256=sha256(self.root / name))
            if progress is not None:
                progress(file.size)
        return replace(self, files=files)


@dataclass
class Entry:
    """What goes by one name: a kind of thing, its versions, oldest first, and which of them is current.

    Pinned: a new version does not become current by itself."""

    name: str
    kind: str
    versions: list[Version]
    current: int = 0
    aliases: list[str] = field(default_factory=list)
    pinned: bool = False

    @property
    def version(self) -> Version:
        """The current version."""
        return self.versions[self.current]


def digest_of(files: Mapping[str, File]) -> str:
    """One SHA-256 for several files: that of the list that `sha256sum` prints of them; of a single file its own."""
    hashes = {name: file.sha256 for name, file in files.items()}
    if not all(hashes.values()):
        return ""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def version_of(path: Path, root: Path, names: Sequence[str], **facts: Any) -> Version:
    """A version of files as they lie on disk, not yet hashed."""
    return Version(path, {name: File((root / name).stat().st_size) for name in names}, **facts)


@dataclass(frozen=True)
class Recorded:
    """What became of something that was to be recorded. news: "new" (an entry), "version" (of an entry), "moved" (it
    was found again elsewhere), "changed" (the file at that path is another one now) or "known"."""

    entry: Entry
    number: int
    news: str

    @property
    def version(self) -> Version:
        return self.entry.versions[self.number]


@dataclass
class Library:
    """All entries. Names are unique within a kind, aliases among its names and aliases."""

    entries: list[Entry] = field(default_factory=list)

    @staticmethod
    def read() -> Library:
        """The library as it is on disk; empty where there is none. Raises ModelError where it cannot be read."""
        found, tidy = _read()
        if not tidy:
            # Of before addresses were kept without secrets. Who cannot write goes without them all the same.
            with suppress(ModelError), changing():
                pass
        return found

    def of_kind(self, kind: str | None) -> list[Entry]:
        """The entries of a kind, or all."""
        return [entry for entry in self.entries if kind in (None, entry.kind)]

    def match(self, name: str, kind: str | None = None) -> tuple[Entry, Version] | None:
        """What a name means: an entry's name or alias, or the first digits (eight or more) of the SHA-256 of a version
        or of one of its files. None where nothing is called that; ModelError where several things are."""
        entries = self.of_kind(kind)
        for same in (str.__eq__, lambda a, b: a.casefold() == b.casefold()):
            found = [
                each for each in entries if any(same(name, known) for known in (each.name, *each.aliases))
            ]
            if found:
                return _one(name, [(each, each.version) for each in found])
        prefix = name.lower()
        if len(prefix) < _SHORTEST_HASH or not set(prefix) <= set("0123456789abcdef"):
            return None
        hashed = [
            (entry, version)
            for entry in entries
            for version in entry.versions
            if any(
                digest.startswith(prefix)
                for digest in (version.digest, *(file.sha256 for file in version.files.values()))
            )
        ]
        # The same file under two names is no contradiction.
        return _one(name, list({version.digest: (entry, version) for entry, version in hashed}.values()))

    def find(self, name: str, kind: str | None = None) -> Entry:
        """The entry of that name, alias or hash. Raises ModelError with the nearest name where there is none."""
        if found := self.match(name, kind):
            return found[0]
        known = [each for entry in self.of_kind(kind) for each in (entry.name, *entry.aliases)]
        raise ModelError(f"there is no {kind or 'entry'} {name!r} in the library: {suggestion(name, known)}")

    def record(self, kind: str, name: str, version: Version, aliases: Sequence[str] = ()) -> Recorded:
        """Record a version: of the entry that has its file or its origin, else of the one of that name, else as a new
        entry. It becomes the current one unless the entry is pinned."""
        found = self._by_path(version, renew=True) or self._by_content(kind, name, version)
        if found is None:
            entry = next((each for each in self.of_kind(kind) if each.name == name), None)
            found = self._new(kind, name, version) if entry is None else _appended(entry, version)
        return self._with_aliases(found, aliases)

    def notice(
        self, kind: str, names: Sequence[str], version: Version, aliases: Sequence[str] = ()
    ) -> Recorded:
        """Record what a scan came across: as `record`, but under the first of some names that is free, for files of the
        same name in two folders need not be versions of one thing. A recorded file that has become another one is
        left as it was recorded."""
        found = self._by_path(version, renew=False) or self._by_content(kind, names[0], version)
        if found is None:
            numbered = (f"{names[-1]}-{number}" for number in itertools.count(2))
            free = next(each for each in itertools.chain(names, numbered) if not self.taken(kind, each))
            found = self._new(kind, free, version)
        return self._with_aliases(found, [alias for alias in aliases if not self.taken(kind, alias)])

    def _by_path(self, version: Version, renew: bool) -> Recorded | None:
        """What is recorded of its path; a file that changed since is recorded anew, or not."""
        place = os.path.realpath(version.path)
        for entry in self.entries:
            for number, known in enumerate(entry.versions):
                if os.path.realpath(known.path) != place:
                    continue
                changed = _sizes(known) != _sizes(version) or (
                    known.digest != version.digest and known.digest != "" != version.digest
                )
                if changed and renew:
                    entry.versions[number] = version
                elif not changed and not known.digest:
                    entry.versions[number] = replace(known, files=version.files)
                return Recorded(entry, number, "changed" if changed else "known")
        return None

    def _by_content(self, kind: str, name: str, version: Version) -> Recorded | None:
        """The same thing under another path, or the entry whose origin it shares."""
        origin = line(version.origin)
        for entry in self.of_kind(kind):
            shared = origin != "" and origin in (line(known.origin) for known in entry.versions)
            for number, known in enumerate(entry.versions):
                if not (shared or entry.name == name) or _sizes(known) != _sizes(version):
                    continue
                missing = known.state() == "missing"
                if known.digest and version.digest:
                    again = known.digest == version.digest
                else:
                    again = missing or (known.origin == version.origin != "")
                if again and missing:
                    entry.versions[number] = replace(known, path=version.path, how=version.how)
                if again:
                    return Recorded(entry, number, "moved" if missing else "known")
            if shared:
                return _appended(entry, version)
        return None

    def _with_aliases(self, found: Recorded, aliases: Sequence[str]) -> Recorded:
        for alias in aliases:
            if alias not in (found.entry.name, *found.entry.aliases):
                self.alias(found.entry, alias)
        return found

    def _new(self, kind: str, name: str, version: Version) -> Recorded:
        self._check_free(kind, name)
        if "/" in name or "\\" in name:
            raise InvalidRequest(f"the name {name!r} has a slash, as paths do: leave it out")
        entry = Entry(name, kind, [version])
        self.entries.append(entry)
        return Recorded(entry, 0, "new")

    def alias(self, entry: Entry, alias: str) -> None:
        """Give an entry another name. Raises InvalidRequest where something else of its kind has it."""
        self._check_free(entry.kind, alias)
        entry.aliases.append(alias)

    def taken(self, kind: str, name: str) -> bool:
        """Whether a name or alias is in use for a kind."""
        if name in installed(kind):
            return True
        return any(name in (entry.name, *entry.aliases) for entry in self.of_kind(kind))

    def _check_free(self, kind: str, name: str) -> None:
        if not name or name != name.strip() or not name.isprintable() or name.startswith(("-", ".")):
            raise InvalidRequest(
                f"{name!r} cannot be a name: it is one line of letters and digits, without - or . or a space in front"
            )
        if name in installed(kind):
            raise InvalidRequest(
                f"{name!r} is the name of {a_kind(kind)} that comes with Darkroom: choose another"
            )
        if self.taken(kind, name):
            raise InvalidRequest(f"{name!r} is the name of another {kind} in the library: choose another")

    def holders(self, path: Path) -> list[Version]:
        """The versions whose files lie in a folder."""
        return [each for entry in self.entries for each in entry.versions if each.path.is_relative_to(path)]


@contextmanager
def changing() -> Iterator[Library]:
    """The library, for a change: nobody else changes it meanwhile, and it is written when the block ends well.

    Raises ModelError where another process holds it for half a minute, or it cannot be read or written.
    """
    from filelock import FileLock, Timeout

    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{RECORD}.lock", timeout=_PATIENCE)
        lock.acquire()
    except Timeout:
        raise ModelError(
            f"another process is changing the library in {folder}: try again when it is done"
        ) from None
    except OSError as error:
        raise ModelError(f"the library in {folder} cannot be written: {error.strerror}") from error
    try:
        library, _ = _read()
        yield library
        write_json(folder / RECORD, _to_json(library), ModelError)
    finally:
        lock.release()


def line(origin: str) -> str:
    """An origin without its revision: what all versions of one thing have in common."""
    found = re.fullmatch(r"(hf://[^@]+|civitai:\d+)@[^/?]+([/?].+)?", origin)
    return found[1] + (found[2] or "") if found else origin


def suggestion(name: str, known: Sequence[str], otherwise: str = "") -> str:
    """What to do about a name that is not known: take the nearest one, or look the names up."""
    close = nearest(name, known) if known else ""
    return (
        close if close.startswith("did you mean") else f"give a name that `darkroom models` lists{otherwise}"
    )


# The file


def _appended(entry: Entry, version: Version) -> Recorded:
    entry.versions.append(version)
    if not entry.pinned:
        entry.current = len(entry.versions) - 1
    return Recorded(entry, len(entry.versions) - 1, "version")


def _sizes(version: Version) -> dict[str, int]:
    return {name: file.size for name, file in version.files.items()}


def _one(name: str, found: Sequence[tuple[Entry, Version]]) -> tuple[Entry, Version] | None:
    if len(found) > 1:
        several = ", ".join(f"{entry.kind} {entry.name}" for entry, _ in found[:5])
        raise ModelError(f"{name!r} could mean several things: {several}. Say more of it, or its kind")
    return found[0] if found else None


def _read() -> tuple[Library, bool]:
    """The library as it is on disk, and whether nothing in its file is a secret."""
    path = home() / RECORD
    try:
        text = path.read_text("utf-8")
        return _from_json(json.loads(text), path), without_secrets(text) == text
    except FileNotFoundError:
        return Library(), True
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged ({type(error).__name__}: {error}): mend it, or move it away and run "
            "`darkroom models scan` to begin a new library"
        ) from error


def _to_json(library: Library) -> dict[str, Any]:
    return {"format": _FORMAT, "entries": [_entry_to_json(entry) for entry in library.entries]}


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return {**vars(entry), "versions": [_version_to_json(version) for version in entry.versions]}


def _version_to_json(version: Version) -> dict[str, Any]:
    path = version.path
    # What lies below the library's own folder moves with it.
    kept = path.relative_to(home()) if path.is_relative_to(home()) else path
    files = {name: vars(file) for name, file in version.files.items()}
    return {**vars(version), "path": kept.as_posix(), "files": files}


def _from_json(value: Mapping[str, Any], path: Path) -> Library:
    if value["format"] != _FORMAT:
        raise ModelError(
            f"{path} was written by a newer Darkroom (format {value['format']}): update this one"
        )
    return Library([_entry_from_json(entry) for entry in value["entries"]])


def _entry_from_json(value: Mapping[str, Any]) -> Entry:
    versions = [
        Version(
            **{
                **version,
                "path": home() / version["path"],
                "origin": without_secrets(version.get("origin", "")),
                "files": {str(name): File(**file) for name, file in version["files"].items()},
            }
        )
        for version in value["versions"]
    ]
    entry = Entry(**{**value, "versions": versions})
    versions[entry.current]  # Raises what a damaged file raises.
    return entry
