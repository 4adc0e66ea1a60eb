"""What the text encoders are told of a request, row by row and step by step."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from darkroom.adapters.adapter import Adapter
from darkroom.adapters.applied import TextChanges
from darkroom.adapters.dose import Dose
from darkroom.checkpoint.blocks import block_weights
from darkroom.diffusion import positives
from darkroom.errors import InvalidRequest
from darkroom.generation.details import DETECTORS, parse_detail
from darkroom.generation.edits import Subject
from darkroom.generation.request import Request
from darkroom.generation.work import Enlarger, Seeker
from darkroom.language import Moment, Part, Script, dialect_of, read, read_whole
from darkroom.language.tags import Tag, parse_tag, tagged
from darkroom.library.locate import anchored, anchored_tags
from darkroom.prompt import Prompt
from darkroom.prompt.vocabulary import Embeddings


@dataclass(frozen=True)
class Extras:
    """What a request names beside the model, read: adapters, embeddings, the picture that it begins with as `subject`,
    what makes pictures larger if that is no filter, what finds the things of each detail, by its text; `notes` say what
    of them is not used."""

    adapters: Mapping[Tag, Adapter] = field(default_factory=dict)
    embeddings: Embeddings = ()
    subject: Subject | None = None
    upscaler: Enlarger | None = None
    seekers: Mapping[str, Seeker] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class _Read:
    """A request's prompt, read: `weights` are those of its parts, `tags` the adapters that it names and how often each,
    `texts` what there is for each text encoder, `scripts` what each reads on the way, by row."""

    def __init__(self, request: Request) -> None:
        dialect = request.text.dialect
        texts, tags = zip(*map(dialect_of(dialect).tagged, _three(request, "prompt")), strict=True)
        parts = [read(text, dialect) for text in texts]
        self.texts: tuple[str, ...] = texts
        # Named again for another encoder it is the same one, named twice in one text it is there twice.
        self.tags = reduce(or_, (Counter(each) for each in tags))
        self.weights = tuple(part.weight for part in parts[0])
        self.scripts = {
            row.name: tuple(_part(each, number, len(self.weights)).script for each in parts)
            for number, row in enumerate(positives(len(self.weights)))
        }


class Wording:
    """A request's prompts, read. `weights` are those of the prompt's parts; `tags` the adapters that the request and
    its prompts name, each of which is in `extras` once the picture is made; `texts` all that is read.

    A request that goes towards another prompt has two ends, each with its share. Raises InvalidRequest where prompts
    cannot be read, or have another number of parts than the first one.
    """

    def __init__(self, request: Request, extras: Extras | None = None) -> None:
        self.request = request
        self.extras = extras or Extras()
        self._ends = [(_Read(each), share) for each, share in _ends(request)]
        counts = [len(end.weights) for end, _ in self._ends]
        if len(set(counts)) > 1:
            raise InvalidRequest(
                f"the prompt has {counts[0]} parts joined by AND, that which it goes towards {counts[1]}: give as many"
            )
        self.weights = tuple(
            sum(share * weight for (_, share), weight in zip(self._ends, several, strict=True))
            for several in zip(*(end.weights for end, _ in self._ends), strict=True)
        )
        self._adapters = self._partly(Counter(map(parse_tag, request.adapters)))
        self._shares: dict[Tag, float] = dict(self._adapters)
        for end, share in self._ends:
            for tag, times in self._partly(end.tags).items():
                self._shares[tag] = self._shares.get(tag, 0.0) + share * times
        self.tags: tuple[Tag, ...] = tuple(self._shares)
        self._blocks = {tag: block_weights(tag.blocks) for tag in self.tags}
        negatives = _three(request, "negative")
        self._negative = tuple(read_whole(text, request.text.dialect) for text in negatives)
        self.texts = (*(text for end, _ in self._ends for text in end.texts), *negatives)
        self.says_no = any(negatives)
        """Whether there is a negative prompt."""

    def doses(self, moment: Moment, text: bool = False) -> tuple[Dose, ...]:
        """How much of each adapter there is at a step in the denoising network or, `text`, in the text encoders."""
        return self._doses(self._shares, moment, text)

    def told(self, row: str, moment: Moment, adapted: bool = True) -> tuple[tuple[Prompt, float], ...]:
        """What that row is told at a step, and the share of each if there are two ends; equal where it is the same; not
        `adapted`: by encoders without adapters."""
        if row == "negative":
            return ((self._prompt(self._negative, self._shares, moment, adapted), 1.0),)
        found = []
        for end, share in self._ends:
            tags = self._adapters + self._partly(end.tags)
            found.append((self._prompt(end.scripts[row], tags, moment, adapted), share))
        return tuple(found)

    def _prompt(
        self, scripts: tuple[Script, ...], shares: Mapping[Tag, float], moment: Moment, adapted: bool
    ) -> Prompt:
        text = self.request.text
        doses = self._doses(shares, moment, text=True) if adapted else ()
        return Prompt(
            tuple(script.at(moment) for script in scripts),
            text.dialect,
            text.emphasis,
            text.clip_skip - 1,
            TextChanges(doses) if doses else None,
            self.extras.embeddings,
        )

    def _doses(self, shares: Mapping[Tag, float], moment: Moment, text: bool) -> tuple[Dose, ...]:
        way = moment.step / moment.steps
        return tuple(
            Dose(self.extras.adapters[tag], strength, self._blocks[tag])
            for tag, share in shares.items()
            if tag.start <= way < tag.stop and (strength := tag.strength_in(text) * share)
        )

    def _partly(self, tags: Counter[Tag]) -> Counter[Tag]:
        """Adapters, those that do not fit whole in part where the request allows it."""
        if not self.request.lora_partial:
            return tags
        return Counter(dataclasses.replace(tag, partial=True) for tag in tags.elements())


def _ends(request: Request) -> Iterator[tuple[Request, float]]:
    """The prompts that a request is between, as requests of their own, and the share of each that has one."""
    text = request.text
    share = 0.0 if text.towards is None else text.towards_strength
    if share < 1:
        yield request, 1 - share
    if share and text.towards is not None:
        yield request.replace(prompt=text.towards), share


def anchored_files(request: Request) -> Request:
    """The request with every file that it names beside the model, in its prompts too, named as from any folder."""
    text, upscaler = request.text, request.canvas.upscaler
    found = request.replace(
        adapters=tuple(map(anchored, request.adapters)),
        embeddings=tuple(map(anchored, text.embeddings)),
        upscaler=upscaler and anchored(upscaler),
        details=tuple(_anchored_detail(each) for each in request.detail.details),
    )
    if dialect_of(text.dialect).tagged is not tagged:
        return found
    return found.replace(
        prompt=anchored_tags(request.prompt),
        towards=text.towards and anchored_tags(text.towards),
        second_prompt=request.second.prompt and anchored_tags(request.second.prompt),
        detail_prompts=tuple(map(anchored_tags, request.detail.prompts)),
        prompt_2=text.prompt_2 and anchored_tags(text.prompt_2),
        prompt_3=text.prompt_3 and anchored_tags(text.prompt_3),
    )


def _anchored_detail(detail: str) -> str:
    """A detail whose file, if it is one's, is named as from any folder: a thing may be called like a folder."""
    return anchored(detail) if parse_detail(detail).name.lower().endswith(DETECTORS) else detail


def _three(request: Request, name: str) -> tuple[str, ...]:
    """A prompt for each text encoder: one, where no encoder has its own."""
    first, others = getattr(request, name), [getattr(request.text, f"{name}_{number}") for number in (2, 3)]
    if others == [None, None]:
        return (first,)
    return (first, *(first if each is None else each for each in others))


def _part(parts: tuple[Part, ...], number: int, count: int) -> Part:
    """A text encoder's own prompt may have one part for all of the first prompt's."""
    if len(parts) not in (1, count):
        raise InvalidRequest(
            f"the prompt has {count} parts joined by AND, another encoder's {len(parts)}: give one, or as many"
        )
    return parts[min(number, len(parts) - 1)]
