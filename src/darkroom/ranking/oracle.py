"""The oracle as a judge: it counts what is there, and knows nothing but the drawn world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from darkroom.errors import InvalidRequest
from darkroom.oracle.oracle import Oracle
from darkroom.oracle.prompts import Asked, asked_of
from darkroom.oracle.telling import told
from darkroom.oracle.verdicts import verdict_on
from darkroom.ranking.judge import Interrogation, Judgement, Phrase
from darkroom.ranking.phrases import Phrases


class WorldJudge:
    """Judges pictures of the drawn world (`darkroom.ranking.judge.Judge`)."""

    name, path = "oracle", None

    def __init__(self) -> None:
        self._oracle = Oracle.load()

    def asked(self, prompt: str, negative: str) -> _Asked:
        """Ready to judge pictures of a prompt. Raises InvalidRequest for one in which it knows nothing."""
        asked = asked_of(prompt, negative)
        if asked.empty:
            raise InvalidRequest(
                f"the oracle knows nothing of what is asked in {prompt!r}: it can tell things, colours, places, times, "
                "weather and styles of the drawn world; say one of these, or give another judge (`judge=`)"
            )
        return _Asked(self._oracle, asked)

    def interrogate(
        self, picture: Image.Image, phrases: Mapping[str, Phrases] | None = None
    ) -> Interrogation:
        """What it sees, as a prompt in the words of the world's captions."""
        if phrases is not None:
            raise InvalidRequest(
                "the oracle has words of its own: leave phrases out, or give another judge (`judge=`)"
            )
        (reading,) = self._oracle([picture])
        prompt, parts = told(reading)
        return Interrogation(prompt, tuple(Phrase(each.text, each.confidence, each.about) for each in parts))


@dataclass(frozen=True)
class _Asked:
    oracle: Oracle
    what: Asked

    @property
    def notes(self) -> tuple[str, ...]:
        unknown = dict.fromkeys(self.what.unknown)
        return (f"the oracle knows nothing of: {', '.join(unknown)}",) if unknown else ()

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Judgement]:
        found = []
        for reading in self.oracle(pictures):
            verdict = verdict_on(reading, self.what.expectation)
            found.append(Judgement(verdict.score, verdict.right, verdict.missing))
        return found
