"""What is said of an adapter: in its own header, and in the files that other programs put beside it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import ModelError
from darkroom.numeric import real
from darkroom.weights.opening import weights_at

_MOST_WORDS = 12
_LONGEST = 200
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
INFO = ".civitai.info"
"""What the files of Civitai's helpers end with, which hold its record of a model's version."""
# Then Stability Matrix, the LoRA manager of ComfyUI, and A1111 and Forge.
_BESIDE = (INFO, ".cm-info.json", ".metadata.json", ".json")


@dataclass(frozen=True)
class About:
    """title and base: the adapter's name and the models it is for, as its author says them; triggers: words that a
    prompt is to have; tags: those of the pictures it was trained on, most frequent first; strength: the preferred one;
    preview: a picture that lies beside it."""

    title: str = ""
    base: str = ""
    triggers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    strength: float | None = None
    preview: Path | None = None

    def rows(self) -> list[tuple[str, str]]:
        """What is said, name by name, in words."""
        rows = [("title", self.title), ("base", self.base), ("triggers", ", ".join(self.triggers))]
        rows += [("tags", ", ".join(self.tags)), ("preferred", f"{self.strength:g}" if self.strength else "")]
        rows += [("preview", str(self.preview or ""))]
        return [(name, value) for name, value in rows if value]

    def to_dict(self) -> dict[str, Any]:
        """Plain data of what is said, for JSON."""
        said = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in said.items() if value
        }


def about(path: Path, metadata: Mapping[str, str] | None = None) -> About:
    """What is said of the adapter at a path, a file's or a folder's; `metadata` is that of its header, which is read if
    it is not given. The files beside it, which people edit, go before its header; what makes no sense is nothing
    said."""
    own = _header(path) if metadata is None else metadata
    name = path.name if path.is_dir() else path.stem
    beside = [_read(path.with_name(name + ending)) for ending in _BESIDE]
    civitai = [*beside, *(each["civitai"] for each in beside if isinstance(each.get("civitai"), dict))]
    models = [each["model"] for each in civitai if isinstance(each.get("model"), dict)]
    title = [each.get("name") for each in models]
    title += [each.get("ModelName") or each.get("model_name") for each in beside]
    title.append(own.get("modelspec.title"))
    base = [
        each.get(name) for each in civitai for name in ("baseModel", "BaseModel", "base_model", "sd version")
    ]
    base += [own.get("ss_base_model_version"), own.get("modelspec.architecture")]
    triggers: list[str] = []
    for each in civitai:
        for key in ("trainedWords", "TrainedWords", "activation text"):
            triggers += _texts(each.get(key))
    triggers += _texts(own.get("modelspec.trigger_phrase"))
    strengths = [real(each.get("preferred weight")) for each in beside]
    return About(
        _first(title),
        next((each for text in base for each in _texts(text) if each.lower() != "unknown"), ""),
        tuple(dict.fromkeys(triggers)),
        _tags(own),
        next((each for each in strengths if each and math.isfinite(each)), None),
        _preview(path.with_name(name)),
    )


def _header(path: Path) -> Mapping[str, str]:
    try:
        with weights_at(path) as weights:
            return weights.metadata
    except (ModelError, OSError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first(texts: Iterable[object]) -> str:
    return next((each for text in texts for each in _texts(text)), "")


def _texts(given: object) -> list[str]:
    """A text, or the texts of a list, in one line each and not too long; of anything else nothing."""
    several = given if isinstance(given, list) else [given]
    lines = [one_line(each) for each in several if isinstance(each, str)]
    return [line for line in lines if line]


def one_line(text: str) -> str:
    """Without what no terminal shows: control characters, halves of what is two."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())[:_LONGEST].strip(" ,")


def _tags(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """By how often they were there (kohya's `ss_tag_frequency`)."""
    counts: Counter[str] = Counter()
    try:
        for tags in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({one_line(tag): int(count) for tag, count in tags.items()})
    except (ValueError, OverflowError, AttributeError, TypeError, RecursionError):
        return ()
    return tuple(tag for tag, _ in counts.most_common(_MOST_WORDS) if tag)


def _preview(bare: Path) -> Path | None:
    """A picture that is called as the adapter is; `bare`: its path without an ending."""
    named = [
        bare.with_name(bare.name + middle + ending) for middle in (".preview", "") for ending in _PICTURES
    ]
    return next((each for each in named if each.is_file()), None)
