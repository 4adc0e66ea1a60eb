"""The keys of an adapter's file, sorted into layers, and the patch that each layer's tensors make."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from darkroom.adapters.patches import (
    Decomposed,
    Difference,
    Hadamard,
    Instead,
    Kronecker,
    LowRank,
    Patch,
    Scaled,
)
from darkroom.checkpoint.settings import read_json
from darkroom.errors import ModelError
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.opening import open_weights

CONFIG = "adapter_config.json"
"""What PEFT writes beside an adapter's weights."""

_ADAPTER = r"(?:\.(?!weight$|bias$)[\w-]+)?"  # PEFT's name of the adapter, where it was left in.
_PARTS = (
    (
        "down",
        rf"\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight|\.lora_A{_ADAPTER}\.weight",
    ),
    (
        "up",
        rf"\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight|\.lora_B{_ADAPTER}\.weight",
    ),
    ("mid", r"\.lora_mid\.weight"),
    ("alpha", r"(?:[._]lora|\.lora_linear_layer)?\.alpha"),
    ("up_bias", rf"\.lora_B{_ADAPTER}\.bias"),
    ("table_down", rf"\.lora_embedding_A{_ADAPTER}"),
    ("table_up", rf"\.lora_embedding_B{_ADAPTER}"),
    ("lengths", rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?"),
    ("ia3_l", rf"\.ia3_l{_ADAPTER}"),
    *(
        (name, rf"\.{name}{_ADAPTER}")
        for name in (
            *(f"hada_{each}" for each in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
            *(f"lokr_{each}" for each in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t1", "t2")),
        )
    ),
    *(
        (name, rf"\.{name}")
        for name in (
            "dora_scale",
            "scalar",
            "on_input",
            "diff",
            "diff_b",
            "w_norm",
            "b_norm",
            "set_weight",
        )
    ),
    ("weight", r"\.weight"),
)
_KEY = re.compile("(.+?)(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in _PARTS) + ")")
_STEMS = ("adapter_model", "pytorch_lora_weights")
_BUNDLED = "bundle_emb."


class Layered(NamedTuple):
    """What happens to a layer's weight and to its bias."""

    weight: Patch | None = None
    bias: Patch | None = None


@dataclass(frozen=True)
class Group:
    """All that a file says of one layer: its tensors by what they are ("down", "hada_w1_a"), under `key`."""

    key: str
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """An adapter's file, read: its layers; textual inversions that came with it, by name, as their files would have
    them; keys that mean nothing; what the file, or PEFT's configuration beside it, says of it."""

    path: Path
    files: Sequence[Path]
    groups: dict[str, Group]
    embeddings: dict[str, dict[str, Tensor]]
    unknown: tuple[str, ...]
    metadata: Mapping[str, str]
    peft: Mapping[str, Any]

    def patches(self, group: Group) -> Layered:
        """Raises ValueError that says why the group's tensors make none."""
        return Layered(*_patches(group.parts, _Peft(self.peft, group.key)))


def read_contents(path: Path) -> Contents:
    """An adapter as a file, or as a folder by PEFT or diffusers. Raises ModelError where it cannot be read."""
    file = path
    if path.is_dir():
        names = [f"{stem}{suffix}" for stem in _STEMS for suffix in (".safetensors", ".bin")]
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise ModelError(f"{path} holds no adapter: none of {', '.join(names)} is in it")
        file = found
    beside = file.with_name(CONFIG)
    described = file.stem == _STEMS[0] and beside.is_file()
    with open_weights(file) as weights:
        peft = read_json(beside) if described else _said(weights)
        return _sorted(path, [file, *([beside] if described else [])], weights, peft)


def _sorted(path: Path, files: Sequence[Path], weights: WeightsFile, peft: Mapping[str, Any]) -> Contents:
    groups: dict[str, Group] = {}
    embeddings: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name in weights.entries:
        tensor = weights.get(name).clone()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(f"{path}: {name} holds numbers that are none (NaN or infinite): it is damaged")
        if name.startswith(_BUNDLED):
            word, _, rest = name.removeprefix(_BUNDLED).partition(".")
            embeddings.setdefault(word, {})[rest] = tensor
            continue
        match = _KEY.fullmatch(name)
        if match is None:
            unknown.append(name)
            continue
        part = str(match.lastgroup)
        groups.setdefault(match[1], Group(match[1])).parts[part] = tensor
    weights.check()
    return Contents(path, files, groups, embeddings, tuple(unknown), weights.metadata, peft)


def _said(weights: WeightsFile) -> Mapping[str, Any]:
    """The configuration that diffusers puts into a file's metadata, PEFT's for each network."""
    try:
        said = json.loads(weights.metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class _Peft:
    """What PEFT's configuration says of one layer."""

    def __init__(self, config: Mapping[str, Any], key: str) -> None:
        # In diffusers' metadata every setting has its network before it.
        role = key.partition(".")[0]
        self.config = {name.removeprefix(f"{role}."): value for name, value in config.items()}
        self.key = key.removeprefix("base_model.model.").removeprefix(f"{role}.")
        started = str(self.config.get("init_lora_weights", True)).lower()
        if any(started.startswith(word) for word in ("pissa", "olora", "corda", "loftq")):
            raise ValueError(
                f"it was begun with {started}, which changes the model as well: convert it to a plain LoRA"
            )

    def scale(self, rank: int, alpha: Tensor | None) -> float:
        """By how much the product is multiplied: alpha / rank, with rs-LoRA alpha / sqrt(rank) (arXiv 2312.03732)."""
        found = self.alpha if alpha is None else float(alpha)
        if found is None:
            return 1.0
        return found / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    @property
    def alpha(self) -> float | None:
        name = "lora_alpha" if "lora_alpha" in self.config else "alpha"
        found = self._patterned("alpha_pattern", name)
        return None if found is None else float(found)

    @property
    def rank(self) -> int | None:
        found = self._patterned("rank_pattern", "r")
        return None if found is None else int(found)

    def _patterned(self, pattern: str, name: str) -> Any:
        """A setting of this layer: the first pattern that its name ends with, else the general one."""
        patterns = self.config.get(pattern) or {}
        for key, value in patterns.items():
            if re.match(rf"(.*\.)?({key})$", self.key):
                return value
        return self.config.get(name)

    @property
    def feedforward(self) -> bool:
        wanted = self.config.get("feedforward_modules") or []
        if isinstance(wanted, str):
            return re.fullmatch(wanted, self.key) is not None
        return any(self.key.split(".")[-1] == name or self.key.endswith(f".{name}") for name in wanted)


def _patches(parts: Mapping[str, Tensor], peft: _Peft) -> tuple[Patch | None, Patch | None]:
    known = set(parts) - {"alpha", "scalar"}
    weight: Patch | None = None
    bias: Patch | None = None
    factor = float(parts["scalar"]) if "scalar" in parts else 1.0
    alpha = parts.get("alpha")
    if known & {"down", "up"}:
        down, up, mid = _all(parts, "down", "up"), parts["up"], parts.get("mid")
        scale = factor * peft.scale(len(down), alpha)
        weight = LowRank(down, up, mid, scale)
        bias = Difference(parts["up_bias"], scale) if "up_bias" in parts else None
        known -= {"down", "up", "mid", "up_bias"}
    elif known & {"table_down", "table_up"}:
        # Of a table of vectors, which is no matrix that is multiplied with.
        down, up = _all(parts, "table_down", "table_up"), parts["table_up"]
        weight = LowRank(up.T.contiguous(), down.T.contiguous(), None, factor * peft.scale(len(down), alpha))
        known -= {"table_down", "table_up"}
    elif any(name.startswith("hada_") for name in known):
        _all(parts, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        w1, w2 = _factors(parts, "hada_w1", "hada_t1"), _factors(parts, "hada_w2", "hada_t2")
        weight = Hadamard(w1, w2, factor * peft.scale(len(parts["hada_w1_b"]), alpha))
        known -= {name for name in known if name.startswith("hada_")}
    elif any(name.startswith("lokr_") for name in known):
        w1, w2 = _factors(parts, "lokr_w1", "lokr_t1"), _factors(parts, "lokr_w2", "lokr_t2")
        weight = Kronecker(w1, w2, factor * _kronecker_scale(w1, w2, alpha, peft))
        known -= {name for name in known if name.startswith("lokr_")}
    elif "ia3_l" in known:
        change = parts["ia3_l"].float() - 1
        weight = Scaled(change, peft.feedforward)
        bias = None if peft.feedforward else Scaled(change)
        known -= {"ia3_l"}
    elif "on_input" in known:
        weight = Scaled(_all(parts, "weight", "on_input"), bool(parts["on_input"]))
        known -= {"weight", "on_input"}
    else:
        for name, kind in (("diff", Difference), ("w_norm", Difference), ("set_weight", Instead)):
            if name in known:
                weight = kind(parts[name])
                known -= {name}
    for name in ("diff_b", "b_norm"):
        if name in known:
            bias = Difference(parts[name])
            known -= {name}
    if weight is not None:
        for name in ("lengths", "dora_scale"):
            if name in known:
                lengths = parts[name]
                weight = Decomposed(
                    weight, lengths, name == "dora_scale" and lengths.ndim > 1 and len(lengths) == 1
                )
                known -= {name}
    if known or (weight is None and bias is None):
        raise ValueError(f"its {', '.join(sorted(known or parts))} are of no kind that is known")
    return weight, bias


def _all(parts: Mapping[str, Tensor], *names: str) -> Tensor:
    """The first of some parts, of which all must be there."""
    for name in names:
        if name not in parts:
            raise ValueError(f"it has a {next(each for each in names if each in parts)}, but no {name}")
    return parts[names[0]]


def _factors(parts: Mapping[str, Tensor], name: str, core: str) -> tuple[Tensor, ...]:
    if name in parts:
        return (parts[name],)
    a, b = _all(parts, f"{name}_a", f"{name}_b"), parts[f"{name}_b"]
    return (a, b, parts[core]) if core in parts else (a, b)


def _kronecker_scale(
    w1: tuple[Tensor, ...], w2: tuple[Tensor, ...], alpha: Tensor | None, peft: _Peft
) -> float:
    """LyCORIS scales by alpha / rank where one matrix has factors, and not where both are whole; PEFT always scales."""
    ranks = [len(factors[1]) for factors in (w2, w1) if len(factors) > 1]
    if ranks:
        return peft.scale(ranks[0], alpha)
    if alpha is None and peft.rank and peft.alpha is not None:
        return peft.scale(peft.rank, None)
    return 1.0
