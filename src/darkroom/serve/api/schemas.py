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


def _job() -> dict[str, Any]:
    settings: Mapping[str, Field[Any]] = {**SETTINGS, **UPSCALING, **OPTIONS}
    return {
        "type": "object",
        "title": "NewJob",
        "description": "What is to be made. Settings are those of docs/requests.md; of an upscaling image, upscaler, "
        "by, width and height.",
        "properties": {name: _schema(name, each) for name, each in settings.items()},
    }


def job_body() -> dict[str, Any]:
    """The body of a new job, for `openapi_extra`: options and settings side by side."""
    content = {"application/json": {"schema": _job(), "examples": _EXAMPLES}}
    return {"requestBody": {"required": True, "content": content}}


def batch_body() -> dict[str, Any]:
    """The body of a new batch."""
    each = {"oneOf": [{"type": "object", "description": "as POST /v1/jobs takes it"}, {"type": "string"}]}
    schema = {
        "type": "object",
        "title": "NewBatch",
        "properties": {
            "requests": {"type": "array", "items": each, "minItems": 1},
            "defaults": {"type": "object", "description": "of all of them, where they say nothing else"},
        },
        "required": ["requests"],
    }
    lines = {"schema": {"type": "string"}}
    content = {"application/json": {"schema": schema}, "application/jsonl": lines, "text/plain": lines}
    return {"requestBody": {"required": True, "content": content}}


def _said(type: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": type, "description": description, **more}


OPENAI: Mapping[str, dict[str, Any]] = {
    "prompt": _said("string", "what the picture shows"),
    "model": _said("string", "a model by its name; OpenAI's own names stand for the usual one"),
    "n": _said("integer", "how many pictures", minimum=1, maximum=10),
    "size": _said("string", "WIDTHxHEIGHT, or auto: what the model prefers, or as the picture is"),
    "quality": _said(
        "string", "how many steps: low, medium, high, xhigh or max; auto: the model's own number"
    ),
    "style": _said("string", "vivid: the model's own guidance; natural: less of it"),
    "background": _said("string", "opaque or auto"),
    "output_format": _said("string", "png, jpeg or webp"),
    "output_compression": _said("integer", "how good jpeg and webp are", minimum=0, maximum=100),
    "response_format": _said("string", "b64_json or url"),
    "stream": _said("boolean", "tell pictures as they come"),
    "partial_images": _said("integer", "how often each is shown before that", minimum=0, maximum=3),
    "user": _said("string", "whom it is for"),
    "safety_identifier": _said("string", "whom it is for"),
    "moderation": _said("string", "low or auto"),
    "negative_prompt": _said("string", "what it does not show"),
    "num_inference_steps": _said("integer", "how many steps"),
    "guidance_scale": _said("number", "how much the prompt counts"),
    "seed": _said("integer", "of the first picture"),
}
"""The words of OpenAI's interface."""
_FILE = {"type": "string", "format": "binary"}


def openai_body(what: str) -> dict[str, Any]:
    """The body of a request in OpenAI's words: of `generations` or of `edits`."""
    schema: dict[str, Any] = {
        "type": "object",
        "description": "OpenAI's words; settings of docs/requests.md go beside them.",
        "properties": dict(OPENAI),
        "required": ["prompt"],
    }
    kinds = ["application/json"]
    if what == "edits":
        schema["properties"] |= {
            "image": _FILE | {"description": "the picture to edit"},
            "mask": _FILE | {"description": "a PNG that is transparent where it is to be edited"},
            "input_fidelity": _said("string", "how closely to keep to it: low or high"),
        }
        schema["required"] = ["image"]
        kinds = ["multipart/form-data"]
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def a1111_body(what: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request in A1111's words, which are `known` with what stands where nothing is said."""
    types = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    properties = {
        name: ({} if value is None else {"type": types[type(value)], "default": value})
        for name, value in known.items()
    }
    schema = {"type": "object", "title": what, "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def picture_body() -> dict[str, Any]:
    """The body of an upload: the file of a picture."""
    schema = {"type": "string", "format": "binary"}
    kinds = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}
