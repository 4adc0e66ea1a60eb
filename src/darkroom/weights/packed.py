"""Ways of storing numbers in a few bits that are not read, by the names of what lies beside them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_PACKED: Mapping[str, str] = {
    "4 bits of bitsandbytes (NF4 or FP4)": r"\.(absmax|quant_map|nested_absmax|quant_state\.bitsandbytes__\w+)$",
    "8 bits of bitsandbytes (int8)": r"\.(SCB|weight_format)$",
    "4 bits of Nunchaku (SVDQuant)": r"\.(wscales|smooth_factor|wtscale)$",
    "4-bit floats in blocks (NVFP4)": r"\.weight_scale_2$",
    "integers of GPTQ or AWQ": r"\.(qweight|qzeros|g_idx)$",
    "Quanto's integers": r"\.weight\._(data|scale)$",
}


def packed_as(names: Collection[str]) -> str | None:
    """How numbers of such names are stored, in words, where it is a way that is not read."""
    for words, mark in _PACKED.items():
        if any(map(re.compile(mark).search, names)):
            return words
    return None
