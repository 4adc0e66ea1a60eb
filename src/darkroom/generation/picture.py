"""A finished picture: its pixels and everything needed to make it again."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from darkroom.errors import InvalidRequest, nearest
from darkroom.files import write_bytes

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_SUFFIXES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
_KEY = "darkroom"


@dataclass(frozen=True)
class Picture:
    """`image`: RGB, 8 bits. `metadata`: plain data (request, model and its hashes, numerics, notes).
    `parameters`: the same for people and for A1111's tools."""

    image: Image.Image
    seed: int
    metadata: dict[str, Any]
    parameters: str

    def save(self, path: str | Path, format: str | None = None, metadata: bool = True) -> Path:
        """Write a PNG, JPEG or WebP file, whole or not at all. The format is taken from the suffix."""
        path = Path(path)
        content = self.encoded(format or format_of(path), metadata)
        write_bytes(path, content)
        return path

    def encoded(self, format: str = "png", metadata: bool = True) -> bytes:
        """The bytes of the picture's file. Only PNG keeps every pixel as it is."""
        if format not in FORMATS:
            raise InvalidRequest(f"unknown picture format {format!r}: {nearest(format, FORMATS)}")
        options: dict[str, Any] = {}
        if format == "png" and metadata:
            options["pnginfo"] = self._png_text()
        elif format != "png":
            options["quality"] = 95
            if metadata:
                options["exif"] = self._exif()
        content = io.BytesIO()
        self.image.save(content, FORMATS[format], **options)
        return content.getvalue()

    def _png_text(self) -> PngImagePlugin.PngInfo:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("parameters", self.parameters)
        text.add_itxt(_KEY, json.dumps(self.metadata, ensure_ascii=False))
        return text

    def _exif(self) -> Image.Exif:
        """A1111 keeps its text in UserComment; ours goes to ImageDescription."""
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = json.dumps({_KEY: self.metadata})
        comment = b"UNICODE\0" + self.parameters.encode("utf-16-be")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        return exif


def format_of(path: Path) -> str:
    """The format a file's suffix names."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in _SUFFIXES:
        raise InvalidRequest(
            f"unknown picture format {path.suffix!r} of {path.name}: use {', '.join(FORMATS)}"
        )
    return _SUFFIXES[suffix]


def open_picture(path: str | Path) -> tuple[Image.Image, dict[str, Any]]:
    """A picture file as RGB, and the metadata Darkroom left in it.

    Raises InvalidRequest where the file is no picture or none of Darkroom's.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        raise InvalidRequest(f"no file {path}") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise InvalidRequest(f"cannot read {path} as a picture: {error}") from error
    raw = getattr(image, "text", {}).get(_KEY)
    if raw is None:
        raw = image.getexif().get(ExifTags.Base.ImageDescription)
    try:
        found = json.loads(raw) if raw else None
    except ValueError:
        found = None
    if isinstance(found, dict):
        found = found.get(_KEY, found) if isinstance(found.get(_KEY), dict) else found
    if not isinstance(found, dict) or "request" not in found:
        raise InvalidRequest(f"{path} holds no Darkroom metadata: it was made elsewhere, or saved without it")
    return image.convert("RGB"), found
