"""ComfyUI's samplers: what those nodes were told, and how large what they work on is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.recipes.graph import Graph, Node
from darkroom.recipes.plain import number_or

LATENTS = ("latent_image", "latent", "samples", "samples_from", "samples1", "samples_to")
IMAGES = ("images", "image", "pixels")
"""What nodes call the latent and the picture that they are given."""
_SIDES = (("width", "height"), ("empty_latent_width", "empty_latent_height"))

# Nodes that give sampler functions with options: the sampler's name.
_SAMPLERS = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerEulerAncestralCFGPP": "euler_ancestral_cfg_pp",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerLMS": "lms",
    "SamplerDPMAdaptative": "dpm_adaptive",
}
_RANGE = ("sigma_min", "sigma_max")
# Nodes that give sigmas: the schedule's name and its options, which are called as the nodes' inputs.
_SIGMAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "KarrasScheduler": ("karras", ("rho", *_RANGE)),
    "ExponentialScheduler": ("exponential", _RANGE),
    "PolyexponentialScheduler": ("polyexponential", ("rho", *_RANGE)),
    "BetaSamplingScheduler": ("beta", ("alpha", "beta")),
    "SDTurboScheduler": ("trailing", ()),
}
_DEEPEST, _LARGEST = 300, 1 << 16
"""Nodes one after the other that change a size, and pixels a side."""
_EDGES = {"sigma_max": 14.614642, "sigma_min": 0.0291675}
"""What those nodes say unless told otherwise: all of Stable Diffusion's own."""


@dataclass
class Sampling:
    """What a node that samples was told; `own`: the options of its schedule; `unknown`: the kinds of nodes beside it
    that are not read."""

    node: Node
    model: Node | None
    positive: Node | None
    negative: Node | None
    latent: Node | None
    seed: int | None = None
    steps: int | None = None
    cfg: float | None = None
    sampler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    own: Mapping[str, float] = field(default_factory=dict)
    denoise: float = 1.0
    start: int = 0
    stop: int | None = None
    noise: bool = True
    unknown: list[str] = field(default_factory=list)


def sampling_of(graph: Graph, node: Node) -> Sampling | None:
    """What a node was told that samples, ComfyUI's own or one of others' with inputs called alike; None of another."""
    inputs = node.inputs
    if "sigmas" in inputs and "latent_image" in inputs:
        return _custom(graph, node)
    if not ({"steps", "sampler_name"} <= inputs.keys() and {"seed", "noise_seed"} & inputs.keys()):
        return None
    seed = "seed" if "seed" in inputs else "noise_seed"
    return Sampling(
        node,
        graph.through(node, "model"),
        graph.through(node, "positive"),
        graph.through(node, "negative"),
        graph.through(node, *LATENTS),
        graph.number(node, seed, int),
        graph.number(node, "steps", int),
        graph.number(node, "cfg"),
        graph.text(node, "sampler_name"),
        schedule=graph.text(node, "scheduler"),
        denoise=number_or(graph.number(node, "denoise"), 1.0),
        start=number_or(graph.number(node, "start_at_step", int), 0),
        stop=graph.number(node, "end_at_step", int),
        noise=inputs.get("add_noise", "enable") not in ("disable", False),
    )


def _custom(graph: Graph, node: Node) -> Sampling:
    """SamplerCustom, or SamplerCustomAdvanced with its noise and its guider apart."""
    noise, guider = graph.linked(node, "noise") or node, graph.linked(node, "guider") or node
    found = Sampling(
        node,
        graph.linked(guider, "model"),
        graph.any_linked(guider, "positive", "conditioning", "cond1"),
        graph.linked(guider, "negative"),
        graph.linked(node, "latent_image"),
        graph.number(noise, "noise_seed", int),
        cfg=1.0 if "conditioning" in guider.inputs else graph.number(guider, "cfg"),
        noise=noise.kind != "DisableNoise" and node.inputs.get("add_noise", True) is not False,
    )
    graph.read |= {noise.id, guider.id}
    if guider is not node and guider.kind not in ("CFGGuider", "BasicGuider"):
        found.unknown.append(guider.kind)
    if (sampler := graph.linked(node, "sampler")) is not None:
        graph.read.add(sampler.id)
        found.sampler = graph.text(sampler, "sampler_name") or _SAMPLERS.get(sampler.kind, sampler.kind)
        found.options = {
            name: value
            for name, value in sampler.inputs.items()
            if name != "sampler_name" and isinstance(value, int | float | str)
        }
    _put_sigmas(graph, found, graph.linked(node, "sigmas"))
    return found


def _put_sigmas(graph: Graph, found: Sampling, node: Node | None) -> None:
    """The steps and the noise schedule of the node that gives a sampler its sigmas."""
    for _ in range(_DEEPEST):
        if node is None or "steps" in node.inputs:
            break
        graph.read.add(node.id)
        found.unknown.append(node.kind)
        node = graph.linked(node, "sigmas")
    if node is None:
        return
    graph.read.add(node.id)
    found.steps = graph.number(node, "steps", int)
    found.denoise = number_or(graph.number(node, "denoise"), 1.0)
    if (schedule := graph.text(node, "scheduler")) is not None:
        found.schedule = schedule
    elif node.kind == "AlignYourStepsScheduler":
        table = str(node.inputs.get("model_type", "SD1")).lower()
        found.schedule = f"align_your_steps:table={table}"
    elif node.kind in _SIGMAS:
        found.schedule, options = _SIGMAS[node.kind]
        numbers = {name: graph.number(node, name) for name in options}
        found.own = {
            name: number
            for name, number in numbers.items()
            if number is not None and not math.isclose(number, _EDGES.get(name, 0), rel_tol=1e-4)
        }
    else:
        found.unknown.append(node.kind)


def size_of(graph: Graph, node: Node | None, depth: int = 0) -> tuple[int, int] | None:
    """How large a picture or a latent is, in pixels; None where that is not known."""
    if node is None or depth > _DEEPEST or node.kind == "ImageUpscaleWithModel":
        return None
    before = graph.through(node, *LATENTS, *IMAGES)
    size = None if before is node else size_of(graph, before, depth + 1)
    for names in _SIDES:
        width, height = (graph.number(node, name, int) for name in names)
        if width is None or height is None or (before is None and "batch_size" not in node.inputs):
            continue
        if size is not None and min(width, height) == 0 < max(width, height):
            # The other side keeps the proportions.
            return _sane(width or height * size[0] / size[1], height or width * size[1] / size[0])
        return _sane(width, height) or size
    if (by := graph.number(node, "scale_by")) is not None and size is not None:
        unit = 8 if "Latent" in node.kind else 1
        return _sane(round(size[0] / unit * by) * unit, round(size[1] / unit * by) * unit)
    return size


def _sane(width: float, height: float) -> tuple[int, int] | None:
    """A size; None where it can be none."""
    return (round(width), round(height)) if 0 < width <= _LARGEST and 0 < height <= _LARGEST else None
