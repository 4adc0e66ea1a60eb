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
    Butterfly,
    Decomposed,
    Difference,
    General,
    Hadamard,
    Instead,
    Kronecker,
    Layered,
    LowRank,
    Patch,
    Rotated,
    Scaled,
    Scattered,
)


class _Peft:
    """What PEFT's configuration says of one layer."""

    def __init__(self, config: Mapping[str, Any], key: str) -> None:
        # In diffusers' metadata every setting has its network before it.
        role = key.partition(".")[0]
        self.config = {name.removeprefix(f"{role}."): value for name, value in config.items()}
        self.key = key.removeprefix("base_model.model.").removeprefix(f"{role}.")
        started = str(self.config.get("init_lora_weights", True)).lower()
        if any(started.startswith(word) for word in ("pissa", "olora", "corda", "loftq", "lora_ga")):
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


class _Parts:
    """A layer's tensors by what they are ("down", "hada_w1_a"), each taken once; `left` are those that nobody took."""

    def __init__(self, tensors: Mapping[str, Tensor], peft: _Peft) -> None:
        self.left, self.peft = dict(tensors), peft
        for name in ("alpha", "scale", "scalar"):
            if name in tensors and tensors[name].numel() != 1:
                raise ValueError(f"its {name} is of {tuple(tensors[name].shape)}, not one number")
        self.alpha, self._scale = self.take("alpha"), self.take("scale")
        self._scalar = self.take("scalar")

    def take(self, name: str) -> Tensor | None:
        return self.left.pop(name, None)

    def together(self, *names: str) -> list[Tensor] | None:
        """Tensors that are nothing alone; None where none of them is there. Raises ValueError where some are."""
        if not any(name in self.left for name in names):
            return None
        if missing := [name for name in names if name not in self.left]:
            raise ValueError(f"it has no {' and no '.join(missing)}")
        return [self.left.pop(name) for name in names]

    def product(self, name: str, core: str) -> tuple[Tensor, ...]:
        """The factors of a matrix: itself, or two, or two and a core."""
        whole = self.take(name)
        if whole is not None:
            return (whole,)
        found = self.together(f"{name}_a", f"{name}_b")
        if found is None or any(each.ndim < 2 for each in found):
            raise ValueError(f"it has no {name} of matrices")
        middle = self.take(core)
        return (*found, *([] if middle is None else [middle]))

    def scale(self, rank: int | None = None) -> float:
        """By how much a product of that rank is multiplied, or what has none; a `scale`, of A1111's, stands for
        alpha / rank."""
        factor = 1.0 if self._scalar is None else float(self._scalar)
        if self._scale is not None:
            return factor * float(self._scale)
        return factor * (1.0 if rank is None else self.peft.scale(rank, self.alpha))


def layered(tensors: Mapping[str, Tensor], config: Mapping[str, Any], key: str) -> Layered:
    """What the tensors of a layer do to it, under `key`; `config` is PEFT's. Raises ValueError where they are of no
    kind, or not all that a kind needs, or of shapes that make none."""
    found = Layered()
    try:
        parts = _Parts(tensors, _Peft(config, key))
        for kind in _KINDS:
            found = kind(parts)
            if found != Layered():
                break
    except (RuntimeError, IndexError, TypeError, ArithmeticError, AttributeError, re.error) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        said = ", or what PEFT's configuration says of it" if config else ""
        raise ValueError(f"its shapes make no sense ({shapes}){said}") from error
    for name in ("diff_b", "b_norm"):
        if (change := parts.take(name)) is not None:
            found = found._replace(bias=Difference(change))
    if found.weight is not None:
        found = found._replace(weight=_decomposed(found.weight, parts))
    if parts.left or found == Layered():
        raise ValueError(f"there is no kind of adapter with {', '.join(sorted(parts.left or tensors))}")
    return found


def _low_rank(parts: _Parts) -> Layered:
    found = parts.together("down", "up")
    if found is None:
        return Layered()
    (down, up), mid = found, parts.take("mid")
    if min(down.ndim, up.ndim) < 2 or not down.numel():
        raise ValueError(f"its down of {tuple(down.shape)} and up of {tuple(up.shape)} are no matrices")
    scale = parts.scale(len(down))
    if mid is None and len(down) != up.shape[1]:
        # Of several that were stacked on one side only, the parts add up, as in InvokeAI.
        down, up = _added_up(down, 0, up.shape[1]), _added_up(up, 1, len(down))
    bias = parts.take("up_bias")
    weight = _with_rest(LowRank(down, up, mid, scale), parts, scale)
    return Layered(weight, None if bias is None else Difference(bias, scale))


def _with_rest(patch: LowRank, parts: _Parts, scale: float) -> Patch:
    """With what extraction by rank has left of a weight, if that was kept: whole (A1111's `bias`), or its largest
    numbers (LyCORIS's). It is scaled as the rest of it (A1111, `extensions-builtin/Lora/network.py`)."""
    if (whole := parts.take("bias")) is not None:
        return Both(patch, Difference(whole, scale))
    found = parts.together("bias_indices", "bias_values", "bias_size")
    if found is None:
        return patch
    places, values, size = found
    shape = tuple(int(side) for side in size)
    beyond = places.long() >= torch.tensor(shape)[:, None]
    if len(shape) != 2 or bool((beyond | (places < 0)).any()) or values.shape != places.shape[1:]:
        raise ValueError(f"its bias_indices lie outside of its bias_size {shape}")
    return Both(patch, Scattered(places, values, shape, scale))


def _table(parts: _Parts) -> Layered:
    """Of a table of vectors, which is no matrix that is multiplied with."""
    found = parts.together("table_down", "table_up")
    if found is None:
        return Layered()
    down, up = found
    return Layered(LowRank(up.T.contiguous(), down.T.contiguous(), None, parts.scale(len(down))))


def _hadamard(parts: _Parts) -> Layered:
    if not any(name.startswith("hada_") for name in parts.left):
        return Layered()
    w1, w2 = parts.product("hada_w1", "hada_t1"), parts.product("hada_w2", "hada_t2")
    return Layered(Hadamard(w1, w2, parts.scale(len(w1[1]))))


def _kronecker(parts: _Parts) -> Layered:
    if not any(name.startswith("lokr_") for name in parts.left):
        return Layered()
    w1, w2 = parts.product("lokr_w1", "lokr_t1"), parts.product("lokr_w2", "lokr_t2")
    # LyCORIS scales by alpha / rank where one matrix has factors, and not where both are whole; PEFT always scales.
    ranks = [len(factors[1]) for factors in (w2, w1) if len(factors) > 1]
    if ranks:
        return Layered(Kronecker(w1, w2, parts.scale(ranks[0])))
    peft = parts.peft
    by_peft = peft.scale(peft.rank, None) if peft.rank and peft.alpha is not None else 1.0
    return Layered(Kronecker(w1, w2, parts.scale() * by_peft))


def _general(parts: _Parts) -> Layered:
    found = parts.together("a1", "a2", "b1", "b2")
    if found is None:
        return Layered()
    a1, a2, b1, b2 = found
    today = len({a1.shape[1], a2.shape[0], b1.shape[1], b2.shape[0]}) == 1
    old = len({a2.shape[1], a1.shape[0], b2.shape[1], b1.shape[0]}) == 1
    if old and (not today or a2.shape[0] >= a2.shape[1]):
        # Before version 2 LyCORIS had the names the other way round. Of square weights both would do: the rank is less.
        a1, a2, b1, b2 = a2, a1, b2, b1
    elif not today:
        shapes = ", ".join(f"{tuple(each.shape)}" for each in found)
        raise ValueError(f"its a1, a2, b1, b2 of {shapes} are not of one rank")
    scale = parts.scale(len(a2))
    return Layered(General(a1, a2, LowRank(b2, b1, parts.take("bm"), scale), scale))


def _outputs_rotated(parts: _Parts) -> Layered:
    """LyCORIS's Diag-OFT and BOFT, and OFT of kohya's scripts."""
    blocks = parts.take("oft_blocks")
    if blocks is None:
        return Layered()
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
        raise ValueError(f"its oft_blocks are of {tuple(blocks.shape)}, not of (k, b, b) or (m, k, b, b)")
    skew = blocks.float() - blocks.float().mT
    # Alpha is no scale here: it limits how far the whole of them turns.
    most = 0.0 if parts.alpha is None else float(parts.alpha) * blocks.shape[-3] * blocks.shape[-1]
    length = float(skew.norm())
    rotations = _cayley(skew * (most / length) if 0 < most < length else skew)
    lengths = parts.take("rescale")
    if blocks.ndim == 3:
        return Layered(Rotated(rotations.mT[None], lengths))
    return Layered(Rotated(rotations, lengths, butterfly=Butterfly.LYCORIS))


def _inputs_rotated_as_butterfly(parts: _Parts) -> Layered:
    """PEFT's BOFT, and that of kohya's scripts."""
    found = parts.together("boft_R", "boft_s")
    if found is None:
        return Layered()
    blocks, lengths = found
    if blocks.ndim != 4 or blocks.shape[-1] != blocks.shape[-2]:
        raise ValueError(f"its boft_R is of {tuple(blocks.shape)}, not of (m, k, b, b)")
    skew = 0.5 * (blocks.float() - blocks.float().mT)
    return Layered(Rotated(_cayley(-skew), lengths, on_input=True, butterfly=Butterfly.PEFT))


def _inputs_rotated(parts: _Parts) -> Layered:
    """PEFT's OFT, OneTrainer's, and OFT version 2 of kohya's scripts: (k, b (b - 1) / 2) numbers above a diagonal."""
    given = parts.take("oft_R")
    if given is None:
        return Layered()
    scaled, config = parts.take("scaled_oft"), parts.peft.config
    block = round((1 + math.sqrt(1 + 8 * given.shape[-1])) / 2)
    if given.ndim != 2 or block * (block - 1) // 2 != given.shape[-1]:
        raise ValueError(f"its oft_R is of {tuple(given.shape)}, not of (k, b (b - 1) / 2)")
    skew = torch.zeros(len(given), block, block)
    rows, columns = torch.triu_indices(block, block, 1)
    skew[:, rows, columns] = given.float() / (1 if scaled is None else 2 * math.sqrt(block - 1))
    skew = skew - skew.mT
    if config.get("coft"):
        most = float(config.get("eps", 6e-5)) / math.sqrt(len(skew))
        skew = skew * (most / skew.norm(dim=(1, 2), keepdim=True)).clamp(max=1)
    if config.get("use_cayley_neumann", True):
        rotations = _series(skew, int(config.get("num_cayley_neumann_terms", 5)))
    else:
        rotations = _cayley(-skew)
    # OneTrainer, whose files have no configuration of PEFT's, turns convolutions the other way round.
    return Layered(Rotated(rotations[None], on_input=True, convolutions_back=not config))


def _scaled(parts: _Parts) -> Layered:
    """(IA)3 of PEFT's, which multiplies outputs, or inputs, by what it holds."""
    given, feedforward = parts.take("ia3_l"), parts.peft.feedforward
    if given is None:
        return Layered()
    change = given.float() - 1
    return Layered(Scaled(change, feedforward), None if feedforward else Scaled(change))


def _scaled_by_lycoris(parts: _Parts) -> Layered:
    """(IA)3 of LyCORIS's, which multiplies them by 1 + what it holds."""
    if "on_input" not in parts.left:
        return Layered()
    found = parts.together("weight", "on_input")
    assert found is not None
    return Layered(Scaled(found[0] * parts.scale(), bool(found[1])))


def _whole(parts: _Parts) -> Layered:
    for name in ("diff", "w_norm"):
        if (given := parts.take(name)) is not None:
            return Layered(Difference(given, parts.scale()))
    given = parts.take("set_weight")
    return Layered(None if given is None else Instead(given))


_KINDS: tuple[Callable[[_Parts], Layered], ...] = (
    _low_rank,
    _table,
    _hadamard,
    _kronecker,
    _general,
    _outputs_rotated,
    _inputs_rotated_as_butterfly,
    _inputs_rotated,
    _scaled,
    _scaled_by_lycoris,
    _whole,
)


def _decomposed(weight: Patch, parts: _Parts) -> Patch:
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
    """Rotations (..., b, b) of skew-symmetric matrices Q: (1 + Q) (1 - Q)^-1 (Cayley 1846)."""
    one = torch.eye(skew.shape[-1])
    rotations: Tensor = torch.linalg.solve(one - skew, one + skew, left=False)
    return rotations


def _series(skew: Tensor, terms: int) -> Tensor:
    """Nearly the same (k, b, b) by Neumann's series, as PEFT computes it: of 5 terms 1 + 2 Q + 2 Q^2 + 2 Q^3 + Q^4, of
    4 or 3 terms 1 + 2 Q + 2 Q^2 + Q^3, of 2 terms 1 + 2 Q, of 1 term 1."""
    powers = [torch.eye(skew.shape[-1]).expand_as(skew)]
    for _ in range(1 if terms == 2 else 0 if terms < 2 else max(terms - 1, 3)):
        powers.append(powers[-1] @ skew)
    rotations: Tensor = powers[0] + 2 * sum(powers[1:])
    return rotations - powers[-1] if terms > 2 else rotations
