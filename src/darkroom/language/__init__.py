"""The prompt language: what a user types, by the dialect it is written in. Text only: `darkroom.prompt` encodes it.

    parts = read("a red boat AND a storm :0.7", "a1111")
    [(part.weight, part.script.at(Moment(0, 20))) for part in parts]    # [(1.0, "a red boat "), (0.7, " a storm ")]

A text is read in turns: into parts that are guided by together (`AND`), each a script that says what text it is at a
step, and that text, once it is to be encoded, into spans of equal weight.
"""

from darkroom.language.dialects import (
    DIALECTS,
    EMPHASES,
    IGNORE,
    NO_NORM,
    ORIGINAL,
    Dialect,
    Part,
    dialect_of,
    read,
    read_whole,
)
from darkroom.language.mixture import Blend, Mixture
from darkroom.language.scripts import Moment, Script
from darkroom.language.spans import BREAK, Span

__all__ = [
    "BREAK",
    "DIALECTS",
    "EMPHASES",
    "IGNORE",
    "NO_NORM",
    "ORIGINAL",
    "Blend",
    "Dialect",
    "Mixture",
    "Moment",
    "Part",
    "Script",
    "Span",
    "dialect_of",
    "read",
    "read_whole",
]
