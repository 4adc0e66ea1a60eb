"""Upscalers at work: pictures of any size, part by part, what is transparent in them as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from darkroom.diffusion import Within
from darkroom.engine.devices import Placement, give_back_memory, keep_freed_memory, out_of_memory, place
from darkroom.errors import GenerationError, InvalidRequest, ModelError, closest
from darkroom.files import portable
from darkroom.generation.checks import a_number, a_whole
from darkroom.generation.frames import FILTERS, fitted, stretched
from darkroom.generation.picture import Picture, made_from
from darkroom.generation.sources import a_source
from darkroom.generation.work import Note, unheard
from darkroom.library.installed import installed
from darkroom.library.locate import locate, name_of, recalled
from darkroom.networks.tiles import in_tiles, snug, tile_count
from darkroom.photos import LONGEST_SIDE, MOST_PIXELS, Photo
from darkroom.pixels import Pixels, filled_in
from darkroom.upscaling.reading import Enlarging, read_upscaler
from darkroom.weights.hashes import sha256

Told = Callable[[int, int], object]
"""Is told how many parts of a picture are done, of how many."""

MOST = 16
"""How many times larger pictures are made at most."""
TILE = 256
"""The side in pixels of the parts that a network is given, of the picture that is to be enlarged."""
OVERLAP = 32
HALO = 12
"""How much of two parts is made twice, and what of each is then left out, where its network misses what is beyond:
measured (`benchmarks/upscaling.py`), no seam is left that a byte shows."""
SMALLEST_TILE = 64
_USUAL = 2  # Of what has no scale of its own.
_CHANNELS = (1, 3, 4)


def load_upscaler(
    upscaler: str | Path = "lanczos",
    *,
    device: str | torch.device | None = None,
    precision: str | torch.dtype | None = None,
    tile: int = TILE,
) -> Upscaler:
    """An upscaler ready to enlarge pictures: "lanczos" or "nearest", or a network by its name in the library or by its
    file (ESRGAN, Real-ESRGAN and their kin; with the extra `upscalers` whatever spandrel knows).

    tile: the side in pixels of the parts that a picture is given to a network in, 0 for it as a whole. Raises
    InvalidRequest for what this machine has not, ModelError for what is no upscaler.
    """
    if tile:
        a_whole(SMALLEST_TILE, LONGEST_SIDE)("tile", tile)
    if str(upscaler) in FILTERS:
        return Upscaler(str(upscaler), tile=tile)
    path = _located(upscaler)
    placement = place(device, precision)
    if placement.device.type == "cpu":
        keep_freed_memory()
    return Upscaler(name_of(path), read_upscaler(path, placement), path, placement, tile)


def _located(upscaler: str | Path) -> Path:
    try:
        path = locate(upscaler, kind="upscaler")
    except ModelError:
        if (close := closest(str(upscaler), FILTERS, alike=0.7)) is None:
            raise
        raise ModelError(f"there is no upscaler {str(upscaler)!r}: did you mean {close!r}?") from None
    if path.is_dir():
        raise ModelError(f"{path} is a folder: give the file of an upscaler")
    return path


class Upscaler:
    """Makes pictures larger; `load_upscaler` makes one. `scale`: how many times larger its network makes them, 1 where
    that is only to make them better; None for a filter."""

    def __init__(
        self,
        name: str,
        network: Enlarging | None = None,
        path: Path | None = None,
        placement: Placement | None = None,
        tile: int = TILE,
    ) -> None:
        if network is not None and network.in_channels not in _CHANNELS:
            raise ModelError(f"{path} sees {network.in_channels} channels: pictures have 1, 3 or 4")
        self.name, self.path, self.placement, self.tile = name, path, placement, tile
        self._network = network
        self.scale = None if network is None else network.scale
        self.described = f"{name}, a filter" if network is None else network.described
        """What it is, in words."""

    def __repr__(self) -> str:
        return f"<Upscaler {self.name}: {self.described}>"

    @property
    def usual(self) -> int:
        """How many times larger it makes pictures where nothing is said."""
        return _USUAL if self.scale is None else self.scale

    @property
    def facts(self) -> dict[str, Any]:
        """What it is and where it runs, as a picture's file says it."""
        found: dict[str, Any] = {"upscaler": self.name}
        if self.path is not None and self.placement is not None:
            if installed("upscaler").get(self.name) != self.path:
                found["path"] = portable(self.path)
            found |= {"sha256": sha256(self.path), "tile": self.tile}
            found |= {"device": str(self.placement.device), "precision": self.placement.precision}
        return found

    def upscale(
        self,
        image: Any,
        by: float | None = None,
        *,
        width: int | None = None,
        height: int | None = None,
        frame: int | None = None,
        progress: Told | None = None,
        note: Note = unheard,
    ) -> Picture:
        """A picture `by` so many times larger, 1 to 16 (its network's scale where that is left out), or as large as
        `width` or `height` says; where both are said what has no room is cut off.

        image: a file, its bytes, Pillow's, NumPy's or torch's picture, or a `Picture`; of an animated one that `frame`.
        What is transparent stays so. What the picture says of how it was made is kept, and says then that it was
        enlarged. Raises InvalidRequest where it is no picture, or is to be of a size that cannot be.
        """
        source, photo = a_source("image", image).found("image", frame)
        size = self.size(photo.size, by, width, height)
        enlarged = self.enlarged(photo, *size, note=note, told=progress)
        done = {**self.facts, "width": size[0], "height": size[1], "of": source.to_dict()}
        if frame is not None:
            done["frame"] = frame
        words = f"Postprocess upscale by: {size[0] / photo.size[0]:.4g}, Postprocess upscaler: {self.name}"
        return made_from(image, _image(enlarged), done, words)

    def size(
        self,
        size: tuple[int, int],
        by: float | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> tuple[int, int]:
        """Width and height of what becomes of a picture of that size. Raises InvalidRequest for one that cannot be."""
        if by is not None and (width or height):
            raise InvalidRequest(
                f"by is {by}, which does not go with width or height: leave one of the two out"
            )
        if width is None and height is None:
            by = a_number(Within(1, MOST))("by", self.usual if by is None else by)
            found = (round(size[0] * by), round(size[1] * by))
        else:
            for name, side in (("width", width), ("height", height)):
                if side is not None:
                    a_whole(1, LONGEST_SIDE)(name, side)
            ratio = size[0] / size[1]
            found = (
                width or max(round((height or 0) * ratio), 1),
                height or max(round((width or 0) / ratio), 1),
            )
            times = max(found[0] / size[0], found[1] / size[1])
            if not 1 <= times <= MOST:
                was, now = (f"{each[0]}x{each[1]}" for each in (size, found))
                raise InvalidRequest(
                    f"a picture of {was} would be of {now}: it is made 1 to {MOST} times larger, give another size"
                )
        if max(found) > LONGEST_SIDE or math.prod(found) > MOST_PIXELS:
            raise InvalidRequest(
                f"the picture would be of {found[0]}x{found[1]}: {MOST_PIXELS:,} pixels are the most, give a smaller "
                "size"
            )
        return found

    def enlarged(
        self, photo: Photo, width: int, height: int, *, note: Note = unheard, told: Told | None = None
    ) -> Photo:
        """A picture brought to a size that is no smaller, what is transparent in it too; in its proportions: what has
        no room is cut off."""
        if self._network is None:
            return self._filtered(photo, width, height)
        seen, alpha, sees = photo.pixels, photo.alpha, self._network.in_channels
        if alpha is not None:
            seen = _opaque(seen, alpha)
        apart = alpha is not None and sees != 4
        layers = [_layers(seen, alpha, sees)]
        if apart and alpha is not None:
            layers.append(_layers(np.repeat(alpha[..., None], 3, axis=2), None, sees))
        made = [_brought(each, width, height) for each in self._run(layers, width, height, note, told)]
        colours = made[0][..., :3]
        if alpha is None:
            return Photo(colours)
        return Photo(colours, made[1][..., 0] if apart else made[0][..., 3])

    def brought(self, pixels: Pixels, width: int, height: int, note: Note = unheard) -> Pixels:
        """Pixels (h, w, 3) at a size that is no smaller, as `enlarged` does."""
        return self.enlarged(Photo(pixels), width, height, note=note).pixels

    def _filtered(self, photo: Photo, width: int, height: int) -> Photo:
        by = FILTERS[self.name]
        if photo.alpha is None:
            return Photo(_brought(photo.pixels, width, height, by))
        colours = _brought(_opaque(photo.pixels, photo.alpha), width, height, by)
        alpha = _brought(np.repeat(photo.alpha[..., None], 3, axis=2), width, height, by)
        return Photo(colours, np.ascontiguousarray(alpha[..., 0]))

    def _run(
        self, layers: list[NDArray[np.float32]], width: int, height: int, note: Note, told: Told | None
    ) -> list[NDArray[np.uint8]]:
        """What the network makes of some (C, h, w), as often as it takes to come to a size: (height, width, 3 or 4)."""
        assert self._network is not None
        (h, w), scale = layers[0].shape[1:], self._network.scale
        sizes = stages((h, w), (height, width), scale)
        largest = scale * sizes[-1][0], scale * sizes[-1][1]
        if math.prod(largest) > MOST_PIXELS:
            raise InvalidRequest(
                f"on its way to {width}x{height} the picture would be of {largest[1]}x{largest[0]}, as {self.name} "
                f"makes it {scale} times larger: {MOST_PIXELS:,} pixels are the most, give a smaller size"
            )
        whole = not self.tile or not self._network.tiled
        total = len(layers) * sum(1 if whole else tile_count(*each, self.tile, OVERLAP) for each in sizes)
        done = 0

        def counted() -> None:
            nonlocal done
            done += 1
            if told is not None:
                told(done, max(done, total))

        found = []
        for layer in layers:
            x = torch.from_numpy(layer)[None]
            for _ in sizes:
                x = self._once(x, note, counted).clamp_(0, 1)
            levels = x[0].mul_(255).round_().to(torch.uint8).permute(1, 2, 0)
            found.append(np.ascontiguousarray(levels.expand(-1, -1, max(levels.shape[2], 3)).numpy()))
        return found

    def _once(self, x: Tensor, note: Note, counted: Callable[[], None]) -> Tensor:
        """Enlarged by the network's scale, in smaller parts where memory does not suffice."""
        network, tile = self._network, self.tile or max(x.shape)
        assert network is not None

        def part(x: Tensor) -> Tensor:
            made = network.run(x)
            if not bool(made.isfinite().all()):
                raise GenerationError(
                    f"what {self.name} makes is not a number: its file is damaged or the precision is too low, try "
                    '`precision="float32"`'
                )
            counted()
            return made

        if not network.tiled:
            return part(x)
        while True:
            try:
                sides = snug(x.shape[-2], tile, OVERLAP), snug(x.shape[-1], tile, OVERLAP)
                return in_tiles(part, x, sides, OVERLAP, network.out_channels, up=network.scale, halo=HALO)
            except Exception as error:
                if tile <= SMALLEST_TILE or not out_of_memory(error):
                    raise
            give_back_memory()
            tile = max(min(tile, max(x.shape)) // 2, SMALLEST_TILE)
            note(f"enlarged in parts of {tile} pixels: memory did not suffice for larger ones")


class Upscalers:
    """The upscalers of a model, where it is placed: read when they are first needed, and the last one kept."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._last: tuple[Path, Upscaler] | None = None

    def __call__(self, name: str, needed: bool) -> Upscaler | None:
        """The network of that name or in that file, None where it is not `needed`. Raises as `load_upscaler` does."""
        path = _located(name)
        if not needed:
            return None
        if self._last is None or self._last[0] != path:
            placement = self._placement
            self._last = path, load_upscaler(path, device=placement.device, precision=placement.dtype)
        return self._last[1]


def repeated(picture: Picture | Path, after: Sequence[Mapping[str, Any]], **where: Any) -> Picture:
    """A picture, or that in a file, with all done to it again that is said to have been done `after` it was made, at
    least one thing; `where`: the device and the precision, in place of those that it was done on. Raises InvalidRequest
    for what is none of that."""
    for each in after:
        if not isinstance(each, Mapping) or not isinstance(name := each.get("upscaler"), str):
            raise InvalidRequest(f"the picture says that {each!r} was done with it: no upscaler is named")
        found = recalled(name, each.get("path"), [each["sha256"]] if "sha256" in each else [], "upscaler")
        how = {key: each[key] for key in ("device", "precision", "tile") if key in each} | where
        picture = load_upscaler(found, **how).upscale(
            picture, width=each.get("width"), height=each.get("height"), frame=each.get("frame")
        )
    assert isinstance(picture, Picture)
    return picture


def stages(size: tuple[int, int], wanted: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """What a network that makes pictures `scale` times larger is given, one after the other, for one to be no smaller
    than it is to be: the sizes, heights before widths; itself at least."""
    found = [size]
    while scale > 1 and any(scale * had < to for had, to in zip(found[-1], wanted, strict=True)):
        found.append((scale * found[-1][0], scale * found[-1][1]))
    return found


def _brought(
    pixels: Pixels, width: int, height: int, by: Image.Resampling = Image.Resampling.LANCZOS
) -> Pixels:
    """A picture at a size: cut where its proportions are others, by more than sides are rounded."""
    h, w = pixels.shape[:2]
    same = abs(w * height - h * width) <= max(w, h)
    return (stretched if same else fitted)(pixels, width, height, by)


def _layers(pixels: Pixels, alpha: Pixels | None, channels: int) -> NDArray[np.float32]:
    """A picture (h, w, 3) as a network of so many channels sees it: (channels, h, w) in [0, 1]."""
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    elif channels == 4:
        opaque = np.full(pixels.shape[:2], 255, np.uint8) if alpha is None else alpha
        pixels = np.concatenate([pixels, opaque[..., None]], axis=2)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def _opaque(pixels: Pixels, alpha: Pixels) -> Pixels:
    """A picture where it is not seen with the colours of what is around: what lies under there is often black, which
    would show at the edges of what is enlarged."""
    known = (alpha / 255).astype(np.float32)
    if not known.any():
        return pixels
    return np.asarray(filled_in(pixels.astype(np.float32), known).round().clip(0, 255), np.uint8)


def _image(photo: Photo) -> Image.Image:
    if photo.alpha is None:
        return Image.fromarray(photo.pixels)
    return Image.fromarray(np.dstack([photo.pixels, photo.alpha]))
