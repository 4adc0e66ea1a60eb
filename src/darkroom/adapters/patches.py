"""What can be done to a weight: one class for each kind of adapter.

Each gives what it adds to a weight at strength 1, `delta`; at another strength that much of it is added. What an
adapter adds is always measured from the model's own weights, so that several add up in any order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor


class Patch(Protocol):
    """A change of one weight."""

    @property
    def reads(self) -> bool:
        """Whether it depends on the weight's numbers."""
        ...

    def delta(self, weight: Tensor) -> Tensor:
        """What is added to the weight, float32, of its shape. Raises ValueError where the shapes do not fit."""
        ...


class Layered(NamedTuple):
    """What happens to a layer's weight and to its bias."""

    weight: Patch | None = None
    bias: Patch | None = None


@dataclass(frozen=True, eq=False)
class LowRank:
    """LoRA (Hu et al. 2021, arXiv 2106.09685) and LoCon: up (out, r) times down (r, in).

    Convolutions' have the kernel's sides behind, and may have `mid` (r, r, kh, kw) between (LyCORIS: Tucker
    decomposition). `scale` is alpha / r.
    """

    reads: ClassVar[bool] = False
    down: Tensor
    up: Tensor
    mid: Tensor | None = None
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def delta(self, weight: Tensor) -> Tensor:
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        if self.mid is None:
            return _shaped(_times(up @ down, self.scale), weight)
        return _shaped(
            _times(torch.einsum("oi,ijkl,jn->onkl", up, self.mid.float(), down), self.scale), weight
        )


@dataclass(frozen=True, eq=False)
class Hadamard:
    """LoHa (Hyeon-Woo et al. 2021, arXiv 2108.06098): the elementwise product of two low-rank matrices, `w1` and `w2`,
    each its factors (out, r) and (r, in), or (r, out), (r, in) and a core (r, r, kh, kw)."""

    reads: ClassVar[bool] = False
    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        return _shaped(_product(self.w1) * _product(self.w2) * self.scale, weight)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """LoKr (LyCORIS, arXiv 2309.14859): the Kronecker product of `w1` and `w2`, each one matrix or its factors."""

    reads: ClassVar[bool] = False
    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        w1, w2 = _product(self.w1), _product(self.w2)
        w1 = w1.reshape(*w1.shape, *(1,) * (w2.ndim - w1.ndim))
        return _shaped(torch.kron(w1, w2.contiguous()) * self.scale, weight)


@dataclass(frozen=True, eq=False)
class General:
    """GLoRA (Chavan et al. 2023, arXiv 2306.07967): W a1 a2 times `scale`, and `added`; a1 is (in, r), a2 (r, in), of a
    convolution for its channels."""

    reads: ClassVar[bool] = True
    a1: Tensor
    a2: Tensor
    added: LowRank
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        inputs = self.a1.float().flatten(1) @ self.a2.float().flatten(1)
        own = torch.einsum("oi...,ij->oj...", weight.float(), inputs)
        return _shaped(_times(own, self.scale), weight) + self.added.delta(weight)


class Butterfly(Enum):
    """In which order BOFT puts rows before each of its turns, and back behind it, so that blocks of neighbours reach
    all rows. Of 8 rows in blocks of 4, the first two turns have them as

        LYCORIS   0 2 1 3 4 6 5 7, 0 4 1 5 2 6 3 7
        PEFT      0 1 2 3 4 5 6 7, 0 1 4 5 2 3 6 7
    """

    LYCORIS = "pairs of rows that are half a block apart, then twice as far each time"
    PEFT = "half a block by half a block, then every second of them, then every fourth"

    def order(self, turn: int, rows: int, block: int, device: torch.device) -> Tensor | None:
        """The numbers of the rows in that order; None where they stay as they are. Raises ValueError where there are
        none."""
        if self is Butterfly.PEFT and not turn:
            return None
        half, times = block // 2, 2**turn
        if block % 2 or rows % (block * times):
            raise ValueError(
                f"turn {turn + 1} in blocks of {block} needs a multiple of {block * times} rows, not {rows}"
            )
        shape = (2, half * times) if self is Butterfly.LYCORIS else (2, times, half)
        return torch.arange(rows, device=device).reshape(-1, *shape).transpose(1, 2).flatten()


@dataclass(frozen=True, eq=False)
class Rotated:
    """OFT (Qiu et al. 2023, arXiv 2306.07280) and BOFT (Liu et al. 2023, arXiv 2311.06243): a weight's outputs, or its
    inputs, turned block by block.

    `rotations` (m, k, b, b) are those of the blocks, m turns one after another, each with the rows in another order if
    it is a `butterfly`; where k is 1 all blocks have the same. `lengths` has a factor for each output.
    `convolutions_back`: they are turned the other way round.
    """

    reads: ClassVar[bool] = True
    rotations: Tensor
    lengths: Tensor | None = None
    on_input: bool = False
    butterfly: Butterfly | None = None
    convolutions_back: bool = False

    def delta(self, weight: Tensor) -> Tensor:
        own = weight.float()
        rows = own.flatten(1).T if self.on_input else own.flatten(1)
        count, block = self.rotations.shape[1:3]
        if len(rows) % block or count not in (1, len(rows) // block):
            raise ValueError(f"{count} blocks of {block} for a weight of {tuple(weight.shape)}")
        rotations = self.rotations.float()
        if self.convolutions_back and weight.ndim > 2:
            rotations = rotations.mT
        for turn, blocks in enumerate(rotations):
            order = self.butterfly and self.butterfly.order(turn, len(rows), block, weight.device)
            rows = rows if order is None else rows[order]
            rows = torch.matmul(blocks, rows.reshape(-1, block, rows.shape[1])).reshape(rows.shape)
            rows = rows if order is None else rows[order.argsort()]
        turned = (rows.T if self.on_input else rows).reshape(weight.shape)
        if self.lengths is not None:
            turned = turned * _along(self.lengths, weight, 0)
        return turned - own


@dataclass(frozen=True, eq=False)
class Both:
    """One change and another."""

    first: Patch
    second: Patch

    @property
    def reads(self) -> bool:
        return self.first.reads or self.second.reads

    def delta(self, weight: Tensor) -> Tensor:
        return self.first.delta(weight) + self.second.delta(weight)


@dataclass(frozen=True, eq=False)
class Narrow:
    """A change of a convolution's first `channels` inputs: of one that has more, as those for inpainting have."""

    inner: Patch
    channels: int

    @property
    def reads(self) -> bool:
        return self.inner.reads

    def delta(self, weight: Tensor) -> Tensor:
        added = torch.zeros_like(weight, dtype=torch.float32)
        added[:, : self.channels] = self.inner.delta(weight[:, : self.channels])
        return added


@dataclass(frozen=True, eq=False)
class Decomposed:
    """DoRA (Liu et al. 2024, arXiv 2402.09353): the changed weight's directions with lengths of their own.

    `magnitude` has an entry for each output, or, as LyCORIS first had it, for each input.
    """

    reads: ClassVar[bool] = True
    inner: Patch
    magnitude: Tensor
    per_input: bool = False

    def delta(self, weight: Tensor) -> Tensor:
        own = weight.float()
        changed = own + self.inner.delta(weight)
        axis = int(self.per_input)
        others = [each for each in range(weight.ndim) if each != axis]
        length = changed.pow(2).sum(others, keepdim=True).sqrt() + torch.finfo(torch.float32).eps
        return _along(self.magnitude, weight, axis) / length * changed - own


@dataclass(frozen=True, eq=False)
class Scaled:
    """(IA)3 (Liu et al. 2022, arXiv 2205.05638): every output, or every input, of a layer times 1 + `factor`."""

    reads: ClassVar[bool] = True
    factor: Tensor
    on_input: bool = False

    def delta(self, weight: Tensor) -> Tensor:
        return weight.float() * _along(self.factor, weight, int(self.on_input))


@dataclass(frozen=True, eq=False)
class Difference:
    """A weight's whole change, times `scale`."""

    reads: ClassVar[bool] = False
    change: Tensor
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        return _shaped(self.change.float() * self.scale, weight)


@dataclass(frozen=True, eq=False)
class Scattered:
    """A change of some of a weight's numbers, times `scale`: `values` (n,) at `places` (2, n) of a matrix of that
    `shape`."""

    reads: ClassVar[bool] = False
    places: Tensor
    values: Tensor
    shape: tuple[int, int]
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        if math.prod(self.shape) != weight.numel():
            raise ValueError(f"{self.shape} for a weight of {tuple(weight.shape)}")
        whole = torch.zeros(self.shape, device=self.values.device)
        rows, columns = self.places.long()
        return _shaped(whole.index_put((rows, columns), self.values.float() * self.scale), weight)


@dataclass(frozen=True, eq=False)
class Instead:
    """Another weight in place of the model's."""

    reads: ClassVar[bool] = True
    weight: Tensor

    def delta(self, weight: Tensor) -> Tensor:
        return _shaped(self.weight.float(), weight) - weight.float()


def _times(delta: Tensor, scale: float) -> Tensor:
    return delta if scale == 1 else delta * scale


def outline(patch: Patch) -> Patch:
    """A patch without its numbers, to ask whether it fits a weight on the meta device."""
    bare = converted(patch, lambda tensor: tensor.to("meta"))
    # Torch takes a second to find out how it multiplies on that device.
    return dataclasses.replace(bare, scale=1.0) if isinstance(bare, LowRank) else bare


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    """The matrix of its factors: itself, two that are multiplied, or two and the core of a Tucker decomposition."""
    match [factor.float() for factor in factors]:
        case [whole]:
            return whole
        case [a, b]:
            return a.flatten(1) @ b.flatten(1)
        case [a, b, core]:
            return torch.einsum("ijkl,io,jn->onkl", core, a, b)
    raise AssertionError(len(factors))


def _along(vector: Tensor, weight: Tensor, axis: int) -> Tensor:
    """A number for each output (0) or input (1) of a weight, so that it can be multiplied with that."""
    if weight.ndim <= axis or vector.numel() != weight.shape[axis]:
        raise ValueError(f"{vector.numel()} numbers for a weight of {tuple(weight.shape)}")
    shape = [1] * weight.ndim
    shape[axis] = -1
    return vector.float().reshape(shape)


def _shaped(delta: Tensor, weight: Tensor) -> Tensor:
    """In the weight's shape: linear layers and 1x1 convolutions are one and the same."""
    if delta.numel() != weight.numel() or (weight.ndim and delta.shape[:1] != weight.shape[:1]):
        raise ValueError(f"{tuple(delta.shape)} for a weight of {tuple(weight.shape)}")
    return delta.reshape(weight.shape)


def converted(patch: Patch, change: Callable[[Tensor], Tensor]) -> Patch:
    """The same patch, every tensor of it changed: moved, or cast."""
    made: dict[str, Any] = {}
    for each in dataclasses.fields(cast(Any, patch)):
        value = getattr(patch, each.name)
        if isinstance(value, Tensor):
            made[each.name] = change(value)
        elif isinstance(value, tuple) and isinstance(value[0], Tensor):
            made[each.name] = tuple(map(change, value))
        elif dataclasses.is_dataclass(value):
            made[each.name] = converted(cast(Patch, value), change)
    return cast(Patch, dataclasses.replace(cast(Any, patch), **made))
