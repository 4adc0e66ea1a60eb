"""Files that other programs' pictures name, as they are found here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import DarkroomError, ModelError
from darkroom.library.installed import installed
from darkroom.library.locate import locate
from darkroom.library.records import Library
from darkroom.recipes.plain import shown
from darkroom.weights.hashes import autov3, sha256
from darkroom.weights.names import SUFFIXES

_FEWEST_DIGITS = 8
_DIGITS = re.compile("[0-9a-f]{1,64}")
_TITLE = re.compile(r"^(.*?)\s*\[([0-9a-fA-F]{8,64})\]$")


@dataclass(frozen=True)
class Named:
    """A file as a picture names it, and the first digits of its hash where they are told: of its SHA-256, of a LoRA
    AutoV3's, in old pictures eight digits of A1111's first hash."""

    name: str
    digits: str = ""

    def __str__(self) -> str:
        name = shown(self.name)
        return f"{name} [{self.digits}]" if name and self.digits else name or f"[{self.digits}]"

    @classmethod
    def of(cls, text: str, digits: str = "") -> Named:
        """Of a title as A1111 writes it: "name [digits]", "folder/name.safetensors"."""
        if match := _TITLE.match(text.strip()):
            text, digits = match[1], match[2]
        digits = digits.strip().lower()
        return cls(text.strip(), digits if _DIGITS.fullmatch(digits) else "")

    @property
    def names(self) -> list[str]:
        """What it may be called here: as it is named, without its folder, without its ending."""
        own = self.name.replace("\\", "/").rpartition("/")[2]
        plain = next((own[: -len(end)] for end in SUFFIXES if own.lower().endswith(end)), own)
        return [each for each in dict.fromkeys([self.name, own, plain]) if each]


def here(named: Named, kind: str, *others: str) -> str | None:
    """What a picture names, by its hash or its name, as the library or a folder of models has it; None where it is not
    here. What a picture says is never taken for a path: it comes from anywhere."""
    kinds, library = (kind, *others), Library.read()
    for text in [*([named.digits] if len(named.digits) >= _FEWEST_DIGITS else []), *named.names]:
        if any(text in installed(each) for each in kinds):
            return text
        for each in kinds:
            try:
                found = library.match(text, each)
            except ModelError:
                continue  # Of several.
            if found is not None and found[1].path.exists():
                return text
    return None


def other_file(named: Named, found: str, kind: str) -> str:
    """Why what was found by its name is not what the picture names: its hash is another. "" where it may be."""
    if not named.digits:
        return ""
    try:
        path = locate(found, kind)
        files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
        known = [digits for file in files for digits in _digits(file)]
    except (DarkroomError, OSError):
        return ""
    if not known or any(each.startswith(named.digits) or named.digits.startswith(each) for each in known):
        return ""
    if path.is_file():
        return f"the file here called so is another one, {known[0][:10]}"
    return "whether the folder here called so holds the same cannot be told"


def _digits(path: Path) -> list[str]:
    """The hashes that go by a file."""
    return [each for each in (sha256(path), autov3(path), _first_hash(path)) if each]


def _first_hash(path: Path) -> str:
    """A1111's hash of before 2023: eight digits of the SHA-256 of 64 KiB after the first MiB."""
    with path.open("rb") as file:
        file.seek(1 << 20)
        return hashlib.sha256(file.read(1 << 16)).hexdigest()[:8]
