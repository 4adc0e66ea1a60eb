"""What an adapter's file is: its kind, its sizes, what its trainer wrote into it, and whether it fits a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from darkroom.adapters.adapter import Adapter, family_of_adapter, fitted, mismatch
from darkroom.adapters.groups import Contents, read_contents
from darkroom.adapters.names import prefixed
from darkroom.adapters.patches import (
    Both,
    Decomposed,
    General,
    Hadamard,
    Kronecker,
    LowRank,
    Narrow,
    Patch,
    Rotated,
)
from darkroom.errors import ModelError
from darkroom.library.about import About, about, one_line
from darkroom.networks.roles import Role
from darkroom.weights.dtypes import dtype_name
from darkroom.weights.hashes import autov3, sha256_of

_KINDS = {
    "LowRank": "LoRA",
    "Hadamard": "LoHa",
    "Kronecker": "LoKr",
    "Scaled": "(IA)3",
    "Difference": "difference",
    "General": "GLoRA",
}
_RULES = {
    "DoRA": "what is added at strength 1 times the strength, as A1111 and ComfyUI have it: LyCORIS weighs the lengths, "
    "PEFT the low-rank part",
    "OFT with lengths": "what is added at strength 1 times the strength: LyCORIS weighs the turn, not the lengths",
    "BOFT": "what is added at strength 1 times the strength: LyCORIS weighs every turn, PEFT has no strengths",
}
"""What strengths other than 1 do, where programs disagree, by kind."""
_SAID = {
    "modelspec.author": "author",
    "ss_output_name": "name",
    "ss_sd_model_name": "trained on",
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
    """What a file holds: layers by network, kinds of patches, ranks (smallest, largest), precision; `about` is what its
    author and other programs say of it, `said` what its trainer does; `fit` says in words how it fits a model, None
    where it was asked of none; `rules` what strengths other than 1 do, where programs disagree, by kind."""

    path: str
    size: int
    family: str | None
    layers: Mapping[str, int]
    kinds: Mapping[str, int]
    ranks: tuple[int, int] | None
    precisions: tuple[str, ...]
    embeddings: tuple[str, ...]
    about: About
    said: Mapping[str, str]
    sha256: str
    autov3: str | None
    unknown: tuple[str, ...] = ()
    fit: str | None = None
    fits: bool | None = None
    unused: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "about": self.about.to_dict()}


def describe_adapter(
    path: Path, networks: Mapping[Role, nn.Module] | None = None, model: str = ""
) -> AdapterDescription:
    """What an adapter's file is, and with `networks` (they need no weights) whether it fits the model that is called
    `model`. Raises ModelError where it cannot be read."""
    contents = read_contents(path)
    if not contents.groups and not contents.embeddings:
        raise ModelError(f"{path} holds no LoRA and nothing of the kind: it is another sort of file")
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
        about(path, contents.metadata),
        {name: one_line(said) for key, name in _SAID.items() if (said := contents.metadata.get(key))},
        sha256_of(contents.files),
        autov3(contents.files[0]),
        contents.unknown,
        fit,
        fits,
        unused,
        {name: rule for name, rule in _RULES.items() if any(kind.startswith(name) for kind in kinds)},
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
    return dict(Counter(map(kind_of, patches))), (min(ranks), max(ranks)) if ranks else None


def _patches(contents: Contents) -> list[Patch]:
    found: list[Patch] = []
    for group in contents.groups.values():
        try:
            found += filter(None, contents.patches(group))
        except ValueError:
            continue
    return found


def kind_of(patch: Patch) -> str:
    """What a patch is called."""
    match patch:
        case Decomposed():
            return f"DoRA ({kind_of(patch.inner)})"
        case Both():
            return kind_of(patch.first)
        case Narrow():
            return kind_of(patch.inner)
        case LowRank() if patch.up.ndim > 2:
            return "LoCon"
        case Rotated():
            kind = "OFT" if patch.butterfly is None else "BOFT"
            return kind if patch.lengths is None else f"{kind} with lengths"
    return _KINDS.get(type(patch).__name__, type(patch).__name__)


def _rank(patch: Patch) -> int | None:
    match patch:
        case Decomposed() | Narrow():
            return _rank(patch.inner)
        case Both():
            return _rank(patch.first)
        case General():
            return patch.added.rank
        case LowRank():
            return patch.rank
        case Hadamard():
            return int(patch.w1[1].shape[0])
        case Kronecker() if len(patch.w2) > 1:
            return int(patch.w2[1].shape[0])
    return None
