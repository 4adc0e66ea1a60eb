"""Hypernetworks as A1111 has them: small networks through which the text goes before keys and values are made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.adapters.adapter import Adapter
from darkroom.errors import ModelError
from darkroom.networks.layers import Attention
from darkroom.networks.roles import Role
from darkroom.weights.hashes import sha256
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.opening import open_weights

_KEY = re.compile(r"(\d+)\.([kv])\.linear\.?(\d+)\.(weight|bias)")
_MOST = 1 << 14  # Wider layers than any model's.


def is_hypernetwork(weights: WeightsFile) -> bool:
    """Whether a file's tensors are those of a hypernetwork."""
    return bool(weights.entries) and all(map(_KEY.fullmatch, weights.entries))


def read_hypernetwork(path: Path, networks: Mapping[Role, nn.Module], model: str) -> Adapter:
    """The hypernetwork in a file by A1111, for a model of these networks, by their roles, called `model`.

    Raises ModelError where it cannot be read, or is for layers of other widths than the model's.
    """
    with open_weights(path) as weights:
        if not is_hypernetwork(weights):
            raise ModelError(f"{path} holds no hypernetwork: it is another sort of file")
        said = weights.extra
        parts: dict[tuple[int, str], dict[int, dict[str, Tensor]]] = {}
        for name in weights.entries:
            match = _KEY.fullmatch(name)
            assert match is not None
            layers = parts.setdefault((int(match[1]), match[2]), {})
            layers.setdefault(int(match[3]), {})[match[4]] = weights.get(name).float().clone()
        weights.check()
    widths = sorted({width for width, _ in parts})
    here = (
        {module.to_k.in_features for module in networks[Role.UNET].modules() if isinstance(module, Attention)}
        if Role.UNET in networks
        else set()
    )
    if absent := [width for width in widths if width not in here]:
        raise ModelError(
            f"{path} does not fit {model}: it is for attention over {', '.join(map(str, absent))} channels, "
            f"which the model has not ({', '.join(map(str, sorted(here))) or 'it has no U-Net'})"
        )
    try:
        pairs = {
            width: (_mlp(parts[width, "k"], width, said), _mlp(parts[width, "v"], width, said))
            for width in widths
        }
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is no hypernetwork that can be used: {error}") from error
    return Adapter(path.stem, sha256(path), {}, hypernetwork=pairs)


def _mlp(layers: Mapping[int, Mapping[str, Tensor]], width: int, said: Mapping[str, Any]) -> nn.Sequential:
    """One of its networks: each linear layer, the activation but after the last, and a norm where the file has one
    (A1111, `modules/hypernetworks/hypernetwork.py`)."""
    tensors = [layers[number] for number in sorted(layers)]
    last = max(number for number, each in enumerate(tensors) if each["weight"].ndim == 2)
    modules: list[nn.Module] = []
    inputs = width
    for number, each in enumerate(tensors):
        weight, bias = each["weight"], each["bias"]
        if weight.ndim == 2:
            if weight.shape[1] != inputs or weight.shape[0] > _MOST:
                raise ValueError(f"a layer of shape {tuple(weight.shape)} after one of {inputs}")
            module: nn.Module = nn.Linear(weight.shape[1], inputs := weight.shape[0])
        else:
            module = nn.LayerNorm(inputs)
        module.load_state_dict({"weight": weight, "bias": bias})
        modules.append(module)
        if weight.ndim == 2 and (number != last or said.get("activate_output")):
            modules.append(_activation(said.get("activation_func")))
    if inputs != width:
        raise ValueError(f"{inputs} numbers come out where {width} go in")
    return nn.Sequential(*modules).requires_grad_(False).eval()


def _activation(name: object) -> nn.Module:
    if name in (None, "linear"):
        return nn.Identity()
    if name == "swish":
        return nn.Hardswish()
    known = {
        kind.__name__.lower(): kind
        for kind in vars(torch.nn.modules.activation).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__name__ != "MultiheadAttention"
    }
    if str(name).lower() not in known:
        raise ValueError(f"its activation {name!r} is not known")
    made: nn.Module = known[str(name).lower()]()
    return made
