"""Files written whole or not at all: through a temporary one beside them, renamed when it is complete."""

from __future__ import annotations

import codecs
import errno
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from darkroom.errors import DarkroomError, InvalidRequest


class AlreadyThere(InvalidRequest):
    """A file or folder that was to be a new one."""


@contextmanager
def replacing(path: Path, error: type[DarkroomError] = InvalidRequest, new: bool = False) -> Iterator[Path]:
    """A name beside `path` to write a file or a folder under, which becomes `path` when the block ends well and is
    removed when it does not. A file takes the place of the one that was there unless it is to be `new`; a folder must
    not be there yet.

    Missing folders on the way are made. Raises `error` with the system's reason where something cannot be written,
    AlreadyThere where something new is there after all: whoever else may write it at the same moment.
    """
    temporary = path.with_name(f".{shortened(path.name, 180)}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        if new and temporary.is_file():
            _claim(temporary, path)
        else:
            os.replace(temporary, path)
    except DarkroomError as reason:
        # Of a part of it: people know it by the name that it was to have.
        if str(temporary) not in str(reason):
            raise
        raise type(reason)(str(reason).replace(str(temporary), str(path))) from reason
    except OSError as reason:
        if reason.errno == errno.ENOTEMPTY:  # Another's folder has come to be there.
            raise AlreadyThere(f"{path} is there already: choose another name") from reason
        raise error(f"cannot write {path}: {reason.strerror or reason}") from reason
    except ValueError as reason:
        if "null" not in str(reason):
            raise
        raise error(f"cannot write {str(path)!r}: no name holds a null character") from reason
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> None:
    """Give a file its name. Raises AlreadyThere where another has it."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # A file system without links: take the name first.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(temporary, path)
    except FileExistsError as reason:
        raise AlreadyThere(f"{path} is there already: choose another name") from reason


def shortened(name: str, size: int) -> str:
    """The beginning of a name that takes so many bytes at most, for file systems count these; no letter is parted from
    its marks."""
    if len(os.fsencode(name)) <= size:
        return name
    import regex  # Few names are as long as that: no command waits for it.

    kept, room = [], size
    for cluster in regex.findall(r"\X", name):
        room -= len(os.fsencode(cluster))
        if room < 0:
            break
        kept.append(cluster)
    return "".join(kept)


def expanded(path: Path | str) -> Path:
    """A path with ~ as this user's home; as it is where there is no such user or home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def portable(path: Path) -> str:
    """A path from anywhere, as this user writes it: ~ in place of the home."""
    whole, own = Path(os.path.abspath(path)), home()
    inside = whole.is_relative_to(own) and own != Path(own.anchor)
    return f"~/{whole.relative_to(own).as_posix()}" if inside else str(whole)


def home() -> Path:
    """This user's home; a folder that is not there where the system knows of none, as in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.sep) / "nonexistent"


def read_text(path: Path) -> str:
    """A text that people wrote: UTF-8, or what its byte order mark says (editors on Windows), with every line's end,
    whichever it is, as one line feed. Raises OSError, or ValueError where it is not text."""
    return as_text(path.read_bytes())


def as_text(raw: bytes) -> str:
    """The text of a file as `read_text` gives it. Raises ValueError where it is not text."""
    # The mark of UTF-32 begins as that of UTF-16 does.
    coding = next((coding for mark, coding in _MARKS if raw.startswith(mark)), "utf-8-sig")
    return re.sub(r"\r\n?", "\n", raw.decode(coding))


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def write_bytes(
    path: Path, content: bytes, error: type[DarkroomError] = InvalidRequest, new: bool = False
) -> None:
    """Write a file; see `replacing`."""
    with replacing(path, error, new) as temporary:
        temporary.write_bytes(content)


def write_numbered(path: Path, content: bytes) -> Path:
    """Write a new file: under that name, or under the first with a number that is free, also of other processes.
    Raises InvalidRequest as `write_bytes` does."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    for name in itertools.chain([path], numbered):
        if not name.exists():
            with suppress(AlreadyThere):
                write_bytes(name, content, new=True)
                return name
    raise AssertionError("there is always another number")


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON that people can read. Bytes of file names that are no text are escaped, as all else is then."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if text.isascii() or not _RAW.search(text) else json.dumps(value, indent=indent)


_RAW = re.compile("[\ud800-\udfff]")


def write_json(path: Path, value: Any, error: type[DarkroomError] = InvalidRequest) -> None:
    """Write a value as JSON that people can read; see `replacing`."""
    write_bytes(path, f"{as_json(value, 2)}\n".encode(), error)
