"""What a network call costs, without running it: the memory it needs and the work it does.

The call is made on the meta device, where tensors have shapes and no numbers, and every operation in it is watched.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operation:
    """One operation: "convolution", "product" (of matrices), "attention" or "other"; its floating-point operations
    (two for a multiplication with its addition), and the bytes it reads and writes."""

    kind: str
    flops: float
    nbytes: int


@dataclass(frozen=True)
class Cost:
    """What a call costs: the most bytes its tensors take at once, weights aside, and its operations."""

    peak: int
    operations: tuple[Operation, ...]

    @property
    def flops(self) -> float:
        return sum(operation.flops for operation in self.operations)


def cost_of(call: Callable[[], object]) -> Cost:
    """The cost of a call on networks without numbers (`darkroom.networks.unfilled`).

    Whatever tensors it makes are made on the meta device; those that it makes and keeps are counted too.
    """
    with torch.device("meta"), torch.inference_mode(), _Watch() as watch:
        call()
    return Cost(watch.peak, tuple(watch.operations))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.operations: list[Operation] = []
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [self._notice(each) for each in _tensors(result)]
        name = func.overloadpacket.__name__
        kind, flops = _WORK.get(name, ("other", lambda result, *args: 0.0))
        if any(made) or name.endswith("_"):
            touched = [*_tensors(result), *_tensors(args)]
            count = sum(each.numel() * each.element_size() for each in touched)
            self.operations.append(Operation(kind, flops(result, *args), count))
        return result

    def _notice(self, tensor: Tensor) -> bool:
        """Count a tensor's memory for as long as anything sees it; False where it is a view of memory known."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return False
        self._known.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._gone, key, size)
        return True

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for each in value for t in _tensors(each)] if isinstance(value, list | tuple) else []


def _convolution(result: Tensor, x: Tensor, weight: Tensor, *_: Any) -> float:
    return 2.0 * result.numel() * math.prod(weight.shape[1:])


def _linear(result: Tensor, x: Tensor, *_: Any) -> float:
    return 2.0 * result.numel() * x.shape[-1]


def _attention(result: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> float:
    return 2.0 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


_WORK: Mapping[str, tuple[str, Callable[..., float]]] = {
    "conv2d": ("convolution", _convolution),
    "linear": ("product", _linear),
    "matmul": ("product", _linear),
    "bmm": ("product", _linear),
    "scaled_dot_product_attention": ("attention", _attention),
}
