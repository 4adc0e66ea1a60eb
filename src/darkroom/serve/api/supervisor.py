"""The workers beside an API: started with it, started again when they end, told when there is something to do."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, select

from darkroom.serve import claims
from darkroom.serve.database import Database, Unavailable
from darkroom.serve.schema import workers
from darkroom.serve.settings import Serving, this_worker

log = logging.getLogger(__name__)

_FIRST, _LONGEST = 0.5, 5.0
"""Seconds between the end of a worker and the start of the next: twice as many each time, while they do not live."""
_LIVES = 30.0
"""Seconds after which a worker is taken to live."""
_GRACE = 10.0
"""Seconds beyond the time to drain that a worker has to end."""


class Supervisor:
    """Keeps so many worker processes running. `heard` is called when one of them says that there is news."""

    def __init__(self, serving: Serving, database: Database, heard: Callable[[], None]) -> None:
        self._serving, self._database, self._heard = serving, database, heard
        self._processes: set[Process] = set()
        self._loop = asyncio.get_running_loop()
        self._ending = False
        self._tasks = [
            asyncio.create_task(self._keep(), name=f"worker {number}") for number in range(serving.workers)
        ]

    def ring(self) -> None:
        """Tell all workers that there may be something to do; from any thread."""
        with suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._say(b"ring\n")

    def _say(self, word: bytes) -> None:
        for process in self._processes:
            pipe = process.stdin
            # One that does not listen now is told enough when it does.
            if pipe is not None and not pipe.is_closing() and not pipe.transport.get_write_buffer_size():
                pipe.write(word)

    async def drain(self) -> None:
        """Have all workers finish what they have in hand, and return when they have ended."""
        self._ending = True
        self._signal()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=self._serving.drain + _GRACE)
            for process in [*self._processes] if left else []:
                log.error("worker %d does not end: it is killed", process.pid)
                process.kill()
            for task in left:
                with suppress(asyncio.CancelledError):
                    await task

    def hurry(self) -> None:
        """Have workers that are draining write down where they are, and end."""
        self._say(b"hurry\n")

    def _signal(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()

    async def _keep(self) -> None:
        pause = _FIRST
        while True:
            began = time.monotonic()
            try:
                await self._run()
            except Exception:
                log.exception("a worker could not be run")
            if self._is_ending():
                return
            # Not at once where it ends as soon as it is there.
            pause = _FIRST if time.monotonic() - began > _LIVES else min(2 * pause, _LONGEST)
            await asyncio.sleep(pause)
            if self._is_ending():
                return

    def _is_ending(self) -> bool:
        return self._ending

    async def _run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "darkroom.serve.worker", stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        assert process.stdin is not None and process.stdout is not None
        self._processes.add(process)
        if self._ending:  # It was told while this one began.
            self._signal()
        try:
            process.stdin.write(json.dumps(dataclasses.asdict(self._serving)).encode() + b"\n")
            with suppress(ConnectionError):
                await process.stdin.drain()
            while await process.stdout.readline():
                self._heard()
            code = await process.wait()
        finally:
            self._processes.discard(process)
            if process.returncode is None:
                process.kill()
        if not self._ending:
            log.error("worker %d ended (%s): another one is started", process.pid, code)
        await self._bury(process.pid)

    async def _bury(self, pid: int) -> None:
        """What a worker had in hand goes to others at once: that it is dead is known here."""
        host, _ = this_worker()

        def buried(connection: Connection) -> None:
            mine = select(workers.c.id).where(workers.c.host == host, workers.c.pid == pid)
            for name in connection.execute(mine).scalars().all():
                claims.bury(connection, name)

        try:
            await asyncio.wrap_future(self._database.write(buried))
        except Unavailable as error:  # Its lease ends by itself.
            log.warning("%s", error)
