"""What workers write of their jobs: progress, checkpoints, pictures, ends.

All of it counts under the job's fence alone: whoever lost a job in the meantime is told so, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from darkroom.errors import DarkroomError
from darkroom.serve.claims import Claimed
from darkroom.serve.database import identity, now, put_row
from darkroom.serve.events import tell, tell_all
from darkroom.serve.schema import checkpoints, events, jobs, pictures, previews


class Lost(DarkroomError):
    """A job is another worker's now, or over."""


@dataclass(frozen=True)
class Progress:
    """How far a job of a worker has come: network calls, and the seconds of the engine that it had, by phase."""

    job: Claimed
    done: int
    total: int
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Made:
    """A picture that was made, its bytes in the store: its number in its job, and what is to be known of it."""

    number: int
    sha256: str
    nbytes: int
    format: str
    width: int
    height: int
    seed: int
    seconds: float


def _held(connection: Connection, job: Claimed, **values: Any) -> None:
    """Change the row of a job that is held. Raises Lost where it is not."""
    mine = update(jobs).where(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.state == "running")
    if not connection.execute(mine.values(**values)).rowcount:
        raise Lost(f"{job.id} is no longer ours")


def advance(connection: Connection, worker: str, made: Iterable[Progress]) -> tuple[set[str], set[str]]:
    """Write down how far jobs have come. Of those of the worker: the ids of all, and of those that are to be
    cancelled."""
    told = []
    for each in made:
        try:
            _held(connection, each.job, done=each.done, total=each.total, seconds=dict(each.seconds))
        except Lost:
            continue
        told.append((each.job.id, each.job.owner, "progress", {"done": each.done, "total": each.total}))
    tell_all(connection, told)
    mine = select(jobs.c.id, jobs.c.cancel).where(jobs.c.worker == worker, jobs.c.state == "running")
    rows = connection.execute(mine).all()
    return {row.id for row in rows}, {row.id for row in rows if row.cancel}


def preview(connection: Connection, job: Claimed, picture: int, jpeg: bytes, done: int) -> None:
    """Write down what a picture looks like so far; nothing where the job is no longer ours."""
    ours = jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.state == "running"
    if connection.execute(select(jobs.c.id).where(*ours)).first() is None:
        return
    put_row(connection, previews, {"job": job.id, "picture": picture}, jpeg=jpeg, done=done)


def checkpoint(connection: Connection, job: Claimed, picture: int, key: str, done: int) -> str | None:
    """Write down where a picture can go on. The key of what this replaces."""
    mine = checkpoints.c.job == job.id, checkpoints.c.picture == picture
    before = connection.execute(select(checkpoints).where(*mine)).one_or_none()
    # It got on: what ended its workers so far was not the job.
    further = before is None or done > before.done
    _held(connection, job, deaths=0 if further else jobs.c.deaths)
    put_row(connection, checkpoints, {"job": job.id, "picture": picture}, key=key, done=done)
    return None if before is None else str(before.key)


def add(
    connection: Connection, job: Claimed, made: Made, seconds: Mapping[str, float]
) -> tuple[list[str], bool]:
    """Add a picture to its job, which has succeeded with its last. The keys of checkpoints that nobody needs any more,
    and whether it was that."""
    _held(connection, job, deaths=0, seconds=dict(seconds))
    there = select(func.count()).select_from(pictures).where(pictures.c.job == job.id)
    # It is there already where a commit went well and nobody heard of it.
    if not connection.execute(there.where(pictures.c.number == made.number)).scalar_one():
        name = identity("img")
        connection.execute(
            insert(pictures).values(id=name, job=job.id, owner=job.owner, created_at=now(), **asdict(made))
        )
        tell(connection, job.id, job.owner, "picture", id=name, number=made.number, seed=made.seed)
    if connection.execute(there).scalar_one() < job.count:
        return _tidied(connection, job, made.number), False
    return end(connection, job, "succeeded"), True


def end(
    connection: Connection, job: Claimed, state: str, code: str | None = None, error: str | None = None
) -> list[str]:
    """End a job. The keys of its checkpoints, which nobody needs any more."""
    values: dict[str, Any] = {"state": state, "finished_at": now(), "code": code, "error": error}
    if state == "succeeded":
        values["done"] = func.coalesce(jobs.c.total, jobs.c.done)
    _held(connection, job, **values)
    connection.execute(delete(events).where(events.c.job == job.id, events.c.kind == "progress"))
    told = {} if code is None else {"code": code, "error": error}
    tell(connection, job.id, job.owner, state, **told)
    return _tidied(connection, job)


def _tidied(connection: Connection, job: Claimed, picture: int | None = None) -> list[str]:
    """Forget the checkpoints and previews of a job, or of one of its pictures."""
    found: list[str] = []
    for table in (checkpoints, previews):
        gone = delete(table).where(table.c.job == job.id)
        if picture is not None:
            gone = gone.where(table.c.picture == picture)
        if table is checkpoints:
            found += connection.execute(gone.returning(checkpoints.c.key)).scalars()
        else:
            connection.execute(gone)
    return found
