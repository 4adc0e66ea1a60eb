"""Pictures by ComfyUI: what its graph of nodes comes to, as far as it is text to image.

From the node that saved the picture back to the samplers that it came through. The first of them is the request, with
its model, its LoRAs, its prompts; a later one is the second pass, or the refiner. Nodes that are not read are named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from darkroom.errors import InvalidRequest
from darkroom.recipes.drawn import drawn
from darkroom.recipes.files import Named
from darkroom.recipes.graph import Graph, Node, is_link
from darkroom.recipes.plain import shown
from darkroom.recipes.recipe import Recipe
from darkroom.recipes.samplings import IMAGES, Sampling, sampling_of, size_of
from darkroom.recipes.stage import Stage

KEYS = ("prompt", "workflow")
_MOST_ENDS, _MOST_SAMPLERS = 30, 30
_ENLARGING = ("LatentUpscale", "LatentUpscaleBy", "ImageScale", "ImageScaleBy", "ImageUpscaleWithModel")
_CODING = ("VAEDecode", "VAEDecodeTiled", "VAEEncode", "VAEEncodeTiled", "UpscaleModelLoader")
_COMPARED = {
    "prompt": "prompt",
    "negative": "negative prompt",
    "guidance": "cfg",
    "sampler": "sampler",
    "schedule": "scheduler",
    "clip_skip": "CLIP layer",
    "seed": "seed",
}
"""What is told of a later sampler that is not as in the first one, and what it is called."""
_OF_THE_SECOND = ("prompt", "negative", "guidance", "sampler", "schedule")
"""What a second pass may be told otherwise."""
_WAYS = {
    (True, "bilinear"): "latent",
    (True, "bicubic"): "latent-bicubic",
    (True, "nearest-exact"): "latent-nearest-exact",
    (False, "lanczos"): "lanczos",
    (False, "nearest-exact"): "nearest",
}
"""What enlarges latents (True) and pictures, by ComfyUI's names for it."""


def recipe_of(texts: Mapping[str, str], size: tuple[int, int], path: str | Path) -> Recipe:
    """What the graph in a picture of that size says. Raises InvalidRequest where it holds no sampler that could have
    made it, or beside A1111's text no prompt that can be read."""
    graph = Graph.of(texts.get("prompt")) or drawn(texts.get("workflow"))
    if graph is None:
        raise InvalidRequest(f"{path}: its `prompt` is no graph of ComfyUI's, or it is damaged")
    readings = [_Reading(graph, end, size) for end in _ends(graph)]
    found = max(readings, key=lambda each: each.fits, default=None)
    if found is None or not found.samplings:
        kinds = shown(", ".join(sorted({node.kind for node in graph.nodes.values()})), 200)
        raise InvalidRequest(
            f"{path}: Darkroom finds no sampler in its ComfyUI graph (its nodes are {kinds})"
        )
    recipe = found.read()
    alike = [each for each in readings if each.fits == found.fits and each.last is not found.last]
    if alike:
        recipe.lose(
            "saved pictures", len(alike) + 1, "which of them it is its file does not say: one is taken"
        )
    if "prompt" not in recipe.settings:
        if "parameters" in texts:
            raise InvalidRequest(f"{path}: Darkroom finds no prompt in its ComfyUI graph")
        recipe.put("prompt", "")
        recipe.lose("the prompt", why="it comes of nodes that are not read")
    return recipe


def is_graph(text: str | None) -> bool:
    """Whether a text is a graph of ComfyUI's."""
    return Graph.of(text) is not None


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
    return (saving or ends or [*graph.nodes.values()])[-_MOST_ENDS:]


def _redraws(graph: Graph, sampling: Sampling) -> bool:
    """Whether a node samples on a picture of its own accord: one that redraws faces, or tile by tile."""
    return sampling.latent is None and graph.any_linked(sampling.node, *IMAGES) is not None


def _in_order(graph: Graph, samplings: list[Sampling]) -> list[Sampling]:
    """The samplers, each behind those that its latent comes through."""
    own = {sampling.node.id for sampling in samplings}

    def before(sampling: Sampling) -> int:
        latent = sampling.latent
        return 0 if latent is None else sum(node.id in own for node in graph.before(latent))

    return sorted(samplings, key=before)


class _Reading:
    """One end of a graph, and the samplers that the picture there came through, the first one first."""

    def __init__(self, graph: Graph, end: Node, size: tuple[int, int]) -> None:
        graph = Graph(graph.nodes)  # Each keeps account of its own of what is read.
        self.graph, self.end, self.size = graph, end, size
        found = [sampling for node in graph.before(end) if (sampling := sampling_of(graph, node)) is not None]
        self.samplings = _in_order(
            graph, [each for each in found if not _redraws(graph, each)][:_MOST_SAMPLERS]
        )

    @property
    def last(self) -> Node | None:
        """The last node that samples."""
        return self.samplings[-1].node if self.samplings else None

    @property
    def fits(self) -> tuple[bool, bool, bool]:
        """How likely the picture comes from here: it has samplers, it is of the picture's size, or of one unknown."""
        size = size_of(self.graph, self.end)
        return bool(self.samplings), size == self.size, size is None

    def read(self) -> Recipe:
        graph = self.graph
        graph.read |= {self.end.id, *(each.node.id for each in self.samplings)}
        self.first = Stage(graph, self.samplings[0])
        self.recipe = self.first.recipe
        self._beginning()
        self._passes()
        self._decoding()
        unread = [node.kind for node in graph.before(self.end) if node.id not in graph.read]
        if kinds := [kind for kind in dict.fromkeys(unread) if kind not in self.recipe.lost]:
            self.recipe.lose("nodes", ", ".join(kinds), "they are not read", limit=400)
        return self.recipe

    def _passes(self) -> None:
        """What is done at the first sampler's size, and what after it."""
        recipe, graph = self.recipe, self.graph
        begun = size_of(graph, self.samplings[0].latent)
        final, last = begun, self.samplings[-1]
        for before, then in zip(self.samplings, self.samplings[1:], strict=False):
            size = size_of(graph, then.latent)
            if size is None and then is last:
                size = self.size  # Enlarged by a network that is not known here.
            if size is not None and size == size_of(graph, before.latent):
                self._go_on(then)
            elif size is not None and (final == begun or before.latent is None):
                final = size
                self._enlarge(then)
            else:
                recipe.lose(f"one more {then.node.kind}", why="there are two passes here")
        steps = self.samplings[-1].steps
        if last.stop is not None and steps is not None and last.stop < steps:
            recipe.lose("end_at_step", last.stop, "it goes all the way here")
        recipe.put_size(("width", "height"), final or self.size)
        if begun is not None and final != begun:
            recipe.put_size(("first_width", "first_height"), begun)
        else:
            recipe.put("second_pass", "off")

    def _enlarge(self, then: Sampling) -> None:
        """A sampler that draws over what is enlarged: the second pass."""
        recipe, denoise, steps = self.recipe, then.denoise, then.steps
        if then.start and then.steps and then.steps > then.start:
            steps = then.steps - then.start
            denoise = steps / then.steps
        recipe.put("second_strength", denoise, f"denoise {denoise:g}")
        recipe.put("second_steps", steps)
        other = self._compare(then, "the second pass's", but=_OF_THE_SECOND).recipe.settings
        for name in _OF_THE_SECOND:
            if name in other and other[name] != recipe.settings.get(name):
                recipe.put(f"second_{name}", other[name])
        if "second_sampler" in recipe.settings:  # Which would bring one of its own.
            recipe.put("second_schedule", other.get("schedule"))
        for node in self._between(then):
            if node.kind in _ENLARGING:
                self._enlarge_by(node)
                self.graph.read.add(node.id)
            elif node.kind in _CODING:
                self.graph.read.add(node.id)

    def _enlarge_by(self, node: Node) -> None:
        """A node between two passes that makes what the first one drew larger."""
        recipe, graph = self.recipe, self.graph
        if node.kind == "ImageUpscaleWithModel":
            loader = graph.linked(node, "upscale_model")
            if loader is not None and (name := graph.text(loader, "model_name")):
                recipe.put_upscaler(name, node.kind)
            else:
                recipe.lose(node.kind, why="pictures are enlarged by Lanczos here")
            return
        method = str(node.inputs.get("upscale_method") or "")
        way = _WAYS.get(("Latent" in node.kind, method))
        if way is not None:
            recipe.put("upscaler", way)
        elif recipe.upscaler is None:  # After a network it does what Lanczos does here.
            recipe.put("upscaler", "lanczos")
            recipe.lose(f"{node.kind} {method}".strip(), why="pictures are enlarged by Lanczos here")

    def _go_on(self, then: Sampling) -> None:
        """A sampler that goes on where the one before stopped: Stable Diffusion XL's refiner, or the same model."""
        recipe = self.recipe
        stage = self._compare(then, "a later sampler's", model=False)
        if not then.start or then.noise:
            recipe.lose(f"one more {then.node.kind}", why="there is one at that size here")
        elif stage.recipe.model is not None and stage.recipe.model != recipe.model:
            recipe.refiner = stage.recipe.model
            recipe.put_switch(then.start)
            for name in ("aesthetic", "negative_aesthetic"):
                recipe.put(name, stage.recipe.settings.get(name))

    def _compare(self, then: Sampling, whose: str, model: bool = True, but: Collection[str] = ()) -> Stage:
        """A later sampler; what of it is not as in the first one, `but` some settings, is lost."""
        recipe, stage = self.recipe, Stage(self.graph, then)
        other = stage.recipe
        for name, called in _COMPARED.items():
            own, there = recipe.settings.get(name), other.settings.get(name)
            if name in but or (name == "seed" and not then.noise):
                continue
            if there is not None and there != own:
                recipe.lose(f"{whose} {called}", there)
        if model and other.model not in (None, recipe.model):
            recipe.lose(f"{whose} model", other.model)
        # A refiner has none of the first one's here, either.
        alike = model or other.model in (None, recipe.model)
        if other.adapters != recipe.adapters and (alike or other.adapters):
            names = ", ".join(f"{named}" for named, _ in other.adapters) or "none"
            recipe.lose(f"{whose} LoRAs", names)
        for line in other.lost:
            recipe.lose(line, limit=len(line))
        return stage

    def _between(self, then: Sampling) -> list[Node]:
        """The nodes between a sampler's latent and the sampler before."""
        stops = {sampling.node.id for sampling in self.samplings}
        if then.latent is None:
            return []
        return [node for node in self.graph.before(then.latent, stops) if node.id not in stops]

    def _beginning(self) -> None:
        """What the first sampler begins with: nothing, or what there is no setting for."""
        recipe, graph, first = self.recipe, self.graph, self.samplings[0]
        latent = first.latent
        before = [] if latent is None else [*graph.before(latent)]
        pictures = [node for node in before if isinstance(node.inputs.get("image"), str)]
        alone = len(pictures) == 1 and not first.start and first.noise
        if alone:
            recipe.begin(first.denoise, "comfy", f"{pictures[0].inputs['image']}, denoise")
        elif first.denoise < 1:
            recipe.lose("denoise", f"{first.denoise:g}", "the first sampler goes all the way here")
        if first.start or not first.noise:
            recipe.lose("start_at_step", first.start, "the first sampler begins with noise here")
        for node in before:
            several = graph.number(node, "batch_size", int)
            if several is not None:
                graph.read.add(node.id)
                if several > 1:
                    why = "which of them it is its file does not say: the first is made again"
                    recipe.lose("batch_size", several, why)
            elif node in pictures:
                graph.read.add(node.id)
                if not alone:
                    recipe.lose(
                        f"{node.kind} {node.inputs['image']}", why="the picture that it was made from"
                    )

    def _decoding(self) -> None:
        """What stands between the last sampler and the file."""
        recipe, graph, last = self.recipe, self.graph, self.samplings[-1].node
        for node in graph.before(self.end, {last.id}):
            if node is last or node.kind in ("VAEDecode", "VAEDecodeTiled"):
                graph.read.add(node.id)
                self._autoencoder(node)
                return
            if node is not self.end and any(is_link(node.inputs.get(name)) for name in IMAGES):
                graph.read.add(node.id)
                recipe.lose(node.kind, why="after the picture was decoded")

    def _autoencoder(self, node: Node) -> None:
        """Another autoencoder than the model's."""
        recipe, graph = self.recipe, self.graph
        loader = graph.any_linked(node, "vae", "optional_vae") or self.first.loader
        if loader is None:
            return
        graph.read.add(loader.id)
        name = graph.text(loader, "vae_name") or graph.text(loader, "ckpt_name") or ""
        if name not in ("", "Baked VAE", "pixel_space") and recipe.model != Named.of(name):
            recipe.vae = Named.of(name)
