"""Which program made a picture, and what its file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from darkroom.compat.pictures import a1111, comfyui, invokeai
from darkroom.compat.pictures.recipe import Recipe
from darkroom.errors import InvalidRequest
from darkroom.generation.picture import texts_of


def read_recipe(path: str | Path) -> Recipe:
    """How AUTOMATIC1111 (and what writes like it), ComfyUI or InvokeAI made a picture. Raises InvalidRequest where the
    file is no picture, says nothing of that, or what it says is damaged."""
    size, texts = texts_of(path)
    recipe = _recipe(texts, size, path)
    for name, side in zip(("width", "height"), size, strict=True):
        if name not in recipe.settings:
            recipe.put(name, side)
    return recipe


def _recipe(texts: Mapping[str, str], size: tuple[int, int], path: str | Path) -> Recipe:
    if any(key in texts for key in invokeai.KEYS):
        return invokeai.recipe_of(texts, path)
    if any(key in texts for key in comfyui.KEYS):
        try:
            return comfyui.recipe_of(texts, size, path)
        except InvalidRequest:
            # Nodes of others' making write A1111's text beside a graph that only they understand.
            if "parameters" not in texts:
                raise
    if "parameters" in texts:
        return a1111.recipe_of(texts["parameters"], path)
    raise InvalidRequest(
        f"{path} says nothing of how it was made: it was saved without that, or made by a program whose words Darkroom "
        "does not read (it reads its own, A1111's, ComfyUI's and InvokeAI's)"
    )
