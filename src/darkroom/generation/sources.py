"""Pictures that a request begins with: named as plain data, so that a picture can be made again, and read when it is
made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from darkroom.errors import InvalidRequest
from darkroom.files import expanded, portable
from darkroom.photos import SUFFIXES, Photo, photo_of, read_file, read_photo

_FORM = "give a file, its bytes, or Pillow's, NumPy's or torch's picture"


@dataclass(frozen=True)
class Source:
    """A picture by its file, or in memory. `sha256`: of the file's bytes or, of one that never was in a file, of its
    pixels; None where nobody has looked at it yet. Two are the same that are of one file and one content."""

    path: str | None = None
    sha256: str | None = None
    content: bytes | Photo | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        """As it may be written."""
        return repr(self.to_dict())

    def to_dict(self) -> dict[str, str]:
        """Plain data, as JSON has it."""
        return {name: each for name in ("path", "sha256") if (each := getattr(self, name)) is not None}

    def found(self, name: str, frame: int | None = None) -> tuple[Source, Photo]:
        """The source as from any folder, with its hash, and its picture; of an animated one that frame.

        `name`: the setting that it is. Raises InvalidRequest where the file is not there, is another one than it was,
        or is no picture.
        """
        if self.content is not None:
            return self, _in_memory(self, frame, name)
        if self.path is None:
            raise InvalidRequest(
                f"{name} is the picture with the SHA-256 {self.sha256}: give its file as `{name}=`"
            )
        path = expanded(self.path)
        try:
            stat = path.stat()
        except (OSError, ValueError):
            hint = "" if self.sha256 is None else f", its SHA-256 is {self.sha256}"
            raise InvalidRequest(
                f"{name} is {self.path}, where there is no file{hint}: give it as `{name}=`"
            ) from None
        sha256, photo = _in_file(path, stat.st_mtime_ns, stat.st_size, frame)
        if self.sha256 not in (None, sha256):
            raise InvalidRequest(
                f"{name} is {self.path}, which is another file now: give the one whose SHA-256 is {self.sha256} as "
                f"`{name}=`"
            )
        return Source(portable(path), sha256), photo


@lru_cache(maxsize=4)
def _in_file(path: Path, changed: int, size: int, frame: int | None) -> tuple[str, Photo]:
    content = read_file(path)
    return hashlib.sha256(content).hexdigest(), read_photo(content, str(path), frame)


@lru_cache(maxsize=4)
def _in_memory(source: Source, frame: int | None, name: str) -> Photo:
    if not isinstance(source.content, Photo):
        return read_photo(source.content or b"", "the picture" if name == "image" else f"the {name}", frame)
    if frame not in (None, 1):
        raise InvalidRequest(f"frame is {frame}: the picture has 1")
    return source.content


def several(given: Any) -> list[Any]:
    """Pictures to begin with: those of a list, of an array or tensor of several, in a folder, or the one that it is."""
    if isinstance(given, list | tuple) or getattr(given, "ndim", None) == 4:
        return [*given]
    if isinstance(given, str | Path) and _is_folder(folder := expanded(given)):
        return [*pictures_in(folder)]
    return [given]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # No name of a file.
        return False


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, by their names; hidden ones are left out. Raises InvalidRequest where there is none."""
    found = sorted(
        each
        for each in folder.iterdir()
        if each.suffix.lower() in SUFFIXES and not each.name.startswith(".") and each.is_file()
    )
    if not found:
        raise InvalidRequest(
            f"there is no picture in the folder {folder}: name a picture, or a folder of them"
        )
    return found


def lying_in(folder: Path, source: Source) -> Source:
    """A picture as it is found in a folder, by its hash, one of its own name first; as it was where it is not there."""
    name = Path((source.path or "").replace("\\", "/")).name
    try:
        there = [each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES and each.is_file()]
    except OSError:
        return source
    for path in sorted(there, key=lambda each: (each.name != name, each.name)):
        with suppress(InvalidRequest):
            if hashlib.sha256(read_file(path)).hexdigest() == source.sha256:
                return Source(portable(path.absolute()), source.sha256)
    return source


def a_source(name: str, given: Any) -> Source:
    """Checks a picture to begin with; files are not read yet."""
    if isinstance(given, Source):
        return given
    if isinstance(given, str | Path):
        if not str(given).strip():
            raise InvalidRequest(f"{name} is empty: {_FORM}")
        return Source(str(given))
    if isinstance(given, Mapping):
        texts = all(isinstance(each, str) for each in given.values())
        if not given or given.keys() - {"path", "sha256"} or not texts:
            raise InvalidRequest(f'{name} is {dict(given)!r}: give {{"path": ...}}, or the path alone')
        return Source(**given)
    if isinstance(given, bytes | bytearray):
        return Source(None, hashlib.sha256(given).hexdigest(), bytes(given))
    photo = photo_of(getattr(given, "image", given), name)  # Of a `Picture`, too.
    parts = [repr(photo.pixels.shape).encode(), photo.pixels.tobytes()]
    parts += [] if photo.alpha is None else [photo.alpha.tobytes()]
    return Source(None, hashlib.sha256(b"".join(parts)).hexdigest(), photo)
