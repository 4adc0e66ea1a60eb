"""Batches: many jobs that are taken in at once, looked at as one, and gone on with where some of them failed.

All functions are for a connection within a transaction. Each line of a batch is a job; one that is tried again is
another job of the same line, which counts in place of the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from darkroom.serve import jobs as single
from darkroom.serve.database import identity, now
from darkroom.serve.events import tell_all
from darkroom.serve.jobs import Found, Submission, known_row
from darkroom.serve.problems import Problem
from darkroom.serve.schema import TERMINAL, batches, jobs

MOST_LINES = 10_000
_ENDED = ("failed", "cancelled")


@dataclass(frozen=True)
class Batch:
    """A batch, and the job of each of its lines as it is now, in order."""

    row: Row[Any]
    lines: Sequence[Row[Any]]

    @property
    def states(self) -> Mapping[str, int]:
        """How many of its lines are in each state."""
        return Counter(line.state for line in self.lines)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to come."""
        return all(line.state in TERMINAL for line in self.lines)


def known(connection: Connection, owner: str, key: str, body_sha256: str) -> Batch | None:
    """The batch that an owner's request with that key has made; None where there is none. Raises Problem where that was
    another request."""
    row = known_row(connection, batches, owner, key, body_sha256)
    return None if row is None else find(connection, owner, row.id)


def submit(
    connection: Connection,
    owner: str,
    lines: Sequence[Submission],
    key: str | None = None,
    body_sha256: str | None = None,
) -> Batch:
    """Take a batch in, all of it or nothing. One of an owner with the same key is the same batch."""
    if key is not None and body_sha256 is not None:
        before = known(connection, owner, key, body_sha256)
        if before is not None:
            return before
    name, at = identity("batch"), now()
    values = {"id": name, "owner": owner, "idempotency_key": key, "body_sha256": body_sha256}
    connection.execute(insert(batches).values(**values, created_at=at))
    rows = [
        {**vars(line), "id": identity("job"), "state": "queued", "batch": name, "batch_line": place}
        for place, line in enumerate(lines, 1)
    ]
    connection.execute(insert(jobs).values(created_at=at), rows)
    tell_all(connection, [(row["id"], owner, "queued", {"batch": name}) for row in rows])
    return find(connection, owner, name)


def find(connection: Connection, owner: str, batch: str) -> Batch:
    """A batch of an owner's. Raises Problem where there is none."""
    mine = select(batches).where(batches.c.id == batch, batches.c.owner == owner)
    row = connection.execute(mine).one_or_none()
    if row is None:
        raise Problem(404, "no_such_batch", f"there is no batch {batch!r}")
    return Batch(row, _lines(connection, batch))


def lines(
    connection: Connection, owner: str, batch: str, states: Sequence[str], after: int, most: int
) -> list[tuple[int, Found]]:
    """The lines of a batch behind the line `after`, in these states or in any: the number and the job of each."""
    there = [
        (number, line.id)
        for number, line in enumerate(find(connection, owner, batch).lines, 1)
        if number > after and (not states or line.state in states)
    ]
    return [(number, single.find(connection, owner, job)) for number, job in there[:most]]


def listed(connection: Connection, owner: str, before: str | None = None, most: int = 50) -> list[Batch]:
    """The batches of an owner, the youngest first."""
    wanted = select(batches).where(batches.c.owner == owner).order_by(batches.c.id.desc()).limit(most)
    if before is not None:
        wanted = wanted.where(batches.c.id < before)
    return [Batch(row, _lines(connection, row.id)) for row in connection.execute(wanted)]


def _lines(connection: Connection, batch: str) -> list[Row[Any]]:
    """The job of each line as it is now: the youngest of those that were made of it."""
    columns = (jobs.c.id, jobs.c.state, jobs.c.batch_line, jobs.c.retry_of, jobs.c.code, jobs.c.error)
    line_of: dict[str, int] = {}
    found: dict[int, Any] = {}
    for row in connection.execute(select(*columns).where(jobs.c.batch == batch).order_by(jobs.c.number)):
        line_of[row.id] = line_of[row.retry_of] if row.batch_line is None else row.batch_line
        found[line_of[row.id]] = row
    return [found[line] for line in sorted(found)]


def cancel(connection: Connection, owner: str, batch: str) -> Batch:
    """Have all of a batch stopped that is not over."""
    for line in find(connection, owner, batch).lines:
        if line.state not in TERMINAL:
            single.cancel(connection, owner, line.id)
    return find(connection, owner, batch)


def resume(connection: Connection, owner: str, batch: str) -> Batch:
    """Go on with a batch: what of it failed or was cancelled is tried again."""
    for line in find(connection, owner, batch).lines:
        if line.state in _ENDED:
            single.tried_again(connection, owner, line.id)
    return find(connection, owner, batch)
