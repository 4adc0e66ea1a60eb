"""The keys of an adapter's file, sorted into layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from darkroom.adapters.kinds import layered
from darkroom.adapters.patches import Layered
from darkroom.checkpoint.foreign import BESIDE_SETTINGS, a_kind, kind_beside
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
        rf"\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight|\.lora_A(?:{_ADAPTER}\.weight)?",
    ),
    (
        "up",
        rf"\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight|\.lora_B(?:{_ADAPTER}\.weight)?",
    ),
    ("mid", r"\.lora_mid\.weight"),
    ("alpha", r"(?:[._]lora|\.lora_linear_layer)?\.alpha"),
    ("up_bias", rf"\.lora_B{_ADAPTER}\.bias"),
    ("table_down", rf"\.lora_embedding_A{_ADAPTER}"),
    ("table_up", rf"\.lora_embedding_B{_ADAPTER}"),
    ("lengths", rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?|\.magnitude"),
    ("oft_R", rf"\.oft_R{_ADAPTER}\.weight"),
    ("scaled_oft", rf"\.oft_R{_ADAPTER}\.scaled_oft"),
    ("ia3_l", rf"\.ia3_l{_ADAPTER}"),
    *(
        (name, rf"\.{name}{_ADAPTER}")
        for name in (
            *(f"hada_{each}" for each in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
            *(f"lokr_{each}" for each in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t1", "t2")),
            *("boft_R", "boft_s"),
        )
    ),
    *((name, rf"\.{name}(?:\.weight)?") for name in ("a1", "a2", "b1", "b2", "bm")),
    *(
        (name, rf"\.{name}")
        for name in (
            *("dora_scale", "scalar", "scale", "on_input", "oft_blocks", "rescale"),
            *("diff", "diff_b", "w_norm", "b_norm", "set_weight"),
            *("bias", "bias_indices", "bias_values", "bias_size"),
        )
    ),
    ("weight", r"\.weight"),
)
_KEY = re.compile("(.+?)(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in _PARTS) + ")")
_STEMS = ("adapter_model", "pytorch_lora_weights")
_BUNDLED = "bundle_emb."

_PEFT_TYPES = ("LORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT")
_NEVER: Mapping[str, str] = {
    "a T-LoRA, which changes the singular vectors of the model that it was trained on: have its trainer write a LoRA": (
        r".+\.([qp]_layer\.weight|lambda_layer)"
    ),
}
"""What is not read, by a key of it."""


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
        return layered(group.parts, self.peft, group.key)


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
        if what := _not_read(weights.shapes, peft):
            raise ModelError(f"{path} is {what}")
        return _sorted(path, [file, *([beside] if described else [])], weights, peft)


def _sorted(path: Path, files: Sequence[Path], weights: WeightsFile, peft: Mapping[str, Any]) -> Contents:
    groups: dict[str, Group] = {}
    embeddings: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name in weights.entries:
        tensor = weights.get(name).clone()
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
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


def _not_read(shapes: Mapping[str, tuple[int, ...]], peft: Mapping[str, Any]) -> str | None:
    """What a file is that is an adapter of another kind, or none at all."""
    for what, mark in _NEVER.items():
        if any(map(re.compile(mark).fullmatch, shapes)):
            return what
    kind = str(peft.get("peft_type", "LORA"))
    if kind.upper() not in _PEFT_TYPES:
        return f"an adapter of PEFT's kind {kind}: {', '.join(_PEFT_TYPES)} are read, merge it into its model with PEFT"
    beside = kind_beside(shapes)
    if beside in (None, "lora"):
        return None
    where = f": give it as `{BESIDE_SETTINGS[beside]}=`" if beside in BESIDE_SETTINGS else ""
    return f"{a_kind(str(beside))}, no LoRA and nothing of the kind{where}"


def _said(weights: WeightsFile) -> Mapping[str, Any]:
    """The configuration that diffusers puts into a file's metadata, PEFT's for each network."""
    try:
        said = json.loads(weights.metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
