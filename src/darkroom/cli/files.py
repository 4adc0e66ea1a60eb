"""Where `generate` puts its pictures."""

from __future__ import annotations

import math
import os
import re
import string
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

import regex
from PIL import Image

from darkroom.cli.arguments import USUAL_NAME, Saving
from darkroom.errors import InvalidRequest, nearest
from darkroom.files import as_json, expanded, shortened, write_numbered
from darkroom.generation.picture import FORMATS, LONGEST_SIDE, Picture, canonical_format, format_of
from darkroom.generation.request import Request
from darkroom.photos import SUFFIXES
from darkroom.pixels import sheet

_FIELDS = (
    "seed",
    "prompt",
    "index",
    "image",
    "model",
    "sampler",
    "steps",
    "width",
    "height",
    "guidance",
    "date",
    "time",
)
_GAP = 8
_SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_LONGEST = 180
"""How many bytes a name has at most, of the 255 that file systems take: a number and a suffix follow."""
_LONGEST_PATH = 3500  # Of 4096 bytes.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
"""Names that are devices on Windows, whatever suffix follows."""
_SAMPLE = Request("a", seed=1, sampler="euler", steps=1, width=64, height=64, guidance=1.0)


class Files:
    """Names and writes pictures into one folder, never over a file that is there."""

    def __init__(self, folder: str, format: str, template: str, metadata: bool) -> None:
        self.format = canonical_format(format)
        self.folder = expanded(folder)
        if len(os.fsencode(self.folder)) > _LONGEST_PATH - 2 * _LONGEST:
            raise InvalidRequest(
                f"the folder {str(self.folder)[:40]}... has too long a path: choose another --output"
            )
        self.template = template
        self.metadata = metadata
        self._check_template()
        check_folder(self.folder)

    @classmethod
    def of(cls, saving: Saving, usual: str = USUAL_NAME) -> Files:
        """What a command line says: `output` is the folder, or the file of a picture, which says its own
        format and name; `usual` names pictures where nothing else does. Raises InvalidRequest where another option says
        another."""
        output, format, name = saving.output, saving.format, saving.name
        if (file := picture_file(output)) is None:
            return cls(output, format or "png", name or usual, saving.metadata)
        own = format_of(file)
        if format is not None and canonical_format(format) != own:
            raise InvalidRequest(
                f"--output {output} is a {FORMATS[own]} file, --format is {format}: leave one out"
            )
        if name is not None:
            raise InvalidRequest(f"--output {output} names the file, so does --name {name}: leave one out")
        return cls(str(file.parent), own, file.stem.replace("{", "{{").replace("}", "}}"), saving.metadata)

    @property
    def limited(self) -> bool:
        """Whether the files may have no room for what they are to say."""
        return self.metadata and self.format != "png"

    def check(self, metadata: dict[str, Any], parameters: str) -> None:
        """Find out now, not after the work, that a `limited` format has no room for what a picture's file is to say.
        Raises InvalidRequest."""
        Picture(Image.new("RGB", (8, 8)), 0, metadata, parameters).encoded(self.format)

    def check_grid(self, count: int, width: int, height: int) -> None:
        """Find out now that the format has no room for a sheet of so many pictures of that size at most."""
        columns = math.ceil(math.sqrt(count))
        side = max(columns * (width + _GAP), math.ceil(count / columns) * (height + _GAP)) + _GAP
        most = LONGEST_SIDE.get(self.format)
        if most is not None and side > most:
            raise InvalidRequest(
                f"the sheet of {count} pictures would be {side:,} pixels wide or high, {FORMATS[self.format]} files "
                f"have {most:,} at most: write PNG (--format png), or leave out --grid"
            )

    def save(self, picture: Picture, index: int, model: str) -> Path:
        """Write a picture under the first of its names that is free, also of other processes."""
        name = self.template.format_map(
            self._known(Request.from_dict(picture.metadata["request"]), index, model)
        )
        return self.write(picture, name)

    def save_grid(self, images: list[Image.Image], seed: int) -> Path:
        return self.write_sheet(sheet(images, gap=_GAP, ground=(24, 24, 27)), f"{seed}-grid")

    def write_sheet(self, whole: Image.Image, name: str) -> Path:
        """Write a sheet of pictures under a name, or the first like it that is free."""
        return self.write(Picture(whole, 0, {}, ""), name, metadata=False)

    def _known(self, request: Request, index: int, model: str) -> dict[str, Any]:
        known = request.flat() | {"index": index, "model": _plain(model), "prompt": slug(request.prompt)}
        began = request.edit.image
        known["image"] = _plain(Path((began and began.path) or "").stem)
        return known | {"date": time.strftime("%Y-%m-%d"), "time": time.strftime("%H%M%S")}

    def write(self, picture: Picture, name: str, metadata: bool | None = None) -> Path:
        """Write a picture under a name, or the first like it that is free; with its metadata as these files have
        them, or as it is said."""
        own = self.metadata if metadata is None else metadata
        return write_numbered(self._path(name), picture.encoded(self.format, own))

    def _path(self, name: str) -> Path:
        """Where a picture of that name belongs. A / makes a folder, and no template leads out of the folder of them
        all."""
        parts = [_plain(part) for part in name.replace("\\", "/").split("/")]
        *folders, own = [part for part in parts if part] or ["picture"]
        return self.folder.joinpath(*folders) / f"{own}{_SUFFIX[self.format]}"

    def _check_template(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise InvalidRequest(f"name template {self.template!r}: {error}") from error
        for _, field, spec, _ in parts:
            if spec and re.fullmatch(r"[<>=^+ ]?0?\d{0,2}(\.\d{1,2})?[dfgeEGs%]?", spec) is None:
                raise InvalidRequest(
                    f"name template {self.template!r}: {spec!r} is no form for a name; numbers take {{index:03}}"
                )
            if field is not None and field not in _FIELDS:
                raise InvalidRequest(
                    f"name template {self.template!r}: unknown {{{field}}}, {nearest(field, _FIELDS)}"
                )
        try:
            name = self.template.format_map(self._known(_SAMPLE, 0, "model"))
            if len(os.fsencode(self._path(name))) > _LONGEST_PATH:
                raise ValueError("it leads too deep")
        except UnicodeEncodeError:
            raise  # The folder's name, of which the template knows nothing.
        except (ValueError, TypeError) as error:
            raise InvalidRequest(
                f"name template {self.template!r}: {error}; numbers take forms such as {{index:03}}"
            ) from error

    def check_place(self, request: Request, model: str) -> None:
        """Find out now that the folder which the template makes for a request's first picture cannot be written to."""
        path = self._path(self.template.format_map(self._known(request, 0, model)))
        there = next(folder for folder in path.parents if os.path.lexists(folder))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "may not be written to" if there.is_dir() else "is a file"
            raise InvalidRequest(f"cannot write {path}: {there} {what}; choose another --output or --name")


def told(path: Path, picture: Picture, in_json: bool) -> str:
    """The line that tells a picture's file."""
    return (
        as_json({"path": str(path), "seed": picture.seed, "metadata": picture.metadata})
        if in_json
        else str(path)
    )


def picture_file(output: str) -> Path | None:
    """The file of a picture, where that is what is named; None for a folder. Raises InvalidRequest for a picture in a
    format that Darkroom does not write."""
    path = expanded(output)
    if output.endswith(("/", os.sep)) or os.path.isdir(path) or path.suffix.lower() not in SUFFIXES:
        return None
    format_of(path)
    return path


def check_folder(folder: Path) -> None:
    """Find out now, not after the work, that nothing can be written to a folder. Raises InvalidRequest."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except UnicodeEncodeError:
        raise  # `main` tells of it.
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, ValueError) else error.strerror or os.strerror(error.errno or 0)
        shown = repr(str(folder)) if isinstance(error, ValueError) else folder
        raise InvalidRequest(
            f"cannot write to the folder {shown}: {reason}; choose another --output"
        ) from error


def _plain(part: str) -> str:
    """One part of a path as a name that every system bears, and that no program takes for an option."""
    part = _written(part)
    kept = "".join("-" if sign in '<>:"|?*/\\' or not _shows(sign) else sign for sign in part)
    name = shortened(kept.strip(". "), _LONGEST).strip(". ").lstrip("-")
    return _RESERVED.sub(r"\1_", name, count=1) if _RESERVED.match(name) else name


def _written(text: str) -> str:
    """What of a text the encoding of file names here has signs for; letters without their marks, if need be."""
    coding = sys.getfilesystemencoding()
    try:
        os.fsencode(text)
        return text
    except UnicodeEncodeError:
        return unicodedata.normalize("NFKD", text).encode(coding, "ignore").decode(coding)


def _shows(sign: str) -> bool:
    """Whether it is a sign of a text, or a byte of a file's name that is none."""
    return sign.isprintable() or 0xDC80 <= ord(sign) <= 0xDCFF


def slug(prompt: str, longest: int = 60) -> str:
    """A prompt as part of a file name: letters and digits of any script with their marks, single dashes."""
    text = _written(unicodedata.normalize("NFC", prompt.lower()))
    words = regex.findall(r"[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}]|[\u200c\u200d](?=[\p{L}\p{M}]))*", text)
    name = ""
    for word in words:
        if len(name) + len(word) >= longest:
            break
        name = f"{name}-{word}" if name else word
    whole = name or "".join(regex.findall(r"\X", "-".join(words))[:longest])
    return shortened(whole, _LONGEST) or "picture"
