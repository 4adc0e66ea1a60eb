"""The names that single files use, and ours: rules that work both ways.

A single file keeps the names of the code its model was trained with; ours are those of the Hugging Face folders. Each
network is a row of blocks, and a block of one sort always differs in the same few words. So a rule for every tensor is
*generated*: where its block lies in either layout (from the network's dimensions), then what its leaf is called. A rule
knows its inverse, which makes writing a single file free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Change:
    """What happens to a tensor on the way: `read` makes ours of theirs, `write` theirs of ours."""

    name: str
    read: Callable[[Tensor, int], Tensor]
    write: Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Rule:
    """One tensor of theirs and the one, or the parts in order, that we keep of it."""

    theirs: str
    ours: tuple[str, ...]
    change: Change

    def read(self, tensor: Tensor) -> dict[str, Tensor]:
        """Ours by name; views of the tensor where they can be."""
        return {name: self.change.read(tensor, i) for i, name in enumerate(self.ours)}

    def write(self, tensors: Sequence[Tensor]) -> Tensor:
        """Theirs, from ours in the order of `ours`."""
        return self.change.write(tensors)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(tuple(tensors))


def _halves_swapped(tensor: Tensor) -> Tensor:
    return _stacked(tensor.chunk(2)[::-1])


SAME = Change("same", lambda t, i: t, lambda ts: ts[0])
SPLIT = Change("split", lambda t, i: t.chunk(3)[i], _stacked)
SWAP = Change("swap", lambda t, i: _halves_swapped(t), lambda ts: _halves_swapped(ts[0]))
TRANSPOSE = Change("transpose", lambda t, i: t.T, lambda ts: ts[0].T.contiguous())
SQUEEZE = Change("squeeze", lambda t, i: t.flatten(1), lambda ts: ts[0][:, :, None, None])

Leaf = tuple[str, str, Change]
"""Our name in a block, theirs, and the change. A leaf may be a tensor's name or the start of one."""
Block = tuple[str, str, Sequence[Leaf]]
"""Where a block begins in our names and in theirs, and its leaves."""

AS_IT_IS: Sequence[Leaf] = (("", "", SAME),)


def generated(blocks: Iterable[Block], names: Iterable[str]) -> list[Rule]:
    """A rule for each tensor of ours in the names that the authors' files have."""
    table = {ours: (theirs, leaves) for ours, theirs, leaves in blocks}
    found: dict[str, Rule] = {}
    for name in names:
        theirs, change = _translated(table, name)
        ours = (*found[theirs].ours, name) if theirs in found else (name,)
        found[theirs] = Rule(theirs, ours, change)
    return [_in_order(rule) for rule in found.values()]


def _translated(table: Mapping[str, tuple[str, Sequence[Leaf]]], name: str) -> tuple[str, Change]:
    """Their name for a tensor of ours: that of its block, then that of the leaf."""
    words = name.split(".")
    for cut in range(len(words), -1, -1):
        block = ".".join(words[:cut])
        if block not in table:
            continue
        theirs, leaves = table[block]
        rest = ".".join(words[cut:])
        for ours, leaf, change in leaves:
            if rest == ours or not ours or rest.startswith(f"{ours}."):
                whole = ".".join(filter(None, (theirs, leaf + rest.removeprefix(ours) if ours else rest)))
                return whole, change
    raise AssertionError(f"no rule for {name}")


def _in_order(rule: Rule) -> Rule:
    """Queries, keys, values: the order in which files stack them, whatever the network's own."""
    if rule.change is not SPLIT:
        return rule
    return Rule(rule.theirs, tuple(sorted(rule.ours, key=_query_key_value)), SPLIT)


def _query_key_value(name: str) -> int:
    words = name.split(".")
    letter = next(word for word in words[-2].split("_") if word in ("q", "k", "v"))
    return "qkv".index(letter)
