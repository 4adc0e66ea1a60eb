"""A LoRA of the difference of two models."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from darkroom.adapters.names import spelt
from darkroom.adapters.truncated import Size
from darkroom.adapters.written import Progress, Written, prefix_of
from darkroom.checkpoint.named import Named
from darkroom.checkpoint.source import Part, Source
from darkroom.errors import InvalidRequest, ModelError


def extract(
    tuned: Source,
    base: Source,
    size: Size,
    kernels: Size | None = None,
    text: bool = True,
    norms: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Written:
    """The LoRA that comes nearest to what another model has that `base` has not.

    `kernels`: the size for convolutions larger than 1x1 (None: none of them). `text`: text encoders, too. `norms`:
    biases, norms and embeddings besides, as whole differences. Raises ModelError where the models are of different
    shapes.
    """
    made = Written()
    pairs = [
        (role, part, tuned.parts[role])
        for role, part in base.parts.items()
        if role in tuned.parts and (role == base.denoiser.role or (text and role.reads_text))
    ]
    if tuned.denoiser.role != base.denoiser.role:
        raise ModelError(
            f"{tuned.path} is {tuned.family.name}, {base.path} {base.family.name}: give models of one family"
        )
    roles = {role for role, _, _ in pairs}
    layers = [(role, old, new, *each) for role, old, new in pairs for each in _layers(old)]
    readers = {id(part): Named(part) for _, old, new in pairs for part in (old, new)}
    for number, (role, old, new, layer, leaf, module) in enumerate(layers):
        before, after = (readers[id(part)].get(f"{layer}.{leaf}") for part in (old, new))
        if after is None or before is None or after.shape != before.shape:
            raise ModelError(
                f"{tuned.path} and {base.path} differ in shape at {layer}: give models of one family"
            )
        change = after.to(device).float() - before.to(device).float()
        key = f"{prefix_of(role, roles)}{spelt(layer)}"
        if leaf == "weight" and isinstance(module, nn.Linear | nn.Conv2d):
            large = isinstance(module, nn.Conv2d) and math.prod(module.kernel_size) > 1
            chosen = kernels if large else size
            if chosen is None or not bool(change.any()):
                made.leave_out(change)
            else:
                made.add_nearest(key, change, chosen)
        elif norms and bool(change.any()):
            norm = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)
            name = {"weight": "w_norm" if norm else "diff", "bias": "b_norm" if norm else "diff_b"}[leaf]
            made.tensors[f"{key}.{name}"] = change.cpu()
        if progress is not None:
            progress(number + 1, len(layers))
    if not made.tensors:
        raise InvalidRequest(f"{tuned.path} and {base.path} are the same: there is nothing to extract")
    return made


def _layers(part: Part) -> Iterator[tuple[str, str, nn.Module]]:
    """The layers of a network, each with every parameter that it has."""
    for name, module in part.build().named_modules():
        for leaf in ("weight", "bias"):
            if getattr(module, leaf, None) is not None:
                yield name, leaf, module
