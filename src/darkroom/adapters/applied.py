"""Adapters for one network call, of which every row may have others.

No weight changes. What an adapter adds to a layer's output is computed beside the layer, for all rows, and multiplied
with each row's own strength, 0 where it has none; so a row's output does not depend on the rows beside it. A low-rank
patch goes through its two thin matrices; of any other the whole difference is kept, and as every layer is linear in its
parameters, what it adds is the layer's own function with the difference in place of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from darkroom.adapters.adapter import Adapter, deltas
from darkroom.adapters.dose import Dose
from darkroom.adapters.names import Place
from darkroom.adapters.patches import LowRank
from darkroom.checkpoint.rules import SAME, SPLIT, SWAP
from darkroom.errors import InvalidRequest
from darkroom.networks.layers import Attention
from darkroom.networks.roles import Role
from darkroom.networks.t5 import Norm as T5Norm
from darkroom.networks.t5 import normed

Factor = float | Tensor
"""A strength: the same for all rows, or one for each, (B,)."""
Term = Callable[[nn.Module, Tensor, Factor], Tensor]
"""What is added to a layer's output, given the layer, its input and how much of it there is to be."""


@dataclass(frozen=True)
class TextChanges:
    """Adapters for the text encoders, while they read a prompt (`darkroom.prompt.conditioning.Changes`)."""

    doses: tuple[Dose, ...]

    def of(self, role: Role) -> TextChanges | None:
        own = tuple(dose for dose in self.doses if role in dose.adapter.patches)
        return TextChanges(own) if own else None

    def during(self, role: Role, encoder: nn.Module) -> AbstractContextManager[None]:
        return applied(encoder, role, [self.doses])


@contextmanager
def applied(network: nn.Module, role: Role, rows: Sequence[Sequence[Dose]]) -> Iterator[None]:
    """The network of that role with each row's adapters, for one call."""
    wanted = sorted({dose.adapter for row in rows for dose in row}, key=lambda each: (each.sha256, each.name))
    hooks: list[RemovableHandle] = []
    try:
        for adapter in wanted:
            if adapter.hypernetwork and role == Role.UNET:
                hooks += _attached(adapter, network, rows)
            if role not in adapter.patches:
                continue
            terms = _terms(adapter, role, network)
            for place, own in terms.items():
                factors = [sum(d.factor(place) for d in row if d.adapter is adapter) for row in rows]
                if any(factors):
                    for layer, term in zip(place.layers, own, strict=True):
                        hook = partial(_add, term, _together(factors))
                        # First: where weights come and go, they must still be here.
                        hooks.append(network.get_submodule(layer).register_forward_hook(hook, prepend=True))
        yield
    finally:
        for each in hooks:
            each.remove()


def _attached(
    adapter: Adapter, network: nn.Module, rows: Sequence[Sequence[Dose]]
) -> Iterator[RemovableHandle]:
    """A hypernetwork before the layers that make keys and values."""
    factor = _together([sum(dose.strength for dose in row if dose.adapter is adapter) for row in rows])
    for module in network.modules():
        if isinstance(module, Attention) and (pair := adapter.hypernetwork.get(module.to_k.in_features)):
            for layer, own in zip((module.to_k, module.to_v), pair, strict=True):
                yield layer.register_forward_pre_hook(partial(_moved, own, factor))


def _moved(own: nn.Module, factor: Factor, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x, *others = inputs
    own.to(x.device, x.dtype)
    return (x + _times(own(x), factor), *others)


def _add(term: Term, factor: Factor, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.add_(term(module, inputs[0], factor))


def _together(factors: Sequence[float]) -> Factor:
    return factors[0] if len(set(factors)) == 1 else torch.tensor(factors)


def _terms(adapter: Adapter, role: Role, network: nn.Module) -> dict[Place, list[Term]]:
    """What an adapter adds, by place and there by layer; made once for each network, precision and device."""
    sample = next(network.parameters())
    key = role, id(network), sample.dtype, str(sample.device)
    if key not in adapter.made:
        adapter.made[key] = {place: _made(adapter, place, network) for place in adapter.patches[role]}
    made: dict[Place, list[Term]] = adapter.made[key]
    return made


def _made(adapter: Adapter, place: Place, network: nn.Module) -> list[Term]:
    layered = adapter.patches[place.role][place]
    patch = layered.weight
    modules = [network.get_submodule(layer) for layer in place.layers]
    thin = isinstance(patch, LowRank) and place.change in (SAME, SPLIT, SWAP) and layered.bias is None
    if thin and (kinds := {type(module) for module in modules}) <= {nn.Linear, nn.Conv2d}:
        assert isinstance(patch, LowRank)
        if patch.mid is None or kinds == {nn.Conv2d}:
            return [_Thin(patch, place.change.read(patch.up, number)) for number in range(len(modules))]
    for module in modules:
        if _function(module) is None:
            raise InvalidRequest(
                f"{adapter.name} changes {place.layers[0]}, which cannot be changed row by row: merge it (`fuse=`)"
            )
    whole = _Whole(adapter, place, network)
    return [partial(whole, number) for number in range(len(modules))]


class _Thin:
    """A low-rank patch, its matrices as the layer takes them."""

    def __init__(self, patch: LowRank, up: Tensor) -> None:
        self.patch, self.up = patch, up
        self._ready: tuple[Tensor, Tensor | None, Tensor] | None = None

    def __call__(self, module: nn.Module, x: Tensor, factor: Factor) -> Tensor:
        weight = module.weight
        assert isinstance(weight, Tensor)
        if self._ready is None:
            self._ready = self._prepared(module, x.device, weight.dtype)
        down, mid, up = self._ready
        if not isinstance(module, nn.Conv2d):
            return F.linear(_times(F.linear(x, down), factor), up)
        strides: dict[str, Any] = {
            "stride": module.stride,
            "padding": module.padding,
            "dilation": module.dilation,
        }
        if mid is None:
            thin = F.conv2d(x, down, **strides)
        else:
            thin = F.conv2d(F.conv2d(x, down), mid, **strides)
        return F.conv2d(_times(thin, factor), up)

    def _prepared(
        self, module: nn.Module, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        patch = self.patch
        up = self.up.float() * patch.scale
        if isinstance(module, nn.Conv2d):
            kernel = (1, 1) if patch.mid is not None else module.kernel_size
            down = patch.down.reshape(patch.rank, module.in_channels, *kernel)
            up = up.reshape(module.out_channels, -1, 1, 1)
        else:
            down, up = patch.down.flatten(1), up.flatten(1)
        mid = None if patch.mid is None else patch.mid.to(device, dtype)
        return down.to(device, dtype), mid, up.to(device, dtype)


class _Whole:
    """Any patch of a place, by its whole difference."""

    def __init__(self, adapter: Adapter, place: Place, network: nn.Module) -> None:
        self.adapter, self.place, self.network = adapter, place, network
        self._ready: list[tuple[Tensor | None, Tensor | None]] | None = None

    def __call__(self, number: int, module: nn.Module, x: Tensor, factor: Factor) -> Tensor:
        if self._ready is None:
            # Now, as weights may be here during the call alone.
            layered = self.adapter.patches[self.place.role][self.place]
            by_leaf = [
                self._deltas(patch, leaf) for patch, leaf in zip(layered, ("weight", "bias"), strict=True)
            ]
            self._ready = list(zip(*by_leaf, strict=True))
        weight, bias = self._ready[number]
        function = _function(module)
        assert function is not None
        own = module.weight
        assert isinstance(own, Tensor)
        return _times(function(x, torch.zeros_like(own) if weight is None else weight, bias), factor)

    def _deltas(self, patch: Any, leaf: str) -> list[Tensor | None]:
        if patch is None:
            return [None] * len(self.place.layers)
        dtype = next(self.network.parameters()).dtype
        found = [each.to(dtype) for each in deltas(patch, self.place, self.network, leaf)]
        if any(each.is_meta for each in found):
            raise InvalidRequest(
                f"{self.adapter.name} changes {', '.join(self.place.layers)} together, which are never in memory "
                'together: give more memory (`memory="medium"`)'
            )
        return list(found)


def _function(module: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """A layer's function of its input, weight and bias; None where it is not known."""
    match module:
        case nn.Linear():
            return F.linear
        case nn.Conv2d():
            return module._conv_forward
        case nn.Embedding():
            return lambda ids, weight, _: F.embedding(ids, weight)
        case nn.LayerNorm():
            return lambda x, weight, bias: F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
        case nn.GroupNorm():
            return lambda x, weight, bias: F.group_norm(x, module.num_groups, weight, bias, module.eps)
        case T5Norm():
            return lambda x, weight, _: normed(x, weight, module.eps)
        case nn.RMSNorm():
            return lambda x, weight, _: F.rms_norm(x, tuple(module.normalized_shape), weight, module.eps)
    return None


def _times(x: Tensor, factor: Factor) -> Tensor:
    if isinstance(factor, float | int):
        return x if factor == 1 else x.mul_(factor)
    return x.mul_(factor.to(x.device, x.dtype).view(-1, *(1,) * (x.ndim - 1)))
