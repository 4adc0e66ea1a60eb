"""Pictures that people have, in whatever clothing, as pixels in sRGB.

Files come from anywhere: formats that run other programs (EPS) are not read, and sizes are looked at before anything is
unpacked. Importing this does not import torch.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from darkroom.errors import InvalidRequest
from darkroom.pixels import Pixels

SUFFIXES = {
    *(
        ".png",
        ".jpg",
        ".jpeg",
        ".webp",
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jxl",
        ".jp2",
        ".tif",
        ".tiff",
    ),
    *(".mpo", ".ppm", ".tga", ".qoi"),
}
"""What the names of pictures end in."""
LONGEST_SIDE = 32_768
MOST_PIXELS = 178_956_970
"""Of a picture: Pillow's own limit. The largest photographs of cameras have 151 million."""
LARGEST_FILE = 1 << 30

_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000", "JXL"),
    *("PPM", "TGA", "ICO", "PCX", "SGI", "QOI"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
"""Of files in ISO's container, as bytes 8 to 12 name them."""
_PLUGINS = {
    "HEIC": ("pillow_heif", "register_heif_opener", "pillow-heif"),
    "AVIF": ("pillow_heif", "register_avif_opener", "a newer Pillow"),
}
"""What teaches Pillow a format: a module, its function, and what is to be installed."""
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's orientation, what shows a picture as it was taken."""
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's modes by the colour spaces of ICC profiles."""
_SAME_COLOURS = {*(("RGB", mode) for mode in ("P", "RGBX", "YCbCr", "HSV")), ("L", "1"), ("L", "P")}
"""Modes that a profile's is made of without loss, each with that."""


@dataclass(frozen=True, eq=False)
class Photo:
    """`pixels`: (height, width, 3) uint8 in sRGB, upright; `alpha`: (height, width) uint8, 255 opaque, None where all
    is. Where it is transparent the pixels are what the file has there. `notes`: what was done with it, in words."""

    pixels: Pixels
    alpha: Pixels | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def over(self, ground: int = 255) -> Pixels:
        """The pixels with what is transparent laid over a grey level, white unless it is said."""
        if self.alpha is None:
            return self.pixels
        share = self.alpha[..., None].astype(np.float32) / 255
        laid: Pixels = (self.pixels * share + ground * (1 - share)).round().astype(np.uint8)
        return laid


def read_file(path: Path) -> bytes:
    """The bytes of a file, read at once. Raises InvalidRequest where there is none, it is too large for a picture, or
    it changes meanwhile."""
    try:
        with path.open("rb") as file:
            return _whole(file, path)
    except FileNotFoundError:
        raise InvalidRequest(f"no file {path}") from None
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # A null character.
        raise InvalidRequest(f"cannot read {str(path)!r}: {error}") from None


def _whole(file: BinaryIO, path: Path) -> bytes:
    before = path.stat()
    content = b"" if before.st_size > LARGEST_FILE else file.read(LARGEST_FILE + 1)
    if before.st_size > LARGEST_FILE or len(content) > LARGEST_FILE:
        raise InvalidRequest(
            f"{path} is larger than {LARGEST_FILE >> 20:,} MiB: it is no picture that is read here"
        )
    file.seek(0, io.SEEK_END)
    now = path.stat()
    sizes = file.tell(), now.st_size
    if sizes != (len(content), len(content)) or now.st_mtime_ns != before.st_mtime_ns:
        raise InvalidRequest(f"{path} changes while it is read: try again when it is finished")
    return content


def read_photo(content: bytes, called: str = "the picture", frame: int | None = None) -> Photo:
    """The picture that a file holds, upright and in sRGB; of an animated one that frame, counted from 1.

    `called`: what it is called in errors. Raises InvalidRequest where it is no picture, is damaged, has more pixels
    than `MOST_PIXELS` or a side above `LONGEST_SIDE`, is animated and no frame is asked for, or has no such frame.
    """
    if not content:
        raise InvalidRequest(f"{called} is empty: give a picture")
    try:
        with _opened(content, called) as image:
            check_size(image.size, called)
            _to_frame(image, called, frame)
            return _photo(image)
    except InvalidRequest:
        raise
    except MemoryError:
        raise InvalidRequest(f"{called} is too large to be read here: give a smaller picture") from None
    except Exception as error:  # Decoders have many ways to fail on what is damaged.
        raise InvalidRequest(f"{called} cannot be read as a picture: {error}") from error


def facts_of(content: bytes, called: str = "the picture") -> tuple[str, int, int]:
    """The format of a picture's file, in lower case, its width and its height; nothing is unpacked for that. Raises
    InvalidRequest where it is no picture that is read here."""
    try:
        with _opened(content, called) as image:
            return (image.format or "").lower(), image.width, image.height
    except InvalidRequest:
        raise
    except Exception as error:  # As above.
        raise InvalidRequest(f"{called} cannot be read as a picture: {error}") from error


_ONE = threading.RLock()


@contextmanager
def without_limit() -> Iterator[None]:
    """Within which Pillow opens pictures of any size, in one thread at a time: whoever opens one looks at its size
    before it is unpacked."""
    with _ONE:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(content: bytes, called: str) -> Iterator[Image.Image]:
    """A picture that is not unpacked yet, in one thread at a time: warnings are filtered for the whole process."""
    Image.init()
    kind = _BRANDS.get(content[8:12], "") if content[4:8] == b"ftyp" else ""
    if kind in _PLUGINS:
        with suppress(ImportError, AttributeError):
            module, register, _ = _PLUGINS[kind]
            getattr(import_module(module), register)()
    with _ONE, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of metadata that is damaged, of alpha in palettes.
        with _identified(content, called, kind) as image:
            yield image


def _identified(content: bytes, called: str, kind: str) -> Image.Image:
    known = [each for each in _FORMATS if each in Image.OPEN]
    try:
        with without_limit():
            return Image.open(io.BytesIO(content), formats=known)
    except UnidentifiedImageError:
        if kind in _PLUGINS:
            raise InvalidRequest(
                f"{called} is a {kind} file, which needs {_PLUGINS[kind][2]}: install it, or give a JPEG or PNG"
            ) from None
        raise InvalidRequest(
            f"{called} is no picture that is read here: give PNG, JPEG, WebP, TIFF or such"
        ) from None


def check_size(size: tuple[int, int], called: str) -> None:
    """Raises InvalidRequest for a picture that shows nothing, or is too large to be unpacked."""
    width, height = size
    if not width or not height:
        raise InvalidRequest(f"{called} is of {width}x{height} pixels: give one that shows something")
    if max(size) > LONGEST_SIDE or width * height > MOST_PIXELS:
        raise InvalidRequest(
            f"{called} is of {width:,}x{height:,} pixels: up to {LONGEST_SIDE:,} a side and {MOST_PIXELS // 10**6} "
            "million in all are read, make it smaller first"
        )


def _to_frame(image: Image.Image, called: str, frame: int | None) -> None:
    """Go to a frame. Photographs of telephones hold others beside the one that they are of."""
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    what = "pages" if image.format == "TIFF" else "frames"
    if frame is None and count > 1:
        raise InvalidRequest(
            f"{called} has {count} {what}: say which one is meant, `frame=1` is the first of them"
        )
    if frame is not None and not 1 <= frame <= count:
        raise InvalidRequest(f"frame is {frame}: {called} has {count}")
    if frame is not None and count > 1:
        image.seek(frame - 1)


def photo_of(given: Any, called: str = "the picture") -> Photo:
    """A picture in memory: Pillow's; NumPy's (height, width), (height, width, 1, 3 or 4), of uint8, uint16, bool or
    floats from 0 to 1; torch's (3, height, width), or (1, 3, height, width), from 0 to 1, or from -1 where it is below
    0 anywhere. Raises InvalidRequest for anything else."""
    if isinstance(given, Image.Image):
        check_size(given.size, called)
        try:
            return _photo(given)
        except Exception as error:  # Of a damaged file that is read now.
            raise InvalidRequest(f"{called} cannot be read as a picture: {error}") from error
    array: Any = given
    if hasattr(given, "detach"):
        array = given.detach().cpu().float().numpy()
        array = array[0] if array.ndim == 4 and len(array) == 1 else array
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
        array = (array + 1) / 2 if array.size and array.min() < 0 else array
    if not isinstance(array, np.ndarray):
        raise InvalidRequest(
            f"{called} is a {type(given).__name__}: give a file, its bytes, or Pillow's, NumPy's or torch's picture"
        )
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InvalidRequest(
            f"{called} is an array of {np.shape(given)}: NumPy's are (height, width, 3), torch's (3, height, width)"
        )
    check_size((array.shape[1], array.shape[0]), called)
    levels = _levels(array, called)
    alpha = levels[..., 3] if array.shape[2] == 4 else None
    return Photo(np.repeat(levels, 3, axis=2) if array.shape[2] == 1 else levels[..., :3], _seen(alpha))


def _levels(array: NDArray[Any], called: str) -> Pixels:
    """An array's values as bytes."""
    if array.dtype == np.uint8:
        return array.copy()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _from_16_bits(array)
    if array.dtype.kind != "f":
        raise InvalidRequest(
            f"{called} is an array of {array.dtype}: give uint8, uint16, bool, or floats from 0 to 1"
        )
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise InvalidRequest(
            f"{called} is an array of floats outside 0 to 1: bring them there, or give uint8"
        )
    return (array * 255).round().astype(np.uint8)


def _from_16_bits(array: NDArray[Any]) -> Pixels:
    return (array.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)


def _photo(image: Image.Image) -> Photo:
    """A picture of Pillow's."""
    image.load()
    notes: list[str] = []
    alpha, turn = None, _TURNED.get(_orientation(image))
    if (levels := _deep(image)) is not None:
        alpha = _keyed(image)
        grey = Image.fromarray(levels)
        grey.info = dict(image.info)
        whole = _in_srgb(grey, notes)
    else:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            straight = image.convert("LA") if image.mode == "La" else image
            image, alpha = _parted(straight.convert("RGBA"), image)
        whole = _in_srgb(image, notes)
    if turn is not None:
        whole, alpha = whole.transpose(turn), alpha and alpha.transpose(turn)
    seen = _seen(None if alpha is None else np.array(alpha))
    return Photo(np.array(whole), seen, tuple(notes))


def _parted(whole: Image.Image, before: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The colours and the alpha of a picture in RGBA, with what else is known of it."""
    colours = whole.convert("RGB")
    if before.mode in ("LA", "La", "L"):
        colours = whole.getchannel("R")  # For a profile of greys.
    colours.info = dict(before.info)
    return colours, whole.getchannel("A")


def _deep(image: Image.Image) -> Pixels | None:
    """A grey picture of more than 8 bits as bytes; None for another."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        # Of 16 bits, as PNG and PGM have them; others say by their values of how many.
        most = values.max()
        whole = (
            65535
            if image.format in ("PNG", "PPM") or 255 < most <= 65535
            else 255
            if most <= 255
            else 2**31 - 1
        )
        return (values * (255 / whole)).round().clip(0, 255).astype(np.uint8)
    if image.mode == "F":
        real = np.nan_to_num(np.asarray(image, np.float64))
        return (real * (255 if real.max() <= 1 else 1)).round().clip(0, 255).astype(np.uint8)
    return None


def _keyed(image: Image.Image) -> Image.Image | None:
    """The alpha of a deep grey picture, of which one grey may be transparent."""
    key = image.info.get("transparency")
    return None if not isinstance(key, int) else Image.fromarray(np.uint8(255) * (np.asarray(image) != key))


def _seen(alpha: NDArray[Any] | None) -> Pixels | None:
    """None of an alpha that is opaque everywhere."""
    return None if alpha is None or (alpha == 255).all() else alpha.astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # Damaged EXIF, in as many ways as there are.
        found = image.getexif().get(ExifTags.Base.Orientation)
        return found if isinstance(found, int) else 1
    return 1


def _in_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """A picture's colours in sRGB as their profile says; without one they are that."""
    content = image.info.get("icc_profile")
    if not content and image.mode != "LAB":
        return image.convert("RGB")
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content) if content else ImageCms.createProfile("LAB"))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image.convert("RGB")
        made = ImageCms.profileToProfile(
            _in_space(image, profile.profile.xcolor_space.strip()),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        assert made is not None
        return made
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("the picture's colour profile cannot be used: its colours are taken for sRGB")
        return image.convert("RGB")


def _in_space(image: Image.Image, space: str) -> Image.Image:
    """A picture in the mode that a profile of that colour space is for. Raises ValueError where it has other colours
    than that."""
    mode = _SPACES.get(space, "")
    if image.mode != mode and (mode, image.mode) not in _SAME_COLOURS:
        raise ValueError(f"{image.mode} is not {space}")
    return image if image.mode == mode else image.convert(mode)
