"""One call of a network in float32, whatever the precision of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def in_float32(network: nn.Module) -> Iterator[None]:
    """Within which every layer of a network computes in float32 and has its weights so while it does: one layer's at a
    time, so that a network which comes and goes layer by layer takes little more memory than before."""
    halves: dict[nn.Module, dict[str, nn.Parameter]] = {}

    def widen(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        halves[module] = {name: own for name, own in module._parameters.items() if own is not None}
        for name, own in halves[module].items():
            module._parameters[name] = nn.Parameter(own.float(), requires_grad=False)
        return tuple(_wide(each) for each in args)

    def narrow(module: nn.Module, args: Any, output: Any) -> None:
        for name, own in halves.pop(module).items():
            current = module._parameters[name]
            if current is not None and not current.is_meta:  # It has left meanwhile.
                module._parameters[name] = own

    hooks = []
    for module in network.modules():
        if any(own is not None for own in module._parameters.values()):
            hooks.append(module.register_forward_pre_hook(widen))
            hooks.append(module.register_forward_hook(narrow))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _wide(value: Any) -> Any:
    return (
        value.float()
        if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        else value
    )
