"""One call of a network of which some rows see an altered one: layers without attention, blocks left out, FreeU.

All rows go through all of the network; what an alteration changes is computed for all of them and taken for the rows
that ask for it. So a row's output does not depend on what the rows beside it ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.diffusion import Without
from darkroom.errors import InvalidRequest
from darkroom.networks.conditioning import beside
from darkroom.networks.denoiser import Denoiser
from darkroom.networks.freeu import FreeU, places
from darkroom.networks.layers import Attend, attend

MIDDLE = "mid"


@contextmanager
def altered(
    network: Denoiser,
    x: Tensor,
    without: Sequence[Without | None],
    freeu: Sequence[FreeU | None] = (),
    attention: Attend | None = None,
) -> Iterator[Attend | None]:
    """A network for one call on x: `without` and `freeu` have an entry for each of its rows. Gives the attention to
    call it with, which goes on to `attention`. Raises InvalidRequest where the network has not what is to be left out.
    """
    hooks = []
    for each in dict.fromkeys(filter(None, without)):
        rows = torch.tensor([own == each for own in without])
        if each.what == "attention":
            layers = attention_layers(network, each.where)
            attention = _selfish(attention or attend, layers, rows, network.tokens(x))
        else:
            for block in blocks(network, each.where):
                hooks.append(block.register_forward_hook(partial(_passed, rows)))
    for factors in dict.fromkeys(filter(None, freeu)):
        rows = torch.tensor([own == factors for own in freeu])
        for resnet, backbone, number in places(network):
            change = partial(factors.applied, backbone=backbone, block=number)
            hooks.append(resnet.register_forward_pre_hook(partial(_changed, rows, change)))
    try:
        yield attention
    finally:
        for hook in hooks:
            hook.remove()


def attention_layers(network: Denoiser, where: Iterable[object]) -> frozenset[str]:
    """The names of the self-attention layers whose names begin with one of `where`; "mid" is the middle of the network.
    Raises InvalidRequest where one of them is the beginning of none."""
    known = network.self_attentions()
    found: set[str] = set()
    for beginning in map(str, where):
        start = network.middle if beginning == MIDDLE else beginning
        own = {name for name in known if name == start or name.startswith(f"{start}.")}
        if not own:
            some = ", ".join(
                dict.fromkeys(name.rsplit(".", 2)[0] for name in known[:: max(1, len(known) // 4)])
            )
            raise InvalidRequest(
                f"no self-attention layer of this model is called {beginning!r}: {MIDDLE}, or such as {some}"
            )
        found |= own
    return frozenset(found)


def blocks(network: Denoiser, where: Iterable[object]) -> list[nn.Module]:
    """An MMDiT's blocks of those numbers. Raises InvalidRequest for another network, and for numbers it has not."""
    count = len(network.blocks)
    if not count:
        raise InvalidRequest("skip-layer guidance (slg) is for Stable Diffusion 3: use pag with this model")
    numbers = [int(str(each)) for each in where]
    for number in numbers:
        if not 0 <= number < count:
            raise InvalidRequest(f"slg leaves out block {number}: this model has 0 to {count - 1}")
    return [network.blocks[number] for number in numbers]


def _selfish(inner: Attend, layers: frozenset[str], rows: Tensor, tokens: int) -> Attend:
    """Attention in which, in those layers and rows, the picture's tokens gather nothing but their own values."""

    def attention(q: Tensor, k: Tensor, v: Tensor, name: str, *others: Any) -> Tensor:
        gathered = inner(q, k, v, name, *others)
        if name not in layers:
            return gathered
        # Where text is in the sequence it comes after the picture, and sees what it always sees.
        count = min(tokens, v.shape[2])
        own = torch.cat([v[:, :, :count], gathered[:, :, count:]], dim=2)
        return torch.where(beside(rows, own), own, gathered)

    return attention


def _passed(rows: Tensor, block: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Any:
    """What a block gives, in those rows what it was given."""
    return tuple(
        torch.where(beside(rows, given), given, made)
        for given, made in zip(inputs[: len(outputs)], outputs, strict=True)
    )


def _changed(
    rows: Tensor, change: Callable[[Tensor], Tensor], module: nn.Module, inputs: tuple[Any, ...]
) -> Any:
    x, *others = inputs
    return (torch.where(beside(rows, x), change(x), x), *others)
