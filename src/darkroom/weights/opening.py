"""Opening files of weights, whatever their format and whoever wrote them.

Nothing in a file is executed or trusted: each reader checks what the header claims against the file before it hands
out a tensor. Which reader is meant is decided by what a file begins with, for names are often wrong.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from darkroom.errors import ModelError, UnsupportedModel
from darkroom.weights.gguf import read_gguf
from darkroom.weights.mapped import Entry, Mapped, WeightsFile, short
from darkroom.weights.names import weights_name
from darkroom.weights.packed import packed_as
from darkroom.weights.safe_tensors import LONGEST_HEADER, json_object, read_safetensors
from darkroom.weights.scaled import unscaled
from darkroom.weights.torch_files import read_legacy, read_zip

_ANEW = "fetch the file itself, with its download link"
# What is found under a checkpoint's name when something went wrong, by its first bytes.
_MISTAKES = (
    (rb"version https://git-lfs", "is a Git LFS pointer, not the file: run `git lfs pull` beside it"),
    (rb"\s*<(!doctype|html|head|body|\?xml)", f"is a web page saved under this name: {_ANEW}"),
    (rb"\s*[{\[]", f"is JSON text, no weights: {_ANEW}"),
    (rb"PK\x05\x06", f"is an empty zip archive: {_ANEW}"),
    (rb"\x1f\x8b|BZh|7z\xbc\xaf|Rar!|\xfd7zXZ|\x28\xb5\x2f\xfd", "is a compressed archive: unpack it first"),
    (rb"\x89HDF", "is an HDF5 file (Keras): get the model as safetensors"),
    (rb"\x89PNG|\xff\xd8\xff|RIFF|GIF8", f"is a picture: {_ANEW}"),
    (rb"GGML|ggml|tjgg|fmgg|lmgg", "is a GGML file from before GGUF: get the model as GGUF or safetensors"),
    (rb"\x00{32}", "begins with nothing but zeros: the download is incomplete, fetch it anew"),
)
_OLD_PICKLE = rb"L119547037146038801333356L|\(*[ci][\w.]+\n[\w.]+\n"
_MOST_SHARDS = 1000


def open_weights(path: Path | str) -> WeightsFile:
    """The tensors of one file: safetensors, torch (.ckpt, .pt, .pth, .bin; new and old) or GGUF.

    Reads the header only. Raises ModelError that says what the file is instead, or what is wrong with it, and what
    to do. Use it as a context manager, or call `close`.
    """
    file = Mapped(Path(path))
    try:
        weights = _read(file)
        if packed := packed_as(weights.entries):
            raise UnsupportedModel(
                f"{file.path} holds {packed}, which Darkroom does not read: get the model in float16, bfloat16, "
                "8-bit floats or as GGUF"
            )
        return unscaled(weights)
    except BaseException:
        file.close()
        raise


def open_shards(index: Path | str) -> WeightsFile:
    """The tensors that an index (`*.safetensors.index.json`, `*.bin.index.json`) lists, from the files beside it.

    The files must be named without a folder. They may be links to anywhere, as they are in a Hugging Face cache:
    whoever can make a link here can read its target anyway. Raises ModelError where a file or tensor is missing.
    """
    file = Mapped(Path(index))
    try:
        names = _weight_map(file)
    finally:
        file.close()
    with ExitStack() as opened:
        shards = {
            shard: opened.enter_context(open_weights(file.path.parent / shard))
            for shard in sorted({*names.values()})
        }
        for name, shard in names.items():
            if name not in shards[shard].entries:
                raise file.error(
                    f"promises {short(name)} in {shard}, which lacks it: the files do not belong together"
                )
        opened.pop_all()

    def read(entry: Entry) -> NDArray[Any]:
        return shards[names[entry.name]].read(entry)

    entries = {name: shards[shard].entries[name] for name, shard in names.items()}
    files = tuple(part for shard in shards.values() for part in shard.files)
    metadata: dict[str, str] = {}
    for opened_shard in shards.values():
        metadata |= opened_shard.metadata
    return WeightsFile(file.path, next(iter(shards.values())).format, entries, files, read, metadata)


def weights_at(path: Path, variant: str | None = None) -> WeightsFile:
    """The weights of a file, or of a component's folder: there, of the variant asked for if there is one."""
    if not path.is_dir():
        return open_weights(path)
    name = weights_name({file.name for file in path.iterdir()}, variant)
    if name is None:
        raise ModelError(f"{path} holds no weights: the model folder is incomplete")
    return (open_shards if name.endswith(".json") else open_weights)(path / name)


def _weight_map(file: Mapped) -> dict[str, str]:
    """The file each tensor is in."""
    try:
        if file.size > LONGEST_HEADER:
            raise ValueError(f"{file.size} bytes")
        names = json_object(file.read(0, file.size)).get("weight_map")
    except ValueError as error:
        raise file.error(f"is no index of weights ({error}): fetch it anew") from error
    if not isinstance(names, dict) or not names:
        raise file.error("has no weight_map, so it is no index of weights: fetch it anew")
    for shard in names.values():
        if not isinstance(shard, str) or not re.fullmatch(r"(?!\.+$)[^/\\:\0]+", shard):
            raise file.error(
                f"names the file {short(shard)}, which is not beside it: it is damaged or malicious"
            )
    shards = set(names.values())
    if len(shards) > _MOST_SHARDS:
        raise file.error(f"names {len(shards)} files, more than any model has")
    return names


def _read(file: Mapped) -> WeightsFile:
    head = file.read(0, min(512, file.size))
    if head.startswith(b"GGUF"):
        return read_gguf(file)
    if head.startswith(b"PK\3\4"):
        return read_zip(file)
    # The length of a header is a small number, whose bytes are no text.
    if head[8:9] == b"{" and not _text(head[:8]):
        return read_safetensors(file)
    if re.match(rb"\x80[\x00-\x05]|" + _OLD_PICKLE, head):
        return read_legacy(file)
    if head[257:262] == b"ustar":
        raise file.error(
            "is a tar archive, torch's format of 2016, which is not supported: get it as safetensors"
        )
    if file.path.name.endswith(".json") and b'"weight_map"' in file.read(0, min(file.size, LONGEST_HEADER)):
        raise file.error("lists the files of a network: give the folder that it is in")
    for form, words in _MISTAKES:
        if re.match(form, head, re.IGNORECASE):
            raise file.error(words)
    if _text(head):
        raise file.error(f"is text, no weights ({short(head.decode('ascii').strip())!r}): {_ANEW}")
    if file.path.suffix.lower() == ".safetensors":
        return read_safetensors(file)
    raise file.error("is in none of the formats known: safetensors, torch's and GGUF are. Fetch it anew")


def _text(raw: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\n\r" for byte in raw)
