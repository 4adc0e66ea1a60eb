"""A file of weights as bytes in memory, and the face that every format of such files shows.

The file is memory-mapped: opening reads its header alone, and a tensor is a view of the file until somebody converts
it. The map is private, so that writing to a tensor changes memory and never the file.
"""

from __future__ import annotations

import math
import mmap
import os
import reprlib
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from darkroom.errors import ModelError
from darkroom.weights.dtypes import as_floats, as_tensor, bits_of

if TYPE_CHECKING:
    from torch import Tensor

# Far more than any model has, and few enough to be listed in a moment.
MOST_TENSORS = 100_000
WINDOW = 64 << 20
"""How much of a file may be in this process's memory beside what was made of it, in bytes."""
_MOST_DIMENSIONS = 16
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python names it from 3.13 on; the number is Linux's.


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file, as its header describes it.

    `dtype` is one of `SIZES`, or the name of what `WeightsFile.get` turns into float32: a GGUF quantisation ("Q4_K"),
    "float8_e4m3fn, scaled". `nbytes` is what the numbers take: of a quantised tensor, in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Mapped:
    """The bytes of a file, and what is needed to notice that it has become another one.

    Raises ModelError, here and from `check`, where there is no such file or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Before it is opened: opening a pipe would wait for somebody to write to it.
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise self.error(
                    "is a folder: give the file of weights in it, or the folder of a whole model"
                )
            if not stat.S_ISREG(mode):
                raise self.error("is no regular file: give a file of weights")
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise self.error("there is no such file") from None
        except (OSError, ValueError) as error:
            raise self.error(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
        try:
            self._identity = _identity(os.fstat(self._file.fileno()))
            self.size = os.fstat(self._file.fileno()).st_size
            if not self.size:
                raise self.error("is empty: fetch it anew")
            self.data = _map(self._file.fileno())
        except OSError as error:
            self._file.close()
            raise self.error(f"cannot be mapped into memory ({error.strerror})") from error
        except ModelError:
            self._file.close()
            raise

    def error(self, words: str) -> ModelError:
        """An error about this file, in one line whatever names the file puts into it."""
        line = f"{self.path}: {words}"
        return ModelError("".join(sign if sign.isprintable() else "?" for sign in line))

    def read(self, start: int, count: int) -> bytes:
        """A copy of some bytes, for headers: unlike the map's, its pages do not stay in this process."""
        self._file.seek(start)
        found = self._file.read(count)
        if len(found) != count:
            raise self.error("ends too early: the download is incomplete, fetch it anew")
        return found

    def check(self) -> None:
        """Raise ModelError if the file is no longer the one that was opened: cut short, written to or replaced.

        One thing no check can catch: a file cut short between this and the first use of a tensor's numbers, which
        the system answers by ending the process (SIGBUS). Write a new file and rename it, as every downloader does,
        and this cannot happen.
        """
        try:
            now = {_identity(os.fstat(self._file.fileno())), _identity(os.stat(self.path))}
        except OSError:
            now = set()
        except ValueError:
            raise self.error("was closed, and the model with it: load it again") from None
        if now != {self._identity}:
            raise self.error("has changed since it was opened: load it again when it is complete")

    def array(
        self, start: int, dtype: str, shape: Sequence[int], strides: Sequence[int] | None = None
    ) -> NDArray[Any]:
        """The tensor whose first number begins at byte `start`; strides are in numbers, None where it is dense. Types
        that NumPy lacks come as their bits.

        A view of the file, unless its numbers lie across the boundaries of their type (as in torch's old format):
        processors need not be able to read those, so they are copied.
        """
        kind = np.dtype(bits_of(dtype))
        if 0 in shape:
            return np.empty(shape, kind)
        if strides is None:
            strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        count = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        flat = np.frombuffer(self.data, kind, count, start)
        if start % kind.itemsize:
            flat = flat.copy()
        return as_strided(flat, shape, [stride * kind.itemsize for stride in strides])

    def advise(self, advice: str) -> None:
        """Tell the system, where it listens, that the file will be read soon ("MADV_WILLNEED"), or that what was read
        need not stay in this process ("MADV_DONTNEED": it is read again when it is looked at)."""
        if sys.platform == "linux":
            self.data.madvise(getattr(mmap, advice))

    def close(self) -> None:
        """Let go of the file. Tensors already handed out stay valid: the last of them takes the map along."""
        self._file.close()
        # Never `data.close()`: torch does not tell Python that a tensor still looks at the map.
        self.__dict__.pop("data", None)


@dataclass
class WeightsFile:
    """The tensors of one file, or of one that is stored in several.

    `format` is "safetensors", "torch", "torch-legacy" or "gguf". `metadata` is the text a file says about itself;
    `extra` the plain values that torch files hold beside their tensors ("global_step", "epoch"). `read` gives a
    tensor's numbers as `Mapped.array` does, or as float32 where they are stored as something else than numbers.
    """

    path: Path
    format: str
    entries: dict[str, Entry]
    files: tuple[Mapped, ...]
    read: Callable[[Entry], NDArray[Any]] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    _spent: int = field(default=0, init=False, repr=False)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by name."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def get(self, name: str) -> Tensor:
        """A tensor by name, on the CPU: a view of the file (see `Mapped.array`), or float32 if it was quantised.

        Raises ModelError where the file has no such tensor or has changed since it was opened.
        """
        return as_tensor(self._numbers(name), self.entries[name].dtype)

    def floats(self, name: str) -> NDArray[np.float32]:
        """The numbers of a tensor of some floating-point type, for a look at them without importing torch. Raises as
        `get` does."""
        return as_floats(self._numbers(name), self.entries[name].dtype)

    def _numbers(self, name: str) -> NDArray[Any]:
        if name not in self.entries:
            raise self.files[0].error(f"has no tensor {short(name)}: it is another model's")
        self.check()
        return self.read(self.entries[name])

    def check(self) -> None:
        """Raise ModelError if a file has changed since it was opened; ask once more after converting."""
        for file in self.files:
            file.check()

    def prefetch(self) -> None:
        """Have the system read the files ahead."""
        for file in self.files:
            file.advise("MADV_WILLNEED")

    def spend(self, count: int) -> None:
        """Say that some more bytes were read and are done with: when they come to `WINDOW`, the memory of all that was
        read so far is given back, and whatever was written to its views is lost."""
        self._spent += count
        if self._spent >= WINDOW:
            self._spent = 0
            for file in self.files:
                file.advise("MADV_DONTNEED")

    def close(self) -> None:
        """Let go of the files. Tensors already handed out stay valid."""
        for file in self.files:
            file.close()

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def whole(value: Any) -> bool:
    """Whether a value read from a file is a whole number that torch can count to."""
    return type(value) is int and 0 <= value < 2**63


def count(shape: Sequence[Any]) -> int:
    """How many numbers a tensor of a shape holds; ValueError where no tensor can have it."""
    if len(shape) > _MOST_DIMENSIONS or not all(map(whole, shape)):
        raise ValueError(f"the shape {short(shape)} is impossible")
    if math.prod(max(size, 1) for size in shape) >= 2**63:
        raise ValueError(f"the shape {short(shape)} is too large")
    return math.prod(shape)


def short(value: object) -> str:
    """A name or value out of a file, cut to what fits into a message."""
    words = value if isinstance(value, str) else reprlib.repr(value)
    return words if len(words) <= 80 else f"{words[:77]}..."


def _map(descriptor: int) -> mmap.mmap:
    if sys.platform == "linux":
        # Copy on write, yet without memory set aside for the copies: the file may be larger than all there is.
        flags, protection = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(descriptor, 0, flags=flags, prot=protection)
    else:  # noqa: RET505 (a type checker reads one branch a platform)
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
