"""How well a picture of the drawn world is what was asked for, clause by clause: what pictures are ranked by.

`darkroom.oracle.judging` says whether it is right, by GenEval's rules; this says how nearly and how surely.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from darkroom.oracle.judging import SETTING, Expectation, Reading, Wanted, satisfies, stand_so

_HALF = 0.5
"""What a clause that does not hold is worth at most, by how near it comes."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that is asked, in words; whether it holds, and how surely or nearly, 0 to 1."""

    asked: str
    holds: bool
    score: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """right: everything that is asked for is there (`satisfies`); score: the mean of the clauses', 0 to 1."""

    right: bool
    clauses: tuple[Clause, ...]

    @property
    def score(self) -> float:
        return sum(each.score for each in self.clauses) / len(self.clauses)

    @property
    def missing(self) -> tuple[str, ...]:
        """What is asked and does not hold."""
        return tuple(each.asked for each in self.clauses if not each.holds)


def verdict_on(reading: Reading, expectation: Expectation) -> Verdict:
    """What is to be said of a picture that was read so, of which something is asked. Where things are asked for, others
    in the picture count against it, though it may be right with them."""
    return Verdict(satisfies(reading, expectation), tuple(_clauses(reading, expectation)))


def _clauses(reading: Reading, expectation: Expectation) -> Iterator[Clause]:
    found = [wanted.among(reading.things) for wanted in expectation.things]
    for wanted, things in zip(expectation.things, found, strict=True):
        count, seen = wanted.count, len(things)
        if holds := wanted.met_by(seen):
            score = min((thing.confidence for thing in things[:count]), default=1.0)
        else:
            alike = len(Wanted(wanted.kind).among(reading.things))
            near = max(_near(seen, count), 0.5 * _near(alike, count) if count else 0.0)
            score = _HALF * near
        yield Clause(said_of(wanted), holds, score)
    if expectation.relation is not None:
        names = (said_of(each) for each in expectation.things[:2])
        holds = stand_so(reading, expectation)
        yield Clause(f" {expectation.relation} ".join(names), holds, float(holds))
    for name in SETTING:
        if (wanted_name := getattr(expectation, name)) is not None:
            guess = getattr(reading, name)
            same = guess.name == wanted_name
            yield Clause(wanted_name, same, guess.confidence if same else _HALF * (1 - guess.confidence))
    if any(wanted.count for wanted in expectation.things):
        strangers = sum(all(thing not in things for things in found) for thing in reading.things)
        # Where a number is said, too many are counted already; "flowers" may be any number from two.
        more = strangers + sum(
            max(len(things) - wanted.count, 0)
            for wanted, things in zip(expectation.things, found, strict=True)
            if wanted.count == 1 and not wanted.exact
        )
        yield Clause("nothing else", not more, 1 / (1 + more))


def _near(seen: int, count: int) -> float:
    return min(seen, count) / max(seen, count, 1)


def said_of(wanted: Wanted) -> str:
    """Things that are asked for in words: "3 red boats", "no cat"."""
    # A table of plurals is in the world's words; to tell people what is missing a number will do.
    named = " ".join(filter(None, (wanted.colour, wanted.kind)))
    if wanted.count == 0:
        return f"no {named}"
    return named if wanted.count == 1 else f"{wanted.count} x {named}"
