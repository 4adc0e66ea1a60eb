"""What a pipeline's call has of its own while it runs, however many run at once: what callbacks look at and change."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from darkroom.compat.diffusers.schedulers.base import Scheduler


@dataclass(eq=False)
class Running:
    """The state of a call, under diffusers' names; of the last one where none runs."""

    _guidance_scale: float = 1.0
    _guidance_rescale: float = 0.0
    _image_guidance_scale: float = 1.0
    _clip_skip: int | None = None
    _num_timesteps: int = 0
    _interrupt: bool = False
    scheduler: Scheduler | None = None


class _Own:
    """An attribute of the call that runs in this thread."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, pipe: Any, owner: type) -> Any:
        return self if pipe is None else getattr(pipe._now(), self.name)

    def __set__(self, pipe: Any, value: Any) -> None:
        setattr(pipe._now(), self.name, value)


class _Interrupt(_Own):
    """Set where no call runs, as by a button's thread, it is meant for all of them."""

    def __set__(self, pipe: Any, value: Any) -> None:
        now = pipe._now()
        for each in [now] if now is not pipe._last else [now, *pipe._running]:
            each._interrupt = value


class Calls:
    """What is of a call and not of the pipeline, which is the same for callbacks in all threads."""

    _guidance_scale = _Own()
    _guidance_rescale = _Own()
    _image_guidance_scale = _Own()
    _clip_skip = _Own()
    _num_timesteps = _Own()
    _interrupt = _Interrupt()

    def _begin_calls(self) -> None:
        self._last = Running()
        self._running: list[Running] = []
        self._threads = threading.local()

    def _now(self) -> Running:
        stack = getattr(self._threads, "stack", None)
        return stack[-1] if stack else self._last

    @contextmanager
    def _call(self, scheduler: Scheduler) -> Iterator[Running]:
        """A call in this thread, within another one if need be; when it has ended, its state is there to be read."""
        state = Running(scheduler=copy.copy(scheduler))
        stack = self._threads.__dict__.setdefault("stack", [])
        stack.append(state)
        self._running.append(state)
        try:
            yield state
        finally:
            stack.pop()
            self._running.remove(state)
            ended = copy.copy(state)
            ended.scheduler = None
            self._last = ended
            assert state.scheduler is not None
            scheduler.lay_out_as(state.scheduler)

    @property
    def scheduler(self) -> Any:
        """The scheduler; within a call, its own copy."""
        return self._now().scheduler or self._scheduler

    @scheduler.setter
    def scheduler(self, value: Any) -> None:
        self._scheduler = value

    @property
    def guidance_scale(self) -> float:
        return float(self._guidance_scale)

    @property
    def guidance_rescale(self) -> float:
        return float(self._guidance_rescale)

    @property
    def image_guidance_scale(self) -> float:
        return float(self._image_guidance_scale)

    @property
    def clip_skip(self) -> int | None:
        return self._clip_skip  # type: ignore[no-any-return]

    @property
    def num_timesteps(self) -> int:
        return int(self._num_timesteps)

    @property
    def interrupt(self) -> bool:
        return bool(self._interrupt)
