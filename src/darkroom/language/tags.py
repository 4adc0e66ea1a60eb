"""What a prompt says of adapters: <lora:name:weight> and its relatives."""

from __future__ import annotations

import re
from dataclasses import dataclass

from darkroom.errors import InvalidRequest
from darkroom.language.options import named_options, number

KINDS = {"lora": "lora", "lyco": "lora", "hypernet": "hypernet"}
"""What a tag may begin with, and what it is then: lyco is an older word for lora."""

OF_LIBRARY = {"lora": "lora", "hypernet": "hypernetwork"}
"""What the library calls each."""

TAG = re.compile(rf"<({'|'.join(KINDS)}):([^<>]*)>")
_WHAT = "the adapter"
PARTIAL = "partial"


@dataclass(frozen=True)
class Tag:
    """An adapter by name, and how it is used.

    strength: of what it changes in the denoising network; text_strength: in the text encoders (None: as much); start,
    stop: on the steps that begin within that part of the way, 0 to 1; blocks: weights of the network's blocks, in the
    notation of the LoRA Block Weight extension ("" all of them 1); partial: also where only some of its layers are the
    model's.
    """

    name: str
    strength: float = 1.0
    text_strength: float | None = None
    start: float = 0.0
    stop: float = 1.0
    blocks: str = ""
    kind: str = "lora"
    partial: bool = False

    def strength_in(self, text: bool) -> float:
        """How much there is to be of what it changes in the denoising network or, `text`, in a text encoder."""
        return self.strength if self.text_strength is None or not text else self.text_strength

    def __str__(self) -> str:
        """In the form that `parse_tag` reads."""
        words = [*([self.kind] if self.kind != "lora" else []), self.name, f"{self.strength:g}"]
        words += [] if self.text_strength is None else [f"te={self.text_strength:g}"]
        words += [
            f"{name}={value:g}"
            for name, value in (("start", self.start), ("stop", self.stop))
            if value != (name == "stop")
        ]
        words += [f"lbw={self.blocks}"] if self.blocks else []
        words += [PARTIAL] if self.partial else []
        return ":".join(words)


def parse_tag(text: str, kind: str = "lora") -> Tag:
    """An adapter as a request or a tag names it: its name, then after colons its strength, that in the text encoders,
    or by name te=, unet=, start=, stop=, lbw= ("detail:0.8:te=0.5:stop=0.6"), or `partial` alone. hypernet: may stand
    before a hypernetwork's name.

    Raises InvalidRequest for what it cannot read.
    """
    kinds, colon, rest = text.partition(":")
    if colon and kinds.strip() in KINDS:
        kind, text = kinds.strip(), rest
    name, options = named_options(text, _WHAT, ("unet", "te"), ("start", "stop", "lbw"), (PARTIAL,))
    if not name:
        raise InvalidRequest(f"{text!r} names no adapter: write it as in detail:0.8")
    blocks, partial = options.pop("lbw", ""), options.pop(PARTIAL, None) is not None
    numbers = {option: number(value, text, _WHAT) for option, value in options.items()}
    start, stop = numbers.get("start", 0.0), numbers.get("stop", 1.0)
    if not 0 <= start <= stop <= 1:
        raise InvalidRequest(f"{_WHAT} {text!r} starts at {start:g} and stops at {stop:g}: choose 0 to 1")
    return Tag(name, numbers.get("unet", 1.0), numbers.get("te"), start, stop, blocks, KINDS[kind], partial)


def tagged(prompt: str) -> tuple[str, tuple[Tag, ...]]:
    """A prompt without its tags, and the adapters that they name (A1111, `modules/extra_networks.py`). What else stands
    in angle brackets is text. Raises InvalidRequest with the position of a tag that cannot be read."""
    found: list[Tag] = []

    def take(match: re.Match[str]) -> str:
        try:
            found.append(parse_tag(match[2], match[1]))
        except InvalidRequest as error:
            raise InvalidRequest(f"at position {match.start()} of the prompt: {error}") from None
        return ""

    return TAG.sub(take, prompt), tuple(found)
