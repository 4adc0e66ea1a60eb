"""The identity of a weights file, whatever it is called: its SHA-256.

A1111's ten-digit hash is its first ten digits in lower case, Civitai's AutoV2 the same in upper case.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from darkroom.errors import DarkroomError
from darkroom.files import home, write_json

_KEPT_FROM = 32 << 20  # Smaller files are read anew in the time that it takes to look them up.
_AT_ONCE = 256 << 20
_MOST_KEPT = 5000
_CHUNK = 1 << 24


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal, kept while path, size and time stay as they are: in memory, and for large
    files on disk (`cache_file`)."""
    path = path.resolve()
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def known_sha256(path: Path) -> str | None:
    """The same as far as it takes hardly any time: None of a large file that was never read for it."""
    path = path.resolve()
    stat = path.stat()
    if stat.st_size > _AT_ONCE and _key(path, stat.st_size, stat.st_mtime_ns) not in _kept():
        return None
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def _key(path: Path, size: int, time: int) -> str:
    return f"{path}|{size}|{time}"


def digest(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """The SHA-256 of a file, read anew whatever was known of it; `progress` is told how many bytes more were read."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            found.update(piece)
            if progress is not None:
                progress(len(piece))
    return found.hexdigest()


def sha256_of(paths: Sequence[Path]) -> str:
    """One hash for a component: its file's, or for several files that of their hashes in order."""
    if len(paths) == 1:
        return sha256(paths[0])
    return hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest()


def autov3(path: Path) -> str | None:
    """Civitai's AutoV3 of a safetensors file, which is A1111's hash of LoRAs: the first twelve digits of the SHA-256 of
    all behind its header. None for another kind of file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if file.read(1) != b"{" or length > path.stat().st_size:
            return None
        file.seek(8 + length)
        while piece := file.read(_CHUNK):
            found.update(piece)
    return found.hexdigest()[:12]


def cache_file() -> Path:
    """Where hashes of large files are kept: $XDG_CACHE_HOME/darkroom/hashes.json, by default under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or home() / ".cache"
    return Path(base) / "darkroom" / "hashes.json"


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, time: int) -> str:
    key = _key(path, size, time)
    if size >= _KEPT_FROM and (known := _kept().get(key)):
        return known
    found = digest(path)
    if size >= _KEPT_FROM:
        _keep(key, found)
    return found


def _kept() -> dict[str, str]:
    try:
        value = json.loads(cache_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _keep(key: str, value: str) -> None:
    """Remember a hash; whoever cannot write there goes without."""
    file = cache_file()
    rows = [*_kept().items(), (key, value)][-_MOST_KEPT:]
    with contextlib.suppress(DarkroomError):
        write_json(file, dict(rows))
