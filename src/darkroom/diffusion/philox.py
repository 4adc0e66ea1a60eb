"""The numbers that a CUDA device draws, computed anywhere.

Philox 4x32 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), and normal numbers of
it as torch's CUDA generator makes them: element i of draw n has the counter (n, 0, i, 0), the seed is the key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# As float32 numbers, as CUDA has them.
_UNIT = float(np.float32(2.3283064e-10))
_TURN = float(np.float32(2.3283064e-10 * 6.2831855))


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Ten rounds on counters (4, n)."""
    c0, c1, c2, c3 = (row.copy() for row in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        low, high = _product(c0, _MULTIPLIERS[0])
        low2, high2 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high2 ^ c1 ^ np.uint32(k0), low2, high ^ c3 ^ np.uint32(k1), low
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def _product(words: Words, factor: Any) -> tuple[Words, Words]:
    """The lower and the upper half of each product."""
    wide = words.astype(np.uint64) * factor
    return wide.astype(np.uint32), (wide >> np.uint64(32)).astype(np.uint32)


def normal(seed: int, draw: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """What the `draw`-th torch.randn(shape) on a CUDA device gives after manual_seed(seed), for arrays that its threads
    make in one go (Box and Muller 1958, sines only)."""
    count = math.prod(shape)
    counter = np.zeros((4, count), np.uint32)
    counter[0] = draw
    counter[2] = np.arange(count, dtype=np.uint32)
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    u = words[0] * _UNIT + _UNIT / 2
    v = words[1] * _TURN + _TURN / 2
    numbers: NDArray[np.float32] = (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32)
    return numbers.reshape(shape)
