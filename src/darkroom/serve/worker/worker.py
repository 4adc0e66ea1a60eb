"""A worker at work: it claims jobs, has its engine make their pictures side by side, and writes down what came of them.

Four kinds of threads: the keeper, which claims, beats and tells (`run`, in the thread that calls it); the engine's
one; those that prepare jobs (models are loaded there); and those that finish pictures. What a worker writes counts as
long as its claim does: one that was taken for dead is told so, and lets go.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from sqlalchemy import Connection, select

from darkroom.engine import Loop, Task
from darkroom.errors import Cancelled
from darkroom.generation.job import Job
from darkroom.generation.picture import Picture
from darkroom.generation.request import Request
from darkroom.generation.saved import Saved
from darkroom.serve import claims, results
from darkroom.serve.database import Change, Database, Result, Unavailable
from darkroom.serve.objects import Objects, Unstored, keep, key_of
from darkroom.serve.problems import code_of
from darkroom.serve.results import Lost, Made
from darkroom.serve.schema import shelf
from darkroom.serve.settings import Serving, this_worker
from darkroom.serve.worker.hand import Hand, Way
from darkroom.serve.worker.models import Models
from darkroom.serve.worker.shares import Owner, Shares

log = logging.getLogger(__name__)

_TELL = 0.25
"""Seconds between two looks at how far jobs have come, and at what is to be cancelled."""
_IDLE = 2.0
"""Seconds after which a worker with room looks for jobs, whoever rings or not."""
_BEATS = 5
"""Beats in a lease."""
_CLOSELY = 0.5
"""Seconds between the checkpoints of a job over which a worker has ended."""
_ABREAST = 2
"""Pictures of one job that are on their way at a time."""
_AGAIN = 1.0
"""Seconds after which what could not be written is written again."""


class Worker:
    """Makes what is asked for, until it is told to end."""

    def __init__(self, serving: Serving, database: Database, objects: Objects) -> None:
        self._serving, self._database, self._objects = serving, database, objects
        self._bell, self._ending = threading.Event(), threading.Event()
        self._hands: dict[str, Hand] = {}
        self._loop = Loop()
        self._turns = Shares()
        self._models = Models(serving, self._turns, self._heard_of_models)
        # One model is loaded at a time; while it is, jobs of others that are here go on.
        self._preparing = ThreadPoolExecutor(4, "preparing")
        self._enlarging = ThreadPoolExecutor(1, "enlarging")
        self._finishing = ThreadPoolExecutor(2, "finishing")
        self._watch = claims.Watch(serving.lease)
        self._id = ""
        self._state = "starting"
        self._models_changed = False
        self._due: dict[str, float] = {}
        self._deadline = math.inf

    # From outside, in any thread.

    def ring(self) -> None:
        """There may be something to do."""
        self._bell.set()

    def drain(self) -> None:
        """Take no more jobs, and end when those in hand are done, or when the time for that is over; at once if this is
        called again."""
        here = time.monotonic()
        self._deadline = here if self._ending.is_set() else here + self._serving.drain
        self._ending.set()
        self._bell.set()

    def _heard_of_models(self) -> None:
        self._models_changed = True
        self._bell.set()

    # The keeper.

    def run(self) -> None:
        """Work until `drain`."""
        self._enlist()
        self._prepare_usual()
        while not self._ending.is_set() or (self._hands and time.monotonic() < self._deadline):
            try:
                self._keep()
            except Unavailable as error:
                log.warning("%s", error)
                time.sleep(_AGAIN)
            self._bell.wait(self._pause())
            self._bell.clear()
        self._end()

    def _pause(self) -> float:
        return _TELL if self._hands else min(_IDLE, self._serving.lease / _BEATS)

    def _keep(self) -> None:
        """One look at all that is to be kept going."""
        self._tell()
        if self._is_due("beat", self._serving.lease / _BEATS):
            self._beat()
        elif self._models_changed and self._is_due("models", _TELL):
            self._models_changed = False
            self._beat()
        if self._is_due("watch", self._serving.lease / 3):
            for name in self._written(self._watch.look):
                log.warning("%s is dead: its jobs wait again", name)
        if not self._ending.is_set():
            self._claim()

    def _is_due(self, what: str, every: float) -> bool:
        here = time.monotonic()
        if here < self._due.get(what, 0.0):
            return False
        self._due[what] = here + every
        return True

    def _enlist(self) -> None:
        host, pid = this_worker()
        self._id = self._written(lambda connection: claims.enlist(connection, host, pid, {}))

    def _beat(self) -> None:
        known = {*self._hands}
        facts = {"models": self._models.facts(), "in_hand": len(self._hands), "slots": self._serving.slots}
        state = "draining" if self._ending.is_set() else self._state

        def beaten(connection: Connection) -> tuple[bool, dict[str, bool]]:
            for job in claims.stray(connection, self._id, known):
                log.warning("%s was claimed and is not in hand: it waits again", job)
            wanted = connection.execute(select(shelf.c.model, shelf.c.wanted))
            return claims.beat(connection, self._id, state, facts), {
                each.model: each.wanted for each in wanted
            }

        counts, wanted = self._written(beaten)
        if not counts:
            log.warning("%s was taken for dead: its jobs are others' now", self._id)
            for hand in [*self._hands.values()]:
                self._drop(hand)
            self._enlist()
        self._shelve(wanted)

    def _shelve(self, wanted: Mapping[str, bool]) -> None:
        """Load and let go of models as it is wanted."""
        here = self._models.facts()
        for name, load in wanted.items():
            if load and name not in here:
                self._preparing.submit(self._load, name)
            elif not load and here.get(name, {}).get("state") == "loaded" and not self._in_use(name):
                self._models.forget(name)

    def _in_use(self, name: str) -> bool:
        return any(hand.job.model == name for hand in self._hands.values())

    def _prepare_usual(self) -> None:
        self._preparing.submit(self._load, self._models.usual)

    def _load(self, name: str) -> None:
        try:
            self._models.get(name)
            self._state = "ready"
        except Exception as error:
            log.error("cannot load %s: %s", name, error)
            if self._state != "ready":
                self._state = "failed"
        self._bell.set()

    def _claim(self) -> None:
        room = self._serving.slots - len(self._hands)
        if room <= 0 or any(hand.job.alone for hand in self._hands.values()):
            return
        idle = not self._hands
        for job in self._written(lambda connection: claims.claim(connection, self._id, room, idle)):
            hand = self._hands[job.id] = Hand(job)
            if job.kind == "upscale":
                self._enlarging.submit(self._enlarge, hand)
            else:
                self._preparing.submit(self._prepare, hand)

    def _tell(self) -> None:
        """Write down how far jobs have come, and hear of those that are to be cancelled, or are no longer ours."""
        hands = [hand for hand in self._hands.values() if not hand.over.is_set()]
        if not hands:
            return
        made = [progress for hand in hands if (progress := hand.progress()) is not None]
        shown = [(hand.job, *each) for hand in hands for each in hand.previews()]

        def told(connection: Connection) -> tuple[set[str], set[str]]:
            for each in shown:
                results.preview(connection, *each)
            return results.advance(connection, self._id, made)

        ours, cancelled = self._written(told)
        for hand in hands:
            if hand.job.id in cancelled:
                hand.stop()
                self._ended(hand, "cancelled")
            elif hand.job.id not in ours and not hand.over.is_set():
                self._drop(hand)

    def _written(self, change: Change[Result]) -> Result:
        return self._database.write(change).result()

    def _end(self) -> None:
        """Let go of everything; what is not finished is written down, for others to go on with."""
        left = [(hand, way) for hand in [*self._hands.values()] for way in hand.stop()]
        self._loop.close()
        self._finishing.shutdown()
        for pool in (self._preparing, self._enlarging):  # A model that is being loaded is not waited for.
            pool.shutdown(wait=False, cancel_futures=True)
        for hand, way in left:
            if (saved := way.job.snapshot()) is not None:
                self._checkpoint(hand, way, saved.to_bytes(), saved.done)
        try:
            self._written(lambda connection: claims.leave(connection, self._id))
        except Unavailable as error:  # Whoever looks after workers does it in our place.
            log.warning("%s", error)

    # Those that prepare jobs.

    def _prepare(self, hand: Hand) -> None:
        try:
            assert hand.job.model is not None
            hand.begin(self._models.get(hand.job.model), self._objects)
            for _ in range(_ABREAST):
                self._next(hand)
        except Exception as error:
            self._failed(hand, error)

    def _next(self, hand: Hand) -> None:
        """Have the engine begin the next picture of a job, if there is one."""
        if (due := hand.next()) is None:
            return
        model, (number, single) = hand.model, due
        assert model is not None
        job = self._resumed(hand, number, single)
        way = hand.ways[number] = Way(number, job, time.monotonic())
        owner = Owner(hand.job.owner, hand.job.priority)
        way.task = self._loop.submit(job, partial(self._got_on, hand, way), owner, self._models.engine(model))
        way.task.add_done_callback(partial(self._made, hand, way))

    def _resumed(self, hand: Hand, number: int, single: Request) -> Job:
        """The job of a picture, from its last checkpoint on; anew where that cannot be read any more."""
        assert hand.model is not None
        if (key := hand.job.checkpoints.get(number)) is not None:
            try:
                return hand.model.job(single, Saved.from_bytes(self._objects.get(key)))
            except Exception as error:
                log.warning("%s: picture %d begins anew (%s)", hand.job.id, number, error)
        return hand.model.job(single)

    def _enlarge(self, hand: Hand) -> None:
        """Make a picture larger, beside the engine."""
        began = time.monotonic()

        def going_on(done: int, of: int) -> None:
            if hand.over.is_set():
                raise Cancelled("cancelled before the picture was finished")

        try:
            request = dict(hand.job.request)
            content = self._objects.get(key_of(request.pop("image")["sha256"]))
            upscaler = self._models.upscaler(request.pop("upscaler"))
            picture = upscaler.upscale(content, progress=going_on, **request)
            hand.spend(enlarge=time.monotonic() - began)
            self._stored(hand, 0, picture, time.monotonic() - began)
        except Exception as error:
            self._failed(hand, error)

    # The engine's thread.

    def _got_on(self, hand: Hand, way: Way, task: Task[Job]) -> None:
        way.seconds = dict(task.seconds)
        # What ended workers is watched closely: whatever it gets on by, it is not the one to blame.
        every = min(self._serving.checkpoint, _CLOSELY) if hand.job.deaths else self._serving.checkpoint
        if task.finished or time.monotonic() - way.saved_at < every:
            return
        if (saved := task.job.snapshot()) is not None:
            way.saved_at = time.monotonic()
            self._finishing.submit(self._checkpoint, hand, way, saved.to_bytes(), saved.done)

    def _made(self, hand: Hand, way: Way, future: Future[Task[Job]]) -> None:
        if hand.over.is_set() or future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._finishing.submit(self._failed, hand, error)
            return
        task = future.result()
        hand.made(way, task.seconds)
        self._preparing.submit(self._going_on, hand)
        self._finishing.submit(self._finish, hand, way, task)

    def _going_on(self, hand: Hand) -> None:
        try:
            self._next(hand)
        except Exception as error:
            self._failed(hand, error)

    # Those that finish pictures.

    def _checkpoint(self, hand: Hand, way: Way, content: bytes, done: int) -> None:
        try:
            self._save(hand, way, content, done)
        except Lost:
            self._drop(hand)
        except Exception as error:  # The next one may go well.
            log.warning("%s: no checkpoint of picture %d (%s)", hand.job.id, way.number, error)

    def _save(self, hand: Hand, way: Way, content: bytes, done: int) -> None:
        key = f"checkpoints/{hand.job.id}/{way.number}-{hand.job.fence}-{done}"
        self._objects.put(key, content)
        before = self._written(
            lambda connection: results.checkpoint(connection, hand.job, way.number, key, done)
        )
        if before is not None and before != key:
            self._objects.delete(before)

    def _finish(self, hand: Hand, way: Way, task: Task[Job]) -> None:
        try:
            assert hand.model is not None and hand.asked is not None
            picture = hand.model.picture(hand.asked, task, way.number)
            self._stored(hand, way.number, picture, sum(task.seconds.values()))
        except Exception as error:
            self._failed(hand, error)

    def _stored(self, hand: Hand, number: int, picture: Picture, seconds: float) -> None:
        """Keep a picture: its bytes first, then its record. What a policy has to say of a picture, and what marks it,
        has its place before this."""
        format = hand.job.format
        content = picture.encoded(format)
        width, height = picture.image.size

        def recorded(sha256: str) -> None:
            made = Made(number, sha256, len(content), format, width, height, picture.seed, seconds)
            self._tidy(hand, lambda connection: results.add(connection, hand.job, made, hand.seconds))

        self._insist(hand, lambda: keep(self._objects, content, recorded))

    def _failed(self, hand: Hand, error: BaseException) -> None:
        if hand.over.is_set():
            return
        if isinstance(error, Lost):
            self._drop(hand)
            return
        code, why = code_of(error)
        if code == "internal":
            log.error("%s failed", hand.job.id, exc_info=error)
        hand.stop()
        self._ended(hand, "failed", code, why)

    def _ended(self, hand: Hand, state: str, code: str | None = None, why: str | None = None) -> None:
        """Write down that a job is over, other than by its last picture."""

        def ended(connection: Connection) -> tuple[list[str], bool]:
            return results.end(connection, hand.job, state, code, why), True

        try:
            self._insist(hand, lambda: self._tidy(hand, ended), over=True)
        except Lost:
            pass
        except Exception:  # It waits again as soon as it is seen to be in nobody's hand.
            log.exception("%s could not be ended", hand.job.id)
        self._drop(hand)

    def _tidy(self, hand: Hand, change: Change[tuple[list[str], bool]]) -> None:
        """Write a change, which gives the checkpoints that nobody needs any more, and whether the job is over."""
        keys, over = self._written(change)
        for key in keys:
            self._objects.delete(key)
        if over:
            self._drop(hand)

    def _insist(self, hand: Hand, change: Callable[[], object], over: bool = False) -> None:
        """Try until it goes well: a database or a disk that does not answer loses no picture that is made. Raises Lost
        where the job is no longer ours."""
        while True:
            try:
                change()
            except (Unavailable, Unstored) as error:
                if hand.over.is_set() and not over:
                    raise Lost(f"{hand.job.id} is over") from error
                log.warning("%s: %s", hand.job.id, error)
                time.sleep(_AGAIN)
                if time.monotonic() > self._deadline:
                    raise
            else:
                return

    def _drop(self, hand: Hand) -> None:
        """Let go of a job."""
        hand.stop()
        self._hands.pop(hand.job.id, None)
        self._bell.set()
