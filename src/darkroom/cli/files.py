"""Where `generate` puts its pictures."""

from __future__ import annotations

import os
import string
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.errors import InvalidRequest, nearest
from darkroom.generation.picture import FORMATS, Picture
from darkroom.pixels import sheet

_FIELDS = (
    "seed",
    "prompt",
    "index",
    "model",
    "sampler",
    "steps",
    "width",
    "height",
    "guidance",
    "date",
    "time",
)
_SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_LONGEST = 100


class Files:
    """Names and writes pictures into one folder, never over a file that is there."""

    def __init__(self, folder: str, format: str, template: str, metadata: bool) -> None:
        if format == "jpg":
            format = "jpeg"
        if format not in FORMATS:
            raise InvalidRequest(f"unknown picture format {format!r}: {nearest(format, FORMATS)}")
        self.folder = Path(folder)
        self.format = format
        self.template = template
        self.metadata = metadata
        self._check_template()
        self._check_folder()

    def save(self, picture: Picture, index: int, model: str) -> Path:
        request = picture.metadata["request"]
        known: dict[str, Any] = {name: request.get(name, "") for name in _FIELDS}
        known |= {"index": index, "model": model, "prompt": slug(request["prompt"])}
        known |= {"date": time.strftime("%Y-%m-%d"), "time": time.strftime("%H%M%S")}
        path = self._free(self.template.format_map(known))
        return picture.save(path, self.format, self.metadata)

    def save_grid(self, images: list[Image.Image], seed: int) -> Path:
        path = self._free(f"{seed}-grid")
        Picture(sheet(images, gap=8, ground=(24, 24, 27)), seed, {}, "").save(
            path, self.format, metadata=False
        )
        return path

    def _free(self, name: str) -> Path:
        """A path in the folder that no file has yet; the template cannot lead out of the folder."""
        name = name.replace("/", "-").replace("\\", "-").strip(". ")[:_LONGEST] or "picture"
        suffix = _SUFFIX[self.format]
        path, number = self.folder / f"{name}{suffix}", 2
        while path.exists():
            path, number = self.folder / f"{name}-{number}{suffix}", number + 1
        return path

    def _check_template(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise InvalidRequest(f"name template {self.template!r}: {error}") from error
        for _, field, spec, _ in parts:
            if field is not None and (field not in _FIELDS or spec):
                raise InvalidRequest(
                    f"name template {self.template!r}: unknown {{{field}}}, {nearest(field, _FIELDS)}"
                )

    def _check_folder(self) -> None:
        """Find out now, not after the work, that nothing can be written there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or 0)
            raise InvalidRequest(
                f"cannot write to the folder {self.folder}: {reason}; choose another --output"
            ) from error


def slug(prompt: str, longest: int = 60) -> str:
    """A prompt as part of a file name: letters and digits of any script, single dashes."""
    kept = "".join(c if c.isalnum() else "-" for c in prompt.lower())
    words = [word for word in kept.split("-") if word]
    name = ""
    for word in words:
        if len(name) + len(word) >= longest:
            break
        name = f"{name}-{word}" if name else word
    # File systems count bytes: 255 of them for a name.
    return (name or "-".join(words)[:longest] or "picture").encode()[:180].decode(errors="ignore")
