"""A job that a worker has in hand: its pictures, each on its way through the engine."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from darkroom.engine import Task
from darkroom.generation.job import Job
from darkroom.generation.request import Request, flattened
from darkroom.generation.sources import Source
from darkroom.generation.templates import pictures
from darkroom.model import Model
from darkroom.series import Step
from darkroom.serve.claims import Claimed
from darkroom.serve.intake import PICTURES
from darkroom.serve.objects import Objects, key_of
from darkroom.serve.results import Progress

PREVIEWS = 0.5
"""Seconds between two previews of a picture."""
_QUALITY = 80


@dataclass(eq=False)
class Way:
    """A picture on its way: its job in the engine, where the next checkpoint is due, what of it was shown last."""

    number: int
    job: Job
    saved_at: float
    task: Future[Task[Job]] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    shown_at: float = 0.0
    shown: int = 0


class Hand:
    """A claimed job at work. Its counts may be read from any thread."""

    def __init__(self, job: Claimed) -> None:
        self.job = job
        self.model: Model | None = None
        self.asked: Request | None = None
        self.ways: dict[int, Way] = {}
        self.over = threading.Event()
        """Set once it is ended, given back or lost: nothing more of it is written."""
        self._left: Iterator[tuple[int, Request]] = iter(())
        self._done, self._seconds = 0, Counter[str](job.spent)
        self._told = 0
        self.precise = False
        """Whether it is made in float32, whatever the worker's precision is."""
        self._lock = threading.Lock()

    def begin(self, model: Model, objects: Objects) -> None:
        """See what there is to make. Raises InvalidRequest for what the model cannot do."""
        self.model = model
        self.asked = read_request(self.job.asked, objects)
        whole = model.settle(read_request(self.job.request, objects))
        self._left = (each for each in enumerate(pictures(whole)) if each[0] not in self.job.made)

    def next(self) -> tuple[int, Request] | None:
        """The next picture that nobody has begun: its number and its request."""
        with self._lock:
            return None if self.over.is_set() else next(self._left, None)

    def begun(self, way: Way) -> Way:
        """Count a picture that the engine begins."""
        with self._lock:
            self.ways[way.number] = way
        return way

    def has(self, way: Way) -> bool:
        """Whether a picture is still to be made in this way: the job is not over, and was not begun again."""
        return not self.over.is_set() and self.ways.get(way.number) is way

    def made(self, way: Way, seconds: Mapping[str, float]) -> None:
        """Count a picture that is made."""
        with self._lock:
            self.ways.pop(way.number, None)
            self._done += way.job.done
            self._seconds.update(seconds)

    def spend(self, **seconds: float) -> None:
        """Count seconds that were spent beside the engine, by what on."""
        with self._lock:
            self._seconds.update(seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Of the engine, by phase."""
        with self._lock:
            found = Counter(self._seconds)
            for way in self.ways.values():
                found.update(way.seconds)
            return dict(found)

    def progress(self) -> Progress | None:
        """How far it has come; None where that is no further than it was when this was asked last."""
        with self._lock:
            ways = [*self.ways.values()]
            if not ways:
                return None
            each = ways[0].job.total  # The others are like this one.
            done = len(self.job.made) * each + self._done + sum(way.job.done for way in ways)
            if done == self._told:
                return None
            self._told, total = done, max(done, self.job.count * each)
        return Progress(self.job, done, total, self.seconds)

    def previews(self) -> Iterator[tuple[int, bytes, int]]:
        """What its pictures look like, of those that have got on since they were last looked at: number, JPEG and how
        many network calls are behind it."""
        now = time.monotonic()
        with self._lock:
            ways = [*self.ways.values()]
        for way in ways:
            done = way.job.done
            if done == way.shown or now - way.shown_at < PREVIEWS:
                continue
            way.shown, way.shown_at = done, now
            seed = way.job.request.seed or 0
            image = Step(way.number, seed, done, way.job.total, way.job.denoised, way.job.family).preview()
            if image is not None:
                content = io.BytesIO()
                image.save(content, "JPEG", quality=_QUALITY)
                yield way.number, content.getvalue(), done

    def again_in_float32(self) -> bool:
        """Begin again what is not made, in float32. Whether that may help: it was in a lower precision until now."""
        with self._lock:
            if self.model is None or self.model.placement.precision == "float32":
                return False
            ways, self.ways = [*self.ways.values()], {}
            helps, self.precise = not self.precise, True
        for way in ways:
            if way.task is not None:
                way.task.cancel()
        return helps

    def stop(self) -> list[Way]:
        """Have the engine go no further with it, and nothing more of it written. Gives what was on its way."""
        self.over.set()
        with self._lock:
            ways = [*self.ways.values()]
        for way in ways:
            if way.task is not None:
                way.task.cancel()
        return ways


def read_request(said: Mapping[str, Any], objects: Objects) -> Request:
    """A request as it was written down, with its pictures. Raises Unstored where one is gone."""
    settings = flattened(said)
    for name in PICTURES:
        value = settings.get(name)
        if isinstance(value, Mapping) and "sha256" in value:
            sha256 = str(value["sha256"])
            settings[name] = Source(None, sha256, objects.get(key_of(sha256)))
    return Request.from_dict(settings)
