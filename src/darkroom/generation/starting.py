"""The parts of a request that are about a picture to begin with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import ImageColor

from darkroom.diffusion import Within
from darkroom.errors import InvalidRequest
from darkroom.files import expanded
from darkroom.generation.checks import a_number, a_text, a_truth, a_whole, one_of, setting
from darkroom.generation.masks import ALPHA, Thing
from darkroom.generation.parts import Part
from darkroom.generation.sources import Source, a_source
from darkroom.library.locate import paths_are_read
from darkroom.numeric import integer
from darkroom.photos import LONGEST_SIDE

STRENGTHS = ("share", "diffusers", "a1111", "comfy")
FITS = ("own", "crop", "stretch", "pad")
FILLS = ("original", "mirror", "neighbors", "noise", "nothing")
MAX_EXTENSION = 4096
MAX_LOOPS = 100


@dataclass(frozen=True)
class Edit(Part):
    """A picture to begin with, in place of noise alone."""

    title: ClassVar[str] = "from a picture"

    image: Source | None = setting(
        None, a_source, "a picture to begin with: what is drawn keeps to it as strength says", sign="FILE"
    )
    frame: int | None = setting(
        None, a_whole(1, 1_000_000), "which frame of an animated picture, or page, counted from 1"
    )
    strength: float | None = setting(
        None,
        a_number(Within(0, 1)),
        "how much of the picture is drawn anew: 0 nothing, 1 all of it (default: 0.75)",
    )
    strength_as: str | None = one_of(
        None,
        STRENGTHS,
        "what strength is: share of the steps, and at 1 the picture is not looked at; as diffusers, a1111 or comfy "
        "count them, and at 1 it still shows (default: share)",
    )
    fit: str | None = one_of(
        None,
        FITS,
        "how the picture is brought to another size: crop; stretch; pad draws its edges out; own keeps its size "
        "(default: own where no size is given, else crop)",
    )
    noise_multiplier: float | None = setting(
        None, a_number(Within(0, 2)), "how much noise is laid over the picture, as A1111's (default: 1)"
    )
    loops: int | None = setting(
        None,
        a_whole(0, MAX_LOOPS),
        "draw it over so many times, each time what the last one made, with the next seed; 0: for its details alone "
        "(default: 1)",
    )
    last_strength: float | None = setting(
        None,
        a_number(Within(0, 1)),
        "strength of the last loop, on the way from the first (default: the same)",
    )
    match_colors: bool | None = setting(
        None,
        a_truth,
        "give what is drawn the picture's own range of colours, as A1111 corrects them (default: no)",
    )

    def __post_init__(self) -> None:
        if self.image is not None:
            # At once: what is in memory can be compared with nothing.
            object.__setattr__(self, "image", a_source("image", self.image))


@dataclass(frozen=True)
class Seen(Part):
    """What models that are shown the picture they draw over see of it: InstructPix2Pix, depth, upscalers."""

    title: ClassVar[str] = "models that see a picture"

    depth: Source | None = setting(
        None,
        a_source,
        "the depth of the picture, for models that see it: as a picture, the lighter the nearer",
        sign="FILE",
    )
    noise_level: int | None = setting(
        None,
        a_whole(0, 1000),
        "how much noise is laid over what an upscaler or unCLIP sees of the picture: the more, the more they make up "
        "(default: 20, of unCLIP 0)",
    )
    image_guidance: float | None = setting(
        None,
        a_number(Within(0, 30)),
        "how much the picture counts to a model that is told how to change it (InstructPix2Pix), as guidance is how "
        "much the prompt does (default: 1.5)",
    )

    def __post_init__(self) -> None:
        if self.depth is not None:
            object.__setattr__(self, "depth", a_source("depth", self.depth))


def _a_mask(name: str, given: object) -> Source | Thing | str:
    """Checks a mask: a picture, the word that stands for what is transparent in the picture itself, or the name of a
    thing: a text that is no file and does not look like one."""
    if isinstance(given, Thing):
        return given
    if isinstance(given, Mapping) and given.keys() == {"thing"}:
        return Thing(a_text(name, given["thing"]))
    if isinstance(given, str) and given not in ("", ALPHA) and not _a_file(given):
        return Thing(a_text(name, given))
    return ALPHA if isinstance(given, str) and given == ALPHA else a_source(name, given)


def _a_file(text: str) -> bool:
    if not paths_are_read():
        return False
    if re.search(r"[/\\~]|\.\w+$", text):
        return True
    with suppress(OSError, ValueError):  # What no file can be called.
        return expanded(text).exists()
    return False


def _a_box(name: str, given: object) -> str:
    """Checks a box of a picture: left, top, width and height in pixels, as a text."""
    parts: Any = re.split(r"[,x\s]+", given.strip()) if isinstance(given, str) else given
    numbers = [
        integer(int(each) if isinstance(each, str) and each.isdecimal() else each) for each in _listed(parts)
    ]
    if len(numbers) != 4 or not all(each is not None and 0 <= each <= LONGEST_SIDE for each in numbers):
        raise InvalidRequest(f"{name} is {given!r}: give left, top, width and height in pixels: 16,16,64,48")
    if 0 in numbers[2:]:
        raise InvalidRequest(f"{name} is {given!r}: it has no pixel, give a width and a height")
    return ",".join(map(str, numbers))


def _listed(given: object) -> list[Any]:
    return [*given] if isinstance(given, list | tuple) else []


def _a_fill(name: str, given: object) -> str:
    """Checks what a mask is filled with: a word, or a colour as #rrggbb."""
    if given in FILLS:
        return str(given)
    try:
        red, green, blue = ImageColor.getcolor(str(given), "RGB")  # type: ignore[misc]
    except ValueError:
        raise InvalidRequest(
            f"{name} is {given!r}: choose one of {', '.join(FILLS)}, or a colour: #87ceeb"
        ) from None
    return f"#{red:02x}{green:02x}{blue:02x}"


@dataclass(frozen=True)
class Inpaint(Part):
    """What of a picture is painted anew, where that is not all of it."""

    title: ClassVar[str] = "inpainting"

    mask: Source | Thing | str | None = setting(
        None,
        _a_mask,
        "paint anew what is white in this picture of the same size, grey at less strength; alpha: what is transparent; "
        "or a thing by its name, 'the boat', where the model sees it",
        sign="FILE",
    )
    box: str | None = setting(
        None,
        _a_box,
        "paint anew what lies in a box: left,top,width,height in pixels",
        name="mask_box",
        sign="X,Y,W,H",
    )
    invert: bool | None = setting(
        None, a_truth, "paint anew what the mask leaves, and leave the rest (default: no)", name="mask_invert"
    )
    grow: int | None = setting(
        None,
        a_whole(-1024, 1024),
        "make the mask larger by so many pixels, below 0 smaller (default: 0; of a thing by its name 4)",
        name="mask_grow",
    )
    blur: float | None = setting(
        None,
        a_number(Within(0, 256)),
        "soften the mask's edges, which then reach further; A1111 has 4 (default: 0)",
        name="mask_blur",
    )
    resize: bool | None = setting(
        None, a_truth, "bring a mask of another size to that of the picture (default: no)", name="mask_resize"
    )
    fill: str | None = setting(
        None,
        _a_fill,
        "what is in the mask to begin with: original (beyond the picture's edges these, drawn out), mirror (beyond "
        "them its mirror image), neighbors (what is around), noise, nothing, or a colour: #87ceeb (default: original; "
        "of what is transparent neighbors)",
        sign="WHAT",
    )
    only_masked: bool | None = setting(
        None,
        a_truth,
        "draw what is around the mask alone, as large as a picture, and put it in (default: no; of a picture that is "
        "too large to be drawn at its size yes)",
    )
    padding: int | None = setting(
        None,
        a_whole(0, 4096),
        "how many pixels around the mask are seen then (default: 32)",
        name="mask_padding",
    )

    def __post_init__(self) -> None:
        if self.mask is not None:
            object.__setattr__(self, "mask", _a_mask("mask", self.mask))

    @property
    def masked(self) -> bool:
        """Whether there is a mask."""
        return self.mask is not None or self.box is not None


def _extending(side: str) -> Any:
    name = f"extend_{side}"
    return setting(
        0, a_whole(0, MAX_EXTENSION), f"how many pixels the picture goes on by at its {side}", name=name
    )


@dataclass(frozen=True)
class Extend(Part):
    """How far a picture goes on beyond its edges."""

    title: ClassVar[str] = "outpainting"

    left: int = _extending("left")
    top: int = _extending("top")
    right: int = _extending("right")
    bottom: int = _extending("bottom")

    @property
    def asked(self) -> bool:
        """Whether it does."""
        return any((self.left, self.top, self.right, self.bottom))
