"""Models kept loaded: as many as fit a budget of bytes, those used last."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Unpack

from darkroom.checkpoint.load import Progress
from darkroom.engine.devices import give_back_memory
from darkroom.engine.memory import resident_nbytes
from darkroom.errors import InvalidRequest
from darkroom.generation.checks import showing
from darkroom.loading import LOADING, Loading, Options
from darkroom.model import Model, load
from darkroom.numeric import parse_size


class Shelf:
    """Loaded models by what they were asked for with; switching between those that are here costs no loading.

    budget: the most bytes that their weights may take together, a number or a size such as "12GB". The one used last
    stays, however large it is. May be used from several threads: one model is loaded at a time, and those that are here
    are had meanwhile.
    """

    def __init__(self, budget: int | str) -> None:
        size = parse_size(budget) if isinstance(budget, str) else budget
        if size is None or size <= 0:
            raise InvalidRequest(f"the budget is {budget!r}: give a number of bytes, or a size such as 12GB")
        self.budget = size
        self._models: OrderedDict[Loading, tuple[Model, int]] = OrderedDict()
        self._lock, self._loading = threading.Lock(), threading.Lock()

    @showing(LOADING)
    def get(
        self,
        model: str | Path | Loading = "pocket",
        *,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Model:
        """The model, loaded with these options of `darkroom.load` now or before; `progress` as there.

        What does not fit beside it any longer is forgotten, the longest unused first; whoever still works with such a
        model keeps it alive until done. Raises as `load` does, and then everything stays as it was.
        """
        loading = Loading.of(model, **options)
        if (here := self._here(loading)) is not None:
            return here
        with self._loading:
            if (here := self._here(loading)) is not None:
                return here
            loaded = load(loading, progress=progress)
            with self._lock:
                self._models[loading] = loaded, resident_nbytes(loaded.networks())
                self._evict()
            return loaded

    def _here(self, loading: Loading) -> Model | None:
        with self._lock:
            if loading not in self._models:
                return None
            self._models.move_to_end(loading)
            return self._models[loading][0]

    @property
    def used(self) -> int:
        """The bytes that the weights of the models here take."""
        return sum(size for _, size in self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, loading: Loading) -> bool:
        return loading in self._models

    def forget(self, model: str | Path | Loading = "pocket", **options: Unpack[Options]) -> None:
        """Forget one model, if it is here."""
        with self._lock:
            if self._models.pop(Loading.of(model, **options), None) is not None:
                _collect()

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
