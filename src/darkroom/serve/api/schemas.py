"""What requests may say, as OpenAPI describes it: drawn from the settings themselves, which check what comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from darkroom.generation.request import SETTINGS
from darkroom.serve.intake import OPTIONS, PICTURES, UPSCALING

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_PICTURE: dict[str, Any] = {
    "oneOf": [
        {
            "type": "string",
            "description": "the bytes of its file in base64, with or without data:...;base64,",
        },
        {
            "type": "object",
            "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            "required": ["sha256"],
            "additionalProperties": False,
        },
    ]
}
_EXAMPLES = {
    "a picture": {"value": {"prompt": "a red boat on a calm sea", "steps": 20, "seed": 7}},
    "an edit": {
        "value": {"kind": "edit", "image": {"sha256": "0" * 64}, "prompt": "a blue boat", "strength": 0.6}
    },
    "a larger picture": {"value": {"kind": "upscale", "image": {"sha256": "0" * 64}, "by": 4}},
}


def _schema(name: str, each: Field[Any]) -> dict[str, Any]:
    """Of a setting: its type, its words and its help."""
    found: dict[str, Any] = {"description": each.metadata.get("help", "")}
    if name in PICTURES:
        return found | _PICTURE
    words = str(each.type).split(" | ")
    empty = each.default is None
    if choices := each.metadata.get("choices"):
        return found | {"enum": [*choices, *([None] if empty else [])]}
    if words[0].startswith("tuple["):
        return found | {"type": "array", "items": {} if "Any" in words[0] else {"type": "string"}}
    types = [_TYPES[word] for word in words if word in _TYPES]
    return found | ({"type": [*types, *(["null"] if empty else [])]} if types else {})


def job_body() -> dict[str, Any]:
    """The body of a new job, for `openapi_extra`: options and settings side by side."""
    settings: Mapping[str, Field[Any]] = {**SETTINGS, **UPSCALING, **OPTIONS}
    schema = {
        "type": "object",
        "title": "NewJob",
        "description": "What is to be made. Settings are those of docs/requests.md; of an upscaling image, upscaler, "
        "by, width and height.",
        "properties": {name: _schema(name, each) for name, each in settings.items()},
    }
    content = {"application/json": {"schema": schema, "examples": _EXAMPLES}}
    return {"requestBody": {"required": True, "content": content}}


def picture_body() -> dict[str, Any]:
    """The body of an upload: the file of a picture."""
    schema = {"type": "string", "format": "binary"}
    kinds = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}
