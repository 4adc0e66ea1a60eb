"""Whether files are what they were, and whether their numbers are numbers: `darkroom models verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import Source
from darkroom.errors import ModelError
from darkroom.library.records import Entry, File, Version
from darkroom.weights.hashes import digest
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.names import INDEX
from darkroom.weights.opening import weights_at

Progress = Callable[[int], object]
"""Told the bytes that were read since it was last told."""

_CHUNK = 1 << 24


def verify(entry: Entry, number: int, progress: Progress | None = None) -> tuple[Version, list[str]]:
    """Read a version whole: the version with the hashes that its files have, and what is wrong with it, a line each.

    A hash that was not known is no fault. Tensors are looked at only where all files are what they were.
    """
    version, problems, files = entry.versions[number], [], {}
    for name, recorded in version.files.items():
        path = version.root / name
        try:
            size, found = path.stat().st_size, digest(path, progress)
        except OSError as error:
            problems.append(
                f"{path}: {'is missing' if isinstance(error, FileNotFoundError) else error.strerror}"
            )
            continue
        files[name] = File(size, recorded.sha256 or found)
        if size != recorded.size:
            problems.append(f"{path}: has {size} bytes, was recorded with {recorded.size}")
        elif found != files[name].sha256:
            problems.append(f"{path}: has the SHA-256 {found}, was recorded with {recorded.sha256}")
    if problems:
        return version, problems
    try:
        problems += bad_tensors(version.path)
    except ModelError as error:
        problems.append(str(error))
    return Version(**{**vars(version), "files": files}), problems


def bad_tensors(path: Path) -> Iterator[str]:
    """Each tensor of a model or of any file of weights that holds NaN or infinity, in words.

    Of a whole model, the tensors that its networks use; other files may keep such numbers on purpose (an attention
    mask's). Raises ModelError where a network lacks tensors, or the file is damaged.
    """
    with ExitStack() as opened:
        try:
            source = opened.enter_context(open_source(path))
        except ModelError:
            if (path / INDEX).is_file():
                raise
            weights = opened.enter_context(weights_at(path))
            used = [(weights, name) for name in weights.entries if not name.endswith("attn_mask")]
        else:
            used = list(_used(source))
        for weights, name in used:
            if words := _not_finite(weights.get(name)):
                yield f"{weights.path}: {name} holds {words}"
            weights.spend(weights.entries[name].nbytes)


def _used(source: Source) -> Iterator[tuple[WeightsFile, str]]:
    for part in source.parts.values():
        for name in part.names():
            yield part.weights, name


def _not_finite(tensor: Tensor) -> str:
    """How many numbers of a tensor are not-a-number or infinite, in words; "" where none is."""
    if not tensor.is_floating_point():
        return ""
    nan = infinite = 0
    for piece in torch.split(tensor.reshape(-1), _CHUNK):
        # Types of one byte cannot be compared.
        numbers = piece.float() if piece.element_size() == 1 else piece
        if not numbers.numel() or all(bound.isfinite() for bound in numbers.aminmax()):
            continue
        nan += int(numbers.isnan().sum())
        infinite += int(numbers.isinf().sum())
    found = [f"{count} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite")) if count]
    return f"{' and '.join(found)} of {tensor.numel()} numbers" if found else ""
