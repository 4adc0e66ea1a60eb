"""The passes that a picture takes through the sampler: one at its own size, or some at sizes that its model draws well
at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from darkroom.checkpoint.family import Family
from darkroom.diffusion import Points, count_calls, points_for, sampler, tail
from darkroom.diffusion.spacing import NEARLY_ALL, steps_taken
from darkroom.errors import InvalidRequest
from darkroom.generation.canvas import Canvas, Enlarged, FromLatent, FromPicture, Masked
from darkroom.generation.edits import (
    Subject,
    brought,
    brought_share,
    enlarged_size,
    filled,
    put_in_larger,
    recolored,
    strengths,
)
from darkroom.generation.frames import around, continued, filter_of, fitted, near, stretched, without_edges
from darkroom.generation.masks import Share, by_latents
from darkroom.generation.parts import LATENT, Sampling
from darkroom.generation.request import Request
from darkroom.generation.tiles import Tiles, tiles_of
from darkroom.generation.work import Enlarger
from darkroom.language import Moment
from darkroom.pixels import Pixels

# Above this many times the native area a model repeats itself: draw small first, then refine.
_SECOND_PASS_AREA = 2.0
# The share of the way from picture to noise from which what a picture is continued by is drawn: enough for scenery, too
# little for things of its own. Measured with pocket: 0.2 to 0.25 are best, from 0.3 on there are things.
_CONTINUING = 0.25
_FEWEST_STEPS = round(1 / _CONTINUING)
# Proportions this near to those it was drawn in are cut out of a picture; beyond, it is continued.
_CUT = 1.07
# What is longer is cut out of this.
_LONGEST = 8.0


@dataclass(frozen=True)
class Pass:
    """One way of a canvas over `points`, in so many network calls.

    `before` is the steps of the pass that this one is counted on from, `skipped` those that it leaves out at its
    beginning. Its noise is of the request's seed and `seed` more. `second`: it goes as the request says of the second
    pass. In `tiles`, where the network does not see it as a whole.
    """

    canvas: Canvas
    points: Points
    calls: int
    before: int = 0
    skipped: int = 0
    seed: int = 0
    second: bool = False
    tiles: Tiles | None = None

    @property
    def steps(self) -> int:
        return len(self.points) - 1

    def moment(self, step: int) -> Moment:
        """Where its step stands for what goes by steps: prompts, adapters, guidance, ensembles."""
        return Moment(step + self.skipped, self.steps + self.skipped, self.before)


def passes(
    request: Request, family: Family, subject: Subject | None = None, upscaler: Enlarger | None = None
) -> list[Pass]:
    """The passes that a settled request takes; `subject`: what it begins with, where that is to be seen; `upscaler`:
    what makes it larger in between, if that is no filter."""
    found = []
    for each in _passes(request, family, subject, upscaler):
        canvas = replace(each.canvas, seamless=request.tiling.seamless or "")
        tiles = tiles_of(request.tiling, canvas.width, canvas.height, family)
        found.append(replace(each, canvas=canvas, tiles=tiles))
    return found


def draws_over(request: Request, family: Family) -> bool:
    """Whether anything of the picture that a settled request begins with, if there is one, is left to draw over."""
    edit = request.edit
    whole = edit.strength == 1 and edit.strength_as == "share" and edit.loops == 1
    return edit.image is not None and (request.in_part or family.sees_pictures or not whole)


def _passes(
    request: Request, family: Family, subject: Subject | None, upscaler: Enlarger | None
) -> list[Pass]:
    canvas = request.canvas
    if draws_over(request, family):
        return _drawing_over(request, family, subject)
    assert canvas.width and canvas.height
    own = canvas.width, canvas.height
    if canvas.second_pass == "off":
        return [_from_noise(own, request, family)]
    if canvas.first_width and canvas.first_height:
        return _enlarged((canvas.first_width, canvas.first_height), own, request, family, upscaler)
    return (_natively if canvas.compose == "native" else _in_proportion)(own, request, family, upscaler)


def _natively(
    own: tuple[int, int], request: Request, family: Family, upscaler: Enlarger | None
) -> list[Pass]:
    """A square of the native size, continued to the picture's proportions; what comes out is enlarged."""
    square, frame = (family.native, family.native), framed(*own, family)
    if request.canvas.upscaler in LATENT and (own[0] > frame[0] or own[1] > frame[1]):
        raise InvalidRequest(
            f"upscaler is {request.canvas.upscaler}, but the picture is drawn at the native size and continued: choose "
            '`compose="own"`, or another upscaler'
        )
    found = [_from_noise(square, request, family)]
    if frame != square:
        found.append(_continuing(frame, request.sampling, family))
    if request.canvas.second_pass == "on" and own != square and math.prod(own) >= math.prod(frame):
        found.append(_refining(_larger(own, fitted, request, upscaler), request, family))
    return found


def _in_proportion(
    own: tuple[int, int], request: Request, family: Family, upscaler: Enlarger | None
) -> list[Pass]:
    """The picture at its own size; where that is much larger than the native one, small first."""
    small = native_size(*own, family)
    larger = math.prod(own) > _SECOND_PASS_AREA * family.native**2
    if not (request.canvas.second_pass == "on" or larger):
        return [_from_noise(own, request, family)]
    return _enlarged(small, own, request, family, upscaler)


def _enlarged(
    small: tuple[int, int],
    own: tuple[int, int],
    request: Request,
    family: Family,
    upscaler: Enlarger | None,
) -> list[Pass]:
    """The picture at a size to begin with, then refined at its own."""
    first = _from_noise(small, request, family)
    if small == own:
        return [first]
    if (way := request.canvas.upscaler) not in LATENT:
        return [first, _refining(_larger(own, stretched, request, upscaler), request, family)]
    first = replace(first, canvas=replace(first.canvas, decoded=False))
    size = own[1] // family.factor, own[0] // family.factor
    return [first, _refining(FromLatent(*own, size, str(way)), request, family)]


def _larger(
    own: tuple[int, int],
    resized: Callable[..., Pixels],
    request: Request,
    upscaler: Enlarger | None,
) -> Canvas:
    """A canvas for the picture of the pass before made larger: by an upscaler, or as its filter says."""
    if upscaler is not None:
        return Enlarged(*own, upscaler)
    how = partial(resized, by=filter_of(request.canvas.upscaler))
    return _of_the_last(own, without_edges(how, request.tiling.seamless or ""))


def enlarges(request: Request, family: Family, subject: Subject | None) -> bool:
    """Whether a settled request's picture is made larger: what it begins with, or what is drawn smaller at first."""
    if draws_over(request, family):
        larger = put_in_larger(request, subject), enlarged_size(request, subject)
        return any(each is not None for each in larger)
    found, size = passes(request, family, subject), request.canvas
    assert size.width and size.height
    last = found[-1].canvas
    return any(each.second for each in found) or last.width < size.width or last.height < size.height


def native_size(width: int, height: int, family: Family) -> tuple[int, int]:
    """The size nearest the native area with the proportions of width x height, never enlarged."""
    scale = min(1.0, family.native / math.sqrt(width * height))
    return near(width * scale, family.unit), near(height * scale, family.unit)


def framed(width: int, height: int, family: Family) -> tuple[int, int]:
    """The size to which a native square is continued for a picture of width x height to be made of it."""
    ratio = min(max(width, height) / min(width, height), _LONGEST)
    if ratio <= _CUT:
        return family.native, family.native
    long = around(family.native * ratio, family.unit)
    long = min(long, family.largest or long)
    return (long, family.native) if width > height else (family.native, long)


def _drawing_over(request: Request, family: Family, subject: Subject | None) -> list[Pass]:
    """Each takes the last steps of the way: on a picture that there is, then on what the one before made of it."""
    edit, sampling, canvas = request.edit, request.sampling, request.canvas
    assert sampling.steps and edit.noise_multiplier is not None and canvas.width and canvas.height
    size, begun = (canvas.width, canvas.height), partial(_begun, request, subject)
    found = []
    for loop, strength in enumerate(strengths(edit)):
        points = _left_by(strength, str(edit.strength_as), sampling, family)
        full, fresh = request.noise.full and strength == 1, strength == 1 and edit.strength_as == "share"
        fill = "fresh" if fresh else "original" if loop else str(request.inpaint.fill)
        own = Canvas(*size, full=full)
        if request.in_part and not _sees_masks(request, family):
            own = Masked(
                *size,
                begun,
                partial(brought, request, subject),
                partial(_share, request, subject, family),
                len(points) - 1,
                fill,
                full=full,
                noise=edit.noise_multiplier,
            )
        elif not fresh:
            own = FromPicture(*size, begun, full=full, noise=edit.noise_multiplier)
        # Nothing is asked of a sampler that has nowhere to go.
        calls = _calls(points, sampling) if len(points) > 1 else 0
        skipped = max(sampling.steps - (len(points) - 1), 0)
        found.append(Pass(own, points, calls, skipped=skipped, seed=loop))
    return found


def _sees_masks(request: Request, family: Family) -> bool:
    """Whether whoever makes a settled request's steps is shown the mask. No refiner is."""
    return family.sees_masks and request.xl.refiner_switch in (None, 1)


def _begun(request: Request, subject: Subject | None, before: Pixels | None) -> Pixels:
    """What a loop begins with: the picture that there is, or what the loop before made of it."""
    return filled(request, subject) if before is None else recolored(before, request, subject)


def _share(request: Request, subject: Subject | None, family: Family) -> Share:
    return by_latents(brought_share(request, subject), family.factor)


def _left_by(strength: float, counted: str, sampling: Sampling, family: Family) -> Points:
    """The end of the way that a strength leaves, which is `counted` as one of `STRENGTHS`."""
    points, steps = _points(sampling, family), sampling.steps
    assert steps
    if counted == "diffusers":
        return tail(points, strength)
    if counted == "a1111":
        return points[steps - steps_taken(points, strength, "a1111") :]
    if not strength:
        return points[steps:]
    if counted == "comfy":
        return _stretched_out(sampling, family, strength, steps)
    return points[steps - max(steps_taken(points, strength), 1) :]


def _from_noise(size: tuple[int, int], request: Request, family: Family) -> Pass:
    points = _points(request.sampling, family)
    return Pass(Canvas(*size, full=request.noise.full), points, _calls(points, request.sampling))


def _continuing(size: tuple[int, int], sampling: Sampling, family: Family) -> Pass:
    """Takes the last steps of the pass before again, on its picture continued."""
    assert sampling.steps
    points = _points(sampling, family, max(sampling.steps, _FEWEST_STEPS))
    time = family.schedule.first + _CONTINUING * (family.schedule.last - family.schedule.first)
    skipped = min(range(len(points) - 1), key=lambda at: abs(points[at].time - time))
    again = points[skipped:]
    return Pass(_of_the_last(size, continued), again, _calls(again, sampling), skipped=skipped)


def _of_the_last(size: tuple[int, int], resized: Callable[[Pixels, int, int], Pixels]) -> FromPicture:
    """A canvas of that size for the picture of the pass before, brought to it (see `darkroom.generation.frames`)."""
    return FromPicture(*size, partial(_resized, resized, *size))


def _resized(
    how: Callable[[Pixels, int, int], Pixels], width: int, height: int, before: Pixels | None
) -> Pixels:
    assert before is not None, "there is no pass before"
    return how(before, width, height)


def _refining(canvas: Canvas, request: Request, family: Family) -> Pass:
    other = request.for_second_pass()
    sampling, strength, steps = other.sampling, request.canvas.second_strength, request.canvas.second_steps
    assert strength
    points, before = _points(sampling, family), _points(request.sampling, family)
    if steps is None:
        refining = tail(points, strength, convention="a1111")
    else:
        refining = _stretched_out(sampling, family, min(strength, NEARLY_ALL), steps)
    calls = _calls(refining, sampling)
    return Pass(canvas, refining, calls, before=len(before) - 1, second=True)


def _stretched_out(sampling: Sampling, family: Family, strength: float, steps: int) -> Points:
    """So many steps of a way that is longer by what strength leaves out (A1111's hires steps, ComfyUI's denoise)."""
    most = family.schedule.last - family.schedule.first + 1
    return _points(sampling, family, min(int(steps / strength), most))[-(steps + 1) :]


def _points(sampling: Sampling, family: Family, steps: int | None = None) -> Points:
    assert sampling.steps and sampling.sampler and sampling.schedule
    return points_for(family.schedule, steps or sampling.steps, sampling.sampler, sampling.schedule)


def _calls(points: Points, sampling: Sampling) -> int:
    return count_calls(sampler(str(sampling.sampler)), points)
