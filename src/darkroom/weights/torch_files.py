"""Reading what torch.save writes, by way of `pickles`: zip archives since torch 1.6, a plain file before.

A zip archive holds `NAME/data.pkl`, the pickle, and `NAME/data/KEY` for each storage of numbers that tensors share.
The older format is five pickles (a magic number, a version, facts about the machine, the object, the keys of its
storages), then each storage as a count of eight bytes and its numbers. Both are described by torch/serialization.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from numpy.typing import NDArray

from darkroom.weights.archives import contents, offset, read_members
from darkroom.weights.dtypes import SIZES
from darkroom.weights.mapped import MOST_TENSORS, Entry, Mapped, WeightsFile, short
from darkroom.weights.pickles import Machine
from darkroom.weights.unpickled import STORAGES, Opaque, Storage, StoredTensor

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
# Whose tensors are taken where several dicts hold equally many: of a textual inversion its vectors and not its tokens;
# averaged weights, which are those that are published.
_PREFERRED = (
    "string_to_param",
    "params_ema",
    "model_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "params",
    "module",
)
_MOST_SHOWN, _DEEPEST_SHOWN = 10_000, 8


Made = TypeVar("Made")


def read_zip(file: Mapped) -> WeightsFile:
    """The tensors of a zip archive by torch.save. Raises ModelError, as all here, where it is none or refused."""
    return unzipped(file, partial(_weights, file, "torch"))


def unzipped(file: Mapped, made: Callable[[Any, Callable[[str], int]], Made]) -> Made:
    """What is made of the object in such an archive, and of what says at which byte of the file a storage begins."""
    members = read_members(file)
    roots = [name.removesuffix("data.pkl") for name in members if f"/{name}".endswith("/data.pkl")]
    if len(roots) != 1:
        raise file.error(
            "is a zip archive, but none that torch.save wrote (it needs one data.pkl): unpack it and give what is in it"
        )
    root = roots[0]
    if f"{root}constants.pkl" in members:
        raise file.error("is a TorchScript program, not a checkpoint: get its weights as safetensors")
    order = members.get(f"{root}byteorder")
    if order and contents(file, order) != b"little":
        raise file.error(
            "was written on a big-endian machine, which is not supported: convert it to safetensors"
        )

    def stored(reference: Any) -> Storage | Opaque:
        kind, key, nbytes, _ = _reference(reference)
        if kind not in STORAGES:
            return Opaque(kind)
        member = members.get(f"{root}data/{key}")
        if member is None or member.size < nbytes:
            raise ValueError(f"{nbytes} bytes of data/{key} are missing")
        if member.compressed:
            raise file.error(
                "has compressed numbers, as torch never writes them: unpack it and zip it with -0"
            )
        return Storage(key, STORAGES[kind], 0, nbytes)

    pickle = members[f"{root}data.pkl"]
    if pickle.compressed:
        raw = contents(file, pickle)
        machine = Machine(raw, 0, len(raw), stored, file.error)
    else:
        start = offset(file, pickle)
        machine = Machine(file.data, start, start + pickle.size, stored, file.error)
    value = machine.run()
    if machine.at != machine.end:
        raise file.error("has bytes behind the end of its pickle: it is damaged or malicious")
    return made(value, lambda key: offset(file, members[f"{root}data/{key}"]))


def read_legacy(file: Mapped) -> WeightsFile:
    """The tensors of a file in torch's format before 1.6."""
    return unpickled(file, partial(_weights, file, "torch-legacy"))


def unpickled(file: Mapped, made: Callable[[Any, Callable[[str], int]], Made]) -> Made:
    """The same as `unzipped` of such a file."""
    sizes: dict[str, tuple[int, int]] = {}  # Of each storage: its bytes, and those of one number.

    def stored(reference: Any) -> Storage | Opaque:
        if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
            return reference[1] if isinstance(reference[1], Opaque) else Opaque("module")
        kind, key, nbytes, view = _reference(reference)
        if kind not in STORAGES:
            raise file.error(f"has numbers of the unsupported type {short(kind)}: convert it to safetensors")
        width = SIZES[STORAGES[kind]]
        known, _ = sizes.setdefault(key, (nbytes, width))
        if known != nbytes:
            raise ValueError(f"the storage {short(key)} has two sizes")
        match view:
            case None:
                return Storage(key, STORAGES[kind], 0, nbytes)
            case (str(), int(first), int(number)) if (
                min(first, number) >= 0 and first + number <= nbytes // width
            ):
                return Storage(key, STORAGES[kind], first * width, number * width)
        raise ValueError(f"the view {short(view)} of a storage")

    machine = Machine(file.data, 0, file.size, stored, file.error)
    if machine.run() != MAGIC:
        raise file.error("is a pickle, but none that torch.save wrote: get the model as safetensors")
    version, system = machine.run(), machine.run()
    if version != VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise file.error(
            "is in a form of torch's old format that is not supported: convert it to safetensors"
        )
    value, keys = machine.run(), machine.run()
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or sorted(keys) != sorted(sizes)
    ):
        raise file.error("does not list the numbers its tensors need: it is damaged, fetch it anew")
    starts, end = {}, machine.at
    for key in keys:
        starts[key] = end + 8
        end += 8 + sizes[key][0]
    if end > file.size:
        raise file.error(f"lacks its last {end - file.size} bytes: the download is incomplete, fetch it anew")
    if end < file.size:
        raise file.error(
            f"has {file.size - end} bytes that belong to no tensor: it is damaged, fetch it anew"
        )

    def begin(key: str) -> int:
        nbytes, width = sizes[key]
        if int.from_bytes(file.data[starts[key] - 8 : starts[key]], "little") * width != nbytes:
            raise file.error(
                f"contradicts itself on the size of storage {short(key)}: it is damaged, fetch it anew"
            )
        return starts[key]

    return made(value, begin)


def _reference(reference: Any) -> tuple[str, str, int, Any]:
    """What a pickle says of a storage: the name of its type, its key, its size in bytes, and the part it views."""
    match reference:
        case ("storage", Opaque(name=kind), str(key), _, int(number), *rest) if 0 <= number < 2**60:
            nbytes = number * (SIZES[STORAGES[kind]] if kind in STORAGES else 1)
            return kind, key, nbytes, rest[0] if rest else None
    raise ValueError(f"a reference to {short(reference)}")


def _weights(file: Mapped, kind: str, value: Any, start: Callable[[str], int]) -> WeightsFile:
    """The named tensors of an unpickled object; `start` says at which byte of the file a storage begins."""
    tensors, wrapper = _tensors(value)
    if not tensors:
        raise file.error(
            f"holds no named tensors but {_described(value)}: save its state_dict() as safetensors"
        )
    budget = iter(range(_MOST_SHOWN))
    rest = {
        str(key): _plain(item, budget)
        for key, item in (_as_dict(value) or {}).items()
        if item is not wrapper and not isinstance(item, StoredTensor)
    }
    return weights_of(file, kind, tensors, start, rest)


def weights_of(
    file: Mapped,
    kind: str,
    tensors: Mapping[str, StoredTensor],
    start: Callable[[str], int],
    extra: dict[str, Any],
) -> WeightsFile:
    """Tensors of an unpickled object by their names; `extra`: what else there is, as plain data."""
    if len(tensors) > MOST_TENSORS:
        raise file.error(f"holds {len(tensors)} tensors, more than any model has")
    entries = {
        name: Entry(name, tensor.dtype, tensor.shape, math.prod(tensor.shape) * SIZES[tensor.dtype])
        for name, tensor in tensors.items()
    }

    def read(entry: Entry) -> NDArray[Any]:
        tensor = tensors[entry.name]
        begin = start(tensor.key) if entry.nbytes else 0
        return file.array(begin + tensor.start, tensor.dtype, tensor.shape, tensor.strides)

    return WeightsFile(file.path, kind, entries, (file,), read, extra=extra)


def _as_dict(value: Any) -> dict[Any, Any] | None:
    """A dict, the items of an unknown kind of dict, or the parameters of a pickled module (a ParameterDict)."""
    if isinstance(value, Opaque):
        state = value.state if isinstance(value.state, dict) else {}
        value = value.items or state.get("_parameters")
    return value if isinstance(value, dict) else None


def _tensors(value: Any) -> tuple[dict[str, StoredTensor], Any]:
    """The largest set of named tensors in a dict or in the dicts it holds, two deep, and which value holds it."""
    if pairs := _pairs(value):
        return pairs, None
    best: dict[str, StoredTensor] = {}
    rank, holder = (0, 0), None
    for name, item, top in _dicts(value):
        found = {
            key: tensor
            for key, tensor in (_as_dict(item) or {}).items()
            if isinstance(key, str) and isinstance(tensor, StoredTensor)
        }
        preference = len(_PREFERRED) - _PREFERRED.index(name) if name in _PREFERRED else 0
        if (len(found), preference) > rank:
            best, rank, holder = found, (len(found), preference), top
    return best, holder


def _pairs(value: Any) -> dict[str, StoredTensor]:
    """The tensors of A1111's hypernetworks: for each width two dicts of them, one for keys and one for values."""
    found = {}
    for width, pair in (_as_dict(value) or {}).items():
        if isinstance(width, int) and isinstance(pair, list | tuple) and len(pair) == 2:
            for letter, part in zip("kv", pair, strict=True):
                for name, tensor in (_as_dict(part) or {}).items():
                    if isinstance(tensor, StoredTensor):
                        found[f"{width}.{letter}.{name}"] = tensor
    return found


def _dicts(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every dict down to two levels below a value, once: its name, itself, and the value on the first level."""
    seen: set[int] = set()
    level: list[tuple[Any, Any, Any]] = [("", value, value)]
    for depth in range(3):
        yield from level
        below = []
        for _, item, top in level:
            for name, inner in (_as_dict(item) or {}).items():
                found = _as_dict(inner)
                if found is not None and id(found) not in seen:
                    seen.add(id(found))
                    below.append((name, inner, top if depth else inner))
        level = below


def _plain(value: Any, budget: Iterator[int], depth: int = 0) -> Any:
    """A value as what JSON could hold, cut where it goes too deep or on for too long."""
    if next(budget, None) is None or depth > _DEEPEST_SHOWN:
        return "..."
    if value is None or isinstance(value, bool | int | float | str):
        return value
    inner = _as_dict(value)
    if inner is not None:
        items = islice(inner.items(), _MOST_SHOWN)
        return {str(key): _plain(item, budget, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, budget, depth + 1) for item in islice(value, _MOST_SHOWN)]
    return f"<{_described(value)}>"


def _described(value: Any) -> str:
    if isinstance(value, Opaque):
        return f"a {short(value.name)}"
    if isinstance(value, StoredTensor):
        return f"a tensor of shape {value.shape}"
    return f"a {type(value).__name__}"
