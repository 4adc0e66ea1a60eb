"""ComfyUI's graphs as they are drawn on the screen: nodes with the values of their fields in a row, and links apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darkroom.recipes.graph import PASSING, Graph, Node
from darkroom.recipes.plain import mapping, parsed, rows

_CONTROL = ("fixed", "increment", "decrement", "randomize")
"""What stands behind a seed: what becomes of it after a run, in the first versions yes or no."""
_MUTED, _BYPASSED = 2, 4

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
    "SDTurboScheduler": "steps denoise",
    "CFGGuider": "cfg",
    "CheckpointLoaderSimple": "ckpt_name",
    "CheckpointLoader": "config_name ckpt_name",
    "unCLIPCheckpointLoader": "ckpt_name",
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
    "TiledDiffusion": "method tile_width tile_height tile_overlap",
    "SeamlessTile": "tiling",
    "LoadImage": "image",
    "PrimitiveNode": "value",
}
_SET, _GET = "SetNode", "GetNode"


def drawn(text: str | None) -> Graph | None:
    """The graph in the text of a workflow, as it would be run: what is switched off is left out, what is bypassed hands
    on what it is given of the same type. None where there is none."""
    workflow = mapping(parsed(text))
    links = _links(workflow)
    nodes = [each for each in rows(workflow.get("nodes")) if isinstance(mapping(each).get("type"), str)]
    nodes = [each for each in nodes if each.get("mode") != _MUTED]
    stored = {_name(each): each for each in nodes if each["type"] == _SET}
    found: dict[str, Node] = {}
    for each in nodes:
        node = Node(str(each.get("id")), each["type"], _inputs(each, links))
        if each["type"] == _GET and (setter := stored.get(_name(each))) is not None:
            node = Node(node.id, PASSING[0], {"": [str(setter.get("id")), 0]})
        elif each["type"] == _SET:
            node = Node(node.id, PASSING[0], node.inputs)
        found[node.id] = node
    for each in nodes:
        if each.get("mode") == _BYPASSED:
            _bypass(each, found, links)
    return Graph(found) if found else None


def _links(workflow: Mapping[str, Any]) -> dict[int | str, list[Any]]:
    """By their ids: the node that each begins at, its output, the type."""
    links: dict[int | str, list[Any]] = {}
    for link in rows(workflow.get("links")):
        # [id, from, its output, to, its input, type], in newer ones with names.
        row = [*link.values()] if isinstance(link, dict) else link
        if isinstance(row, list) and len(row) >= 5 and isinstance(row[0], int | str):
            links[row[0]] = [str(row[1]), row[2], row[5] if len(row) > 5 else ""]
    return links


def _inputs(node: Mapping[str, Any], links: Mapping[int | str, list[Any]]) -> dict[str, Any]:
    inputs = [each for each in rows(node.get("inputs")) if isinstance(each, dict)]
    named = [str(mapping(each["widget"]).get("name")) for each in inputs if each.get("widget")]
    values = node.get("widgets_values")
    if isinstance(values, dict):
        found = dict(values)
    else:
        own = [*_FIELDS.get(node["type"], "").split()] or named
        found = dict(zip(own, _without_control(own, rows(values)), strict=False))
    for each in inputs:
        link = each.get("link")
        if isinstance(link, int | str) and link in links:
            found[str(each.get("name"))] = links[link][:2]
    return found


def _bypass(row: Mapping[str, Any], nodes: dict[str, Node], links: Mapping[int | str, list[Any]]) -> None:
    """Links each that takes an output of a node to what the node is given of the same type, the first for the first."""
    id = str(row.get("id"))
    given: dict[str, list[list[Any]]] = {}
    for each in rows(row.get("inputs")):
        link = mapping(each).get("link")
        if isinstance(link, int | str) and link in links:
            source, slot, kind = links[link]
            given.setdefault(str(kind), []).append([source, slot])
    instead: dict[int, list[Any]] = {}
    counts: dict[str, int] = {}
    for slot, output in enumerate(rows(row.get("outputs"))):
        kind = str(mapping(output).get("type"))
        at = counts.get(kind, 0)
        counts[kind] = at + 1
        if own := given.get(kind):
            instead[slot] = own[min(at, len(own) - 1)]
    if not instead:
        # What its outputs are is not said.
        instead = dict(enumerate(link for own in given.values() for link in own[:1]))
    for other in nodes.values():
        for name in other.links:
            source, slot = other.inputs[name]
            if str(source) == id and slot in instead:
                other.inputs[name] = instead[slot]
    nodes.pop(id, None)


def _without_control(names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """The values of fields, without what stands behind seeds."""
    kept: list[Any] = []
    for value in values:
        behind = names[len(kept) - 1] if 0 < len(kept) <= len(names) else ""
        if "seed" in behind and (isinstance(value, bool) or value in _CONTROL):
            continue
        kept.append(value)
    return kept


def _name(node: Mapping[str, Any]) -> str:
    """What a node that keeps or takes a value is called by."""
    values = rows(node.get("widgets_values"))
    return str(values[0]) if values else ""
