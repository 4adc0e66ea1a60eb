"""Makers of malicious files: each would create a file, the canary, or exhaust the machine, if it got its way."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.errors import ModelError
from darkroom.weights.opening import open_weights
from darkroom.weights.torch_files import MAGIC, VERSION

MOST_GROWTH = 200  # MB


def text(words: str) -> bytes:
    """The opcode of a text."""
    raw = words.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    """The opcodes of a name as protocol 4 spells it, from texts on the stack."""
    return text(module) + text(name) + b"\x93"


# Complete pickles by what they try, given a shell command. Python's own reader runs it for those in BITING.
PICKLES: dict[str, Callable[[str], bytes]] = {
    "global posix": lambda c: b"\x80\x02cposix\nsystem\n" + text(c) + b"\x85R.",
    "global os": lambda c: b"\x80\x02cos\nsystem\n" + text(c) + b"\x85R.",
    "global nt": lambda c: b"\x80\x02cnt\nsystem\n" + text(c) + b"\x85R.",
    "protocol 0": lambda c: b"cposix\nsystem\n(" + text(c) + b"tR.",
    "subprocess": lambda c: b"\x80\x02csubprocess\ngetoutput\n" + text(c) + b"\x85R.",
    "stack global": lambda c: b"\x80\x04" + named("posix", "system") + text(c) + b"\x85R.",
    "stack global from memo": lambda c: (
        b"\x80\x04" + text("system") + b"\x940" + text("posix") + b"\x940h\x01h\x00\x93" + text(c) + b"\x85R."
    ),
    "stack global with dots": lambda c: (
        b"\x80\x04" + named("torch.serialization", "os.system") + text(c) + b"\x85R."
    ),
    "inst": lambda c: b"\x80\x02(" + text(c) + b"iposix\nsystem\n.",
    "obj": lambda c: b"\x80\x02(cposix\nsystem\n" + text(c) + b"o.",
    "newobj": lambda c: b"\x80\x02csubprocess\nPopen\n" + text(c) + b"\x85\x81.",
    "newobj with keywords": lambda c: b"\x80\x04csubprocess\nPopen\n" + text(c) + b"\x85}\x92.",
    "extension 1": lambda c: b"\x80\x02\x82\x01" + text(c) + b"\x85R.",
    "extension 2": lambda c: b"\x80\x02\x83\x01\x00" + text(c) + b"\x85R.",
    "extension 4": lambda c: b"\x80\x02\x84\x01\x00\x00\x00" + text(c) + b"\x85R.",
    "eval": lambda c: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').system({c!r})") + b"\x85R.",
    "exec of Python 2": lambda c: b"\x80\x02c__builtin__\nexec\n" + text(f"import os\nos.system({c!r})") + b"\x85R.",
    "getattr": lambda c: (
        b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n"
        + (text("os") + b"\x85R" + text("system") + b"\x86R" + text(c) + b"\x85R.")
    ),
    "getattr of a module's module": lambda c: (
        b"\x80\x02cbuiltins\ngetattr\ncbuiltins\ngetattr\nctorch\nserialization\n"
        + (text("os") + b"\x86R" + text("spawnlp") + b"\x86R(K\x00" + text("sh") * 2 + text("-c") + text(c) + b"tR.")
    ),
    "partial": lambda c: (
        b"\x80\x02cfunctools\npartial\ncposix\nsystem\n" + text(c) + b"\x86R)R."
    ),
    "methodcaller": lambda c: (
        b"\x80\x02coperator\nmethodcaller\n" + text("system") + text(c) + b"\x86Rcos\nsys\n\x85R."
    ),
    "runpy": lambda c: b"\x80\x02crunpy\n_run_code\n" + text(c) + b"}\x86R.",
    "webbrowser": lambda c: b"\x80\x02cwebbrowser\nopen\n" + text(c) + b"\x85R.",
    "torch.hub": lambda c: b"\x80\x02ctorch.hub\nload\n" + text(c) + b"\x85R.",
    "torch.jit": lambda c: b"\x80\x02ctorch.jit\nload\n" + text(c) + b"\x85R.",
    "torch.load": lambda c: b"\x80\x02ctorch.serialization\nload\n" + text(c) + b"\x85R.",
    "numpy.f2py": lambda c: b"\x80\x02cnumpy.f2py.crackfortran\nmyeval\n" + text(c) + b"\x85R.",
    "inside a dict": lambda c: (
        b"\x80\x02}" + text("state_dict") + b"ccollections\nOrderedDict\n)R" + text("a")
        + (b"cposix\nsystem\n" + text(c) + b"\x85Rss.")
    ),
    "state that is a call": lambda c: (
        b"\x80\x02ccollections\nOrderedDict\n)R}" + text("a") + b"cposix\nsystem\n" + text(c) + b"\x85Rsb."
    ),
}  # fmt: skip
BITING = set(PICKLES) - {
    *("global nt", "newobj", "newobj with keywords", "extension 1", "extension 2", "extension 4"),
    *("exec of Python 2", "methodcaller", "runpy", "webbrowser", "torch.hub", "torch.jit", "torch.load"),
    "numpy.f2py",
}


def in_file(raw: bytes, path: Path) -> Path:
    path.write_bytes(raw)
    return path


def in_zip(raw: bytes, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """As torch.save would write it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", raw)
        archive.writestr("archive/version", "3\n")
    return path


def in_deflated_zip(raw: bytes, path: Path) -> Path:
    return in_zip(raw, path, zipfile.ZIP_DEFLATED)


def in_zip_in_zip(raw: bytes, path: Path) -> Path:
    inner = in_zip(raw, path.with_suffix(".inner")).read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.ckpt", inner)
    return path


def in_tar(raw: bytes, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def in_legacy(raw: bytes, path: Path) -> Path:
    """Where torch's old format has its object."""
    path.write_bytes(legacy_head() + raw)
    return path


def after_stop(raw: bytes, path: Path) -> Path:
    """Behind an honest pickle."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as honest:
        return in_zip(honest.read("archive/data.pkl") + raw, path)


def legacy_head() -> bytes:
    facts = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}
    return b"".join(pickle.dumps(value, protocol=2) for value in (MAGIC, VERSION, facts))


WRAPPERS = (in_file, in_zip, in_deflated_zip, in_zip_in_zip, in_tar, in_legacy, after_stop)


class Reducing(dict[str, Any]):
    """A dict whose pickle is a call."""

    def __init__(self, command: str) -> None:
        super().__init__(weight=torch.ones(2))
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Restoring:
    """An object that acts when it is given its state, and that nobody's list of dangers knows."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["canary"]).touch()


@contextmanager
def bounded_memory(most: int = MOST_GROWTH) -> Iterator[None]:
    """Fails if this process grew by more than `most` MB at any moment within."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # The high-water mark starts anew.
    except OSError:
        pytest.skip("the high-water mark of memory can be read on Linux only")
    before = _high_water()
    yield
    assert _high_water() - before < most


def refused(
    path: Path, *words: str, opened: Callable[[Path], object] = open_weights, most: int = MOST_GROWTH
) -> str:
    """Opening a file is one line of ModelError with these words, and takes little memory."""
    with bounded_memory(most), pytest.raises(ModelError) as raised:
        opened(path)
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def _high_water() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
