"""Files written whole or not at all: through a temporary one beside them, renamed when it is complete."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from darkroom.errors import DarkroomError, InvalidRequest


@contextmanager
def replacing(path: Path, error: type[DarkroomError] = InvalidRequest) -> Iterator[Path]:
    """A name beside `path` to write a file or a folder under, which becomes `path` when the block ends well and is
    removed when it does not. A file takes the place of the one that was there; a folder must not be there yet.

    Missing folders on the way are made. Raises `error` with the system's reason where something cannot be written.
    """
    # File systems count bytes, 255 of them for a name.
    own = path.name.encode()[:180].decode(errors="ignore")
    temporary = path.with_name(f".{own}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as reason:
        raise error(f"cannot write {path}: {reason.strerror or reason}") from reason
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, error: type[DarkroomError] = InvalidRequest) -> None:
    """Write a file; see `replacing`."""
    with replacing(path, error) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any, error: type[DarkroomError] = InvalidRequest) -> None:
    """Write a value as JSON that people can read; see `replacing`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode(), error)
