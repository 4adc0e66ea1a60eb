"""From what a user asked for to what will be made: everything left open filled in, by the model."""

from __future__ import annotations

from darkroom.checkpoint.family import DEPTH, GIVEN, PICTURE, Family
from darkroom.checkpoint.preferences import Preferences
from darkroom.diffusion import sampler_info, schedule_for
from darkroom.errors import InvalidRequest
from darkroom.generation.edits import Find, subject_of
from darkroom.generation.frames import FILTERS
from darkroom.generation.latents import latents_array
from darkroom.generation.request import Request, within
from darkroom.generation.sizing import begun
from darkroom.library.installed import installed

# Where a refiner takes over, as the makers of Stable Diffusion XL advise.
REFINER_SWITCH = 0.8


def settle(
    request: Request, family: Family, name: str, refined: bool = False, find: Find | None = None
) -> Request:
    """The request with everything it leaves open filled in, for a model of that family and name.

    A sampler other than the model's own brings the schedule that suits it. `refined`: the model has a refiner; `find`:
    as for `subject_of`. Raises InvalidRequest for what the model cannot do.
    """
    request = request.checked()
    if family.needs not in GIVEN:
        check_drawable(family, name)
    _check_seen(request, family, name)
    _check_details(request, family, name)
    if (switch := request.xl.refiner_switch) is not None and not refined:
        raise InvalidRequest(
            f"refiner_switch is {switch}, but {name} was loaded without a refiner: give one (`refiner=`)"
        )
    preferences = family.preferences
    sampler = request.sampling.sampler
    schedule = preferences.schedule
    if sampler is not None and sampler_info(sampler) != sampler_info(preferences.sampler):
        schedule = schedule_for(family.schedule, sampler)
    begins = {"width": family.native, "height": family.native}
    if (latents := request.noise.latents) is not None:
        height, width = (side * family.factor for side in latents_array(latents).shape[2:])
        begins = {"width": width, "height": height}
    request, subject = subject_of(request, find)
    if subject is not None:
        begins = begun(request, subject, family)
    tiling = request.tiling
    settled = request.settled(
        **begins,
        tile_overlap=tiling.tile and tiling.tile // (2 * family.unit) * family.unit,
        upscaler=upscaler_of(preferences),
        second_schedule=_second_schedule(request, family),
        steps=preferences.steps,
        guidance=preferences.guidance,
        sampler=preferences.sampler,
        schedule=schedule,
        compose="own" if tiling.seamless else preferences.compose,
        second_strength=preferences.second_strength,
        refiner_switch=REFINER_SWITCH if refined else None,
    )
    check_size(settled, family)
    return settled


def upscaler_of(preferences: Preferences) -> str:
    """By what a model's pictures are made larger: by what it prefers, where that is here."""
    name = preferences.upscaler
    return name if name in FILTERS or name in installed("upscaler") else "lanczos"


def _second_schedule(request: Request, family: Family) -> str | None:
    """The schedule of a second pass with a sampler of its own; None where that is the first's, or suits it."""
    if (own := request.second.sampler) is None:
        return None
    first = request.sampling.sampler or family.preferences.sampler
    return None if sampler_info(own) == sampler_info(first) else schedule_for(family.schedule, own)


def check_drawable(family: Family, name: str) -> None:
    """Raises InvalidRequest for a model that does not draw from text alone."""
    if family.needs:
        raise InvalidRequest(
            f"{name} ({family.name}) needs {family.needs}: it does not paint from text alone"
        )


def _check_seen(request: Request, family: Family, name: str) -> None:
    """Raises InvalidRequest for a request that does not give a model what it is to see, or gives it what it does
    not."""
    seen, noise = request.seen, family.augmentation
    if family.sees_pictures and request.edit.image is None:
        raise InvalidRequest(f"{name} ({family.name}) needs {family.needs}: give it as `image=`")
    usable = {
        "depth": family.needs == DEPTH,
        "noise_level": noise is not None,
        "image_guidance": family.needs == PICTURE,
    }
    for setting, usable_here in usable.items():
        if not usable_here and getattr(seen, setting) is not None:
            raise InvalidRequest(f"{setting} means nothing to {name} ({family.name}): leave it out")
    if usable["depth"] and seen.depth is None:
        raise InvalidRequest(
            f"{name} ({family.name}) needs {family.needs}: give it as `depth=`, a picture, the lighter the nearer"
        )
    if noise is not None and seen.noise_level is not None and seen.noise_level > noise.most:
        raise InvalidRequest(f"noise_level is {seen.noise_level}: {name} was trained on 0 to {noise.most}")


def _check_details(request: Request, family: Family, name: str) -> None:
    """Raises InvalidRequest for details that a model does not draw, and for nothing to draw at all."""
    if request.detail.details and family.sees_pictures:
        raise InvalidRequest(
            f"{name} ({family.name}) needs {family.needs}, which details of a picture have not: leave `details=` out"
        )
    if request.edit.loops != 0:
        return
    if request.edit.image is None:
        raise InvalidRequest("loops is 0, for the details of a picture that there is: give it as `image=`")
    if not request.detail.details:
        raise InvalidRequest("loops is 0, for the details of a picture alone: say which as `details=`")
    sides = within(request.extend).items()
    given = {
        "only_masked": request.inpaint.only_masked,
        "match_colors": request.edit.match_colors,
        **{name: getattr(request.extend, each.name) for name, each in sides},
    }
    if unusable := [name for name, value in given.items() if value]:
        raise InvalidRequest(f"loops is 0, for the details of a picture as it is: leave `{unusable[0]}=` out")


def check_size(request: Request, family: Family) -> None:
    """Raises InvalidRequest for a settled request of a size that a family cannot draw, whole or in tiles."""
    unit, largest = family.unit, None if request.edit.loops == 0 else family.largest
    canvas, tiling = request.canvas, request.tiling
    if tiling.tile is not None:
        for name, given in ("tile", tiling.tile), ("tile_overlap", tiling.overlap or 0):
            if given % unit:
                raise InvalidRequest(f"{name} is {given}: {family.name} draws multiples of {unit}")
        if largest is not None and tiling.tile > largest:
            raise InvalidRequest(f"tile is {tiling.tile}: {family.name} draws up to {largest}")
        largest = None
    if tiling.seamless and canvas.compose == "native":
        raise InvalidRequest(
            "compose is native, which continues a picture beyond its edges: a seamless one has none, leave compose out"
        )
    if tiling.seamless and family.most_patches is not None:
        raise InvalidRequest(
            f"seamless is {tiling.seamless}: {family.name} tells its network where in the picture it is, so that edges "
            "stay edges, choose a model with a U-Net"
        )
    sides = ("width", canvas.width), ("height", canvas.height)
    first = ("first_width", canvas.first_width), ("first_height", canvas.first_height)
    for name, side in (*sides, *(each for each in first if each[1] is not None)):
        assert side is not None
        if side % unit:
            near = max(unit, side - side % unit)
            raise InvalidRequest(f"{name} is {side}: {family.name} draws multiples of {unit}, such as {near}")
        if largest is not None and side > largest:
            raise InvalidRequest(f"{name} is {side}: {family.name} draws up to {largest}")
