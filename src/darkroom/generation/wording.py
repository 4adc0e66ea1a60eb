"""What the text encoders are told of a request, row by row and step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from darkroom.adapters.adapter import Adapter
from darkroom.adapters.applied import TextChanges
from darkroom.adapters.dose import Dose
from darkroom.checkpoint.blocks import block_weights
from darkroom.diffusion import positives
from darkroom.errors import InvalidRequest
from darkroom.generation.request import Request
from darkroom.language import Moment, Part, dialect_of, read, read_whole
from darkroom.language.tags import Tag, parse_tag, tagged
from darkroom.library.locate import anchored, anchored_tags
from darkroom.prompt import Prompt
from darkroom.prompt.vocabulary import Embeddings


@dataclass(frozen=True)
class Extras:
    """What a request names beside the model, read: adapters, embeddings; `notes` say what of them is not used."""

    adapters: Mapping[Tag, Adapter] = field(default_factory=dict)
    embeddings: Embeddings = ()
    notes: tuple[str, ...] = ()


class Wording:
    """A request's prompts, read. `weights` are those of the prompt's parts; `tags` the adapters that the request and
    its prompts name, each of which is in `extras` once the picture is made; `texts` all that is read.

    Raises InvalidRequest where prompts cannot be read, or have another number of parts than the first one.
    """

    def __init__(self, request: Request, extras: Extras | None = None) -> None:
        self.request = request
        self.extras = extras or Extras()
        prompts, tags = zip(*map(self._untagged, _three(request, "prompt")), strict=True)
        parts = [read(text, request.text.dialect) for text in prompts]
        self.weights = tuple(part.weight for part in parts[0])
        named = [*map(parse_tag, request.adapters), *(tag for each in tags for tag in each)]
        if request.lora_partial:
            named = [dataclasses.replace(tag, partial=True) for tag in named]
        self.tags: tuple[Tag, ...] = tuple(dict.fromkeys(named))
        self._blocks = {tag: block_weights(tag.blocks) for tag in self.tags}
        self._scripts = {
            row.name: tuple(_part(each, number, len(self.weights)).script for each in parts)
            for number, row in enumerate(positives(len(self.weights)))
        }
        negatives = _three(request, "negative")
        self._scripts["negative"] = tuple(read_whole(text, request.text.dialect) for text in negatives)
        self.texts = (*prompts, *negatives)
        self.says_no = any(negatives)
        """Whether there is a negative prompt."""

    def doses(self, moment: Moment, text: bool = False) -> tuple[Dose, ...]:
        """How much of each adapter there is at a step in the denoising network or, `text`, in the text encoders."""
        share = moment.step / moment.steps
        return tuple(
            Dose(self.extras.adapters[tag], strength, self._blocks[tag])
            for tag in self.tags
            if tag.start <= share < tag.stop and (strength := tag.strength_in(text))
        )

    def prompt(self, row: str, moment: Moment, adapted: bool = True) -> Prompt:
        """What that row is told at a step, equal where it is the same; not `adapted`: by encoders without adapters."""
        text = self.request.text
        doses = self.doses(moment, text=True) if adapted else ()
        return Prompt(
            tuple(script.at(moment) for script in self._scripts[row]),
            text.dialect,
            text.emphasis,
            text.clip_skip - 1,
            TextChanges(doses) if doses else None,
            self.extras.embeddings,
        )

    def _untagged(self, text: str) -> tuple[str, tuple[Tag, ...]]:
        return dialect_of(self.request.text.dialect).tagged(text)


def anchored_files(request: Request) -> Request:
    """The request with every file that it names beside the model, in its prompts too, named as from any folder."""
    text = request.text
    found = request.replace(
        adapters=tuple(map(anchored, request.adapters)), embeddings=tuple(map(anchored, text.embeddings))
    )
    if dialect_of(text.dialect).tagged is not tagged:
        return found
    return found.replace(
        prompt=anchored_tags(request.prompt),
        prompt_2=text.prompt_2 and anchored_tags(text.prompt_2),
        prompt_3=text.prompt_3 and anchored_tags(text.prompt_3),
    )


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
