"""Shares of successes, with how far they can be trusted, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """`right` of `total`."""

    right: int
    total: int

    @classmethod
    def of(cls, verdicts: Iterable[bool]) -> Score:
        seen = list(verdicts)
        return cls(sum(seen), len(seen))

    @property
    def share(self) -> float:
        """0 to 1; not-a-number where nothing was tried."""
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the share (Wilson 1927, https://doi.org/10.2307/2276774)."""
        n, z = self.total, 1.959964
        if not n:
            return 0.0, 1.0
        middle = (self.right + z * z / 2) / (n + z * z)
        half = z / (n + z * z) * math.sqrt(self.right * (n - self.right) / n + z * z / 4)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        share = None if not self.total else round(self.share, 4)
        return {
            "right": self.right,
            "total": self.total,
            "share": share,
            "low": round(low, 4),
            "high": round(high, 4),
        }


def mean(scores: Iterable[Score]) -> Score:
    """Scores of equally many trials, taken together: its share is their mean share, and its interval, which
    takes the trials as alike, is a little wider than it need be."""
    known = list(scores)
    return Score(sum(s.right for s in known), sum(s.total for s in known))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in aligned columns, the first to the left, the others to the right; an empty row is a
    rule."""
    full = [row for row in rows if row]
    widths = [max(len(row[k]) for row in full) for k in range(len(full[0]))]
    lines = []
    for row in rows:
        cells = (
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            if row
            else []
        )
        lines.append("  ".join(cells).rstrip() if row else "-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(lines)


def percent(score: Score) -> str:
    return f"{100 * score.share:.1f}" if score.total else "-"


def between(score: Score) -> str:
    low, high = score.interval
    return f"{100 * low:.1f} - {100 * high:.1f}" if score.total else "-"


def breakdown(title: str, scores: Mapping[str, Mapping[str, Score]], across: Sequence[str]) -> str:
    """A table of percentages: a row for each name in `scores`, a column for each in `across`."""
    rows: list[Sequence[str]] = [[title, *across], []]
    rows += [
        [name, *(percent(found[a]) if a in found else "-" for a in across)] for name, found in scores.items()
    ]
    return columns(rows)
