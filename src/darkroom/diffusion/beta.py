"""The quantile function of the beta distribution, for the schedule of that name."""

from __future__ import annotations

import math


def beta_quantile(u: float, a: float, b: float) -> float:
    """The x in [0, 1] below which a share u of a beta(a, b) distribution lies: Newton's method, with
    bisection where it would leave the bracket."""
    if not 0 < u < 1:
        return float(u >= 1)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    low, x, high = 0.0, 0.5, 1.0
    while True:
        error = beta_share(x, a, b) - u
        low, high = (x, high) if error < 0 else (low, x)
        density = math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - log_beta)
        guess = x - error / density
        if not low < guess < high:
            guess = (low + high) / 2
        if abs(guess - x) <= 1e-15 * x or guess in (low, high):
            return guess
        x = guess


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
