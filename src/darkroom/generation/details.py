"""What is found in a finished picture and drawn over by itself, larger, and put back: faces, hands, whatever is small.

Each thing is an edit of its own of what is around it alone, as A1111's ADetailer does it, whose words for prompts are
understood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from darkroom.checkpoint.preferences import GUIDANCE, STEPS
from darkroom.diffusion import Within
from darkroom.errors import InvalidRequest
from darkroom.generation.checks import Check, a_number, a_whole, setting, some_texts
from darkroom.generation.masks import Found, Share, softened
from darkroom.generation.parts import MAX_SIDE, Part
from darkroom.language.options import named_options

DETECTORS = (".onnx", ".pt", ".pth")
"""How files of detectors end."""
ORACLE = "oracle"
"""The detector that knows the things of the drawn world."""
SEPARATOR, SKIP, PROMPT, LABEL = "[SEP]", "[SKIP]", "[PROMPT]", "[LABEL]"


@dataclass(frozen=True)
class Detail:
    """What is looked for, by whom, and how it is drawn over; None: as suits the model.

    name: the detector's; only: what of that which it finds; confidence: how sure it is to be, 0 to 1; most: of how
    many, the largest; smallest, largest: the share of the picture's area that a thing has at least and at most;
    strength: how much of it is drawn anew; grow, blur: by how many pixels its mask is made larger and softened;
    padding: how many pixels around it are seen; size: the side of a square of the area that it is drawn at.
    """

    name: str
    only: tuple[str, ...] = ()
    confidence: float = 0.3
    strength: float | None = None
    most: int | None = None
    smallest: float = 0.0
    largest: float = 1.0
    grow: int | None = None
    blur: float | None = None
    padding: int | None = None
    size: int | None = None
    steps: int | None = None
    guidance: float | None = None

    def for_model(self, native: int) -> Detail:
        """With what suits a model of that native size: grown and softened by 4 pixels at 512."""
        usual: dict[str, Any] = {
            "grow": native // 128,
            "blur": native / 128,
            "size": native,
        }
        left = {name: value for name, value in usual.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **left)

    def among(self, found: Sequence[Found], area: int) -> list[Found]:
        """Those that are drawn over, from left to right; `area`: the picture's, in pixels."""
        kept = [
            each
            for each in found
            if each.confidence >= self.confidence
            and self.smallest <= each.box.width * each.box.height / area <= self.largest
            and (not self.only or any(_is_a(each.label, one) for one in self.only))
        ]
        kept.sort(key=lambda each: -each.box.width * each.box.height)
        return sorted(kept[: self.most], key=lambda each: (each.box.left, each.box.top))

    def share(self, found: Found, height: int, width: int) -> Share:
        """The share of each pixel of a picture that is drawn over, (height, width) in [0, 1]."""
        share = np.zeros((height, width), np.float32)
        share[found.box.slices] = 1 if found.share is None else found.share
        assert self.grow is not None and self.blur is not None, "ask for what suits the model first"
        return softened(share, self.grow, self.blur)


def _is_a(label: str, wanted: str) -> bool:
    """Whether a label says so: "cat" of "cat" and of "red cat"."""
    return f" {label.lower()}".endswith(f" {wanted.strip().lower()}")


_SHARE = a_number(Within(0, 1))
_OPTIONS: dict[str, Check] = {
    "confidence": _SHARE,
    "strength": _SHARE,
    "most": a_whole(1, 1000),
    "smallest": _SHARE,
    "largest": _SHARE,
    "grow": a_whole(-1024, 1024),
    "blur": a_number(Within(0, 256)),
    "padding": a_whole(0, 4096),
    "size": a_whole(64, MAX_SIDE, multiple=8),
    "steps": a_whole(int(STEPS.low), int(STEPS.high)),
    "guidance": a_number(GUIDANCE),
}


def parse_detail(text: str) -> Detail:
    """A detail as it is written: its detector, then options behind colons, "face.onnx:confidence=0.4:only=face".
    Raises InvalidRequest for what cannot be read."""
    name, options = named_options(text, "the detail", (), ("only", *_OPTIONS))
    if not name:
        raise InvalidRequest(
            f"the detail {text!r} says not what to find: a detector's file or name, or a thing"
        )
    found: dict[str, Any] = {}
    for option, value in options.items():
        if option == "only":
            found[option] = tuple(each for each in value.split("+") if each.strip())
        else:
            found[option] = _OPTIONS[option](f"{option} of the detail {name!r}", _number(value))
    return Detail(name, **found)


def _number(text: str) -> object:
    """A text as the number that it is; itself where it is none."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _details(name: str, given: object) -> tuple[str, ...]:
    details = some_texts(name, given)
    for each in details:
        parse_detail(each)
    return details


@dataclass(frozen=True)
class Details(Part):
    """What of the finished picture is drawn over by itself."""

    title: ClassVar[str] = "details"

    details: tuple[str, ...] = setting(
        (),
        _details,
        "find in the finished picture, and draw each over by itself, larger: what a detector's file finds "
        "(face.pt, .onnx), a thing by its name ('the boat'), or in pocket's pictures oracle:only=cat; with options: "
        "NAME:confidence=0.3:strength=0.4, see 'darkroom detail --help'",
        each="detail",
    )
    prompts: tuple[str, ...] = setting(
        (),
        some_texts,
        "what that shows, of the first detail, the second ...: [SEP] stands between those of several things, from left "
        "to right, [PROMPT] for the picture's, [LABEL] for what it is, [SKIP] leaves it (default: the prompt; of "
        "models that compose natively, as pocket, what it is)",
        name="detail_prompts",
        each="detail_prompt",
        sign="TEXT",
    )
    negatives: tuple[str, ...] = setting(
        (),
        some_texts,
        "what it should not show, likewise (default: the negative prompt)",
        name="detail_negatives",
        each="detail_negative",
        sign="TEXT",
    )

    def checked(self) -> Details:
        found = super().checked()
        for name in ("prompts", "negatives"):
            count = len(getattr(found, name))
            if count > len(found.details):
                raise InvalidRequest(
                    f"detail_{name} has {count} texts, details has {len(found.details)}: say what to find as `details=`"
                )
        return found

    def texts(self, number: int, prompt: str, negative: str, named: bool) -> Texts:
        """What the things of a detail are told, in a picture of that prompt; `named`: by themselves, where nothing is
        said, what they are."""
        return Texts(prompt, _nth(self.prompts, number), negative, _nth(self.negatives, number), named)


def _nth(texts: Sequence[str], number: int) -> str:
    return texts[number] if number < len(texts) else ""


@dataclass(frozen=True)
class Texts:
    """The prompts of a picture and of its details, as they are written."""

    prompt: str
    own: str
    negative: str
    own_negative: str
    named: bool

    def of(self, at: int, label: str) -> tuple[str, str] | None:
        """Prompt and negative prompt of a thing, the one `at` from the left; None where it is left as it is."""
        usual = a_thing(label) if label and (self.named or not self.prompt.strip()) else self.prompt
        if (prompt := _said(self.own, self.prompt, at, label, usual)) is None:
            return None
        return prompt, _said(self.own_negative, self.negative, at, label, self.negative) or ""

    def all(self) -> Iterator[tuple[str, str]]:
        """Those of all things that there may be."""
        count = max(each.count(SEPARATOR) + 1 for each in (self.own, self.own_negative))
        return filter(None, (self.of(at, "") for at in range(count)))


def a_thing(label: str) -> str:
    """A label with its article."""
    first = label.partition(" ")[0].lower()
    return label if first in ("the", "a", "an") else f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"


def _said(own: str, whole: str, at: int, label: str, usual: str) -> str | None:
    """The text of the thing `at` from the left, the last one's for all beyond; the usual one if it is empty."""
    texts = own.split(SEPARATOR)
    text = texts[min(at, len(texts) - 1)].strip()
    if text == SKIP:
        return None
    return text.replace(PROMPT, whole).replace(LABEL, label) if text else usual
