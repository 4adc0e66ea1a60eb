"""What the API does for its clients, whichever door they come in by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from darkroom.errors import InvalidRequest, ModelError
from darkroom.photos import facts_of
from darkroom.serve import batches, claims, events, jobs
from darkroom.serve.api.bus import Bus
from darkroom.serve.api.supervisor import Supervisor
from darkroom.serve.batches import Batch
from darkroom.serve.catalogue import Catalogue
from darkroom.serve.database import Change, Database, now, put_row
from darkroom.serve.events import Event
from darkroom.serve.intake import Intake, digest
from darkroom.serve.jobs import Found, Submission
from darkroom.serve.migrations import upgrade
from darkroom.serve.objects import Objects, content_key, key_of, objects_at
from darkroom.serve.problems import Problem
from darkroom.serve.schema import TERMINAL, pictures, previews, shelf, uploads, users, workers
from darkroom.serve.settings import Serving
from darkroom.serve.sweep import AGE, sweep

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_MOST_WRONG = 100
"""Lines of a batch of which it is told what is wrong with them."""
LOCAL = "local"
"""Whoever asks where nobody has a key."""


class Service:
    """The service as its API knows it. `start` it in the event loop that it is used in.

    Raises InvalidRequest or ModelError for settings that cannot be used, DarkroomError for a database that cannot.
    """

    def __init__(self, serving: Serving) -> None:
        assert serving.database is not None and serving.store is not None, "check the settings first"
        self.serving = serving
        self.database = Database(serving.database)
        self.objects: Objects = objects_at(serving.store)
        self.catalogue = Catalogue(serving.model)
        self.intake = Intake(self.catalogue)
        self._threads = ThreadPoolExecutor(4, "intake")
        self._letting_go: set[asyncio.Task[Found]] = set()
        self.draining = False
        upgrade(self.database)
        self.database.write(_local_user).result()

    async def start(self) -> None:
        """Begin to work."""
        self.bus = Bus(self.database)
        self._supervisor = Supervisor(self.serving, self.database, self.bus.rang)
        self._caretaker = asyncio.create_task(self._take_care(), name="caretaker")
        self.database.told += [self.bus.rang, self._supervisor.ring]

    async def drain(self) -> None:
        """Take nothing more in, and have workers finish what they have."""
        self.draining = True
        await self._supervisor.drain()

    def hurry(self) -> None:
        """Have workers that are draining end at once, with all that they made so far kept."""
        self._supervisor.hurry()

    async def stop(self) -> None:
        """Let go of everything."""
        if not self.draining:
            await self.drain()
        self._caretaker.cancel()
        await self.bus.close()
        await asyncio.to_thread(self.database.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.catalogue.close()

    async def read(self, question: Callable[[Connection], Result]) -> Result:
        return await asyncio.to_thread(self.database.read, question)

    async def write(self, change: Change[Result]) -> Result:
        return await asyncio.wrap_future(self.database.write(change))

    async def beside(self, work: Callable[[], Result]) -> Result:
        """What may take a while, in threads of its own: nothing else waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _take_care(self) -> None:
        """Look after workers, wherever they are, and sweep."""
        watch, swept = claims.Watch(self.serving.lease), time.monotonic()
        while True:
            await asyncio.sleep(self.serving.lease / 3)
            try:
                for name in await self.write(watch.look):
                    log.warning("%s is dead: its jobs wait again", name)
                if time.monotonic() - swept > AGE:
                    swept = time.monotonic()
                    await asyncio.to_thread(sweep, self.database, self.objects)
            except Exception as error:
                log.warning("%s", error)

    # Jobs.

    async def submit(
        self, owner: str, body: Any, key: str | None = None, door: str = "native", task: str | None = None
    ) -> Found:
        """Take a job in; the same one for the same `key`. `door`: by which interface it comes; `task`: what its client
        calls it there. Raises Problem, InvalidRequest or ModelError."""
        self._check_open()
        told = None if key is None else await self.beside(partial(digest, body))
        if key is not None and told is not None:
            known = await self.read(partial(jobs.known, owner=owner, key=key, body_sha256=told))
            if known is not None:
                return known
        settled = await self.beside(partial(self.settled, owner, body))
        submission = replace(settled, door=door, task=task, idempotency_key=key, body_sha256=told)
        return await self._once(partial(jobs.submit, job=submission), key)

    async def submit_batch(self, owner: str, bodies: Sequence[Any], key: str | None = None) -> Batch:
        """Take many jobs in, all or none; the same ones for the same `key`. Raises Problem, which says what is wrong
        with which."""
        self._check_open()
        told = None if key is None else await self.beside(partial(digest, bodies))
        if key is not None and told is not None:
            known = await self.read(partial(batches.known, owner=owner, key=key, body_sha256=told))
            if known is not None:
                return known
        lines = await self.beside(partial(self._lines, owner, bodies))
        submitted = partial(batches.submit, owner=owner, lines=lines, key=key, body_sha256=told)
        return await self._once(submitted, key)

    def _lines(self, owner: str, bodies: Sequence[Any]) -> list[Submission]:
        """The jobs of a batch."""
        found, wrong = [], []
        for place, body in enumerate(bodies, 1):
            said = {"prompt": body} if isinstance(body, str) else body
            try:
                found.append(self.settled(owner, said, "batch"))
            except (InvalidRequest, ModelError) as error:
                wrong.append({"line": place, "detail": str(error)})
        if wrong:
            first = f"line {wrong[0]['line']}: {wrong[0]['detail']}"
            why = first if len(wrong) == 1 else f"{first} (and {len(wrong) - 1} others)"
            raise Problem(422, "invalid_request", why, errors=wrong[:_MOST_WRONG])
        return found

    async def batch(self, owner: str, batch: str) -> Batch:
        return await self.read(partial(batches.find, owner=owner, batch=batch))

    async def batches(self, owner: str, before: str | None, most: int) -> list[Batch]:
        return await self.read(partial(batches.listed, owner=owner, before=before, most=most))

    async def batch_lines(
        self, owner: str, batch: str, states: Sequence[str], after: int, most: int
    ) -> list[tuple[int, Found]]:
        return await self.read(
            partial(batches.lines, owner=owner, batch=batch, states=states, after=after, most=most)
        )

    async def cancel_batch(self, owner: str, batch: str) -> Batch:
        return await self.write(partial(batches.cancel, owner=owner, batch=batch))

    async def resume_batch(self, owner: str, batch: str) -> Batch:
        self._check_open()
        return await self.write(partial(batches.resume, owner=owner, batch=batch))

    def _check_open(self) -> None:
        if self.draining:
            raise Problem(503, "draining", "the service is ending: try again when it is back", retry_after=30)

    def settled(self, owner: str, body: Any, priority: str = "interactive") -> Submission:
        """A job, checked and settled; `priority` where none is asked for."""
        if isinstance(body, Mapping):
            body = {"priority": priority, **body}
        return self.intake.job(owner, body, partial(self._given, owner), partial(self._keep, owner))

    async def _once(self, submitted: Change[Result], key: str | None) -> Result:
        try:
            return await self.write(submitted)
        except IntegrityError:
            if key is None:
                raise
            return await self.write(submitted)  # Another process has just taken the same one in.

    async def job(self, owner: str, job: str) -> Found:
        return await self.read(lambda connection: jobs.find(connection, owner, job))

    async def listed(self, owner: str, **which: Any) -> list[Found]:
        return await self.read(lambda connection: jobs.listed(connection, owner, **which))

    async def going(self, owner: str, door: str) -> list[Found]:
        """The jobs that came in by a door and are not over, the oldest first."""
        return await self.read(lambda connection: jobs.going(connection, owner, door))

    async def task(self, owner: str, task: str) -> Found | None:
        """The youngest job that its client calls so."""
        return await self.read(lambda connection: jobs.of_task(connection, owner, task))

    async def cancel(self, owner: str, job: str) -> Found:
        return await self.write(lambda connection: jobs.cancel(connection, owner, job))

    def let_go(self, owner: str, job: str) -> None:
        """Have a job cancelled that nobody waits for any more."""
        task = asyncio.create_task(self.cancel(owner, job))
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def retry(self, owner: str, job: str) -> Found:
        self._check_open()
        return await self.write(lambda connection: jobs.tried_again(connection, owner, job))

    async def follow(
        self, owner: str, job: str | None = None, since: int | None = None
    ) -> AsyncIterator[Event]:
        """Events as they come, of a job until it is over."""
        if job is not None and (await self.job(owner, job)).over:
            last = since or 0
            while left := await self.read(partial(events.since, seq=last, job=job)):
                last = left[-1].seq
                for event in left:
                    yield event
            return
        async with aclosing(self.bus.follow(owner, job, since)) as heard:  # type: ignore[type-var]
            async for event in heard:
                yield event
                if job is not None and event.kind in TERMINAL:
                    return

    async def finished(self, owner: str, job: str, seconds: float | None) -> Found:
        """The job once it is over, or as it is after so many seconds, or when the service ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for _ in self.follow(owner, job, since=0):
                    pass
        return await self.job(owner, job)

    async def preview(self, owner: str, job: str, number: int) -> bytes:
        """The JPEG of what a picture of a job looks like so far. Raises Problem where there is none."""

        def asked(connection: Connection) -> bytes | None:
            jobs.find(connection, owner, job)
            mine = previews.c.job == job, previews.c.picture == number
            return connection.execute(select(previews.c.jpeg).where(*mine)).scalar_one_or_none()

        found = await self.read(asked)
        if found is None:
            raise Problem(
                404, "no_preview", f"there is nothing to see of picture {number} of the job {job} now"
            )
        return found

    # Pictures and uploads.

    async def pictures(self, owner: str, before: str | None, most: int) -> list[Row[Any]]:
        """The pictures of an owner, the youngest first."""
        wanted = select(pictures).where(pictures.c.owner == owner).order_by(pictures.c.id.desc()).limit(most)
        if before is not None:
            wanted = wanted.where(pictures.c.id < before)
        return await self.read(lambda connection: [*connection.execute(wanted)])

    async def picture(self, owner: str, picture: str) -> Row[Any]:
        wanted = select(pictures).where(pictures.c.id == picture, pictures.c.owner == owner)
        row = await self.read(lambda connection: connection.execute(wanted).one_or_none())
        if row is None:
            raise Problem(404, "no_such_image", f"there is no image {picture!r}")
        return row

    async def forget(self, owner: str, picture: str) -> None:
        """Delete a picture; its bytes go within hours (`darkroom.serve.sweep`)."""
        await self.picture(owner, picture)
        await self.write(
            lambda connection: connection.execute(delete(pictures).where(pictures.c.id == picture))
        )

    async def content(self, sha256: str) -> bytes:
        return await asyncio.to_thread(self.objects.get, key_of(sha256))

    async def upload(self, owner: str, content: bytes) -> Row[Any]:
        """Keep a picture for requests to name by its SHA-256. Raises InvalidRequest for what is none."""
        await self.beside(partial(self.intake.look, content))
        sha256 = await self.beside(partial(self._keep, owner, content))
        return await self.uploaded(owner, sha256)

    async def forget_upload(self, owner: str, sha256: str) -> None:
        """Delete an upload; its bytes go within hours. Raises Problem while a job needs it."""
        await self.uploaded(owner, sha256)

        def forgotten(connection: Connection) -> None:
            if (job := jobs.naming(connection, owner, sha256)) is not None:
                raise Problem(409, "upload_in_use", f"{job} begins with it: cancel it, or wait for its end")
            mine = uploads.c.owner == owner, uploads.c.sha256 == sha256
            connection.execute(delete(uploads).where(*mine))

        await self.write(forgotten)

    async def uploaded(self, owner: str, sha256: str) -> Row[Any]:
        wanted = select(uploads).where(uploads.c.owner == owner, uploads.c.sha256 == sha256)
        row = await self.read(lambda connection: connection.execute(wanted).one_or_none())
        if row is None:
            raise Problem(404, "no_such_upload", f"there is no upload {sha256}")
        return row

    def _given(self, owner: str, sha256: str) -> bytes:
        """A picture that an owner uploaded, or has had made."""

        def known(table: Table, connection: Connection) -> bool:
            mine = select(table.c.sha256).where(table.c.owner == owner, table.c.sha256 == sha256)
            return connection.execute(mine).first() is not None

        if self.database.read(partial(known, uploads)):
            return self.objects.get(key_of(sha256))
        if not self.database.read(partial(known, pictures)):
            raise InvalidRequest(f"there is no upload with the SHA-256 {sha256}: upload the picture first")
        content = self.objects.get(key_of(sha256))
        # What was made is an upload from now on: its picture may be deleted meanwhile.
        self._keep(owner, content)
        return content

    def _keep(self, owner: str, content: bytes) -> str:
        """Keep a picture that was given; its SHA-256."""
        format, width, height = facts_of(content)
        facts = {"format": format, "width": width, "height": height}
        sha256, key = content_key(content)

        def kept(connection: Connection) -> None:
            mine = {"owner": owner, "sha256": sha256}
            put_row(connection, uploads, mine, nbytes=len(content), created_at=now(), **facts)

        self.objects.put(key, content)
        self.database.write(kept).result()
        return sha256

    # Models, workers, how it is.

    async def models(self) -> list[dict[str, Any]]:
        """All models, the usual one first: what is known of each, and what each worker says of it."""
        rows = await self._workers()

        def listed() -> list[dict[str, Any]]:
            return [
                {"id": name, **self.catalogue.about(name), **_states(rows, name)}
                for name in self.catalogue.names()
            ]

        return await asyncio.to_thread(listed)

    async def model(self, model: str) -> dict[str, Any]:
        """What is known of a model. Raises Problem where there is none."""
        try:
            name = await asyncio.to_thread(self.catalogue.named, model)
        except ModelError as error:
            raise Problem(404, "no_such_model", str(error)) from error
        rows = await self._workers()
        return {"id": name, **await asyncio.to_thread(self.catalogue.about, name), **_states(rows, name)}

    async def want(self, model: str, wanted: bool) -> str:
        """Have workers load a model, or let go of it; its name. Raises ModelError where there is none."""
        name = await asyncio.to_thread(self.catalogue.named, model)

        def said(connection: Connection) -> None:
            put_row(connection, shelf, {"model": name}, wanted=wanted, at=now())
            connection.info["events"] = True

        await self.write(said)
        return name

    async def _workers(self) -> list[Row[Any]]:
        return await self.read(lambda connection: [*connection.execute(select(workers))])

    async def stats(self) -> dict[str, Any]:
        """How many jobs there are in each state, and what workers are at."""
        counts = await self.read(jobs.counted)
        rows = await self._workers()
        return {
            "jobs": counts,
            "workers": [
                {"id": row.id, "host": row.host, "pid": row.pid, "state": row.state, **row.facts}
                for row in rows
            ],
        }

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service may be asked for pictures, and why it may not, or what it is about."""
        if self.draining:
            return False, {"state": "draining"}
        rows = await self._workers()
        states = [row.state for row in rows]
        facts = {"workers": states, "models": [row.facts.get("models", {}) for row in rows]}
        ready = "ready" in states
        return ready, {"state": "ready" if ready else "starting", **facts}


def _states(rows: Sequence[Row[Any]], name: str) -> dict[str, Any]:
    """What workers say of a model: the best of it, and how far the loading is."""
    found: list[Mapping[str, Any]] = [
        row.facts["models"][name] for row in rows if name in row.facts.get("models", {})
    ]
    for state in ("loaded", "loading", "failed"):
        for each in found:
            if each["state"] == state:
                return {"loading": None, **each, "state": state}
    return {"state": "unloaded"}


def _local_user(connection: Connection) -> None:
    if connection.execute(select(users.c.id).where(users.c.id == LOCAL)).first() is None:
        connection.execute(insert(users).values(id=LOCAL, name=LOCAL, created_at=now()))
