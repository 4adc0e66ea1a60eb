"""What nobody needs any more: bytes of pictures that were deleted, and where jobs had come to that are over."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection, delete, select

from darkroom.serve.database import Database
from darkroom.serve.objects import Objects, sha256_of
from darkroom.serve.schema import TERMINAL, checkpoints, events, jobs, pictures, previews, uploads

AGE = 3600.0
"""Seconds that bytes are kept anyhow: they are put before what says so is written."""


def sweep(database: Database, objects: Objects, age: float = AGE) -> int:
    """Forget what is left of jobs that are over, and delete bytes that are so old and have no record; how many."""
    database.write(_forget).result()
    gone = [key for key in objects.old(age) if not database.read(partial(_needed, key))]
    for key in gone:
        objects.delete(key)
    return len(gone)


def _forget(connection: Connection) -> None:
    over = select(jobs.c.id).where(jobs.c.state.in_(TERMINAL))
    for table in (checkpoints, previews):
        connection.execute(delete(table).where(table.c.job.in_(over)))
    connection.execute(delete(events).where(events.c.kind == "progress", events.c.job.in_(over)))


def _needed(key: str, connection: Connection) -> bool:
    if (sha256 := sha256_of(key)) is None:
        found = [select(checkpoints.c.job).where(checkpoints.c.key == key)]
    else:
        found = [select(table.c.sha256).where(table.c.sha256 == sha256) for table in (pictures, uploads)]
    return any(connection.execute(each.limit(1)).first() for each in found)
