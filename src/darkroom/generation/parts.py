"""The parts of a request, each a few settings that belong together. None means: as the model prefers.

Settings have names of their own across all parts, as command lines and keywords give them (`checks.called`): the scale
of `Guidance` is `guidance` there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from darkroom.checkpoint.preferences import COMPOSE, GUIDANCE, SECOND_STRENGTH, STEPS
from darkroom.diffusion import SOURCES, Within, parse_guides, parse_sampler, parse_schedule
from darkroom.errors import InvalidRequest
from darkroom.generation.checks import (
    a_number,
    a_text,
    a_truth,
    a_whole,
    checked,
    one_of,
    setting,
    some_texts,
)
from darkroom.generation.latents import latents_text
from darkroom.language import DIALECTS, EMPHASES, ORIGINAL

MAX_SIDE = 8_192
MAX_SEED = 2**64 - 1
MAX_ENSD = 2**32 - 1
LATENT = tuple(
    f"latent{way}"
    for way in ("", "-antialiased", "-bicubic", "-bicubic-antialiased", "-nearest", "-nearest-exact")
)
"""The ways in which A1111 makes latents larger, in its order."""
AXES = ("x", "y", "xy")
BLENDS = ("gaussian", "average")
DYNAMIC = ("off", "random", "all")
SECOND_PASS = ("auto", "on", "off")


def next_seed(seed: int, by: int = 1) -> int:
    """The seed so many after one; after the last comes 0."""
    return (seed + by) % (MAX_SEED + 1)


@dataclass(frozen=True)
class Part:
    """Some settings; `title` is what they are about."""

    title: ClassVar[str]

    def checked(self) -> Self:
        """The part with its values in canonical form, or InvalidRequest naming the value and the remedy."""
        return dataclasses.replace(self, **checked(self))


@dataclass(frozen=True)
class Canvas(Part):
    """How large the picture is, and in which passes it gets there."""

    title: ClassVar[str] = "the canvas"

    width: int | None = setting(
        None,
        a_whole(8, MAX_SIDE, multiple=8),
        "width in pixels, a multiple of 8 (default: the model's native size: 128 for pocket, 512 for SD 1)",
    )
    height: int | None = setting(
        None,
        a_whole(8, MAX_SIDE, multiple=8),
        "height in pixels, a multiple of 8 (default: the model's native size)",
    )
    compose: str | None = one_of(
        None,
        COMPOSE,
        "native: draw at the model's native size, then continue the picture to its proportions and enlarge it; "
        "own: in its own proportions from the start (default: the model's)",
    )
    second_pass: str = one_of(
        "auto",
        SECOND_PASS,
        "draw large pictures small first, then refine them enlarged; off draws at the full size at once",
    )
    second_strength: float | None = setting(
        None,
        a_number(SECOND_STRENGTH),
        f"how much of the second pass is drawn anew, {SECOND_STRENGTH} (default: the model's)",
    )
    second_steps: int | None = setting(
        None,
        a_whole(int(STEPS.low), int(STEPS.high)),
        "steps of the second pass, whatever its strength (default: those that its strength leaves of all)",
    )
    first_width: int | None = setting(
        None,
        a_whole(8, MAX_SIDE, multiple=8),
        "width at which a larger picture is drawn first, with first_height: A1111's hires fix (default: what suits)",
    )
    first_height: int | None = setting(
        None, a_whole(8, MAX_SIDE, multiple=8), "height at which a larger picture is drawn first"
    )
    upscaler: str | None = setting(
        None,
        a_text,
        "what makes a picture larger that is given, or drawn smaller at first: lanczos, nearest, an upscaler by its "
        f"name or file, or, of two passes, its latent: {', '.join(LATENT)} (default: the model's)",
        sign="NAME",
    )

    def checked(self) -> Self:
        if (self.first_width is None) != (self.first_height is None):
            raise InvalidRequest("first_width and first_height go together: give both, or none")
        if self.first_width is not None and self.second_pass == "off":
            raise InvalidRequest(
                "first_width is the first of two passes: leave second_pass off out, or first_width"
            )
        return super().checked()


@dataclass(frozen=True)
class Tiling(Part):
    """Whether it is drawn in tiles, and whether it is one: whether its edges meet."""

    title: ClassVar[str] = "tiles"

    seamless: str | None = one_of(
        None,
        AXES,
        "have the picture's left and right edges meet (x), its top and bottom (y), or both (xy), as wallpapers do",
    )
    tile: int | None = setting(
        None,
        a_whole(64, MAX_SIDE, multiple=8),
        "draw in tiles of so many pixels a side, which make each step together: pictures larger than the model draws "
        "well, in the memory of a tile (default: whole)",
    )
    overlap: int | None = setting(
        None,
        a_whole(0, MAX_SIDE, multiple=8),
        "by how many pixels tiles overlap, at least (default: half a tile)",
        name="tile_overlap",
    )
    blend: str = one_of(
        "gaussian",
        BLENDS,
        "how tiles are joined where they overlap: gaussian, the middle of each counting most (Mixture of Diffusers), "
        "or average (MultiDiffusion)",
        name="tile_blend",
    )

    def checked(self) -> Self:
        found = super().checked()
        if found.tile is None and found.overlap is not None:
            raise InvalidRequest(
                f"tile_overlap is {found.overlap}, but nothing is drawn in tiles: give `tile=`"
            )
        if found.tile is not None and found.overlap is not None and found.overlap >= found.tile:
            raise InvalidRequest(f"tile_overlap is {found.overlap}: choose less than the tile's {found.tile}")
        return found


def _sampler(name: str, given: object) -> str:
    """Checks a sampler's name and options; a schedule may be joined to it."""
    if not isinstance(given, str):
        raise InvalidRequest(f"{name} is {given!r}: give a name, see 'darkroom samplers'")
    parse_sampler(given)
    return given


def _schedule(name: str, given: object) -> str | None:
    return parse_schedule(str(given))


@dataclass(frozen=True)
class Sampling(Part):
    """The way from noise to the picture."""

    title: ClassVar[str] = "sampling"

    sampler: str | None = setting(
        None,
        _sampler,
        "sampler, with its options: euler:s_churn=10, see 'darkroom samplers' (default: the model's)",
    )
    schedule: str | None = setting(
        None,
        _schedule,
        "noise schedule, with its options: karras:rho=5, see 'darkroom samplers' (default: the sampler's)",
    )
    steps: int | None = setting(
        None, a_whole(int(STEPS.low), int(STEPS.high)), f"sampling steps, {STEPS} (default: the model's)"
    )

    def checked(self) -> Self:
        found = super().checked()
        return dataclasses.replace(found, **_apart(found.sampler, self.schedule, found.schedule))


def _apart(sampler: str | None, given: str | None, schedule: str | None) -> dict[str, Any]:
    """A sampler and its schedule, which may be joined to its name where none is `given`."""
    if sampler is None:
        return {}
    sampler, implied = parse_sampler(sampler)
    return {"sampler": sampler, "schedule": implied if given is None else schedule}


@dataclass(frozen=True)
class Second(Part):
    """What the second pass of a larger picture is told otherwise than the first: A1111's hires fix has the same."""

    title: ClassVar[str] = "the second pass"

    prompt: str | None = setting(
        None, a_text, "another prompt for the second pass (default: the prompt)", name="second_prompt"
    )
    negative: str | None = setting(
        None, a_text, "its negative prompt (default: the negative prompt)", name="second_negative"
    )
    sampler: str | None = setting(
        None, _sampler, "its sampler, with its options (default: the sampler)", name="second_sampler"
    )
    schedule: str | None = setting(
        None,
        _schedule,
        "its noise schedule, with its options (default: the schedule; of another sampler what suits that)",
        name="second_schedule",
    )
    guidance: float | None = setting(
        None, a_number(GUIDANCE), "its guidance scale (default: the guidance scale)", name="second_guidance"
    )

    def checked(self) -> Self:
        found = super().checked()
        return dataclasses.replace(found, **_apart(found.sampler, self.schedule, found.schedule))


def _guides(name: str, given: object) -> tuple[str, ...]:
    guides = some_texts(name, given)
    parse_guides(guides)
    return guides


@dataclass(frozen=True)
class Guidance(Part):
    """How much the prompt counts."""

    title: ClassVar[str] = "guidance"

    scale: float | None = setting(
        None,
        a_number(GUIDANCE),
        "classifier-free guidance scale, 1 turns it off (default: the model's)",
        name="guidance",
    )
    rescale: float = setting(
        0.0,
        a_number(Within(0, 1)),
        "pull guided contrast back, 0 to 1 (Lin et al. 2023)",
        name="guidance_rescale",
    )
    guides: tuple[str, ...] = setting(
        (),
        _guides,
        "another way of guiding, with its options: pag:scale=3,stop=0.8, see 'darkroom guides'",
        each="guide",
    )


@dataclass(frozen=True)
class Noise(Part):
    """What comes of the seed."""

    title: ClassVar[str] = "noise"

    source: str = one_of(
        "cpu", tuple(SOURCES), "where noise comes from, in A1111's words", name="noise_source"
    )
    ensd: int = setting(
        0, a_whole(-MAX_ENSD, MAX_ENSD), "added to the seed for all noise but the first, as A1111's ENSD"
    )
    variation_seed: int | None = setting(
        None,
        a_whole(-1, MAX_SEED),
        "seed of variations: with variation_strength it counts up instead of the seed (default: random)",
    )
    variation_strength: float = setting(
        0.0, a_number(Within(0, 1)), "how far towards its noise the picture begins, 0 to 1"
    )
    resize_width: int | None = setting(
        None,
        a_whole(8, MAX_SIDE),
        "width of the picture that the seed is known from: with its height, one of another size looks alike",
        name="seed_resize_width",
    )
    resize_height: int | None = setting(
        None,
        a_whole(8, MAX_SIDE),
        "height of the picture that the seed is known from",
        name="seed_resize_height",
    )

    full: bool = setting(
        False,
        a_truth,
        "begin with the whole of the noise, as ComfyUI does, where the first step is of a little less (default: no)",
        name="full_noise",
    )
    latents: str | None = setting(
        None,
        latents_text,
        "what pictures begin with instead of their seeds' noise: (n, channels, height, width), on a command line a "
        ".npy or .safetensors file of it",
        sign="FILE",
    )

    def __post_init__(self) -> None:
        if self.latents is not None:
            # At once: an array can be compared with nothing.
            object.__setattr__(self, "latents", latents_text("latents", self.latents))

    def checked(self) -> Self:
        if self.latents is not None and self.resize_width is not None:
            raise InvalidRequest("latents are of the picture's own size: leave seed_resize_width out")
        if (self.resize_width is None) != (self.resize_height is None):
            raise InvalidRequest("seed_resize_width and seed_resize_height go together: give both, or none")
        return super().checked()


@dataclass(frozen=True)
class Text(Part):
    """How prompts are read, and what there is of them beside the first."""

    title: ClassVar[str] = "the prompt"

    prompt_2: str | None = setting(
        None, a_text, "SDXL, SD 3: another prompt for the second text encoder (default: the prompt)"
    )
    negative_2: str | None = setting(None, a_text, "its negative prompt (default: the negative prompt)")
    prompt_3: str | None = setting(None, a_text, "SD 3: another prompt for T5 (default: the prompt)")
    negative_3: str | None = setting(None, a_text, "its negative prompt (default: the negative prompt)")
    towards: str | None = setting(
        None, a_text, "another prompt, towards which this one goes as far as towards_strength says"
    )
    towards_strength: float = setting(
        0.0,
        a_number(Within(0, 1)),
        "how far it goes towards that prompt, 0 to 1: 'darkroom interpolate' goes all the way",
    )
    styles: tuple[str, ...] = setting(
        (),
        some_texts,
        "a saved style: text to put around the prompt, see 'darkroom prompt --help'",
        each="style",
    )
    dynamic: str = one_of(
        "off", DYNAMIC, "draw from {one|another} and __file__ in the prompts: by lot, or all in turn"
    )
    dialect: str = one_of("a1111", tuple(DIALECTS), "language of the prompts, see 'darkroom prompt --help'")
    emphasis: str = one_of(ORIGINAL, tuple(EMPHASES), "what weights in a prompt do, in A1111's words")
    clip_skip: int = setting(
        1,
        a_whole(1, 100),
        "which of CLIP's layers is used, counted back from the one that the model was trained with",
    )
    embeddings: tuple[str, ...] = setting(
        (),
        some_texts,
        "a textual inversion beside the library's: a file, whose name stands for it, or NAME=FILE",
        each="embedding",
    )


@dataclass(frozen=True)
class XL(Part):
    """What only Stable Diffusion XL and its refiner are told."""

    title: ClassVar[str] = "SDXL"

    original_width: int | None = setting(
        None, a_whole(1, 4 * MAX_SIDE), "width the picture claims to have had (default: its own)"
    )
    original_height: int | None = setting(
        None, a_whole(1, 4 * MAX_SIDE), "height the picture claims to have had (default: its own)"
    )
    target_width: int | None = setting(
        None, a_whole(1, 4 * MAX_SIDE), "width the picture claims to be of (default: its own)"
    )
    target_height: int | None = setting(
        None, a_whole(1, 4 * MAX_SIDE), "height the picture claims to be of (default: its own)"
    )
    crop_left: int = setting(
        0, a_whole(0, 4 * MAX_SIDE), "columns cut off at the left, 0 for a centred picture"
    )
    crop_top: int = setting(0, a_whole(0, 4 * MAX_SIDE), "rows cut off at the top, 0 for a centred picture")
    aesthetic: float = setting(
        6.0, a_number(Within(0, 10)), "refiner: how beautiful the picture is to be, 0 to 10"
    )
    negative_aesthetic: float = setting(
        2.5, a_number(Within(0, 10)), "refiner: how beautiful what it is to differ from is"
    )
    refiner_switch: float | None = setting(
        None,
        a_number(Within(0, 1, above=True)),
        "share of the way from noise to picture after which the refiner takes over (default: 0.8)",
    )
