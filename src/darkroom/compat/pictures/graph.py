"""ComfyUI's graphs: nodes by id, what they are told, and what they are linked to.

A picture holds one as `prompt`, what was run, and one as `workflow`, what was drawn on the screen, whose nodes have the
values of their fields in a row.

    {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "model": ["4", 0]}}, "4": ...}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_DEEPEST = 200
"""Links followed one after the other; more is a circle."""

_PASSING = ("Reroute", "Reroute (rgthree)", "Any Switch (rgthree)", "PreviewAny")
_CONTROL = ("fixed", "increment", "decrement", "randomize")
"""What stands behind a seed on the screen: what becomes of it after a run."""
_MUTED, _BYPASSED = 2, 4

# What nodes that only hold a value call it.
_HELD = {
    str: (
        "value",
        "text",
        "string",
        "String",
        "prompt",
        "populated_text",
        "wildcard_text",
        "positive",
        "text1",
    ),
    int: ("value", "seed", "noise_seed", "int", "number", "Number", "Value"),
    float: ("value", "float", "number", "Number", "Value", "int"),
}

# The fields of ComfyUI's own nodes, of workflows from before fields had names.
_FIELDS = {
    "KSampler": "seed steps cfg sampler_name scheduler denoise",
    "KSamplerAdvanced": "add_noise noise_seed steps cfg sampler_name scheduler start_at_step end_at_step "
    "return_with_leftover_noise",
    "SamplerCustom": "add_noise noise_seed cfg",
    "RandomNoise": "noise_seed",
    "KSamplerSelect": "sampler_name",
    "BasicScheduler": "scheduler steps denoise",
    "KarrasScheduler": "steps sigma_max sigma_min rho",
    "CFGGuider": "cfg",
    "CheckpointLoaderSimple": "ckpt_name",
    "CheckpointLoader": "config_name ckpt_name",
    "UNETLoader": "unet_name weight_dtype",
    "CLIPLoader": "clip_name type device",
    "DualCLIPLoader": "clip_name1 clip_name2 type device",
    "TripleCLIPLoader": "clip_name1 clip_name2 clip_name3",
    "VAELoader": "vae_name",
    "LoraLoader": "lora_name strength_model strength_clip",
    "LoraLoaderModelOnly": "lora_name strength_model",
    "HypernetworkLoader": "hypernetwork_name strength",
    "CLIPSetLastLayer": "stop_at_clip_layer",
    "CLIPTextEncode": "text",
    "CLIPTextEncodeSDXL": "width height crop_w crop_h target_width target_height text_g text_l",
    "CLIPTextEncodeSD3": "clip_l clip_g t5xxl empty_padding",
    "EmptyLatentImage": "width height batch_size",
    "EmptySD3LatentImage": "width height batch_size",
    "LatentUpscale": "upscale_method width height crop",
    "LatentUpscaleBy": "upscale_method scale_by",
    "ImageScale": "upscale_method width height crop",
    "ImageScaleBy": "upscale_method scale_by",
    "ModelSamplingDiscrete": "sampling zsnr",
    "ModelSamplingSD3": "shift",
    "RescaleCFG": "multiplier",
    "FreeU_V2": "b1 b2 s1 s2",
    "PerturbedAttentionGuidance": "scale",
    "PrimitiveNode": "value",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A node; `kind` is its class."""

    id: str
    kind: str
    inputs: Mapping[str, Any] = field(default_factory=dict)


class Graph:
    """Nodes by id."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Graph | None:
        """The graph in the texts of a picture; None where there is none."""
        run = _loaded(texts.get("prompt"))
        nodes = {
            str(id): Node(str(id), each["class_type"], _mapping(each.get("inputs")))
            for id, each in _mapping(run).items()
            if isinstance(each, dict) and isinstance(each.get("class_type"), str)
        }
        return (
            cls(nodes or _drawn(_mapping(_loaded(texts.get("workflow")))))
            if nodes or "workflow" in texts
            else None
        )

    def linked(self, node: Node, name: str) -> Node | None:
        """The node that an input is linked to."""
        for _ in range(_DEEPEST):
            link: Any = node.inputs.get(name)
            if not is_link(link) or (found := self.nodes.get(str(link[0]))) is None:
                return None
            if found.kind not in _PASSING:
                return found
            node, name = found, next((key for key, each in found.inputs.items() if is_link(each)), "")
        return None

    def any_linked(self, node: Node, *names: str) -> Node | None:
        """The node that the first of these inputs with a link is linked to."""
        return next((found for name in names if (found := self.linked(node, name))), None)

    def text(self, node: Node, name: str) -> str | None:
        """A text, where need be that of a node that holds it."""
        if (held := self._value(node, name, str)) is None:
            return None
        return str(held)

    def number(self, node: Node, name: str, kind: type = float) -> Any:
        """A number, where need be that of a node that holds it."""
        return self._value(node, name, kind)

    def _value(self, node: Node, name: str, kind: type, depth: int = 0) -> Any:
        value = node.inputs.get(name)
        if not is_link(value):
            accepted = (int, float) if kind is not str else str
            return value if isinstance(value, accepted) and not isinstance(value, bool) else None
        if depth > _DEEPEST or (held := self.linked(node, name)) is None:
            return None
        if kind is str and "string_a" in held.inputs:  # StringConcatenate
            parts = [self._value(held, part, str, depth + 1) or "" for part in ("string_a", "string_b")]
            return str(held.inputs.get("delimiter", "")).join(parts)
        for own in (name, *_HELD[kind]):
            if own in held.inputs and (found := self._value(held, own, kind, depth + 1)) is not None:
                return found
        return None

    def before(self, node: Node) -> Iterator[Node]:
        """The node, and all that it comes of, the nearest first."""
        seen, waiting = {node.id}, [node]
        while waiting:
            node = waiting.pop(0)
            yield node
            for name, value in node.inputs.items():
                if is_link(value) and (found := self.linked(node, name)) and found.id not in seen:
                    seen.add(found.id)
                    waiting.append(found)


def is_link(value: object) -> bool:
    """Whether an input is what another node gives: its id, and which of its outputs."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str | int)
        and isinstance(value[1], int)
    )


def _loaded(text: str | None) -> Any:
    """JSON; ComfyUI writes NaN where a custom node has none, which Python reads."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _drawn(workflow: Mapping[str, Any]) -> dict[str, Node]:
    """The nodes of a workflow as they would be run: those that are switched off left out."""
    links = {}
    for link in _rows(workflow.get("links")):
        # [id, from, its output, to, its input, type], in newer ones with names.
        row = list(link.values()) if isinstance(link, dict) else link
        if isinstance(row, list) and len(row) >= 5:
            links[row[0]] = [str(row[1]), row[2]]
    found = {}
    for each in _rows(workflow.get("nodes")):
        if isinstance(each, dict) and isinstance(each.get("type"), str) and each.get("mode") != _MUTED:
            node = Node(str(each.get("id")), each["type"], _inputs(each, links))
            passing = each.get("mode") == _BYPASSED
            found[node.id] = Node(node.id, _PASSING[0], node.inputs) if passing else node
    return found


def _inputs(node: Mapping[str, Any], links: Mapping[Any, list[Any]]) -> dict[str, Any]:
    rows = [each for each in _rows(node.get("inputs")) if isinstance(each, dict)]
    named = [str(_mapping(each["widget"]).get("name")) for each in rows if each.get("widget")]
    values = node.get("widgets_values")
    if isinstance(values, dict):
        found = dict(values)
    else:
        own = [*_FIELDS.get(node["type"], "").split()] or named
        found = dict(zip(own, _without_control(own, _rows(values)), strict=False))
    for each in rows:
        if (link := links.get(each.get("link"))) is not None:
            found[str(each.get("name"))] = link
    return found


def _without_control(names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """The values of fields, without what stands behind seeds."""
    kept: list[Any] = []
    for value in values:
        behind = names[len(kept) - 1] if 0 < len(kept) <= len(names) else ""
        if "seed" in behind and value in _CONTROL:
            continue
        kept.append(value)
    return kept


def _rows(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
