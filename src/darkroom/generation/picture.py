"""A finished picture: its pixels and everything needed to make it again."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from darkroom.errors import DarkroomError, InvalidRequest, nearest
from darkroom.files import as_json, expanded, write_bytes
from darkroom.generation.edits import taken_over
from darkroom.generation.request import Request
from darkroom.photos import MOST_PIXELS, check_size, without_limit

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.generation.attention import AttentionMaps


class MadeElsewhere(InvalidRequest):
    """A picture without Darkroom's metadata."""


FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
QUALITY = 95
"""Of JPEG and WebP files, where nothing else is asked for."""
_SUFFIXES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
"""Of a picture in pixels, in the formats that have a limit which is met (libjpeg's, WebP's)."""
_KEY = "darkroom"
_SHOWN = 60  # Characters of a prompt.
_MOST_EXIF = 65_000
"""How many bytes of EXIF a JPEG file has room for, with some to spare for notes on what happened meanwhile."""


@dataclass(frozen=True, repr=False)
class Picture:
    """`image`: RGB, or RGBA of what is transparent in part, 8 bits. `metadata`: plain data (request, model and its
    hashes, numerics, notes). `parameters`: the same for people and for A1111's tools. `index`: its place among those
    asked for together. `latents`: what it was decoded from, before its details, (1, C, h, w) float32 on the CPU;
    `attention`: where the words of its prompt were read, if that was asked for. No file holds these. `texts`: what
    other programs said of the picture that it was made of, by their names for it, which PNG files keep."""

    image: Image.Image
    seed: int
    metadata: dict[str, Any]
    parameters: str
    index: int = 0
    latents: Tensor | None = field(default=None, compare=False)
    attention: AttentionMaps | None = field(default=None, compare=False)
    texts: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        prompt = str((self.metadata.get("request") or {}).get("prompt", ""))
        shown = prompt if len(prompt) <= _SHOWN else f"{prompt[: _SHOWN - 3]}..."
        return f"<Picture {self.image.width}x{self.image.height}, seed {self.seed}: {shown!r}>"

    def _repr_png_(self) -> bytes:
        """How notebooks show it."""
        return self.encoded()

    def show(self) -> None:
        """Show it in the notebook that this runs in, else in the machine's program for pictures. Raises DarkroomError
        where there is none."""
        from PIL import ImageShow

        if (notebook := sys.modules.get("IPython")) and hasattr(notebook.get_ipython(), "kernel"):
            notebook.display.display(self)
        elif not ImageShow.show(self.image, f"seed {self.seed}"):
            raise DarkroomError(
                "there is no program here that shows pictures: write it to a file with save()"
            )

    def save(
        self, path: str | Path, format: str | None = None, metadata: bool = True, new: bool = False
    ) -> Path:
        """Write a PNG, JPEG or WebP file, whole or not at all, in place of one that is there unless it is to be `new`.
        The format is taken from the suffix."""
        path = expanded(path)
        content = self.encoded(format or format_of(path), metadata)
        write_bytes(path, content, new=new)
        return path

    def encoded(self, format: str = "png", metadata: bool = True, quality: int = QUALITY) -> bytes:
        """The bytes of the picture's file. Only PNG keeps every pixel as it is; `quality`, 1 to 100, is how closely the
        others do."""
        format = canonical_format(format)
        most = LONGEST_SIDE.get(format)
        if most is not None and max(self.image.size) > most:
            raise InvalidRequest(
                f"a picture of {self.image.width}x{self.image.height} is larger than {FORMATS[format]} files can be "
                f"({most:,} a side): write PNG"
            )
        if format == "jpeg" and self.image.mode == "RGBA":
            raise InvalidRequest(
                "the picture is transparent in places, which JPEG files cannot be: write PNG or WebP"
            )
        options: dict[str, Any] = {}
        if format == "png" and metadata:
            options["pnginfo"] = self._png_text()
        elif format != "png":
            options["quality"] = quality
            if metadata:
                options["exif"] = self._exif()
        content = io.BytesIO()
        self.image.save(content, FORMATS[format], **options)
        return content.getvalue()

    def _png_text(self) -> PngImagePlugin.PngInfo:
        """In tEXt chunks where Latin-1 holds it, which all programs read, else in iTXt."""
        text = PngImagePlugin.PngInfo()
        if self.parameters:
            text.add_text("parameters", _encodable(self.parameters))
        text.add_itxt(_KEY, as_json(self.metadata))
        for name, said in self.texts.items():
            text.add_text(name, _encodable(said))
        return text

    def _exif(self) -> Image.Exif:
        """A1111 keeps its text in UserComment; ours, which says the same and more, goes to ImageDescription. Where
        there is no room for both, A1111's is left out. Raises InvalidRequest where there is none for ours."""
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = as_json({_KEY: self.metadata}).encode()
        if len(exif.tobytes()) > _MOST_EXIF:
            raise InvalidRequest(
                f"the request is too long for the metadata of a JPEG or WebP file ({_MOST_EXIF:,} bytes): "
                'write PNG (`format="png"`), or leave it out (`metadata=False`)'
            )
        both = Image.Exif()
        both[ExifTags.Base.ImageDescription] = exif[ExifTags.Base.ImageDescription]
        comment = b"UNICODE\0" + _encodable(self.parameters).encode("utf-16-be")
        both.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        return both if self.parameters and len(both.tobytes()) <= _MOST_EXIF else exif


def _encodable(text: str) -> str:
    """A text with a mark in place of what is none: bytes of a file's name."""
    return text.encode("utf-8", "replace").decode()


def canonical_format(name: str) -> str:
    """A picture format, in any spelling, by the name that it has here. Raises InvalidRequest for another."""
    plain = str(name).strip().lower().removeprefix(".")
    if plain not in _SUFFIXES:
        raise InvalidRequest(f"unknown picture format {name!r}: {nearest(plain, FORMATS)}")
    return _SUFFIXES[plain]


def format_of(path: Path) -> str:
    """The format a file's suffix names."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in _SUFFIXES:
        raise InvalidRequest(
            f"unknown picture format {path.suffix!r} of {path.name}: use {', '.join(FORMATS)}"
        )
    return _SUFFIXES[suffix]


def open_picture(path: str | Path) -> tuple[Image.Image, dict[str, Any]]:
    """A picture file as RGB, or RGBA where it may be transparent, and the metadata Darkroom left in it.

    Raises InvalidRequest where the file is no picture, MadeElsewhere where it is none of Darkroom's.
    """
    with _opened(path) as image:
        found = _metadata(image, path)
        return _pixels(image, path), found


def pixels_of(path: str | Path) -> Image.Image:
    """A picture file as RGB, or RGBA where it may be transparent, whoever made it. Raises InvalidRequest where the file
    is no picture."""
    with _opened(path) as image:
        return _pixels(image, path)


def _pixels(image: Image.Image, path: str | Path) -> Image.Image:
    check_size(image.size, str(path))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def after_of(path: str | Path) -> list[Any]:
    """What Darkroom did with the picture in a file by other means than a model (see `made_from`), whoever drew it.
    Raises InvalidRequest where the file is no picture."""
    with _opened(path) as image:
        return list(_said(image).get("after", ()))


def metadata_of(path: str | Path) -> dict[str, Any]:
    """The metadata Darkroom left in a picture file of any size. Raises as `open_picture`."""
    with _opened(path) as image:
        return _metadata(image, path)


def made_by(given: object) -> Request | None:
    """The request that Darkroom made a picture by, as it stands in its file, its bytes, what Pillow opened of them, or
    a `Picture`; None where it does not, or there is no picture. Raises InvalidRequest for one that is no request."""
    said = _said_within(given)
    return Request.from_dict(said["request"]).checked() if "request" in said else None


def edit_of(
    image: object, prompt: str | None, like: object, refined: bool, usual: str | None = None
) -> Request:
    """What an edit of a picture is to be, but for the picture: of the recipe in the one that it is to be `like`, or of
    such a request, and of a prompt. `refined`: the model has a refiner; `usual`: the prompt where there is no other.
    Raises InvalidRequest where there is no recipe in a picture other than `image`, and where there is no prompt."""
    recipe = like if isinstance(like, Request) else made_by(like)
    if recipe is None and not (like is image or like is False):
        raise InvalidRequest(
            "like is a picture that does not say how it was made: give another, or a request"
        )
    if recipe is not None and not refined:
        recipe = recipe.replace(refiner_switch=None)
    given = {} if recipe is None else taken_over(recipe)
    if prompt is not None:
        given["prompt"] = prompt
    if usual is not None:
        given.setdefault("prompt", usual)
    if "prompt" not in given:
        raise InvalidRequest("no prompt: say what the picture is to become, no file says how it was made")
    return Request(**given)


def made_from(given: object, image: Image.Image, after: Mapping[str, Any], words: str) -> Picture:
    """A picture made of another by other means than a model, with all that the other says of itself. `after`: what was
    done with it, as its metadata says it; `words`: the same as A1111 does. Its seed is 0 where none is known."""
    metadata, texts = {**_said_within(given)}, _texts_within(given)
    known = texts.pop("parameters", "") or texts.pop("comment", "")
    metadata["after"] = [*metadata.get("after", ()), dict(after)]
    said = ", ".join(filter(None, (texts.get("postprocessing"), words)))
    request = metadata.get("request")
    seed = request.get("seed") if isinstance(request, dict) else None
    texts["postprocessing"] = said
    return Picture(image, seed if isinstance(seed, int) else 0, metadata, known, texts=texts)


_MOST_TEXT = 1 << 22  # Of a text that is kept, in characters: ComfyUI's graphs are long.
_KEPT = {
    *("parameters", "comment", "postprocessing", "extras", "prompt", "workflow"),
    *("invokeai_metadata", "invokeai_graph", "invokeai_workflow", "sd-metadata", "dream"),
    *("title", "description", "software", "source"),
}
"""The texts of a picture that say how it was made, in lower case: A1111's, ComfyUI's, InvokeAI's, NovelAI's. What
cameras and other programs leave, places among it, is not kept."""


def _texts_within(given: object) -> dict[str, str]:
    """What a picture says of itself but for Darkroom's own metadata, as `texts_of` finds it; nothing of one that was
    never in a file."""
    found: dict[str, str] = {}
    if isinstance(given, Picture):
        return {**given.texts, "parameters": given.parameters}
    with suppress(InvalidRequest):
        if isinstance(given, Image.Image):
            found = {str(key): text for key, text in given.info.items() if isinstance(text, str)}
        elif isinstance(given, bytes | bytearray):
            found = texts_of(io.BytesIO(given), ())[1]
        elif isinstance(given, str | Path):
            found = texts_of(expanded(given), ())[1]
    return {
        key: text for key, text in found.items() if text and key.lower() in _KEPT and len(text) <= _MOST_TEXT
    }


def _said_within(given: object) -> dict[str, Any]:
    """What Darkroom says of a picture, in whatever form that is; nothing of what is none."""
    if isinstance(given, Picture):
        return given.metadata
    if isinstance(given, Image.Image):
        return _said(given)
    file = io.BytesIO(given) if isinstance(given, bytes | bytearray) else given
    if isinstance(file, str | Path):
        file = expanded(file)
    elif not isinstance(file, io.BytesIO):
        return {}
    with suppress(InvalidRequest), _opened(file) as image:
        return _said(image)
    return {}


def texts_of(
    path: str | Path | io.BytesIO, wanted: Collection[str]
) -> tuple[tuple[int, int], dict[str, str]]:
    """The size of a picture file and the texts in it that programs keep their settings in, by their keys: PNG's chunks,
    "key:text" in EXIF's tags as ComfyUI writes WebP, and as `comment` EXIF's UserComment or a GIF's or JPEG's own. What
    stands behind the pixels of a PNG is read where none of the `wanted` keys are before them. Raises InvalidRequest
    where the file is no picture."""
    with _opened(path) as image:
        found = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
        exif = _exif_of(image)
        for said in exif.values():
            key, colon, text = said.partition(":") if isinstance(said, str) else ("", "", "")
            if colon and key.isidentifier():
                found.setdefault(key.lower(), text)
        own = image.info.get("comment")
        comment = _commented(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment))
        found["comment"] = comment or (own.decode("utf-8", "replace") if isinstance(own, bytes) else "")
        if not found.keys() & {*wanted}:
            found |= _behind(image)
        return image.size, found


def _behind(image: Image.Image) -> dict[str, str]:
    """The texts of a PNG file, those behind its pixels, too: to come there these are unpacked. Nothing of another, nor
    of one that is too large for that."""
    if not isinstance(image, PngImagePlugin.PngImageFile) or _too_large(image):
        return {}
    return {key: str(text) for key, text in image.text.items()}


def _exif_of(image: Image.Image) -> Image.Exif:
    """A picture's EXIF; nothing of a PNG file that is too large for that which may stand behind its pixels."""
    behind = isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info
    return Image.Exif() if behind and _too_large(image) else image.getexif()


def _too_large(image: Image.Image) -> bool:
    return image.width * image.height > MOST_PIXELS


def _commented(comment: object) -> str:
    """A UserComment: eight bytes that say how the text behind them is encoded."""
    if not isinstance(comment, bytes):
        return comment if isinstance(comment, str) else ""
    kind, text = comment[:8], comment[8:]
    if not kind.startswith(b"UNICODE"):
        return (text if kind.strip(b"\0") in (b"", b"ASCII", b"JIS") else comment).decode("utf-8", "replace")
    if text[:2] in (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE):
        return text.decode("utf-16", "replace")
    # In the byte order of the file or not, as the program that wrote it took the standard: most signs are Latin.
    little = text[1::2].count(0) > text[::2].count(0)
    return text.decode("utf-16-le" if little else "utf-16-be", "replace")


@contextmanager
def _opened(path: str | Path | io.BytesIO) -> Iterator[Image.Image]:
    try:
        # Sheets may be larger than Pillow believes of an honest file; nothing is unpacked by opening one.
        with without_limit():
            image = Image.open(path)
        with image:
            yield image
    except FileNotFoundError:
        raise InvalidRequest(f"no file {path}") from None
    except InvalidRequest:
        raise
    except MemoryError:
        raise InvalidRequest(f"{path} is too large to be read as a picture") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, NotImplementedError) as error:
        raise InvalidRequest(f"cannot read {path} as a picture: {error}") from error


def _metadata(image: Image.Image, path: str | Path) -> dict[str, Any]:
    found = _said(image)
    if "request" not in found:
        raise MadeElsewhere(f"{path} holds no Darkroom metadata: it was made elsewhere, or saved without it")
    return found


def _said(image: Image.Image) -> dict[str, Any]:
    """What Darkroom said of a picture: by which request it was made, what was done with it after; nothing of one that
    it has not seen."""
    raw = image.info.get(_KEY)
    if raw is None:
        raw = _behind(image).get(_KEY)  # Some programs write it there.
    if raw is None:
        raw = _exif_of(image).get(ExifTags.Base.ImageDescription)
        if isinstance(raw, str):  # Pillow takes the bytes for Latin-1.
            with suppress(UnicodeError):
                raw = raw.encode("latin-1").decode()
    try:
        found = json.loads(raw) if raw else None
    except (TypeError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        found = found.get(_KEY, found) if isinstance(found.get(_KEY), dict) else found
    if not isinstance(found, dict) or not found.keys() & {"request", "after"}:
        return {}
    if not isinstance(found.get("after", []), list):
        del found["after"]
    request, numerics = found.get("request"), found.get("numerics")
    then = numerics.get("version") if isinstance(numerics, dict) else None
    if isinstance(request, dict):
        _meant(request, then if isinstance(then, int) else None)
    return found


def _meant(request: dict[str, Any], numerics: int | None) -> None:
    """Have a request say what it meant to the version of the numerics that its picture is of."""
    if numerics is not None and numerics < 5:
        request.setdefault("upscaler", "lanczos")  # There was no choice yet.
    canvas, edit = request.get("canvas"), request.get("edit")
    if numerics == 5 and isinstance(canvas, dict) and isinstance(edit, dict) and edit.get("strength") != 1:
        canvas["upscaler"] = "lanczos"  # It was for what is drawn, not for pictures that are given.
    inpaint = request.get("inpaint")
    alone = isinstance(inpaint, dict) and inpaint.get("only_masked")
    if numerics is not None and numerics < 7 and isinstance(canvas, dict) and alone:
        canvas["upscaler"] = "lanczos"  # It was for whole pictures.
    if "version" not in request:
        request["version"] = 1
        if numerics in (1, 2):
            request.setdefault("compose", "own")
