"""Jobs as their owners know them: submitted, looked at, listed, cancelled, tried again.

All functions are for a connection within a transaction (`darkroom.serve.database`). What workers do with jobs is in
`darkroom.serve.claims` and `darkroom.serve.results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, Text, cast, func, insert, select, update

from darkroom.serve.database import identity, now
from darkroom.serve.events import tell
from darkroom.serve.problems import Problem
from darkroom.serve.schema import TERMINAL, jobs, pictures


@dataclass(frozen=True)
class Submission:
    """A job as it comes in, checked and settled. `asked`: the request as it was given; `work`: how many evaluations of
    the model's network it takes, at its native size."""

    owner: str
    kind: str
    model: str | None
    request: Mapping[str, Any]
    asked: Mapping[str, Any]
    count: int = 1
    format: str = "png"
    quality: int | None = None
    work: float = 1.0
    priority: str = "interactive"
    door: str = "native"
    task: str | None = None
    batch: str | None = None
    idempotency_key: str | None = None
    body_sha256: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True)
class Found:
    """A job and the pictures made of it so far."""

    row: Row[Any]
    pictures: Sequence[Row[Any]]

    @property
    def count(self) -> int:
        """How many pictures it makes. (Rows have a method of that name.)"""
        return int(self.row._mapping["count"])

    @property
    def over(self) -> bool:
        return self.row.state in TERMINAL


def known(connection: Connection, owner: str, key: str, body_sha256: str) -> Found | None:
    """The job that an owner's request with that key has made; None where there is none. Raises Problem where that was
    another request."""
    row = known_row(connection, jobs, owner, key, body_sha256)
    return None if row is None else find(connection, owner, row.id)


def known_row(
    connection: Connection, table: Table, owner: str, key: str, body_sha256: str
) -> Row[Any] | None:
    """What an owner's request with that key has made in a table; None where there is nothing. Raises Problem where that
    was another request."""
    names = table.c.id, table.c.body_sha256
    mine = select(*names).where(table.c.owner == owner, table.c.idempotency_key == key)
    row: Row[Any] | None = connection.execute(mine).one_or_none()  # type: ignore[assignment]
    if row is not None and row.body_sha256 != body_sha256:
        raise Problem(
            422,
            "idempotency_key_reused",
            f"the Idempotency-Key {key!r} was used for another request: give another key",
        )
    return row


def submit(connection: Connection, job: Submission) -> Found:
    """Take a job in. One of an owner with the same key is the same job, whoever is asked first. Raises Problem where
    that is of another request."""
    if job.idempotency_key is not None and job.body_sha256 is not None:
        before = known(connection, job.owner, job.idempotency_key, job.body_sha256)
        if before is not None:
            return before
    name = identity("job")
    new = insert(jobs).values(id=name, state="queued", created_at=now(), **vars(job)).returning(jobs)
    row = connection.execute(new).one()
    tell(connection, name, job.owner, "queued")
    return Found(row, ())


def find(connection: Connection, owner: str, job: str) -> Found:
    """A job of an owner's. Raises Problem where there is none: others' are as if they were not."""
    row = connection.execute(select(jobs).where(jobs.c.id == job, jobs.c.owner == owner)).one_or_none()
    if row is None:
        raise Problem(404, "no_such_job", f"there is no job {job!r}")
    made = select(pictures).where(pictures.c.job == job).order_by(pictures.c.number)
    return Found(row, connection.execute(made).all())


def listed(
    connection: Connection,
    owner: str,
    *,
    states: Sequence[str] = (),
    batch: str | None = None,
    before: int | None = None,
    most: int = 50,
) -> list[Found]:
    """The jobs of an owner, the youngest first, from the number `before` on."""
    wanted: Select[Any] = select(jobs).where(jobs.c.owner == owner).order_by(jobs.c.number.desc()).limit(most)
    if batch is not None:
        wanted = wanted.where(jobs.c.batch == batch)
    if states:
        wanted = wanted.where(jobs.c.state.in_(states))
    if before is not None:
        wanted = wanted.where(jobs.c.number < before)
    rows = connection.execute(wanted).all()
    made = pictures_of(connection, [row.id for row in rows])
    return [Found(row, made.get(row.id, [])) for row in rows]


def pictures_of(connection: Connection, names: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The pictures of jobs by these, in order."""
    found: dict[str, list[Row[Any]]] = {}
    made = select(pictures).where(pictures.c.job.in_(names)).order_by(pictures.c.number)
    for picture in connection.execute(made):
        found.setdefault(picture.job, []).append(picture)
    return found


def cancel(connection: Connection, owner: str, job: str) -> Found:
    """Have a job stopped: at once where it waits, else after the network call that it is in. One that is over stays as
    it is."""
    row = find(connection, owner, job).row
    mine = update(jobs).where(jobs.c.id == job)
    waiting = mine.where(jobs.c.state == "queued").values(state="cancelled", finished_at=now())
    if connection.execute(waiting).rowcount:
        tell(connection, job, row.owner, "cancelled")
    else:
        connection.execute(mine.where(jobs.c.state == "running").values(cancel=True))
        # For its worker to look.
        connection.info["events"] = True
    return find(connection, owner, job)


def tried_again(connection: Connection, owner: str, job: str) -> Found:
    """A new job of the same request as one that failed or was cancelled. Raises Problem for any other."""
    row = find(connection, owner, job).row
    if row.state not in ("failed", "cancelled"):
        raise Problem(
            409, "not_over", f"the job {job} is {row.state}: one that failed or was cancelled is retried"
        )
    names = ["owner", "kind", "model", "request", "asked", "count", "format", "quality", "work"]
    names += ["priority", "door", "batch"]
    return submit(connection, Submission(**{name: getattr(row, name) for name in names}, retry_of=job))


def of_task(connection: Connection, owner: str, task: str) -> Found | None:
    """The youngest job of an owner that its client calls so."""
    mine = select(jobs.c.id).where(jobs.c.owner == owner, jobs.c.task == task).order_by(jobs.c.number.desc())
    found = connection.execute(mine.limit(1)).scalar_one_or_none()
    return None if found is None else find(connection, owner, found)


def naming(connection: Connection, owner: str, sha256: str) -> str | None:
    """A job of an owner that is not over and begins with a picture of that SHA-256."""
    mine = jobs.c.owner == owner, jobs.c.state.not_in(TERMINAL)
    named = cast(jobs.c.request, Text).contains(sha256)
    found: str | None = connection.execute(
        select(jobs.c.id).where(*mine, named).limit(1)
    ).scalar_one_or_none()
    return found


def going(connection: Connection, owner: str, door: str) -> list[Found]:
    """The jobs of an owner that came in by a door and are not over, the oldest first."""
    mine = select(jobs.c.id).where(
        jobs.c.state.in_(("queued", "running")), jobs.c.owner == owner, jobs.c.door == door
    )
    return [
        find(connection, owner, job) for job in connection.execute(mine.order_by(jobs.c.number)).scalars()
    ]


def counted(connection: Connection) -> dict[str, int]:
    """How many jobs there are in each state."""
    found = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    return {row[0]: row[1] for row in found}
