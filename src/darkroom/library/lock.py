"""`models.lock`: the weights that a project's pictures are made with, by hash.

A JSON file in the project's folder that lists models by name, each with its files' SHA-256 and sizes and where `pull`
gets it. Where there is one, a name that it lists stands for these files and no others.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import ModelError
from darkroom.files import write_json
from darkroom.library.records import Entry, File, Version, digest_of
from darkroom.library.secrets import without_secrets
from darkroom.weights.hashes import sha256

log = logging.getLogger(__name__)

LOCK = "models.lock"
_FORMAT = 1


@dataclass(frozen=True)
class Locked:
    """A model as a lock lists it."""

    name: str
    kind: str
    origin: str
    files: dict[str, File]
    lock: Path

    @property
    def digest(self) -> str:
        """The SHA-256 of what is locked, as `Version.digest`."""
        return digest_of(self.files)

    def choose(self, versions: Sequence[Version]) -> Version:
        """The version that is locked. Raises ModelError where none of them is."""
        same = (each for each in versions if each.digest == self.digest)
        first = next(same, versions[0] if versions else None)
        fetch = "`darkroom models pull --locked` fetches what is locked"
        if first is None:
            raise ModelError(f"{self.lock} lists the {self.kind} {self.name!r}, which is not there: {fetch}")
        if wrong := self.difference(first):
            raise ModelError(
                f"{first.path} is not the {self.name!r} that {self.lock} lists: {wrong}. {fetch}; "
                f"`darkroom models lock {self.name}` locks what is there"
            )
        return first

    def difference(self, version: Version) -> str:
        """What of a version's files, as they lie on disk, is not as locked; "" where they are the same."""
        # A single file is the same under any name.
        alone = len(self.files) == 1 == len(version.files)
        for name, file in self.files.items():
            path = version.path if alone and version.path.is_file() else version.root / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != file.size:
                return f"{name} has {path.stat().st_size} bytes instead of {file.size}"
            if (found := sha256(path)) != file.sha256:
                return f"{name} has the SHA-256 {found[:10]} instead of {file.sha256[:10]}"
        return ""


def lock_file() -> Path | None:
    """The lock that holds here: $DARKROOM_LOCK, else models.lock in the working directory, if there is one."""
    path = Path(os.environ.get("DARKROOM_LOCK") or LOCK)
    return path if path.exists() or "DARKROOM_LOCK" in os.environ else None


def locked(name: str, kind: str) -> Locked | None:
    """What the lock that holds here lists under a name, if there is a lock and it does."""
    path = lock_file()
    return (
        None if path is None else next((x for x in read_lock(path) if (x.name, x.kind) == (name, kind)), None)
    )


def read_lock(path: Path) -> list[Locked]:
    """What a lock lists. Raises ModelError where it cannot be read."""
    try:
        text = path.read_text("utf-8")
        value = json.loads(text)
        if value["format"] != _FORMAT:
            raise ModelError(f"{path} was written by a newer Darkroom: update this one")
        found = [_from_json(each, path) for each in value["models"]]
        if without_secrets(text) != text:
            log.warning(
                "%s held a token or a signature in an address, which is taken out: withdraw it where it is from, for "
                "a lock is shared",
                path,
            )
            with suppress(ModelError):
                write_lock(path, found)
        return found
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no lock of models ({type(error).__name__}: {error}): mend it") from error


def lock_of(entry: Entry, lock: Path) -> Locked:
    """An entry as a lock lists it: its current version, whose hashes must be known."""
    return Locked(entry.name, entry.kind, entry.version.origin, dict(entry.version.files), lock)


def write_lock(path: Path, listed: Iterable[Locked]) -> None:
    """Write a lock, in an order of its own, so that it changes only where models do."""
    rows: list[dict[str, Any]] = [
        {
            "name": each.name,
            "kind": each.kind,
            "sha256": each.digest,
            "size": sum(file.size for file in each.files.values()),
            "origin": each.origin,
            "files": {name: vars(file) for name, file in sorted(each.files.items())},
        }
        for each in sorted(listed, key=lambda each: (each.kind, each.name))
    ]
    write_json(path, {"format": _FORMAT, "models": rows}, ModelError)


def _from_json(value: Any, path: Path) -> Locked:
    files = {str(name): File(int(file["size"]), str(file["sha256"])) for name, file in value["files"].items()}
    return Locked(str(value["name"]), str(value["kind"]), without_secrets(str(value["origin"])), files, path)
