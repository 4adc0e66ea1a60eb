"""Which program made a picture, and what its file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from darkroom.errors import InvalidRequest
from darkroom.generation.picture import MadeElsewhere, texts_of
from darkroom.recipes import a1111, comfyui, invokeai
from darkroom.recipes.infotext import parse
from darkroom.recipes.recipe import Recipe

_A1111 = "parameters"
_AFTERWARDS = ("postprocessing", "extras")
"""What A1111 says of a picture that it changed after it was made."""


def read_recipe(path: str | Path) -> Recipe:
    """How AUTOMATIC1111 (and what writes like it), ComfyUI or InvokeAI made a picture. Raises InvalidRequest where the
    file is no picture, says nothing of that, or what it says is damaged."""
    size, texts = texts_of(path, (*invokeai.KEYS, *comfyui.KEYS, _A1111))
    comment = texts.pop("comment", "")
    if _A1111 not in texts and parse(comment)[2]:
        texts[_A1111] = comment
    elif not texts.keys() & {*invokeai.KEYS, *comfyui.KEYS} and comfyui.is_graph(comment):
        texts["prompt"] = comment
    recipe = _recipe(texts, size, path)
    for name in _AFTERWARDS:
        if name in texts:
            recipe.lose(name, texts[name])
    if not {"width", "height"} & recipe.settings.keys():
        recipe.put_size(("width", "height"), size)
    elif (made := (recipe.settings.get("width"), recipe.settings.get("height"))) != size:
        recipe.lose(f"a picture of {size[0]}x{size[1]}", why=f"what its file says is of {made[0]}x{made[1]}")
    return recipe


def _recipe(texts: Mapping[str, str], size: tuple[int, int], path: str | Path) -> Recipe:
    if any(key in texts for key in invokeai.KEYS):
        return invokeai.recipe_of(texts, path)
    if any(key in texts for key in comfyui.KEYS):
        try:
            return comfyui.recipe_of(texts, size, path)
        except InvalidRequest:
            # Nodes of others' making write A1111's text beside a graph that only they understand.
            if _A1111 not in texts:
                raise
    if comfyui.is_graph(texts.get(_A1111)):
        return comfyui.recipe_of({"prompt": texts[_A1111]}, size, path)
    if _A1111 in texts:
        return a1111.recipe_of(texts[_A1111], path)
    raise MadeElsewhere(
        f"{path} holds no Darkroom metadata, nor A1111's, ComfyUI's or InvokeAI's: it was made by another program, or "
        "saved without it"
    )
