"""What a judge is: it says how well pictures are what a request asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from darkroom.diffusion import positives
from darkroom.generation.request import Request
from darkroom.generation.wording import Wording
from darkroom.language import Moment
from darkroom.ranking.phrases import Phrases


@dataclass(frozen=True, slots=True)
class Judgement:
    """score: the higher the better, among pictures of one request; right: whether all is there that is asked, None
    where the judge cannot say; missing: what is not, in words."""

    score: float
    right: bool | None = None
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        found: dict[str, Any] = {"score": round(self.score, 4)}
        if self.right is not None:
            found |= {"right": self.right, "missing": [*self.missing]}
        return found


class Judging(Protocol):
    """A judge that knows what is asked; `notes` say what of that it cannot tell. Pictures are RGB."""

    @property
    def notes(self) -> tuple[str, ...]: ...

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Judgement]: ...


@dataclass(frozen=True)
class Phrase:
    """What a picture shows, in words, and how surely: 0 to 1, or as its judge measures."""

    text: str
    score: float
    about: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"text": self.text, "score": round(self.score, 4), "about": self.about}


@dataclass(frozen=True)
class Interrogation:
    """A prompt for a picture, what it is made of, and what else was close."""

    prompt: str
    phrases: tuple[Phrase, ...]
    others: tuple[Phrase, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "prompt": self.prompt,
            "phrases": [each.to_dict() for each in self.phrases],
            "others": [each.to_dict() for each in self.others],
        }


class Judge(Protocol):
    """Judges pictures. `name` is what it is called; `path` its file or folder, if it has one."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    def asked(self, prompt: str, negative: str) -> Judging:
        """Ready to judge pictures of a plain text. Raises InvalidRequest where it can tell nothing of that."""
        ...

    def interrogate(
        self, picture: Image.Image, phrases: Mapping[str, Phrases] | None = None
    ) -> Interrogation:
        """What a picture, RGB, shows, in phrases by what they are about. Raises InvalidRequest where it has words of
        its own and some are given."""
        ...


def said_plainly(request: Request) -> tuple[str, str]:
    """The prompt of a settled request for one picture and its negative one, as they are read at the last step of the
    first pass, without what is no text in them: weights, adapters."""
    wording, steps = Wording(request), request.sampling.steps or 1
    last = Moment(steps - 1, steps)

    def plain(row: str) -> str:
        prompt, _ = max(wording.told(row, last, adapted=False), key=lambda each: each[1])
        blends = [blend for blend in prompt.mixture(0) if blend.weight > 0]
        texts = ("".join(", " if span.breaks else span.text for span in blend.texts[0]) for blend in blends)
        return ", ".join(filter(None, map(str.strip, texts)))

    rows = zip(positives(len(wording.weights)), wording.weights, strict=True)
    parts = [plain(row.name) for row, weight in rows if weight > 0]
    return ", ".join(filter(None, parts)), plain("negative")
