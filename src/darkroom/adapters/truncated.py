"""The product of two thin matrices that comes nearest to a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# With so many times more rows and columns than wanted, random projections find the largest singular values sooner.
_SPARSE = 8
_OVERSAMPLED, _ITERATIONS, _SEED = 16, 4, 0


@dataclass(frozen=True)
class Size:
    """How large the product's inside is to be: `rank`, or as small as `keep` allows, the share of the matrix's squared
    length (Frobenius norm) that is kept; with both `rank` at most."""

    rank: int | None = None
    keep: float | None = None

    def chosen(self, singular: Tensor) -> int:
        """For a matrix of these singular values, largest first."""
        rank = len(singular) if self.rank is None else min(self.rank, len(singular))
        if self.keep is not None:
            squares = singular.double().pow(2)
            share = squares.cumsum(0) / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)
            rank = min(rank, int((share < self.keep).sum()) + 1)
        return max(rank, 1)


def truncated(matrix: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """up (out, r) and down (r, in), whose product comes nearest to a matrix (out, in) (Eckart and Young 1936)."""
    if size.keep is None and size.rank is not None and size.rank * _SPARSE < min(matrix.shape):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            u, s, v = torch.svd_lowrank(matrix, size.rank + _OVERSAMPLED, _ITERATIONS)
        return _balanced(u, s, v.T, size)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return _balanced(u, s, vh, size)


def truncated_product(up: Tensor, down: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """The same of a product up (out, n) times down (n, in), by way of small matrices only."""
    if up.shape[1] >= min(up.shape[0], down.shape[1]):
        return truncated(up @ down, size)
    (q1, r1), (q2, r2) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    u, s, vh = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
    return _balanced(q1 @ u, s, vh @ q2.T, size)


def _balanced(u: Tensor, s: Tensor, vh: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Both factors of one length, which suits half precision."""
    rank = size.chosen(s)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]
