"""What one of ComfyUI's samplers was told: its model and LoRAs, its prompts, its steps, as a recipe."""

from __future__ import annotations

import math
import re
from typing import Any

from darkroom.diffusion.catalogue import PLUS_PLUS
from darkroom.recipes.files import Named
from darkroom.recipes.graph import Graph, Node, is_link
from darkroom.recipes.plain import number_or
from darkroom.recipes.recipe import Recipe
from darkroom.recipes.samplings import Sampling

_LONGEST = 500
"""Nodes one after the other."""
_UNLESS_SAID = 768
"""The sides that Stable Diffusion XL is told where no node says them (`comfy/model_base.py`)."""
_SHIFT = 3.0
"""Of Stable Diffusion 3's noise schedule."""
_SEAMLESS = {"enable": "xy", "both": "xy", "x_only": "x", "x": "x", "y_only": "y", "y": "y", "disable": ""}
_EMBEDDING = re.compile(r"embedding:([^\s,()\[\]:]+)")
_CHECKPOINTS = ("ckpt_name", "unet_name", "model_path", "base_ckpt_name")
_CONDITIONINGS = ("conditioning", "conditioning_to", "conditioning_1", "cond1", "conditioning1")
_POSITIVE = ("text", "prompt", "positive", "text_g", "populated_text", "wildcard_text", "text_positive")
_NEGATIVE = ("negative", "text_negative", "negative_prompt", "text", "prompt", "text_g", "populated_text")
"""What nodes of others' making call a prompt."""
OPTIONS: dict[str, dict[str, Any]] = {
    "dpm_fast": {"eta": 0},
    "dpm_adaptive": {"eta": 0},
    "uni_pc": {"variant": "bh1", "order": 3},
    "uni_pc_bh2": {"variant": "bh2", "order": 3},
}
"""Options of samplers that are otherwise there."""
_NUMBERED = re.compile(r"lora(?:_name)?_(\d{1,4})")
_WEIGHTS = ("lora_wt", "model_str", "model_weight", "strength", "strength_model")
_TEXT_WEIGHTS = ("clip_str", "clip_weight", "strength_clip")


class Stage:
    """A sampler; `loader` is the node that its model comes from."""

    def __init__(self, graph: Graph, sampling: Sampling) -> None:
        self.graph, self.sampling = graph, sampling
        self.recipe = Recipe("ComfyUI", layer="last", empty_is_text=True)
        self.loader: Node | None = None
        self._loras: dict[str, list[Any]] = {}
        recipe = self.recipe
        recipe.put("dialect", "comfy")
        recipe.put("noise_source", "comfy")
        recipe.put("full_noise", True)
        self._put_sampling()
        self._put_model(sampling.model)
        self._put_words()
        for name, unet, text in self._loras.values():
            if (unet or text) and name not in ("None", ""):
                recipe.adapt(Named.of(name), unet, None if text == unet else text)

    def _put_sampling(self) -> None:
        recipe, said = self.recipe, self.sampling
        recipe.put("seed", said.seed)
        recipe.put("steps", said.steps)
        name, schedule = said.sampler, said.schedule
        if name is not None:
            recipe.put_sampler(name, schedule, {**OPTIONS.get(name, {}), **said.options}, said.own)
        elif schedule is not None:
            recipe.put_schedule(schedule, said.own)
        share = 1.0
        if name is not None and name.endswith("_cfg_pp") and "sampler" in recipe.settings:
            share = PLUS_PLUS  # There a scale of 1 is the whole of it.
        recipe.put("guidance", None if said.cfg is None else said.cfg / share)
        for kind in said.unknown:
            recipe.lose(kind)
        if name is None:
            return
        if schedule == "ddim_uniform" and said.steps and 1000 % said.steps:
            recipe.lose("ddim_uniform", f"{said.steps} steps", "a little more of them there")
        if name.endswith("_gpu") or said.options.get("noise_device") == "gpu":
            recipe.lose(f"noise of {name}", why="drawn on the GPU there, as on the CPU here")
        if name.startswith("uni_pc"):
            recipe.lose(f"{name}'s own steps", why="here it takes every step of the noise schedule")

    # The model

    def _put_model(self, node: Node | None) -> None:
        recipe, graph = self.recipe, self.graph
        for _ in range(_LONGEST):
            if node is None:
                return
            graph.read.add(node.id)
            name, loras = self._checkpoint(node), self._loras_of(node)
            for key, (lora, unet, text) in loras.items():
                own = self._loras.setdefault(key, [lora, 0.0, 0.0])
                own[1] = unet
                if name is not None:
                    own[2] = text  # A loader of all at once.
            if name is not None:
                recipe.model, self.loader = Named.of(name), node
                if (layer := graph.number(node, "clip_skip", int)) is not None and layer < 0:
                    recipe.put("clip_skip", -layer, f"CLIP layer {layer}")
                return
            if not loras:
                self._put_change(node)
            node = graph.through(node, "model", "model1", "model_1")

    def _checkpoint(self, node: Node) -> str | None:
        """The model that a node loads, if it loads one."""
        return next((text for each in _CHECKPOINTS if (text := self.graph.text(node, each))), None)

    def _loras_of(self, node: Node) -> dict[str, tuple[str, float, float]]:
        """The LoRAs that a node adds, and those that are stacked before it, with their strengths in the network and in
        the text encoders."""
        found: dict[str, tuple[str, float, float]] = {}
        stack: Node | None = node
        for _ in range(_LONGEST):
            if stack is None:
                break
            self.graph.read.add(stack.id)
            found |= self._own_loras(stack)
            stack = self.graph.linked(stack, "lora_stack")
        return found

    def _own_loras(self, node: Node) -> dict[str, tuple[str, float, float]]:
        graph, found = self.graph, {}
        number = graph.number
        if (name := graph.text(node, "lora_name")) is not None:
            unet = number_or(number(node, "strength_model"), number_or(number(node, "strength"), 1.0))
            text = number_or(number(node, "strength_clip"), 0.0)
            unet = number_or(number(node, "lora_model_strength"), unet)
            found[node.id] = name, unet, number_or(number(node, "lora_clip_strength"), text)
        count = number_or(number(node, "lora_count", int), math.inf)
        for key, value in node.inputs.items():
            if isinstance(value, dict) and isinstance(value.get("lora"), str) and value.get("on", True):
                unet = number_or(value.get("strength"), 1.0)
                found[f"{node.id} {key}"] = value["lora"], unet, number_or(value.get("strengthTwo"), unet)
            elif (numbered := _NUMBERED.fullmatch(key)) and isinstance(value, str):
                at = numbered[1]
                if int(at) <= count and node.inputs.get(f"switch_{at}") not in ("Off", False):
                    unet = self._first(node, _WEIGHTS, at, 1.0)
                    found[f"{node.id} {key}"] = value, unet, self._first(node, _TEXT_WEIGHTS, at, unet)
        return found

    def _first(self, node: Node, names: tuple[str, ...], at: str, otherwise: float) -> float:
        numbers = (self.graph.number(node, f"{name}_{at}") for name in names)
        return next((float(number) for number in numbers if number is not None), otherwise)

    def _put_change(self, node: Node) -> None:
        """A node between a model and its sampler."""
        recipe, said = self.recipe, node.inputs
        if node.kind == "FreeU_V2":
            recipe.guide("freeu:" + ",".join(f"{each}={said.get(each)}" for each in ("b1", "b2", "s1", "s2")))
        elif node.kind == "RescaleCFG":
            recipe.put("guidance_rescale", self.graph.number(node, "multiplier"))
        elif node.kind == "TiledDiffusion":
            sides = [said.get(name) for name in ("tile_width", "tile_height", "tile_overlap")]
            recipe.put_tiles(node.kind, sides, said.get("method"))
        elif node.kind == "SeamlessTile" and (axes := _SEAMLESS.get(str(said.get("tiling")))) is not None:
            recipe.put("seamless", axes or None)
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
            strength = number_or(self.graph.number(node, "strength"), 1.0)
            recipe.adapt(Named.of(str(said.get("hypernetwork_name"))), strength, kind="hypernet")
        else:
            recipe.lose(node.kind)

    # The prompts

    def _put_words(self) -> None:
        recipe = self.recipe
        positive = self._words(self.sampling.positive, negative=False)
        negative = self._words(self.sampling.negative, negative=True)
        recipe.put("prompt", positive.get("prompt"))
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
        for _ in range(_LONGEST):
            if node is None:
                return {}
            graph.read.add(node.id)
            if node.kind == "CLIPTextEncodeSDXL":
                return self._words_of_xl(node)
            if node.kind == "CLIPTextEncodeSD3":
                self._put_encoder(node)
                names = zip(("prompt", "prompt_2", "prompt_3"), ("clip_l", "clip_g", "t5xxl"), strict=True)
                return {ours: graph.text(node, own) or "" for ours, own in names}
            if node.kind == "ConditioningZeroOut" and negative:
                recipe.empty_is_text = False
                return {"prompt": ""}
            side = "negative" if negative else "positive"
            follow = [name for name in (side, *_CONDITIONINGS) if is_link(node.inputs.get(name))]
            text = None if follow else self._text_of(node, negative)
            if text is not None:
                if node.kind not in ("CLIPTextEncode", "CLIPTextEncodeSDXLRefiner"):
                    recipe.lose(node.kind, why="its text is read as CLIPTextEncode reads it")
                self._put_encoder(node)
                return {"prompt": text, "aesthetic": graph.number(node, "ascore")}
            recipe.lose(node.kind)
            node = graph.through(node, *(follow or (side,)))
        return {}

    def _text_of(self, node: Node, negative: bool) -> str | None:
        names = _NEGATIVE if negative else _POSITIVE
        return next((text for name in names if (text := self.graph.text(node, name)) is not None), None)

    def _words_of_xl(self, node: Node) -> dict[str, Any]:
        graph = self.graph
        self._put_encoder(node)
        numbers = {
            "original_width": "width",
            "original_height": "height",
            "crop_left": "crop_w",
            "crop_top": "crop_h",
            "target_width": "target_width",
            "target_height": "target_height",
        }
        texts = {"prompt": graph.text(node, "text_l") or "", "prompt_2": graph.text(node, "text_g") or ""}
        return texts | {ours: graph.number(node, own, int) for ours, own in numbers.items()}

    def _put_encoder(self, node: Node) -> None:
        """What is between a text encoder and the prompt that it reads."""
        recipe, graph = self.recipe, self.graph
        clip = graph.through(node, "clip")
        for _ in range(_LONGEST):
            if clip is None:
                return
            graph.read.add(clip.id)
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
            elif (checkpoint := self._checkpoint(clip)) is None:
                recipe.lose(clip.kind)
            elif recipe.model not in (None, Named.of(checkpoint)):
                recipe.lose(f"text encoder of {checkpoint}", why="the model's own reads the prompt here")
            clip = graph.linked(clip, "clip")
