"""Pictures by ComfyUI: what its graph of nodes comes to, as far as it is text to image.

From the node that saved the picture back: what it was decoded from, each sampler's latent in turn, and from the first
sampler its model, its LoRAs, its prompts. Nodes that there is nothing for here are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.compat.pictures.files import Named
from darkroom.compat.pictures.graph import Graph, Node, is_link
from darkroom.compat.pictures.recipe import Recipe
from darkroom.compat.pictures.samplings import IMAGES, Sampling, number_or, sampling_of, size_of
from darkroom.diffusion.catalogue import PLUS_PLUS
from darkroom.errors import InvalidRequest
from darkroom.language.tags import Tag

KEYS = ("prompt", "workflow")
_WORDS = ("text", "prompt", "text_g", "positive")
_EMBEDDING = re.compile(r"embedding:([^\s,()\[\]:]+)")
_UNLESS_SAID = 768
"""The sides that Stable Diffusion XL is told where no node says them (`comfy/model_base.py`)."""
_SHIFT = 3.0
"""Of Stable Diffusion 3's noise schedule."""


def recipe_of(texts: Mapping[str, str], size: tuple[int, int], path: str | Path) -> Recipe:
    """What the graph in a picture of that size says. Raises InvalidRequest where it holds no sampler that could have
    made it."""
    graph = Graph.of(texts)
    if graph is None or not graph.nodes:
        raise InvalidRequest(f"{path}: its `prompt` is no graph of ComfyUI's, or it is damaged")
    found = max(
        (_Reading(graph, end, size) for end in _ends(graph)), key=lambda each: each.fits, default=None
    )
    if found is None or not found.samplings:
        kinds = ", ".join(sorted({node.kind for node in graph.nodes.values()})[:8])
        raise InvalidRequest(
            f"{path}: Darkroom finds no sampler in its ComfyUI graph (its nodes are {kinds})"
        )
    return found.read()


def _ends(graph: Graph) -> list[Node]:
    """The nodes that may have saved the picture: those that take one and give none to others."""
    givers = {
        str(value[0]) for node in graph.nodes.values() for value in node.inputs.values() if is_link(value)
    }
    ends = [
        node
        for node in graph.nodes.values()
        if node.id not in givers and any(is_link(node.inputs.get(name)) for name in IMAGES)
    ]
    saving = [node for node in ends if "save" in node.kind.lower()]
    return saving or ends or [*graph.nodes.values()][-1:]


class _Reading:
    """One end of a graph, and the samplers that the picture there came through, the first one first."""

    def __init__(self, graph: Graph, end: Node, size: tuple[int, int]) -> None:
        self.graph, self.end, self.size = graph, end, size
        self.recipe = Recipe("ComfyUI", layer="last", empty_is_text=True)
        self.samplings = [
            sampling for node in graph.before(end) if (sampling := sampling_of(graph, node)) is not None
        ][::-1]
        self._loras: dict[str, list[Any]] = {}

    @property
    def fits(self) -> tuple[bool, bool]:
        """How likely the picture comes from here: it has samplers, and is of the picture's size."""
        return bool(self.samplings), size_of(self.graph, self.end) == self.size

    def read(self) -> Recipe:
        recipe, first = self.recipe, self.samplings[0]
        recipe.put("dialect", "comfy")
        recipe.put("noise_source", "comfy")
        recipe.put("full_noise", True)
        self._put_sampling(first)
        self._put_model(first.model)
        self._put_words(first)
        self._put_passes(first)
        self._put_decoding()
        for name, unet, text in self._loras.values():
            if unet or text:
                kept = None if text == unet else text
                recipe.adapters.append((Named.of(name), Tag(name, unet, kept)))
        return recipe

    # Sampling

    def _put_sampling(self, first: Sampling) -> None:
        recipe = self.recipe
        recipe.put("seed", first.seed)
        recipe.put("steps", first.steps)
        share = 1.0
        if first.sampler is not None and first.sampler.endswith("_cfg_pp"):
            share = PLUS_PLUS  # There a scale of 1 is the whole of it.
        recipe.put("guidance", None if first.cfg is None else first.cfg / share)
        if first.sampler is not None:
            self._put_sampler(first)
        elif first.schedule is not None:
            recipe.put_schedule(first.schedule)
        for kind in first.unknown:
            recipe.lose(kind)
        if first.denoise < 1:
            recipe.lose("denoise", f"{first.denoise:g}", "the first sampler goes all the way here")
        if first.start or not first.noise:
            recipe.lose("start_at_step", first.start, "the first sampler begins with noise here")

    def _put_sampler(self, first: Sampling) -> None:
        recipe, name = self.recipe, str(first.sampler)
        own = {"eta": 0} if name in ("dpm_fast", "dpm_adaptive") else {}
        recipe.put_sampler(name, first.schedule, {**own, **(first.options or {})})
        if first.schedule == "ddim_uniform" and first.steps and 1000 % first.steps:
            recipe.lose("ddim_uniform", f"{first.steps} steps", "a little more of them there")
        if name.endswith("_gpu") or (first.options or {}).get("noise_device") == "gpu":
            recipe.lose(f"noise of {name}", why="drawn on the GPU there, as on the CPU here")
        if name.startswith("uni_pc"):
            recipe.lose(f"{name}'s own steps", why="here it takes every step of the noise schedule")

    # The model

    def _put_model(self, node: Node | None) -> None:
        recipe, graph = self.recipe, self.graph
        for _ in range(len(graph.nodes)):
            if node is None:
                return
            name = (
                graph.text(node, "ckpt_name")
                or graph.text(node, "unet_name")
                or graph.text(node, "model_path")
            )
            if name is not None:
                recipe.model = Named.of(name)
                return
            if loras := self._loras_of(node):
                for key, (lora, unet, _) in loras.items():
                    self._loras.setdefault(key, [lora, 0.0, 0.0])[1] = unet
            else:
                self._put_change(node)
            node = graph.linked(node, "model")

    def _loras_of(self, node: Node) -> dict[str, tuple[str, float, float]]:
        """The LoRAs that a node adds, with their strengths in the network and in the text encoders."""
        graph, found = self.graph, {}
        if (name := graph.text(node, "lora_name")) is not None:
            unet = number_or(
                graph.number(node, "strength_model"), number_or(graph.number(node, "strength"), 1.0)
            )
            found[node.id] = name, unet, number_or(graph.number(node, "strength_clip"), 0.0)
        for key, value in node.inputs.items():
            if isinstance(value, dict) and isinstance(value.get("lora"), str) and value.get("on", True):
                unet = number_or(value.get("strength"), 1.0)
                found[f"{node.id} {key}"] = value["lora"], unet, number_or(value.get("strengthTwo"), unet)
        return found

    def _put_change(self, node: Node) -> None:
        """A node between a model and its sampler."""
        recipe, said = self.recipe, node.inputs
        if node.kind == "FreeU_V2":
            recipe.guide("freeu:" + ",".join(f"{each}={said.get(each)}" for each in ("b1", "b2", "s1", "s2")))
        elif node.kind == "RescaleCFG":
            recipe.put("guidance_rescale", self.graph.number(node, "multiplier"))
        elif node.kind == "PerturbedAttentionGuidance":
            recipe.guide(f"pag:scale={said.get('scale', 3.0)}")
        elif node.kind == "SkipLayerGuidanceSD3":
            blocks = "+".join(str(said.get("layers", "7, 8, 9")).replace(" ", "").split(","))
            start, stop = said.get("start_percent", 0.01), said.get("end_percent", 0.15)
            recipe.guide(f"slg:scale={said.get('scale', 3.0)},blocks={blocks},start={start},stop={stop}")
        elif node.kind == "ModelSamplingDiscrete":
            if (kind := said.get("sampling")) in ("eps", "v_prediction"):
                recipe.options["prediction"] = {"eps": "epsilon"}.get(kind, kind)
            elif kind != "lcm":
                recipe.lose(node.kind, kind)
            recipe.options |= {"zero_snr": True} if said.get("zsnr") is True else {}
        elif node.kind == "ModelSamplingSD3":
            if (shift := self.graph.number(node, "shift")) != _SHIFT:
                recipe.lose(node.kind, f"shift {shift}", f"it is {_SHIFT:g} here")
        elif node.kind == "HypernetworkLoader":
            name, strength = (
                str(said.get("hypernetwork_name")),
                number_or(self.graph.number(node, "strength"), 1.0),
            )
            recipe.adapters.append((Named.of(name), Tag(name, strength, kind="hypernet")))
        else:
            recipe.lose(node.kind)

    # The prompts

    def _put_words(self, first: Sampling) -> None:
        recipe = self.recipe
        positive = self._words(first.positive, negative=False)
        negative = self._words(first.negative, negative=True)
        recipe.put("prompt", positive.get("prompt", ""))
        recipe.put("negative", negative.get("prompt", ""))
        for order in ("2", "3"):
            for ours, words in (("prompt", positive), ("negative", negative)):
                own = words.get(f"prompt_{order}")
                if own is not None and own != words["prompt"]:
                    recipe.put(f"{ours}_{order}", own)
        texts = [text for words in (positive, negative) for text in words.values() if isinstance(text, str)]
        names = dict.fromkeys(name for text in texts for name in _EMBEDDING.findall(text))
        recipe.embeddings = [Named.of(name) for name in names]
        for name in ("original", "target"):
            for side in ("width", "height"):
                said = positive.get(f"{name}_{side}")
                recipe.put(f"{name}_{side}", said or positive.get(f"original_{side}") or _UNLESS_SAID)
        for name in ("crop_left", "crop_top", "aesthetic"):
            recipe.put(name, positive.get(name))
        recipe.put("negative_aesthetic", negative.get("aesthetic"))

    def _words(self, node: Node | None, negative: bool) -> dict[str, Any]:
        """What a conditioning says: the prompts of each encoder, and the numbers beside them."""
        recipe, graph = self.recipe, self.graph
        for _ in range(len(graph.nodes)):
            if node is None:
                return {}
            number = graph.number
            if node.kind == "CLIPTextEncodeSDXL":
                self._put_encoder(node)
                return {
                    "prompt": graph.text(node, "text_l") or "",
                    "prompt_2": graph.text(node, "text_g") or "",
                    "original_width": number(node, "width", int),
                    "original_height": number(node, "height", int),
                    "crop_left": number(node, "crop_w", int),
                    "crop_top": number(node, "crop_h", int),
                    "target_width": number(node, "target_width", int),
                    "target_height": number(node, "target_height", int),
                }
            if node.kind == "CLIPTextEncodeSD3":
                self._put_encoder(node)
                names = zip(("prompt", "prompt_2", "prompt_3"), ("clip_l", "clip_g", "t5xxl"), strict=True)
                return {ours: graph.text(node, own) or "" for ours, own in names}
            own = next((name for name in _WORDS if graph.text(node, name) is not None), "")
            if own and not (own == "positive" and negative):
                if node.kind not in ("CLIPTextEncode", "CLIPTextEncodeSDXLRefiner"):
                    recipe.lose(node.kind, why="its text is read as CLIPTextEncode reads it")
                self._put_encoder(node)
                return {"prompt": graph.text(node, own) or "", "aesthetic": number(node, "ascore")}
            if node.kind == "ConditioningZeroOut" and negative:
                recipe.empty_is_text = False
                return {}
            recipe.lose(node.kind)
            side = "negative" if negative and is_link(node.inputs.get("negative")) else "positive"
            node = graph.any_linked(node, side, "conditioning", "conditioning_to", "conditioning_1")
        return {}

    def _put_encoder(self, node: Node) -> None:
        """What is between a text encoder and the prompt that it reads."""
        recipe, graph = self.recipe, self.graph
        clip = graph.linked(node, "clip")
        for _ in range(len(graph.nodes)):
            if clip is None:
                return
            names = [graph.text(clip, name) for name in clip.inputs if name.startswith("clip_name")]
            if any(names):
                for name in filter(None, names):
                    if (named := Named.of(name)) not in recipe.others:
                        recipe.others.append(named)
                return
            if clip.kind == "CLIPSetLastLayer":
                if (layer := graph.number(clip, "stop_at_clip_layer", int)) is not None:
                    recipe.put("clip_skip", abs(layer), f"CLIP layer {layer}")
            elif loras := self._loras_of(clip):
                for key, (lora, _, text) in loras.items():
                    self._loras.setdefault(key, [lora, 0.0, 0.0])[2] = text
            elif "ckpt_name" not in clip.inputs:
                recipe.lose(clip.kind)
            clip = graph.linked(clip, "clip")

    # The latents

    def _put_passes(self, first: Sampling) -> None:
        """What is done at the first sampler's size, and what after it."""
        recipe = self.recipe
        begun = size_of(self.graph, first.latent) if first.latent is not None else None
        final = begun
        for before, then in zip(self.samplings, self.samplings[1:], strict=False):
            size = size_of(self.graph, then.latent)
            if size == size_of(self.graph, before.latent) and then.start and not then.noise:
                self._put_hand_over(before, then)
            elif size is not None and size != final:
                final = size
                recipe.put("second_strength", then.denoise, f"denoise {then.denoise:g}")
                recipe.lose("a sampler's own steps in the second pass", why="it goes by the first one's here")
            else:
                recipe.lose(f"one more {then.node.kind}", why="the first one is all there is here")
        self._put_beginning(first)
        shown = final or self.size
        for name, side in zip(("width", "height"), shown, strict=True):
            recipe.put(name, side)
        if begun is not None and final != begun:
            for name, side in zip(("first_width", "first_height"), begun, strict=True):
                recipe.put(name, side)
        else:
            recipe.put("second_pass", "off")

    def _put_hand_over(self, before: Sampling, then: Sampling) -> None:
        """A sampler that goes on where the one before stopped: Stable Diffusion XL's refiner."""
        reading = _Reading(self.graph, self.end, self.size)
        reading._put_model(then.model)
        named = reading.recipe.model
        if named is None or named == self.recipe.model:
            return
        self.recipe.refiner = named
        if before.steps:
            self.recipe.put("refiner_switch", then.start / before.steps)

    def _put_beginning(self, first: Sampling) -> None:
        """What the first sampler begins with: nothing, or what there is no setting for."""
        recipe = self.recipe
        for node in [] if first.latent is None else self.graph.before(first.latent):
            if "batch_size" in node.inputs:
                if (several := number_or(self.graph.number(node, "batch_size", int), 1)) > 1:
                    why = "which of them it is its file does not say: the first is made again"
                    recipe.lose("batch_size", several, why)
            elif "image" in node.inputs and isinstance(node.inputs["image"], str):
                recipe.lose(f"{node.kind} {node.inputs['image']}", why="the picture that it was made from")
            elif any(is_link(each) for each in node.inputs.values()) or node is first.latent:
                recipe.lose(node.kind)

    def _put_decoding(self) -> None:
        """What stands between the last sampler and the file."""
        last = self.samplings[-1].node
        for node in self.graph.before(self.end):
            if node is last:
                return
            if node.kind in ("VAEDecode", "VAEDecodeTiled"):
                loader = self.graph.linked(node, "vae")
                if loader is not None and (name := self.graph.text(loader, "vae_name")):
                    self.recipe.vae = Named.of(name)
                return
            if node is not self.end and any(is_link(node.inputs.get(name)) for name in IMAGES):
                self.recipe.lose(node.kind, why="after the picture was decoded")
