"""Models kept loaded: as many as fit a budget of bytes, those used last."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Unpack

from darkroom.engine.devices import give_back_memory
from darkroom.engine.memory import parse_size, resident_nbytes
from darkroom.errors import InvalidRequest
from darkroom.generation.checks import showing
from darkroom.loading import LOADING, Loading, Options
from darkroom.model import Model, load


class Shelf:
    """Loaded models by what they were asked for with; switching between those that are here costs no loading.

    budget: the most bytes that their weights may take together, a number or a size such as "12GB". The one used last
    stays, however large it is. May be used from several threads: they wait for one another while a model is loaded.
    """

    def __init__(self, budget: int | str) -> None:
        size = parse_size(budget) if isinstance(budget, str) else budget
        if size is None or size <= 0:
            raise InvalidRequest(f"the budget is {budget!r}: give a number of bytes, or a size such as 12GB")
        self.budget = size
        self._models: OrderedDict[Loading, tuple[Model, int]] = OrderedDict()
        self._lock = threading.Lock()

    @showing(LOADING)
    def get(self, model: str | Path | Loading = "pocket", **options: Unpack[Options]) -> Model:
        """The model, loaded with these options of `darkroom.load` now or before.

        What does not fit beside it any longer is forgotten, the longest unused first; whoever still works with such a
        model keeps it alive until done. Raises as `load` does, and then everything stays as it was.
        """
        loading = Loading.of(model, **options)
        with self._lock:
            if loading not in self._models:
                loaded = load(loading)
                self._models[loading] = loaded, resident_nbytes(loaded.networks())
            self._models.move_to_end(loading)
            self._evict()
            return self._models[loading][0]

    @property
    def used(self) -> int:
        """The bytes that the weights of the models here take."""
        return sum(size for _, size in self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def clear(self) -> None:
        """Forget all models."""
        with self._lock:
            self._models.clear()
            _collect()

    def _evict(self) -> None:
        before = len(self._models)
        while self.used > self.budget and len(self._models) > 1:
            self._models.popitem(last=False)
        if len(self._models) < before:
            _collect()


def _collect() -> None:
    """Have the memory of forgotten models back at once, not when Python next looks for circles."""
    gc.collect()
    give_back_memory()
