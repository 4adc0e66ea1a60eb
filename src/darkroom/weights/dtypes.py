"""The types of numbers in files, by the names torch gives them, and arrays of them without importing torch.

An array of a type that NumPy lacks (bfloat16, the floats of 8 bits) holds the bits, as unsigned numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_EIGHT_BITS = dict.fromkeys(
    ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), 1
)
FLOATS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2} | _EIGHT_BITS
"""The bytes that a number of each floating-point type takes."""
_WHOLE = {f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)}
SIZES = FLOATS | _WHOLE | {"bool": 1, "complex64": 8, "complex128": 16}
"""The bytes that a number of any type takes."""


def torch_dtype(name: str) -> torch.dtype:
    """The type of that name, which is one of `SIZES`."""
    import torch

    found: torch.dtype = getattr(torch, name)
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """What it is called here."""
    return str(dtype).removeprefix("torch.")


def bits_of(dtype: str) -> str:
    """The type of NumPy's that holds numbers of a type, or their bits."""
    return "uint16" if dtype == "bfloat16" else "uint8" if dtype in _EIGHT_BITS else dtype


def as_tensor(array: NDArray[Any], dtype: str) -> Tensor:
    """A tensor on the array's memory; float32 where `dtype` is none of `SIZES`."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor if bits_of(dtype) == dtype else tensor.view(torch_dtype(dtype))


def as_floats(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The numbers of an array of a floating-point type as float32. Imports torch for those of 8 bits."""
    if dtype == "bfloat16":  # The upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    if dtype in _EIGHT_BITS:
        floats: NDArray[np.float32] = as_tensor(array, dtype).float().numpy()
        return floats
    return array.astype(np.float32, copy=False)
