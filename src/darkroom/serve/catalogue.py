"""The models of the service, read as far as their headers: what is asked for is settled without one being loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.assembly import Opened, open_model
from darkroom.checkpoint.opening import open_source
from darkroom.errors import DarkroomError, ModelError
from darkroom.library.describe import describe
from darkroom.library.locate import available, locate, name_of
from darkroom.library.records import Library
from darkroom.loading import Loading
from darkroom.networks.roles import DENOISERS
from darkroom.weights.hashes import known_sha256


class Catalogue:
    """The models that there are: those of the library and the embedded ones, and the service's `usual` one, which may
    lie anywhere. May be used from any thread."""

    def __init__(self, usual: str) -> None:
        self._own = locate(usual)
        self.usual = usual if usual in available() else name_of(self._own)
        """The name of the model that is taken where none is asked for."""
        self._given = usual
        self._opened: dict[str, _Headers] = {}
        self._described: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def loading(self, name: str) -> Loading:
        """What the model of a name is loaded with."""
        return Loading(self._given if name == self.usual else name)

    def _path(self, name: str) -> Path:
        return self._own if name == self.usual else locate(name)

    def named(self, model: str | None) -> str:
        """A model by the name that is its own, the usual one where none is asked for. Raises ModelError where there is
        none."""
        return self.usual if model in (None, self.usual) else name_of(locate(str(model)))

    def opened(self, name: str) -> Opened:
        """A model as far as its headers. Raises ModelError where it is missing or damaged."""
        with self._lock:
            if name not in self._opened or self._opened[name].changed():
                if before := self._opened.pop(name, None):
                    before.files.close()
                stamp, files = _stamp(path := self._path(name)), ExitStack()
                opened = files.enter_context(open_model(self.loading(name)))
                self._opened[name] = _Headers(path, stamp, opened, files)
            return self._opened[name].opened

    def names(self) -> list[str]:
        """Of all models, the usual one first."""
        known = {entry.name for entry in Library.read().of_kind("model")}
        return [self.usual, *sorted(({*available()} | known) - {self.usual})]

    def about(self, name: str) -> Mapping[str, Any]:
        """What there is to know of a model: its family, its native size, what it has in place of what is left open.
        Says `error` of one that cannot be read."""
        try:
            path = self._path(name)
            key = name, *_stamp(path)
            if key not in self._described:
                found = describe(path)
                self._described[key] = {
                    "family": found.family,
                    "native_size": found.native_size,
                    "defaults": dict(found.defaults),
                    "created": key[1] // 10**9,
                }
            return self._described[key]
        except DarkroomError as error:
            return {"error": str(error)}

    def sha256(self, name: str) -> str | None:
        """The hash that A1111 knows a model by, that of the file with its denoiser; None where it is not known yet, or
        the model cannot be read."""
        with suppress(DarkroomError, OSError):
            path = self._path(name)
            if path.is_dir():
                with open_source(path) as source:
                    path = next(files[0] for role, files in source.files().items() if role in DENOISERS)
            return known_sha256(path)
        return None

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            for each in self._opened.values():
                each.files.close()
            self._opened.clear()


_SECONDS_TRUSTED = 1.0


@dataclass
class _Headers:
    """A model whose files are open, as they were when somebody looked."""

    path: Path
    stamp: tuple[int, int]
    opened: Opened
    files: ExitStack
    looked: float = field(default_factory=time.monotonic)

    def changed(self) -> bool:
        """Whether the files are others now; looked at once a second."""
        if (here := time.monotonic()) - self.looked < _SECONDS_TRUSTED:
            return False
        self.looked = here
        return _stamp(self.path) != self.stamp


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file, or with what is in a folder."""
    try:
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        stats = [each.stat() for each in files]
    except OSError as error:
        raise ModelError(f"{path.name} cannot be looked at: {error.strerror}") from error
    return max((each.st_mtime_ns for each in stats), default=0), sum(each.st_size for each in stats)
