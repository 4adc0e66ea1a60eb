"""Where bytes are kept: pictures and uploads under their SHA-256, checkpoints under their job's name."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from darkroom.errors import DarkroomError, InvalidRequest
from darkroom.files import write_bytes


class Unstored(DarkroomError):
    """Bytes that could not be written, or are not where they were."""

    @property
    def full(self) -> bool:
        """Whether that is because there is no room."""
        cause = self.__cause__
        return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


class Objects(Protocol):
    """Bytes by keys such as "content/0a/0a1b...": letters, digits, points and dashes, parted by slashes."""

    def put(self, key: str, content: bytes) -> None:
        """Keep bytes for good: once this returns, they outlive the machine's end. Raises Unstored."""
        ...

    def get(self, key: str) -> bytes:
        """Raises Unstored where there are none."""
        ...

    def old(self, seconds: float) -> Iterator[str]:
        """The keys of what was put so many seconds ago or before, and not put again since."""
        ...

    def delete(self, key: str) -> None:
        """Let go of bytes that may be there."""
        ...


class Folder:
    """Bytes as files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, content: bytes) -> None:
        path = self.root / key
        new = not path.parent.is_dir()
        write_bytes(path, content, Unstored)
        try:
            for folder in (path.parent, *([path.parent.parent] if new else [])):
                _keep_name(folder)
        except OSError as error:
            raise Unstored(f"cannot keep {key}: {error.strerror or error}") from error

    def get(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except OSError as error:
            raise Unstored(f"cannot read {key}: {error.strerror or error}") from error

    def old(self, seconds: float) -> Iterator[str]:
        since = time.time() - seconds
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder, name) for name in names):
                with suppress(OSError):  # It is gone by now.
                    if path.stat().st_mtime <= since:
                        yield path.relative_to(self.root).as_posix()

    def delete(self, key: str) -> None:
        with suppress(OSError):  # What cannot be deleted is in nobody's way.
            (self.root / key).unlink(missing_ok=True)


def _keep_name(folder: Path) -> None:
    """Have the names in a folder outlive the machine's end, as their files do."""
    if not hasattr(os, "O_DIRECTORY"):  # On Windows, which needs none of it.
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def content_key(content: bytes) -> tuple[str, str]:
    """The SHA-256 of bytes, and the key that they are kept under."""
    sha256 = hashlib.sha256(content).hexdigest()
    return sha256, key_of(sha256)


def sha256_of(key: str) -> str | None:
    """The SHA-256 in a key of content; None of another key."""
    kind, _, rest = key.partition("/")
    return rest.rpartition("/")[2] if kind == "content" else None


def key_of(sha256: str) -> str:
    """The key of bytes with that SHA-256."""
    return f"content/{sha256[:2]}/{sha256}"


def objects_at(store: str) -> Objects:
    """The store at an address: a folder. Raises InvalidRequest for what is none."""
    if "://" in store:
        raise InvalidRequest(f"the store is {store!r}: give a folder")
    return Folder(Path(store).expanduser())
