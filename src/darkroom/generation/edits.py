"""Pictures made of pictures: at which size, how the one is brought to the other's, and what is done at the end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from darkroom.checkpoint.family import Family
from darkroom.errors import InvalidRequest
from darkroom.generation.colors import matched
from darkroom.generation.frames import around, fitted, near, padded, stretched
from darkroom.generation.parts import MAX_SIDE, Edit
from darkroom.generation.request import PARTS, Request, within
from darkroom.photos import Photo
from darkroom.pixels import Pixels

STRENGTH = 0.75
# A picture keeps its size up to so many times the native area, or a million pixels: beyond, models repeat themselves.
_LARGEST_AREA, _MEGAPIXEL = 4, 1 << 20


def begun(request: Request, photo: Photo, family: Family) -> dict[str, Any]:
    """What a request that begins with a picture leaves open: the size, and how the picture is brought there.

    Where no side is said the picture keeps its own, which the canvas surrounds (`fit`: own); a large one is made
    smaller in its proportions. Raises InvalidRequest where it is to keep its own size on a canvas of another.
    """
    width, height = photo.size
    canvas, edit, unit = request.canvas, request.edit, family.unit
    if edit.last_strength is not None and (edit.loops or 1) == 1:
        raise InvalidRequest(
            f"last_strength is {edit.last_strength:g}, of the last loop: say how many as `loops=`"
        )
    own = around(width, unit), around(height, unit)
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
        most = max(_LARGEST_AREA * family.native**2, _MEGAPIXEL)
        scale = min(1.0, math.sqrt(most / (width * height)), longest / max(own))
    keeps = edit.fit == "own" or (scale == 1 and not (canvas.width or canvas.height))
    size = own if keeps else (near(width * scale, unit), near(height * scale, unit))
    strength = STRENGTH if edit.strength is None else edit.strength
    return {
        "width": size[0],
        "height": size[1],
        "fit": "own" if keeps else "crop",
        "strength": strength,
        "strength_as": "share",
        "noise_multiplier": 1.0,
        "loops": 1,
        "last_strength": strength if (edit.loops or 1) > 1 else None,
        "match_colors": False,
    }


def strengths(edit: Edit) -> list[float]:
    """How much each loop draws anew, of a settled request that begins with a picture."""
    assert edit.strength is not None and edit.loops
    if edit.loops == 1 or edit.last_strength is None:
        return [edit.strength] * edit.loops
    return [float(each) for each in np.linspace(edit.strength, edit.last_strength, edit.loops)]


_OF_ITSELF = {
    *("seed", "count", "variation_seed", "variation_strength", "seed_resize_width", "seed_resize_height"),
    *("latents", *within(PARTS["canvas"]), *within(PARTS["edit"])),
}
"""The settings of a picture that mean nothing to one that is made of it."""


def taken_over(request: Request) -> dict[str, Any]:
    """What an edit of a picture starts from of the request that made it: all but its seed and noise, its size, and what
    it began with itself."""
    return {name: value for name, value in request.flat().items() if name not in _OF_ITSELF}


def brought(request: Request, photo: Photo | None) -> Pixels:
    """The picture that a settled request begins with, at the size of its canvas: (height, width, 3). None stands for
    one that is not there, as where work is foretold."""
    width, height = request.canvas.width or 0, request.canvas.height or 0
    if photo is None:
        return np.zeros((height, width, 3), np.uint8)
    pixels = photo.over()
    if request.edit.fit == "own":
        beyond = height - len(pixels), width - pixels.shape[1]
        return np.pad(pixels, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "symmetric")
    return {"stretch": stretched, "pad": padded}.get(str(request.edit.fit), fitted)(pixels, width, height)


def recolored(pixels: Pixels, request: Request, photo: Photo | None) -> Pixels:
    """What a loop has drawn, in the colours that are asked for."""
    if photo is None or not request.edit.match_colors:
        return pixels
    return matched(pixels, brought(request, photo))


def finished(pixels: Pixels, request: Request, photo: Photo | None) -> Pixels:
    """What comes out of the last canvas as the picture."""
    pixels = recolored(pixels, request, photo)
    if photo is not None and request.edit.fit == "own":
        width, height = photo.size
        return np.ascontiguousarray(pixels[:height, :width])
    return pixels


def notes_of(photo: Photo) -> list[str]:
    """What was done with a picture to begin with, in words."""
    clear = ["the picture is transparent in places: white is seen there"] if photo.alpha is not None else []
    return [*photo.notes, *clear]
