"""The blocks of a denoising network, by the names that the LoRA Block Weight and merging extensions gave them: IN00 and
the rest of the way down, M00, the way up to OUT11; J00 and so on of Stable Diffusion 3; BASE for all else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from darkroom.checkpoint.components import ORIGINAL, component_of
from darkroom.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import nn

BASE = "BASE"
"""The block of everything that is in none: embeddings, text encoders."""

_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks|joint_blocks)\.(\d+)")
_SHORT = {"input_blocks": "IN", "output_blocks": "OUT", "joint_blocks": "J"}


def block_of(original: str) -> str:
    """The block of a tensor by its original name, in the notation of the LoRA Block Weight extension."""
    found = _BLOCK.match(original)
    if found is None:
        return BASE
    return "M00" if found[1] == "middle_block" else f"{_SHORT[found[1]]}{int(found[2]):02d}"


def blocks_of(network: nn.Module) -> dict[str, str]:
    """The block of each layer of a network that is in one."""
    component = component_of(type(network))
    if not component.roles[0].denoises:
        return {}
    return {
        name.rpartition(".")[0]: block
        for rule in component.rules(network, ORIGINAL)
        if (block := block_of(rule.theirs)) != BASE
        for name in rule.ours
    }


_UNET = (
    "BASE",
    *(f"IN{i:02d}" for i in range(12)),
    "M00",
    *(f"OUT{i:02d}" for i in range(12)),
)
_XL = (*_UNET[:10], "M00", *(f"OUT{i:02d}" for i in range(9)))


def _those(blocks: Sequence[str], names: str) -> tuple[str, ...]:
    wanted = names.split()
    return tuple(block for block in blocks if block in wanted)


_ORDERS: Mapping[int, tuple[str, ...]] = {
    17: _those(
        _UNET,
        "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
    ),
    26: _UNET,
    12: _those(_XL, "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"),
    20: _XL,
}
"""The blocks that as many weights are for: those with transformers, or all, of Stable Diffusion 1 and 2, then XL's."""

PRESETS: Mapping[str, tuple[str, ...]] = {
    "NONE": (),
    "ALL": ("BASE", "IN", "M", "OUT", "J"),
    "INS": ("BASE", "IN00", "IN01", "IN02", "IN03", "IN04"),
    "IND": ("BASE", "IN05", "IN06", "IN07", "IN08", "IN09", "IN10", "IN11"),
    "INALL": ("BASE", "IN"),
    "MIDD": ("BASE", "IN04", "IN05", "IN06", "IN07", "IN08", "M", *(f"OUT{i:02d}" for i in range(8))),
    "OUTD": ("BASE", *(f"OUT{i:02d}" for i in range(8))),
    "OUTS": ("BASE", "OUT08", "OUT09", "OUT10", "OUT11"),
    "OUTALL": ("BASE", "OUT"),
}
"""Names of the extension for the blocks that are 1, all others being 0."""

_EVERY = tuple(dict.fromkeys([*_UNET, *(f"J{i:02d}" for i in range(64))]))


def block_weights(text: str) -> tuple[tuple[str, float], ...]:
    """What stands behind `lbw=`, as the LoRA Block Weight extension has it: a preset's name, or numbers with commas
    between, one for each block.

    17 numbers are those of Stable Diffusion 1 and 2's blocks with transformers, 26 all of its blocks; 12 and 20 the
    same of XL; any other count is BASE and then the joint blocks of Stable Diffusion 3. Raises InvalidRequest for
    what is neither.
    """
    if not text:
        return ()
    if (chosen := PRESETS.get(text.strip().upper())) is not None:
        return tuple((block, float(block.startswith(chosen))) for block in _EVERY)
    try:
        numbers = [float(each) for each in text.split(",")]
    except ValueError:
        raise InvalidRequest(
            f"the block weights {text!r} are neither numbers with commas between nor one of {', '.join(PRESETS)}"
        ) from None
    order = _ORDERS.get(len(numbers)) or ("BASE", *(f"J{i:02d}" for i in range(len(numbers) - 1)))
    return tuple(zip(order, numbers, strict=True))
