"""Files of 8-bit floats with a scale beside each tensor, as ComfyUI's users have them.

Two spellings are about: `scale_weight` beside a weight and a tensor `scaled_fp8` that says so of the file; and
`weight_scale`, with a `comfy_quant` beside it. A weight is its numbers times its scale, one for all or one a row. The
scales of what a layer is given (`scale_input`, `input_scale`) are for arithmetic in 8 bits, and left out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.weights.dtypes import FLOATS, as_floats
from darkroom.weights.mapped import Entry, WeightsFile, short

_SCALES = (".scale_weight", ".weight_scale")
_BESIDE = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
_EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2")


def unscaled(weights: WeightsFile) -> WeightsFile:
    """The file with every weight as it is meant; the same one where it has no scales.

    Raises ModelError for a scale that fits no weight.
    """
    scales = {}
    for name in weights.entries:
        for suffix in _SCALES:
            if name.endswith(suffix):
                scales[_checked(weights, name, suffix)] = weights.entries[name]
    if not scales:
        return weights
    entries = {
        name: replace(entry, dtype=f"{entry.dtype}, scaled") if name in scales else entry
        for name, entry in weights.entries.items()
        if not name.endswith(_BESIDE)
    }
    stored, read = weights.entries, weights.read

    def meant(entry: Entry) -> NDArray[Any]:
        array = read(stored[entry.name])
        if entry.name not in scales:
            return array
        scale = as_floats(read(scales[entry.name]), scales[entry.name].dtype)
        rows = (-1, *[1] * (array.ndim - 1)) if scale.size > 1 else ()
        with np.errstate(all="ignore"):  # Scales that are no number are for `verify` to find.
            return as_floats(array, stored[entry.name].dtype) * scale.reshape(rows)

    return WeightsFile(
        weights.path, weights.format, entries, weights.files, meant, weights.metadata, weights.extra
    )


def _checked(weights: WeightsFile, name: str, suffix: str) -> str:
    """The name of the weight that a scale is of."""
    weight, scale = weights.entries.get(f"{name.removesuffix(suffix)}.weight"), weights.entries[name]
    count = math.prod(scale.shape)
    if (
        weight is None
        or weight.dtype not in _EIGHT_BITS
        or not weight.shape
        or count not in (1, weight.shape[0])
    ):
        raise weights.files[0].error(f"has a scale {short(name)} that fits no 8-bit weight: fetch it anew")
    if scale.dtype not in FLOATS:
        raise weights.files[0].error(f"has a scale {short(name)} that is no number: fetch it anew")
    return weight.name
