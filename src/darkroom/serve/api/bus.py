"""Events on their way to those who follow them, in the API process: read from the database once for all, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from darkroom.serve import events
from darkroom.serve.database import Database, Unavailable
from darkroom.serve.events import Event

log = logging.getLogger(__name__)

_POLL = 0.5
"""Seconds after which the database is asked whether there is news, where nobody says so."""
_MOST_BEHIND = 1000
"""Events that somebody may be behind: who reads no faster is let go, and comes back for the rest."""


class _Follower:
    """Somebody who hears of a job, or of all of an owner's."""

    def __init__(self, owner: str, job: str | None) -> None:
        self.owner, self.job = owner, job
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(_MOST_BEHIND)

    def hear(self, event: Event) -> None:
        if event.owner != self.owner or self.job not in (None, event.job):
            return
        with suppress(asyncio.QueueFull):
            self.queue.put_nowait(event)
            return
        self.end()

    def end(self) -> None:
        # What waits is heard when they come back: with a part of it the rest would be missed.
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Bus:
    """Tells followers of events as they come."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: set[_Follower] = set()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="bus")

    def rang(self) -> None:
        """There may be news; from any thread."""
        with suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._news.set)

    async def follow(
        self, owner: str, job: str | None = None, since: int | None = None
    ) -> AsyncIterator[Event]:
        """The events of an owner's job, or of all jobs of the owner: first those after the number `since`, if it is
        given, then each as it comes. Ends when the service does, and for whoever does not keep up."""
        follower = _Follower(owner, job)
        self._followers.add(follower)
        try:
            last = -1
            if since is not None:
                last = since
                while missed := await asyncio.to_thread(
                    self._database.read, partial(events.since, seq=last, job=job, owner=owner)
                ):
                    for event in missed:
                        last = event.seq
                        yield event
            while (heard := await follower.queue.get()) is not None:
                if heard.seq > last:
                    last = heard.seq
                    yield heard
        finally:
            self._followers.discard(follower)

    async def close(self) -> None:
        """Let all followers go."""
        self._task.cancel()
        for follower in [*self._followers]:
            follower.end()

    async def _run(self) -> None:
        last: int | None = None
        while True:
            try:
                if last is None:
                    last = await asyncio.to_thread(self._database.read, events.last_seq)
                elif found := await asyncio.to_thread(self._database.read, partial(events.since, seq=last)):
                    last = found[-1].seq
                    for event in found:
                        for follower in [*self._followers]:
                            follower.hear(event)
                    continue  # There may be more.
            except Unavailable as error:
                log.warning("%s", error)
                await asyncio.sleep(_POLL)
            except Exception:  # Who follows is not to wait for ever because of it.
                log.exception("the bus failed")
                await asyncio.sleep(_POLL)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _POLL)
            self._news.clear()
