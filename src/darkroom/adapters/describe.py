"""What an adapter's file is: its kind, its sizes, what its trainer wrote into it, and whether it fits a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from darkroom.adapters.adapter import Adapter, family_of_adapter, fitted, mismatch
from darkroom.adapters.groups import Contents, read_contents
from darkroom.adapters.names import prefixed
from darkroom.adapters.patches import Decomposed, Hadamard, Kronecker, LowRank, Patch
from darkroom.networks.roles import Role
from darkroom.weights.dtypes import dtype_name
from darkroom.weights.hashes import autov3, sha256_of

_MOST_WORDS = 12
_KINDS = {
    "LowRank": "LoRA",
    "Hadamard": "LoHa",
    "Kronecker": "LoKr",
    "Scaled": "(IA)3",
    "Difference": "difference",
}
_SAID = {
    "modelspec.title": "title",
    "modelspec.author": "author",
    "modelspec.trigger_phrase": "trigger",
    "ss_output_name": "name",
    "ss_sd_model_name": "trained on",
    "ss_base_model_version": "base",
    "ss_resolution": "resolution",
    "ss_num_train_images": "pictures",
    "ss_steps": "steps",
    "ss_epoch": "epoch",
    "ss_learning_rate": "learning rate",
    "darkroom_merged": "merged of",
}
"""Entries of the metadata that say something to a user."""


@dataclass(frozen=True)
class AdapterDescription:
    """What a file holds: layers by network, kinds of patches, ranks (smallest, largest), precision; `words` it was
    trained with, most frequent first; `fit` says in words how it fits a model, None where it was asked of none."""

    path: str
    size: int
    family: str | None
    layers: Mapping[str, int]
    kinds: Mapping[str, int]
    ranks: tuple[int, int] | None
    precisions: tuple[str, ...]
    embeddings: tuple[str, ...]
    said: Mapping[str, str]
    words: tuple[str, ...]
    sha256: str
    autov3: str | None
    unknown: tuple[str, ...] = ()
    fit: str | None = None
    fits: bool | None = None
    unused: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def describe_adapter(
    path: Path, networks: Mapping[Role, nn.Module] | None = None, model: str = ""
) -> AdapterDescription:
    """What an adapter's file is, and with `networks` (they need no weights) whether it fits the model that is called
    `model`. Raises ModelError where it cannot be read."""
    contents = read_contents(path)
    kinds, ranks = _kinds_and_ranks(_patches(contents))
    tensors = [tensor for group in contents.groups.values() for tensor in group.parts.values()]
    fit, fits, unused = None, None, {}
    if networks is not None:
        found = fitted(contents, networks)
        fits = found.whole and bool(found.patches)
        fit = (
            f"fits {model}"
            if fits
            else f"does not fit {model}: {mismatch(contents, found) or 'nothing in it does'}"
        )
        unused = dict(Counter(found.unused.values()))
    return AdapterDescription(
        str(path),
        sum(file.stat().st_size for file in contents.files),
        family_of_adapter(contents),
        dict(Counter(prefixed(key)[0] or "network" for key in contents.groups)),
        kinds,
        ranks,
        tuple(sorted({dtype_name(tensor.dtype) for tensor in tensors})),
        tuple(contents.embeddings),
        {name: contents.metadata[key] for key, name in _SAID.items() if contents.metadata.get(key)},
        _words(contents.metadata),
        sha256_of(contents.files),
        autov3(contents.files[0]),
        contents.unknown,
        fit,
        fits,
        unused,
    )


def in_words(adapter: Adapter) -> str:
    """The kinds of an adapter's patches and their largest rank: "LoRA of rank 16"."""
    patches = [
        patch
        for by_place in adapter.patches.values()
        for layered in by_place.values()
        for patch in layered
        if patch is not None
    ]
    kinds, ranks = _kinds_and_ranks(patches)
    return ", ".join(kinds) + (f" of rank {ranks[1]}" if ranks else "")


def _kinds_and_ranks(patches: Sequence[Patch]) -> tuple[dict[str, int], tuple[int, int] | None]:
    ranks = [rank for patch in patches if (rank := _rank(patch))]
    return dict(Counter(map(_kind, patches))), (min(ranks), max(ranks)) if ranks else None


def _patches(contents: Contents) -> list[Patch]:
    found: list[Patch] = []
    for group in contents.groups.values():
        try:
            found += filter(None, contents.patches(group))
        except ValueError:
            continue
    return found


def _kind(patch: Patch) -> str:
    if isinstance(patch, Decomposed):
        return f"DoRA ({_kind(patch.inner)})"
    if isinstance(patch, LowRank) and patch.up.ndim > 2:
        return "LoCon"
    return _KINDS.get(type(patch).__name__, type(patch).__name__)


def _rank(patch: Patch) -> int | None:
    match patch:
        case Decomposed():
            return _rank(patch.inner)
        case LowRank():
            return patch.rank
        case Hadamard():
            return int(patch.w1[1].shape[0])
        case Kronecker() if len(patch.w2) > 1:
            return int(patch.w2[1].shape[0])
    return None


def _words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The tags of the pictures that it was trained on, by how often they were there (kohya's `ss_tag_frequency`)."""
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({tag.strip(): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError):
        return ()
    return tuple(tag for tag, _ in counts.most_common(_MOST_WORDS) if tag)
