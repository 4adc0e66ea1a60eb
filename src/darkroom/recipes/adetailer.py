"""What ADetailer, an extension of A1111, says of the things that it drew over (its `adetailer/args.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from darkroom.errors import InvalidRequest
from darkroom.generation.details import parse_detail
from darkroom.recipes.files import Named
from darkroom.recipes.infotext import number_of
from darkroom.recipes.recipe import Detailer, Recipe

_PREFIX = "ADetailer "
_OPTIONS: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("confidence", "confidence", float),
    ("denoising strength", "strength", float),
    ("mask only top k", "most", int),
    ("mask min ratio", "smallest", float),
    ("mask max ratio", "largest", float),
    # It counts the whole width of what is laid around each pixel.
    ("dilate erode", "grow", lambda width: int(width / 2)),
    ("mask blur", "blur", float),
    ("inpaint padding", "padding", int),
    ("steps", "steps", int),
    ("CFG scale", "guidance", float),
)
_SAYS_NOTHING = (
    "version",
    "inpaint only masked",
    "use inpaint width height",
    "use separate steps",
    "use separate CFG scale",
)


def take_details(said: dict[str, str], recipe: Recipe) -> None:
    """Take what is said of details out of a text's settings, into a recipe; what cannot be honoured stays there."""
    for ending in _endings():
        model = said.pop(f"{_PREFIX}model{ending}", "")
        if not model or model == "None":
            continue
        options = []
        for name, option, counted in _OPTIONS:
            text = said.pop(f"{_PREFIX}{name}{ending}", "")
            value = number_of(text) if text else None
            if isinstance(value, int | float):
                options.append(f"{option}={counted(value):g}")
        width, height = (
            number_of(said.pop(f"{_PREFIX}inpaint {side}{ending}", "")) for side in ("width", "height")
        )
        if isinstance(width, int | float) and isinstance(height, int | float):
            options.append(f"size={max(round(math.sqrt(width * height) / 8) * 8, 64)}")
        if classes := said.pop(f"{_PREFIX}model classes{ending}", ""):
            options.append(f"only={classes.replace(',', '+')}")
        for name in _SAYS_NOTHING:
            said.pop(f"{_PREFIX}{name}{ending}", "")
        prompts = [said.pop(f"{_PREFIX}{name}{ending}", "") for name in ("prompt", "negative prompt")]
        recipe.detailers.append(
            Detailer(f"{_PREFIX}model{ending}", Named.of(model), tuple(_possible(options, recipe)), *prompts)
        )


def _endings() -> Iterator[str]:
    """Those of each detailer's settings: "", " 2nd" and so on."""
    yield from (
        "",
        *(f" {number}{end}" for number, end in ((2, "nd"), (3, "rd"), *((n, "th") for n in range(4, 16)))),
    )


def _possible(options: list[str], recipe: Recipe) -> Iterator[str]:
    """The options that can be; others are lost."""
    for each in options:
        try:
            parse_detail(f"detail:{each}")
        except InvalidRequest as error:
            recipe.lose(f"{_PREFIX}{each}", why=str(error))
        else:
            yield each
