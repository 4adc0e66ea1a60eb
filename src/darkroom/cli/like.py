"""What a picture's file says of how it was made, for another to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import a_path
from darkroom.cli.progress import loading_bar
from darkroom.cli.words import aside
from darkroom.errors import InvalidRequest
from darkroom.loading import LOADING, Loading

if TYPE_CHECKING:
    from darkroom.generation import Request
    from darkroom.model import Model

_OF_THE_MACHINE = ("device", "precision", "memory")


def add_recipe_options(command: argparse.ArgumentParser) -> None:
    """The options of which recipe a picture is made over by, where it has not to be its own."""
    recipe = command.add_mutually_exclusive_group()
    recipe.add_argument(
        "--like",
        type=a_path,
        metavar="PICTURE",
        help="start from the recipe of this picture, by Darkroom, A1111, ComfyUI or InvokeAI",
    )
    recipe.add_argument(
        "--no-like",
        dest="like",
        action="store_const",
        const=False,
        help="start from no recipe, not even from the picture's own",
    )


class Kept:
    """The model of pictures that are gone through one by one: loaded anew where that of the next one is another."""

    def __init__(self) -> None:
        self._of: tuple[Loading, Model] | None = None

    def load(self, loading: Loading, quiet: bool, expecting: Request | None = None) -> Model:
        """As `darkroom.load` does, with a bar."""
        from darkroom.model import load

        if self._of is None or self._of[0] != loading:
            self._of = None  # Two are not held at once.
            with loading_bar(quiet) as progress:
                self._of = loading, load(loading, expecting=expecting, progress=progress)
        return self._of[1]


def own_recipe(path: Path, model: str | None) -> tuple[dict[str, Any], Request] | None:
    """What a picture's model was loaded with, as options by their names, and the request that made it; None where
    Darkroom did not. With another `model` there are no such options."""
    from darkroom.generation import Request
    from darkroom.generation.picture import metadata_of
    from darkroom.provenance import made_of

    try:
        metadata = metadata_of(path)
    except InvalidRequest:
        return None
    loading = None if model is not None else Loading(**made_of(metadata, path)).checked()
    return _options(loading), _for(loading, Request.from_dict(metadata["request"]).checked())


def recipe_of(path: Path, model: str | None, over: Path | None = None) -> tuple[dict[str, Any], Request]:
    """The same of a picture that Darkroom, A1111, ComfyUI or InvokeAI made; what of it cannot be honoured is told.
    `over`: what one begins with that was made of a picture which its file does not hold. Raises InvalidRequest where
    its file does not say, ModelError where the model is not here."""
    if (found := own_recipe(path, model)) is not None:
        return found
    from darkroom.checkpoint.opening import open_source
    from darkroom.library.locate import locate
    from darkroom.recipes import read_recipe

    recipe = read_recipe(path)
    if over is not None and recipe.edit:
        recipe.draw_on(over)
    loading = recipe.loading(**({} if model is None else {"model": model}))
    with open_source(locate(loading.model)) as source:
        request = recipe.request(source.family)
    for line in recipe.lost:
        aside("not honoured", line)
    return _options(loading if model is None else None), _for(loading, request)


def _options(loading: Loading | None) -> dict[str, Any]:
    """All that a model is loaded with, but for the machine; nothing where that is not known."""
    if loading is None:
        return {}
    return {name: getattr(loading, name) for name in LOADING if name not in _OF_THE_MACHINE}


def _for(loading: Loading | None, request: Request) -> Request:
    """A request without what is of a refiner, where there is none."""
    return request if loading is not None and loading.refiner else request.replace(refiner_switch=None)
