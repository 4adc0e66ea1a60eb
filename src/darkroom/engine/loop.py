"""An engine's thread: jobs come in from any thread, run side by side, and are cancelled from any thread.

    with Loop(Engine(networks)) as loop:
        futures = [loop.submit(job) for job in jobs]
        futures[1].cancel()
        pixels = futures[0].result().value

How their work is put together is said in `darkroom.engine.engine`.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

from darkroom.engine.engine import AnyJob, Engine, Job, Task
from darkroom.errors import InvalidRequest

Told: TypeAlias = Callable[[Task[Any]], object]
"""Is told of a task whenever it got on."""


def untold(task: Task[Any]) -> None:
    """A `Told` that does nothing."""


@dataclass(frozen=True)
class _Submitted:
    """A job as it came in, and who waits for it."""

    job: Job
    told: Told
    owner: Hashable
    engine: Engine
    future: Future[Task[Any]]


class Loop:
    """Runs the jobs of many threads on one engine, which it has for itself, in a thread of its own.

    Several engines may share the thread, each with a model's networks and all with the same turns: then the one goes on
    whose job is due.

    The thread begins with the first job and ends with `close`, or with the program.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine
        self._inbox: deque[_Submitted] = deque()
        self._running: dict[Task[Any], _Submitted] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(
        self, job: AnyJob, told: Told = untold, owner: Hashable = None, engine: Engine | None = None
    ) -> Future[Task[AnyJob]]:
        """Take a job in, from any thread; for another engine than the loop's own where one is given.

        The future's result is the finished task; it raises what made the job fail. Its `cancel` works until then, from
        any thread: the job goes no further than the network call that it is in. `told` is called in the loop's thread
        whenever the job got on and once when it is finished: the place to look at `job.done` and `job.denoised` and to
        take a snapshot. It has to be short, for meanwhile no job gets on; what it raises makes the job fail. Owners
        take turns. Raises InvalidRequest when the loop is closed.
        """
        future: Future[Task[AnyJob]] = Future()
        with self._changed:
            if self._closed:
                raise InvalidRequest("the loop is closed: it takes no more jobs")
            if (engine := engine or self._engine) is None:
                raise InvalidRequest("the loop has no engine of its own: submit the job with one")
            self._inbox.append(_Submitted(job, told, owner, engine, future))
            if self._thread is None:
                # Not waited for by the interpreter, which would wait for ever: `close` does at exit.
                self._thread = threading.Thread(target=self._work, name="darkroom", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._changed.notify()
        return future

    def close(self, wait: bool = True) -> None:
        """Take no more jobs, cancel those that are here and, with `wait`, return when the thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # All that follows is for the loop's thread alone. Nothing of a job may stay in the variables of `_work`, where it
    # would live on while the loop waits.

    def _work(self) -> None:
        while self._awake():
            try:
                self._turn()
            except BaseException as error:
                self._end_all(error)
        self._end_all(None)
        atexit.unregister(self.close)

    def _awake(self) -> bool:
        """Wait until there is something to do. Whether there is, and not the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._inbox or self._running)
            return not self._closed

    def _turn(self) -> None:
        while self._inbox:
            each = self._inbox.popleft()
            try:
                self._running[each.engine.submit(each.job, each.owner)] = each
            except Exception as error:
                answer(each.future, error)
        self._drop_cancelled()
        advanced = self._due().tick() if self._running else []
        self._drop_cancelled()
        for task in advanced:
            if task in self._running:
                self._tell(task)

    def _due(self) -> Engine:
        """The engine that goes on."""
        engines = dict.fromkeys(each.engine for each in self._running.values())
        one = next(iter(engines))
        if len(engines) == 1:
            return one
        first, *_ = one.turns.queue([*self._running])
        return self._running[first].engine

    def _drop_cancelled(self) -> None:
        for task in [task for task, each in self._running.items() if each.future.cancelled()]:
            self._end(task, None)

    def _tell(self, task: Task[Any]) -> None:
        try:
            self._running[task].told(task)
        except BaseException as error:
            self._end(task, error)
        else:
            if task.finished:
                self._end(task, task.error)

    def _end(self, task: Task[Any], error: BaseException | None) -> None:
        """Let go of a task; one that is not finished is cancelled."""
        future = self._running.pop(task).future
        over = task.finished
        task.cancel()
        answer(future, error or (task if over else None))

    def _end_all(self, error: BaseException | None) -> None:
        """Let go of everything: because of an error, or at the end."""
        for task in [*self._running]:
            self._end(task, error)
        with self._changed:
            left, self._inbox = self._inbox, deque()
        for each in left:
            answer(each.future, error)


Outcome = TypeVar("Outcome")


def answer(future: Future[Outcome], outcome: Outcome | BaseException | None) -> None:
    """Give a future its result, what failed, or, with None, its cancellation; one that is cancelled stays so."""
    if outcome is None:
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        assert outcome is not None
        future.set_result(outcome)
