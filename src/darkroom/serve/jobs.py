"""Jobs as their owners know them: submitted, looked at, listed, cancelled, tried again.

All functions are for a connection within a transaction (`darkroom.serve.database`). What workers do with jobs is in
`darkroom.serve.claims` and `darkroom.serve.results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

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
    work: float = 1.0
    priority: str = "interactive"
    idempotency_key: str | None = None
    body_sha256: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True)
class Found:
    """A job and the pictures made of it so far."""

    row: Row[Any]
    pictures: Sequence[Row[Any]]

    @property
    def over(self) -> bool:
        return self.row.state in TERMINAL


def known(connection: Connection, owner: str, key: str, body_sha256: str) -> Found | None:
    """The job that an owner's request with that key has made; None where there is none. Raises Problem where that was
    another request."""
    mine = select(jobs.c.id, jobs.c.body_sha256).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
    row = connection.execute(mine).one_or_none()
    if row is None:
        return None
    if row.body_sha256 != body_sha256:
        raise Problem(
            422,
            "idempotency_key_reused",
            f"the Idempotency-Key {key!r} was used for another request: give another key",
        )
    return find(connection, owner, row.id)


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
    before: int | None = None,
    most: int = 50,
) -> list[Found]:
    """The jobs of an owner, the youngest first, from the number `before` on."""
    wanted: Select[Any] = select(jobs).where(jobs.c.owner == owner).order_by(jobs.c.number.desc()).limit(most)
    if states:
        wanted = wanted.where(jobs.c.state.in_(states))
    if before is not None:
        wanted = wanted.where(jobs.c.number < before)
    rows = connection.execute(wanted).all()
    made = select(pictures).where(pictures.c.job.in_([row.id for row in rows])).order_by(pictures.c.number)
    by_job: dict[str, list[Row[Any]]] = {}
    for picture in connection.execute(made):
        by_job.setdefault(picture.job, []).append(picture)
    return [Found(row, by_job.get(row.id, [])) for row in rows]


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
    names = ("owner", "kind", "model", "request", "asked", "count", "format", "work", "priority")
    return submit(connection, Submission(**{name: getattr(row, name) for name in names}, retry_of=job))


def counted(connection: Connection) -> dict[str, int]:
    """How many jobs there are in each state."""
    found = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    return {row[0]: row[1] for row in found}
