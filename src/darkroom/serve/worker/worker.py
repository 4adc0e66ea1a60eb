"""A worker at work: it claims jobs, has its engine make their pictures side by side, and writes down what came of them.

Four kinds of threads: the keeper, which claims, beats and tells (`run`, in the thread that calls it); the engine's
one; those that prepare jobs (models are loaded there); and those that finish pictures. What a worker writes counts as
long as its claim does: one that was taken for dead is told so, and lets go.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from sqlalchemy import Connection, select

from darkroom.engine import Loop, Task
from darkroom.engine.devices import device_lost
from darkroom.errors import Cancelled, NotANumber
from darkroom.generation.job import Job
from darkroom.generation.picture import QUALITY, Picture
from darkroom.generation.saved import Saved
from darkroom.serve import claims, results
from darkroom.serve.database import Change, Database, Result, Unavailable
from darkroom.serve.objects import Objects, Unstored, content_key, key_of
from darkroom.serve.problems import code_of
from darkroom.serve.results import Lost, Made
from darkroom.serve.schema import shelf
from darkroom.serve.settings import Serving, this_worker
from darkroom.serve.worker.hand import Hand, Way
from darkroom.serve.worker.models import Models
from darkroom.serve.worker.progress import Checkpoints
from darkroom.serve.worker.shares import Owner, Shares
from darkroom.serve.worker.stall import Stall, give_up

log = logging.getLogger(__name__)

_TELL = 0.25
"""Seconds between two looks at how far jobs have come, and at what is to be cancelled."""
_IDLE = 2.0
"""Seconds after which a worker with room looks for jobs, whoever rings or not."""
_BEATS = 5
"""Beats in a lease."""
_LOADS_AGAIN = 30.0
"""Seconds after which a worker that could not load its model tries to; it takes no jobs meanwhile."""
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
        self._checkpoints = Checkpoints(database, objects)
        self._hands: dict[str, Hand] = {}
        self._loop = Loop()
        self._turns = Shares()
        self._models = Models(serving, self._turns, self._heard_of_models)
        self._loading = ThreadPoolExecutor(1, "loading")
        self._preparing = ThreadPoolExecutor(4, "preparing")
        self._enlarging = ThreadPoolExecutor(1, "enlarging")
        self._finishing = ThreadPoolExecutor(2, "finishing")
        self._watch = claims.Watch(serving.lease)
        self._stall = Stall(serving.stall)
        self._id = ""
        self._state = "starting"
        self._models_changed = False
        self._due: dict[str, float] = {}
        self._heeded: dict[str, float] = {}
        self._deadline = math.inf

    # From outside, in any thread.

    def ring(self) -> None:
        """There may be something to do."""
        self._bell.set()

    def drain(self, hurry: bool = False) -> None:
        """Take no more jobs, and end when those in hand are done, or when the time for that is over; at once in a
        hurry."""
        here = time.monotonic()
        self._deadline = min(self._deadline, here if hurry else here + self._serving.drain)
        self._ending.set()
        self._bell.set()

    def ends_with(self, *numbers: signal.Signals) -> None:
        """Drain when the process is sent one of these signals. For the main thread, before `run`: a thread waits for
        them, for a handler may come while the very lock is held that it needs."""
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

        def wait() -> None:
            while True:
                signal.sigwait(numbers)
                self.drain()

        threading.Thread(target=wait, name="signals", daemon=True).start()

    def _heard_of_models(self) -> None:
        self._models_changed = True
        self._bell.set()

    # The keeper.

    def run(self) -> None:
        """Work until `drain`."""
        self._enlist()
        self._loading.submit(self._load, self._models.usual)
        while not self._ending.is_set() or (self._hands and time.monotonic() < self._deadline):
            try:
                self._keep()
            except Unavailable as error:
                log.warning("%s", error)
                time.sleep(_AGAIN)
            except Exception:  # One look that fails is not to cost all jobs in hand.
                log.exception("the keeper failed")
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
        if self._state == "failed" and self._is_due("again", _LOADS_AGAIN):
            self._loading.submit(self._load, self._models.usual)
        self._stall.look(any(hand.ways for hand in [*self._hands.values()]))
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

        def beaten(connection: Connection) -> tuple[bool, list[tuple[str, bool, float]]]:
            for job in claims.stray(connection, self._id, known):
                log.warning("%s was claimed and is not in hand: it waits again", job)
            wishes = [(row.model, row.wanted, row.at) for row in connection.execute(select(shelf))]
            return claims.beat(connection, self._id, state, facts), wishes

        counts, wishes = self._written(beaten)
        if not counts:
            log.warning("%s was taken for dead: its jobs are others' now", self._id)
            for hand in [*self._hands.values()]:
                self._drop(hand)
            self._enlist()
        self._shelve(wishes)

    def _shelve(self, wishes: Iterable[tuple[str, bool, float]]) -> None:
        """Load and let go of models as it was wished since it was looked at last, each once."""
        for name, load, at in wishes:
            if self._heeded.get(name) == at or (not load and self._in_use(name)):
                continue
            self._heeded[name] = at
            if load:
                self._loading.submit(self._load, name)
            else:
                self._models.forget(name)

    def _in_use(self, name: str) -> bool:
        return any(hand.job.model == name for hand in [*self._hands.values()])

    def _load(self, name: str) -> None:
        try:
            self._models.get(name)
            self._state = "ready"
        except Exception as error:
            log.error("cannot load %s: %s", name, error)
            if self._state != "ready":
                self._is_due("again", _LOADS_AGAIN)
                self._state = "failed"
        self._bell.set()

    def _claim(self) -> None:
        room = self._serving.slots - len(self._hands)
        hands = [*self._hands.values()]
        if room <= 0 or self._state != "ready" or any(hand.job.alone for hand in hands):
            return
        idle = not hands
        for job in self._written(lambda connection: claims.claim(connection, self._id, room, idle)):
            hand = self._hands[job.id] = Hand(job)
            if job.kind == "upscale":
                self._enlarging.submit(self._enlarge, hand)
            else:
                self._preparing.submit(self._prepare, hand)

    def _tell(self) -> None:
        """Write down how far jobs have come, and hear of those that are to be cancelled, or are no longer ours."""
        hands = [hand for hand in [*self._hands.values()] if not hand.over.is_set()]
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
        # A model that is being loaded is not waited for.
        for pool in (self._loading, self._preparing, self._enlarging):
            pool.shutdown(wait=False, cancel_futures=True)
        for hand, way in left:
            if (saved := way.job.snapshot()) is not None:
                self._checkpoint(hand, way, saved)
        try:
            self._written(lambda connection: claims.leave(connection, self._id))
        except Unavailable as error:  # Whoever looks after workers does it in our place.
            log.warning("%s", error)

    # Those that prepare jobs.

    def _prepare(self, hand: Hand) -> None:
        try:
            assert hand.job.model is not None
            hand.begin(self._models.get(hand.job.model, hand.precise), self._objects)
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
        job = self._checkpoints.resumed(hand.job, model, number, single)
        way = hand.begun(Way(number, job, time.monotonic()))
        owner = Owner(hand.job.owner, hand.job.priority)
        way.task = self._loop.submit(job, partial(self._got_on, hand, way), owner, self._models.engine(model))
        way.task.add_done_callback(partial(self._made, hand, way))
        if hand.over.is_set():  # It was stopped while this was prepared.
            way.task.cancel()

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
        self._stall.moved()
        # What ended workers is watched closely: whatever it gets on by, it is not the one to blame.
        every = min(self._serving.checkpoint, _CLOSELY) if hand.job.deaths else self._serving.checkpoint
        if task.finished or time.monotonic() - way.saved_at < every:
            return
        if (saved := task.job.snapshot()) is not None:
            way.saved_at = time.monotonic()
            self._finishing.submit(self._checkpoint, hand, way, saved)

    def _made(self, hand: Hand, way: Way, future: Future[Task[Job]]) -> None:
        if future.cancelled() or not hand.has(way):
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

    def _checkpoint(self, hand: Hand, way: Way, saved: Saved) -> None:
        assert hand.model is not None
        try:
            self._checkpoints.save(hand.job, hand.model, way.number, saved)
        except Lost:
            self._drop(hand)
        except Exception as error:  # The next one may go well.
            log.warning("%s: no checkpoint of picture %d (%s)", hand.job.id, way.number, error)

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
        content = picture.encoded(format, quality=hand.job.quality or QUALITY)
        sha256, key = content_key(content)
        width, height = picture.image.size
        made = Made(number, sha256, len(content), format, width, height, picture.seed, seconds)
        self._insist(hand, lambda: self._objects.put(key, content))
        self._insist(
            hand,
            lambda: self._tidy(
                hand, lambda connection: results.add(connection, hand.job, made, hand.seconds)
            ),
        )

    def _failed(self, hand: Hand, error: BaseException) -> None:
        if hand.over.is_set():
            return
        if isinstance(error, Lost):
            self._drop(hand)
            return
        if isinstance(error, Unavailable | Unstored):
            self._given_back(hand, error)
            return
        if device_lost(error):  # Nothing more can be made by this process.
            give_up(str(error))
        if isinstance(error, NotANumber) and hand.again_in_float32():
            log.warning("%s: %s; once more in float32", hand.job.id, error)
            self._preparing.submit(self._prepare, hand)
            return
        code, why = code_of(error)
        if code == "internal":
            log.error("%s failed", hand.job.id, exc_info=error)
        hand.stop()
        self._ended(hand, "failed", code, why)

    def _given_back(self, hand: Hand, why: Exception) -> None:
        """What the machine cannot do now is no fault of a job: it waits again."""
        log.warning("%s waits again: %s", hand.job.id, why)
        hand.stop()
        try:
            self._written(lambda connection: claims.release(connection, hand.job.id, hand.job.fence))
        except Unavailable:  # It waits again as soon as it is seen to be in nobody's hand.
            time.sleep(_AGAIN)
        self._drop(hand)

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
        if self._hands.get(hand.job.id) is hand:  # It may have come again.
            del self._hands[hand.job.id]
        self._bell.set()
