"""The quantile function of the beta distribution, for the schedule of that name."""

from __future__ import annotations

import math


def beta_quantile(u: float, a: float, b: float) -> float:
    """The x in [0, 1] below which a share u of a beta(a, b) distribution lies, by bisection."""
    low, high = 0.0, 1.0
    while True:
        x = (low + high) / 2
        if x in (low, high):  # No float lies between them.
            return x if 0 < u < 1 else float(u >= 1)
        if beta_share(x, a, b) < u:
            low = x
        else:
            high = x


def beta_share(x: float, a: float, b: float) -> float:
    """The share of a beta(a, b) distribution below x: the regularised incomplete beta function, by its
    continued fraction (https://dlmf.nist.gov/8.17#v, eq. 8.17.22)."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # Where the fraction of the mirror image converges faster.
        return 1 - beta_share(1 - x, b, a)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logs + a * math.log(x) + b * math.log1p(-x)) / a
    fraction = 1.0  # Evaluated from the tail; 40 terms reach 1e-15 on this half.
    for m in range(40, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        fraction = 1 + odd / (1 + even / fraction)
    return front / fraction
