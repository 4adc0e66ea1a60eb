"""At which size a picture is drawn over, and what else is left open by a request that begins with one."""

from __future__ import annotations

import math
from typing import Any

from darkroom.checkpoint.family import DEPTH, PICTURE, Family
from darkroom.errors import InvalidRequest
from darkroom.generation.edits import Subject, growth
from darkroom.generation.frames import around, near
from darkroom.generation.masks import ALPHA, around_mask
from darkroom.generation.parts import MAX_SIDE
from darkroom.generation.request import Request

STRENGTH, STRENGTH_IN_MASKS, STRENGTH_SEEN = 0.75, 1.0, 1.0
STRENGTH_OF_DETAILS = 0.4
"""As ADetailer, A1111's extension, has it."""
IMAGE_GUIDANCE = 1.5
_PADDING = 32
# A picture keeps its size up to so many times the native area, or a million pixels: beyond, models repeat themselves.
_LARGEST_AREA, _MEGAPIXEL = 4, 1 << 20


def begun(request: Request, subject: Subject, family: Family) -> dict[str, Any]:
    """What a request that begins with a picture leaves open: the size, and how the picture is brought there.

    Where no side is said the picture keeps its own, which the canvas surrounds (`fit`: own); a large one is made
    smaller in its proportions. Of what is around a mask alone, the native area is drawn. Raises InvalidRequest where it
    is to keep its own size on a canvas of another.
    """
    edit, inpaint = request.edit, request.inpaint
    loops = 1 if edit.loops is None else edit.loops
    if edit.last_strength is not None and loops < 2:
        raise InvalidRequest(
            f"last_strength is {edit.last_strength:g}, of the last loop: say how many as `loops=`"
        )
    if inpaint.fill == "mirror" and not request.extend.asked:
        raise InvalidRequest(
            "fill is mirror, which is for what is beyond the edges of a picture: choose another one"
        )
    usual = STRENGTH_IN_MASKS if inpaint.masked and not request.extend.asked else STRENGTH
    if family.sees_pictures and family.needs != DEPTH:  # What is drawn keeps to the picture that is seen.
        usual = STRENGTH_SEEN
    if loops == 0:
        usual = STRENGTH_OF_DETAILS
    strength = usual if edit.strength is None else edit.strength
    only = inpaint.only_masked if request.in_part else None
    if only is None and request.in_part and not (request.canvas.width or request.canvas.height or edit.fit):
        # A picture that is too large to be drawn at its size keeps it: what is new of it is drawn.
        only = family.enlarges == 1 and _size(request, subject, family)["fit"] != "own"
    padding = _padding(request, family) if only else None
    found = {
        **(
            _size(request, subject, family)
            if padding is None
            else _size_around(request, subject, family, padding)
        ),
        "strength": strength,
        "strength_as": "share",
        "noise_multiplier": 1.0,
        "loops": 1,
        "last_strength": strength if loops > 1 else None,
        "match_colors": False,
        "noise_level": family.augmentation and family.augmentation.usual,
        "image_guidance": IMAGE_GUIDANCE if family.needs == PICTURE else None,
    }
    if request.in_part:
        found |= {
            "mask_invert": False,
            "mask_grow": growth(inpaint),
            "mask_blur": 0.0,
            "mask_resize": False,
            "only_masked": bool(only),
        }
        found["fill"] = "neighbors" if inpaint.mask == ALPHA and not inpaint.invert else "original"
        found["mask_padding"] = padding
    return found


def _size(request: Request, subject: Subject, family: Family) -> dict[str, Any]:
    canvas, edit, unit = request.canvas, request.edit, family.unit
    if family.enlarges > 1:
        return _enlarged_size(request, subject, family)
    width, height = subject.photo.size
    own = around(width, unit), around(height, unit)
    if edit.loops == 0:
        return _as_it_is(request, (width, height), own)
    longest = min(family.largest or MAX_SIDE, MAX_SIDE)
    if edit.fit == "own" and (canvas.width or own[0], canvas.height or own[1]) != own:
        raise InvalidRequest(
            f"fit is own, but the picture is of {width}x{height} and width and height are {canvas.width} and "
            f"{canvas.height}: leave them out, or fit"
        )
    if edit.fit == "own" and max(own) > longest:
        raise InvalidRequest(
            f"fit is own, but the picture is of {width}x{height} and a side has {longest} pixels at most: leave fit out"
        )
    if canvas.width or canvas.height:
        scale = canvas.width / width if canvas.width else (canvas.height or 0) / height
    else:
        scale = min(1.0, math.sqrt(_most(family) / (width * height)), longest / max(own))
    keeps = edit.fit == "own" or (scale == 1 and not (canvas.width or canvas.height))
    size = own if keeps else (near(width * scale, unit), near(height * scale, unit))
    _check_sides(canvas.width or size[0], canvas.height or size[1])
    return {"width": size[0], "height": size[1], "fit": "own" if keeps else "crop"}


def _as_it_is(request: Request, size: tuple[int, int], own: tuple[int, int]) -> dict[str, Any]:
    """Of a picture of which nothing but details is drawn: its own size, on a canvas of its `own`."""
    shown, canvas = f"{size[0]}x{size[1]}", request.canvas
    if (canvas.width or own[0], canvas.height or own[1]) != own:
        raise InvalidRequest(
            f"loops is 0, for the details of a picture as it is, of {shown}: leave width and height out"
        )
    if max(own) > MAX_SIDE:
        raise InvalidRequest(
            f"the picture is of {shown}: its details are drawn up to {MAX_SIDE:,} pixels a side"
        )
    return {"width": own[0], "height": own[1], "fit": "own"}


def _enlarged_size(request: Request, subject: Subject, family: Family) -> dict[str, Any]:
    """Of a picture that its model draws larger: as much larger as it does, unless another size is said."""
    canvas, fit = request.canvas, request.edit.fit
    if fit == "own":
        raise InvalidRequest(f"fit is own, but {family.name} draws larger pictures: leave fit out")
    width, height = (side * family.enlarges for side in subject.photo.size)
    if canvas.width or canvas.height:
        scale = canvas.width / width if canvas.width else (canvas.height or 0) / height
    else:
        scale = min(1.0, MAX_SIDE / max(width, height))
    size = near(width * scale, family.unit), near(height * scale, family.unit)
    _check_sides(*size)
    return {"width": size[0], "height": size[1], "fit": "crop"}


def _check_sides(width: int, height: int) -> None:
    """Raises InvalidRequest where the side that follows from the other is longer than any may be."""
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(
            f"the picture would be of {width}x{height} in its proportions, and a side has {MAX_SIDE:,} pixels at most: "
            "give a smaller size, or both sides"
        )


def _most(family: Family) -> int:
    """Of how many pixels a picture keeps its size."""
    return max(_LARGEST_AREA * family.native**2, _MEGAPIXEL)


def _padding(request: Request, family: Family) -> int:
    """How much is seen around what is drawn alone: of a picture that goes on, half of what its model draws."""
    if request.inpaint.padding is not None:
        return request.inpaint.padding
    return family.native // 2 if request.extend.asked else _PADDING


def _size_around(request: Request, subject: Subject, family: Family, padding: int) -> dict[str, Any]:
    canvas, edit = request.canvas, request.edit
    if edit.fit not in (None, "stretch"):
        raise InvalidRequest(f"fit is {edit.fit}, but what is around the mask is drawn alone: leave fit out")
    assert subject.share is not None
    ratio = canvas.width / canvas.height if canvas.width and canvas.height else None
    box = around_mask(subject.share, padding, ratio)
    if canvas.width or canvas.height:
        scale = canvas.width / box.width if canvas.width else (canvas.height or 0) / box.height
    else:
        area = box.width * box.height
        scale = math.sqrt(min(max(family.native**2 / area, 1.0), _most(family) / area))
    longest = min(family.largest or MAX_SIDE, MAX_SIDE)
    scale = min(scale, longest / max(box.width, box.height))
    size = near(box.width * scale, family.unit), near(box.height * scale, family.unit)
    return {"width": size[0], "height": size[1], "fit": "stretch"}
