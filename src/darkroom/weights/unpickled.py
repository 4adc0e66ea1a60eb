"""What a pickle may name, and what is made of it: tensors, plain containers, or an inert stand-in.

Every function here takes its arguments from a stranger's file. A wrong one ends in one of the errors that
`pickles.Machine` expects of damage (TypeError, ValueError and their like).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from darkroom.weights.dtypes import SIZES
from darkroom.weights.mapped import count, short, whole

DTYPES = {f"torch.{name}": name for name in SIZES}
STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.storage.UntypedStorage": "uint8",
    "torch.storage._UntypedStorage": "uint8",
}
_NUMPY = {
    **{"f8": "d", "f4": "f", "f2": "e", "b1": "?", "i8": "q", "i4": "i", "i2": "h", "i1": "b"},
    **{"u8": "Q", "u4": "I", "u2": "H", "u1": "B"},
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Packages of which no checkpoint has ever held anything but an attack.
_DANGEROUS = _words(
    """
    os posix nt posixpath ntpath subprocess _posixsubprocess sys runpy importlib imp pkgutil zipimport site ctypes
    _ctypes cffi pty tty shutil socket _socket socketserver ssl select asyncio multiprocessing threading _thread
    concurrent signal resource webbrowser antigravity http urllib urllib2 urllib3 httplib requests httpx aiohttp
    ftplib smtplib telnetlib xmlrpc paramiko pickle _pickle cPickle pickletools shelve marshal dill cloudpickle
    joblib jsonpickle yaml code codeop pdb bdb cProfile profile pstats timeit trace doctest unittest pydoc idlelib
    lib2to3 distutils setuptools pip ensurepip venv commands popen2 platform operator _operator tempfile fileinput
    linecache glob io _io mmap sqlite3 dbm tkinter turtle curses readline atexit faulthandler winreg _winapi
    msvcrt winsound fcntl termios pwd grp spwd crypt IPython ipykernel pytest nox
    """
)
_DANGEROUS_CALLS = _words(
    """
    eval exec execfile compile __import__ __builtins__ __globals__ __subclasses__ __getattribute__ setattr
    delattr open system popen Popen check_output spawn FunctionType CodeType LambdaType runstring run_code
    """
)
_DANGEROUS_NAMES = _words(
    """
    torch.load torch.save torch.hub torch.jit torch.package torch.ops torch.classes torch.fx.graph_module
    torch.serialization.load torch.storage._load_from_bytes torch.utils.cpp_extension torch.utils.model_zoo
    torch.utils.collect_env torch.utils.bottleneck torch._inductor torch._dynamo torch.distributed.rpc
    torch.multiprocessing numpy.f2py numpy.distutils numpy.load numpy.testing numpy.lib.npyio pandas.read_pickle
    pandas.eval
    """
)
_BUILTINS = _words(
    """
    bool bytearray bytes complex dict float frozenset getattr int list long object range set slice str tuple type
    unicode xrange NoneType Ellipsis NotImplemented
    """
)


class Opaque:
    """The inert stand-in for a class, function or object: its name, and whatever the pickle gave to it."""

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: dict[Any, Any] | None = None

    def contents(self) -> dict[Any, Any]:
        """Its items, made when the first is given: few have any."""
        if self.items is None:
            self.items = {}
        return self.items

    def __repr__(self) -> str:
        return f"<{short(self.name)}>"


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in the file that tensors share: which, of what type, and `nbytes` from byte `start` of them."""

    key: str
    dtype: str
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a storage, from byte `start` of its numbers; strides count numbers."""

    key: str
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def dangerous(module: str, name: str) -> bool:
    parts = name.split(".")
    if module in ("builtins", "__builtin__") and parts[0] not in _BUILTINS:
        return True
    if module.split(".")[0] in _DANGEROUS or not _DANGEROUS_CALLS.isdisjoint(parts):
        return True
    # Protocol 4 looks names with dots up step by step: "torch.serialization" "os.system" is os.system.
    if len(parts) > 1 and not _DANGEROUS.isdisjoint(parts):
        return True
    return any(f"{module}.{name}.".startswith(f"{known}.") for known in _DANGEROUS_NAMES)


def as_key(value: Any) -> Any:
    """A value as the key of a dict or set.

    Only what is quick to hash: tuples, and integers beyond the modulus of Python's hash, can be chosen so that all
    collide or that hashing one takes for ever. Nothing torch writes has such keys; they become stand-ins.
    """
    if isinstance(value, str | bytes | float | bool | Opaque | None):
        return value
    if isinstance(value, int) and abs(value) < 2**60:
        return value
    return Opaque(type(value).__name__)


def _members(values: Any) -> Collection[Any]:
    """What a container is made of: another, not the signs of a text, each of which would take a hundred times more."""
    if not isinstance(values, list | tuple | set | frozenset | dict):
        raise TypeError("a container made of what is none")
    return values


def _mapping(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return dict(pairs)
    return {as_key(key): value for key, value in _members(pairs)}


def _set(values: Any = ()) -> set[Any]:
    return set(map(as_key, _members(values)))


def _frozen_set(values: Any = ()) -> frozenset[Any]:
    return frozenset(_set(values))


def _view(storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any) -> StoredTensor | Opaque:
    """A tensor that lies within its storage; offset and strides count numbers."""
    if not isinstance(storage, Storage):
        return Opaque("torch.Tensor")  # In a storage of a kind that no network uses: quantised, sparse.
    dtype = dtype or storage.dtype
    size = SIZES[dtype]
    numbers = count(shape)
    if len(shape) != len(strides) or not all(map(whole, (offset, *strides))):
        raise ValueError(f"a tensor of shape {short(shape)} with strides {short(strides)}")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if numbers and (last + 1) * size > storage.nbytes:
        raise ValueError(f"a tensor of shape {short(shape)} reaches beyond its {storage.nbytes} bytes")
    # A view may repeat its numbers (stride 0), but not so as to make gigabytes of a few bytes.
    if numbers * size > max(storage.nbytes, 2**20):
        raise ValueError(f"a tensor of shape {short(shape)} out of {storage.nbytes} bytes")
    return StoredTensor(storage.key, dtype, storage.start + offset * size, tuple(shape), tuple(strides))


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any = None,
    _hooks: Any = None,
    bits: Any = None,
) -> StoredTensor | Opaque:
    return _view(storage, None, offset, shape, strides) if not bits else Opaque("torch.Tensor")


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, bits: Any = None
) -> StoredTensor | Opaque:
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise TypeError("a tensor of no type")
    return _view(storage, dtype, offset, shape, strides) if not bits else Opaque("torch.Tensor")


def _parameter(data: Any, *_: Any) -> StoredTensor | Opaque:
    if not isinstance(data, StoredTensor | Opaque):
        raise TypeError("a parameter that is no tensor")
    return data


def _subclass(function: Any, _kind: Any, args: Any, _state: Any) -> StoredTensor | Opaque:
    """A tensor with attributes, which are left out."""
    return _TENSORS[function.name](*args) if function.name in _TENSORS else Opaque("torch.Tensor")


def _encoded(text: Any, encoding: Any = "utf-8") -> bytes:
    """How protocols before 3 spell bytes."""
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8", "utf8"):
        raise ValueError(f"the encoding {short(encoding)}")
    return bytes(text.encode(encoding))


def _byte_array(value: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(_encoded(value, encoding) if isinstance(value, str) else memoryview(value))


def _scalar(kind: Any, data: Any) -> Any:
    """A NumPy number as Python's; `kind` stands for a dtype, whose state begins with a version and the byte order."""
    form = _NUMPY.get(kind.args[0])
    if form is None:
        return Opaque("numpy.generic")
    order = ">" if isinstance(kind.state, tuple) and kind.state[1] == ">" else "<"
    return struct.unpack(order + form, data.encode("latin1") if isinstance(data, str) else data)[0]


def _reconstructed(kind: Any, *_: Any) -> Opaque:
    return Opaque(kind.name)


_TENSORS: dict[str, Callable[..., StoredTensor | Opaque]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
MAKERS: dict[str, Callable[..., Any]] = _TENSORS | {
    "torch._tensor._rebuild_from_type": _subclass,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.tensor._rebuild_from_type": _subclass,
    "torch.Size": lambda sizes=(): tuple(_members(sizes)),
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": lambda *_: {},
    "_codecs.encode": _encoded,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "builtins.frozenset": _frozen_set,
    "__builtin__.frozenset": _frozen_set,
    "builtins.bytearray": _byte_array,
    "__builtin__.bytearray": _byte_array,
    "builtins.complex": lambda real=0.0, imaginary=0.0: complex(float(real), float(imaginary)),
}
