"""What a layer's tensors in an adapter's file do to it: one function for each kind of adapter.

Formulas are those of the programs that train the kind: kohya's scripts, LyCORIS, PEFT, OneTrainer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from darkroom.adapters.patches import (
    Both,
    Decomposed,
    Difference,
    General,
    Hadamard,
    Instead,
    Kronecker,
    Layered,
    LowRank,
    Order,
    Patch,
    Rotated,
    Scaled,
)


class Peft:
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


class Parts:
    """A layer's tensors by what they are ("down", "hada_w1_a"), each taken once; `left` are those that nobody took."""

    def __init__(self, tensors: Mapping[str, Tensor], peft: Peft) -> None:
        self.left, self.peft = dict(tensors), peft
        self._alpha, self._instead = self.take("alpha"), self.take("scale")
        scalar = self.take("scalar")
        self._factor = 1.0 if scalar is None else float(scalar)

    def take(self, name: str) -> Tensor | None:
        return self.left.pop(name, None)

    def all(self, *names: str) -> list[Tensor] | None:
        """Tensors that go together; None where none of them is there. Raises ValueError where some are."""
        if not any(name in self.left for name in names):
            return None
        for name in names:
            if name not in self.left:
                raise ValueError(
                    f"it has a {next(each for each in names if each in self.left)}, but no {name}"
                )
        return [self.left.pop(name) for name in names]

    def product(self, name: str, core: str) -> tuple[Tensor, ...]:
        """The factors of a matrix: itself, or two, or two and a core."""
        whole = self.take(name)
        if whole is not None:
            return (whole,)
        found = self.all(f"{name}_a", f"{name}_b")
        if found is None:
            raise ValueError(f"it has no {name}")
        middle = self.take(core)
        return (*found, *([] if middle is None else [middle]))

    def scale(self, rank: int) -> float:
        """By how much a product of that rank is multiplied; a `scale` of A1111's stands for alpha / rank."""
        if self._instead is not None:
            return self._factor * float(self._instead)
        return self._factor * self.peft.scale(rank, self._alpha)

    @property
    def factor(self) -> float:
        """By how much what has no rank is multiplied."""
        return self._factor

    @property
    def alpha(self) -> float:
        return 0.0 if self._alpha is None else float(self._alpha)


def layered(tensors: Mapping[str, Tensor], config: Mapping[str, Any], key: str) -> Layered:
    """What the tensors of a layer do to it, under `key`; `config` is PEFT's. Raises ValueError where they are of no
    kind, or not all that a kind needs."""
    parts = Parts(tensors, Peft(config, key))
    weight: Patch | None = None
    bias: Patch | None = None
    for kind in _KINDS:
        weight, bias = kind(parts)
        if weight is not None or bias is not None:
            break
    for name in ("diff_b", "b_norm"):
        if (change := parts.take(name)) is not None:
            bias = Difference(change)
    if weight is not None:
        weight = _decomposed(_biased(weight, parts), parts)
    if parts.left or (weight is None and bias is None):
        raise ValueError(f"its {', '.join(sorted(parts.left or tensors))} are of no kind that is known")
    return Layered(weight, bias)


def _low_rank(parts: Parts) -> Layered:
    found = parts.all("down", "up")
    if found is None:
        return Layered()
    (down, up), mid = found, parts.take("mid")
    scale = parts.scale(len(down))
    if mid is None and up.ndim > 1 and len(down) != up.shape[1]:
        # Of several that were stacked on one side only, the parts add up, as in InvokeAI.
        down, up = _added_up(down, 0, up.shape[1]), _added_up(up, 1, len(down))
    bias = parts.take("up_bias")
    return Layered(LowRank(down, up, mid, scale), None if bias is None else Difference(bias, scale))


def _table(parts: Parts) -> Layered:
    """Of a table of vectors, which is no matrix that is multiplied with."""
    found = parts.all("table_down", "table_up")
    if found is None:
        return Layered()
    down, up = found
    return Layered(LowRank(up.T.contiguous(), down.T.contiguous(), None, parts.scale(len(down))))


def _hadamard(parts: Parts) -> Layered:
    names = [f"hada_w{number}_{side}" for number in (1, 2) for side in "ab"]
    found = parts.all(*names)
    if found is None:
        return Layered()
    scale = parts.scale(len(found[1]))
    cores = [[core] if (core := parts.take(name)) is not None else [] for name in ("hada_t1", "hada_t2")]
    return Layered(Hadamard((*found[:2], *cores[0]), (*found[2:], *cores[1]), scale))


def _kronecker(parts: Parts) -> Layered:
    if not any(name.startswith("lokr_") for name in parts.left):
        return Layered()
    w1, w2 = parts.product("lokr_w1", "lokr_t1"), parts.product("lokr_w2", "lokr_t2")
    # LyCORIS scales by alpha / rank where one matrix has factors, and not where both are whole; PEFT always scales.
    ranks = [len(factors[1]) for factors in (w2, w1) if len(factors) > 1]
    if ranks:
        return Layered(Kronecker(w1, w2, parts.scale(ranks[0])))
    peft = parts.peft
    scale = peft.scale(peft.rank, None) if peft.rank and peft.alpha is not None else 1.0
    return Layered(Kronecker(w1, w2, parts.factor * scale))


def _general(parts: Parts) -> Layered:
    found = parts.all("a1", "a2", "b1", "b2")
    if found is None:
        return Layered()
    a1, a2, b1, b2 = found
    today = len({a1.shape[1], a2.shape[0], b1.shape[1], b2.shape[0]}) == 1
    old = len({a2.shape[1], a1.shape[0], b2.shape[1], b1.shape[0]}) == 1
    if old and (not today or a2.shape[0] >= a2.shape[1]):
        # Before version 2 LyCORIS had the names the other way round. Of square weights both would do: the rank is less.
        a1, a2, b1, b2 = a2, a1, b2, b1
    elif not today:
        raise ValueError(
            f"its a1, a2, b1, b2 of {', '.join(str(tuple(each.shape)) for each in found)} are of no rank"
        )
    scale = parts.scale(len(a2))
    return Layered(General(a1, a2, LowRank(b2, b1, parts.take("bm"), scale), scale))


def _rotated(parts: Parts) -> Layered:
    """LyCORIS's Diag-OFT and BOFT, and OFT of kohya's scripts: outputs are turned."""
    blocks = parts.take("oft_blocks")
    if blocks is None:
        return Layered()
    if blocks.ndim not in (3, 4):
        raise ValueError(
            f"its oft_blocks have the shape {tuple(blocks.shape)}, not (k, b, b) or (m, k, b, b)"
        )
    skew = blocks.float() - blocks.float().mT
    most, length = parts.alpha * blocks.shape[-3] * blocks.shape[-1], float(skew.norm())
    turns = _cayley(skew * (most / length) if 0 < most < length else skew)
    lengths = parts.take("rescale")
    if blocks.ndim == 3:
        return Layered(Rotated(turns.mT[None], lengths))
    return Layered(Rotated(turns, lengths, order=Order.PAIRED))


def _butterfly(parts: Parts) -> Layered:
    """PEFT's BOFT, and that of kohya's scripts: inputs are turned."""
    found = parts.all("boft_R", "boft_s")
    if found is None:
        return Layered()
    blocks, lengths = found
    skew = 0.5 * (blocks.float() - blocks.float().mT)
    return Layered(Rotated(_cayley(-skew), lengths, on_input=True, order=Order.HALVED))


def _rotated_inputs(parts: Parts) -> Layered:
    """PEFT's OFT, OneTrainer's, and OFT version 2 of kohya's scripts: (k, b (b - 1) / 2) numbers above a diagonal."""
    given, scaled = parts.take("oft_R"), parts.take("scaled_oft")
    if given is None:
        return Layered()
    config = parts.peft.config
    block = round((1 + math.sqrt(1 + 8 * given.shape[-1])) / 2)
    if given.ndim != 2 or block * (block - 1) // 2 != given.shape[-1]:
        raise ValueError(f"its oft_R has the shape {tuple(given.shape)}, not (k, b (b - 1) / 2)")
    skew = torch.zeros(len(given), block, block)
    rows, columns = torch.triu_indices(block, block, 1)
    skew[:, rows, columns] = given.float() / (1 if scaled is None else 2 * math.sqrt(block - 1))
    skew = skew - skew.mT
    if config.get("coft"):
        most = float(config.get("eps", 6e-5)) / math.sqrt(len(skew))
        skew = skew * (most / skew.norm(dim=(1, 2), keepdim=True)).clamp(max=1)
    if config.get("use_cayley_neumann", True):
        turns = _series(skew, int(config.get("num_cayley_neumann_terms", 5)))
    else:
        turns = _cayley(-skew)
    # OneTrainer, whose files have no configuration of PEFT's, turns convolutions the other way round.
    return Layered(Rotated(turns[None], on_input=True, back=not config))


def _scaled(parts: Parts) -> Layered:
    """(IA)3 of PEFT's, which scales what it scales by as much as 1 + the change."""
    given, feedforward = parts.take("ia3_l"), parts.peft.feedforward
    if given is None:
        return Layered()
    change = given.float() - 1
    return Layered(Scaled(change, feedforward), None if feedforward else Scaled(change))


def _scaled_by_lycoris(parts: Parts) -> Layered:
    if "on_input" not in parts.left:
        return Layered()
    found = parts.all("weight", "on_input")
    assert found is not None
    return Layered(Scaled(found[0], bool(found[1])))


def _whole(parts: Parts) -> Layered:
    for name, kind in (("diff", Difference), ("w_norm", Difference), ("set_weight", Instead)):
        if (given := parts.take(name)) is not None:
            return Layered(kind(given))
    return Layered()


_KINDS: tuple[Callable[[Parts], Layered], ...] = (
    _low_rank,
    _table,
    _hadamard,
    _kronecker,
    _general,
    _rotated,
    _butterfly,
    _rotated_inputs,
    _scaled,
    _scaled_by_lycoris,
    _whole,
)


def _biased(weight: Patch, parts: Parts) -> Patch:
    """With what is added to the weight besides, whole or only some of its numbers: what extraction by rank had left."""
    if (whole := parts.take("bias")) is not None:
        return Both(weight, Difference(whole))
    found = parts.all("bias_indices", "bias_values", "bias_size")
    if found is None:
        return weight
    indices, values, size = found
    sparse = torch.sparse_coo_tensor(indices.long(), values.float(), size.tolist(), check_invariants=True)
    return Both(weight, Difference(sparse.to_dense()))


def _decomposed(weight: Patch, parts: Parts) -> Patch:
    """DoRA's lengths, of PEFT's (one for each output) or of LyCORIS's files (or for each input)."""
    if (lengths := parts.take("lengths")) is not None:
        return Decomposed(weight, lengths)
    if (lengths := parts.take("dora_scale")) is not None:
        return Decomposed(weight, lengths, lengths.ndim > 1 and len(lengths) == 1)
    return weight


def _added_up(factor: Tensor, axis: int, rank: int) -> Tensor:
    """A factor that is several of that rank, one behind another along an axis, as their sum."""
    shape = factor.shape
    if shape[axis] <= rank or shape[axis] % rank:
        return factor
    added: Tensor = factor.reshape(*shape[:axis], -1, rank, *shape[axis + 1 :]).sum(axis)
    return added


def _cayley(skew: Tensor) -> Tensor:
    """Rotations of skew-symmetric matrices (..., b, b): (1 + Q) (1 - Q)^-1 (Cayley 1846)."""
    one = torch.eye(skew.shape[-1])
    turns: Tensor = torch.linalg.solve(one - skew, one + skew, left=False)
    return turns


def _series(skew: Tensor, terms: int) -> Tensor:
    """The same by the first terms of Neumann's series: 1 + 2 Q + 2 Q^2 + ... + Q^n, as PEFT computes it."""
    turns: Tensor = torch.eye(skew.shape[-1]) + (2 * skew if terms > 1 else 0)
    if terms <= 2:
        return turns.expand_as(skew)
    power = skew @ skew
    turns = turns + 2 * power
    for _ in range(3, terms - 1):
        power = power @ skew
        turns = turns + 2 * power
    return turns + power @ skew
