"""The models of a worker: loaded when they are needed, as many as there is room for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from darkroom.engine import Engine
from darkroom.engine.turns import Turns
from darkroom.loading import Loading
from darkroom.model import Model
from darkroom.serve.catalogue import Catalogue
from darkroom.serve.settings import Serving
from darkroom.shelf import Shelf
from darkroom.upscaling.upscaler import Upscaler, load_upscaler


class Models:
    """Loads and keeps models. `changed` is called whenever there is something else to say of them."""

    def __init__(self, serving: Serving, turns: Turns, changed: Callable[[], object]) -> None:
        self._serving, self._turns, self._changed = serving, turns, changed
        self._catalogue = Catalogue(serving.model)
        self._shelf = Shelf(serving.models_memory)
        self._said: dict[str, dict[str, Any]] = {}
        self._engines: WeakKeyDictionary[Model, Engine] = WeakKeyDictionary()
        self._upscaler: Upscaler | None = None
        self._lock = threading.Lock()

    @property
    def usual(self) -> str:
        return self._catalogue.usual

    def facts(self) -> Mapping[str, Any]:
        """By name, what each model is at: loading, and how much of it is read, loaded, or failed and why."""
        with self._lock:
            for name, said in [*self._said.items()]:
                if said["state"] == "loaded" and self._loading(name) not in self._shelf:
                    del self._said[name]  # It had to make room.
            return {name: dict(said) for name, said in self._said.items()}

    def get(self, name: str, precise: bool = False) -> Model:
        """A model, loaded now or before, where it is to be `precise` in float32. Raises ModelError where it cannot
        be."""

        def progress(part: str, read: int, of: int) -> None:
            self._say(name, state="loading", part=part, read=read, of=of)

        try:
            model = self._shelf.get(self._loading(name, precise), progress=progress)
        except Exception as error:
            self._say(name, state="failed", error=str(error))
            raise
        self._say(
            name, state="loaded", device=str(model.placement.device), precision=model.placement.precision
        )
        return model

    def _loading(self, name: str, precise: bool = False) -> Loading:
        own = self._serving
        precision = "float32" if precise else own.precision
        loading = self._catalogue.loading(name)
        return Loading.of(loading, device=own.device, precision=precision, memory=own.memory)

    def forget(self, name: str) -> None:
        """Let go of a model; jobs that have it keep it until they are done."""
        self._shelf.forget(self._loading(name))
        with self._lock:
            self._said.pop(name, None)
        self._changed()

    def engine(self, model: Model) -> Engine:
        """The engine on the networks of a model, for the worker's one thread."""
        with self._lock:
            if model not in self._engines:
                self._engines[model] = model.engine.beside(self._turns)
            return self._engines[model]

    def upscaler(self, name: str) -> Upscaler:
        """An upscaler; the last one is kept."""
        if self._upscaler is None or self._upscaler.name != name:
            self._upscaler = load_upscaler(
                name, device=self._serving.device, precision=self._serving.precision
            )
        return self._upscaler

    def _say(self, name: str, **said: Any) -> None:
        with self._lock:
            self._said[name] = said
        self._changed()
