"""Which worker has which job: jobs are claimed in fair turns, and taken from workers that are no more.

A claim is a fence: it grows with every claim and every loss of one, and what a worker writes counts only under the
fence that it claimed by (`darkroom.serve.results`).

Turns are fair queueing by start times (Goyal, Vin and Cheng 1996, https://doi.org/10.1145/248156.248171): each user has
a clock for each priority that goes on by the work of what was claimed for them, slower where the priority is higher;
whoever is furthest behind comes next, and whoever comes back from a pause begins where the others are now.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from darkroom.serve.database import identity, now, put_row
from darkroom.serve.events import tell
from darkroom.serve.schema import checkpoints, jobs, pictures, turns, workers

WEIGHTS = {"interactive": 8.0, "batch": 2.0, "background": 1.0}
"""How much of the engine each priority has beside the others."""
ALONE_AFTER = 3
"""Of how many workers that ended with a job in hand, and it no further, it is made with no other beside it..."""
POISON_AFTER = 5
"""...and of how many it is given up."""


@dataclass(frozen=True)
class Claimed:
    """A job that a worker has: under which fence, which of its pictures are made, where others can go on, and which
    seconds were spent on it by phase; `deaths`: how many workers ended over it; `alone`: nothing is to be made beside
    it."""

    id: str
    owner: str
    kind: str
    model: str | None
    priority: str
    request: Mapping[str, Any]
    asked: Mapping[str, Any]
    count: int
    format: str
    quality: int | None
    fence: int
    deaths: int
    alone: bool
    made: frozenset[int]
    spent: Mapping[str, float]
    checkpoints: Mapping[int, str] = field(default_factory=dict)


def enlist(connection: Connection, host: str, pid: int, facts: Mapping[str, Any]) -> str:
    """Take a worker in; its id."""
    name = identity("worker")
    connection.execute(
        insert(workers).values(
            id=name, host=host, pid=pid, beat=0, state="starting", facts=dict(facts), started_at=now()
        )
    )
    return name


def beat(connection: Connection, worker: str, state: str, facts: Mapping[str, Any]) -> bool:
    """Say that a worker lives. Whether it counts: one that was taken for dead has lost its jobs."""
    alive = update(workers).where(workers.c.id == worker)
    said = alive.values(beat=workers.c.beat + 1, state=state, facts=dict(facts))
    return bool(connection.execute(said).rowcount)


def claim(connection: Connection, worker: str, most: int, idle: bool) -> list[Claimed]:
    """Up to so many jobs for a worker, in fair turns; none for one that was taken for dead. `idle`: it has none in
    hand, as jobs that are to be alone want it. Where others are ready to work it leaves them their share."""
    found: list[Claimed] = []
    states = {row.id: row.state for row in connection.execute(select(workers.c.id, workers.c.state))}
    if worker not in states:
        return found
    ready = sum(state == "ready" for name, state in states.items() if name != worker) + 1
    if ready > 1:
        held = {row[0]: row[1] for row in connection.execute(_HELD)}
        share = math.ceil(sum(held.values()) / ready)
        most = min(most, max(share - held.get(worker, 0), 1))
    passed: set[tuple[str, str]] = set()
    while len(found) < most:
        turn = _next(connection, passed)
        if turn is None:
            break
        owner, priority, began, had = turn
        mine = select(jobs).where(
            jobs.c.state == "queued", jobs.c.owner == owner, jobs.c.priority == priority
        )
        row = connection.execute(
            mine.order_by(jobs.c.number).limit(1).with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            passed.add((owner, priority))
            continue
        if (alone := row.deaths >= ALONE_AFTER) and (found or not idle):
            break  # Its turn has come: nothing else is begun until it can be made.
        clock = {"owner": owner, "priority": priority}
        put_row(connection, turns, clock, began=began, had=had + row.work / WEIGHTS[priority])
        found.append(_claimed(connection, row, worker, alone))
        if alone:
            break
    return found


_HELD = (
    select(jobs.c.worker, func.count()).where(jobs.c.state.in_(("queued", "running"))).group_by(jobs.c.worker)
)
"""How many jobs each worker has, and how many nobody has."""


def _next(
    connection: Connection, passed: Collection[tuple[str, str]]
) -> tuple[str, str, float, float] | None:
    """Whose turn it is: owner, priority, where the owner's last job began, and where the next one begins."""
    waiting = connection.execute(
        select(jobs.c.owner, jobs.c.priority, func.min(jobs.c.number))
        .where(jobs.c.state == "queued")
        .group_by(jobs.c.owner, jobs.c.priority)
    ).all()
    if not waiting:
        return None
    clocks = {(row.owner, row.priority): row for row in connection.execute(select(turns))}
    here = max((row.began for row in clocks.values()), default=0.0)
    found = []
    for owner, priority, first in waiting:
        if (owner, priority) not in passed:
            own = clocks.get((owner, priority))
            start = here if own is None else max(own.had, here)
            found.append((start, first, owner, priority))
    if not found:
        return None
    start, _, owner, priority = min(found)
    return owner, priority, start, start


def _claimed(connection: Connection, row: Any, worker: str, alone: bool) -> Claimed:
    fence = row.fence + 1
    values = {"state": "running", "worker": worker, "fence": fence, "attempt": row.attempt + 1}
    if row.started_at is None:
        values["started_at"] = now()
    connection.execute(update(jobs).where(jobs.c.number == row.number).values(**values))
    tell(connection, row.id, row.owner, "running", attempt=row.attempt + 1)
    made = connection.execute(select(pictures.c.number).where(pictures.c.job == row.id)).scalars()
    saved = connection.execute(select(checkpoints).where(checkpoints.c.job == row.id))
    names = ["id", "owner", "kind", "model", "priority", "request", "asked", "count"]
    names += ["format", "quality", "deaths"]
    return Claimed(
        **{name: getattr(row, name) for name in names},
        fence=fence,
        alone=alone,
        made=frozenset(made),
        spent=dict(row.seconds or {}),
        checkpoints={each.picture: each.key for each in saved},
    )


class Watch:
    """Whoever looks after workers: one whose beat has stood still for a lease, by this process's own clock, is dead.
    No two clocks are ever compared."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked = -math.inf

    def look(self, connection: Connection) -> list[str]:
        """Take the jobs of the dead from them. The ids of these."""
        there = {row.id: row.beat for row in connection.execute(select(workers.c.id, workers.c.beat))}
        here = time.monotonic()
        if here - self._looked > self._lease:
            self._seen = {}  # Whoever did not look, or could not, has not seen anybody stand still.
        self._looked = here
        self._seen = {
            name: self._seen[name] if name in self._seen and self._seen[name][0] == count else (count, here)
            for name, count in there.items()
        }
        dead = [name for name, (_, since) in self._seen.items() if here - since > self._lease]
        return [name for name in dead if bury(connection, name, self._seen[name][0])]


def bury(connection: Connection, worker: str, beat: int | None = None) -> bool:
    """Take the jobs of a worker that is dead from it, unless it has beaten again meanwhile."""
    gone = delete(workers).where(workers.c.id == worker)
    if not connection.execute(gone if beat is None else gone.where(workers.c.beat == beat)).rowcount:
        return False
    for row in _running(connection, worker):
        give_back(connection, row, "its worker ended", died=True)
    return True


def stray(connection: Connection, worker: str, known: Collection[str]) -> list[str]:
    """Have the jobs wait again that a worker has claimed and does not know of: it never heard that the claim went well,
    or could not write their end. Their ids."""
    found = [row for row in _running(connection, worker) if row.id not in known]
    for row in found:
        give_back(connection, row, "its worker lost it", died=True)
    return [row.id for row in found]


def leave(connection: Connection, worker: str) -> None:
    """A worker that ends of its own accord: what it has in hand goes to others."""
    for row in _running(connection, worker):
        give_back(connection, row, "its worker was stopped", died=False)
    connection.execute(delete(workers).where(workers.c.id == worker))


def _running(connection: Connection, worker: str) -> Sequence[Any]:
    """The rows of a worker's jobs."""
    mine = select(jobs).where(jobs.c.worker == worker, jobs.c.state == "running")
    return connection.execute(mine).all()


def give_back(connection: Connection, row: Any, why: str, died: bool) -> None:
    """Have a running job wait again; one that was to be cancelled, or has ended too many workers, is over."""
    deaths = row.deaths + died
    values: dict[str, Any] = {"fence": row.fence + 1, "deaths": deaths, "worker": None}
    told: dict[str, Any] = {}
    if row.cancel:
        kind, values = "cancelled", values | {"state": "cancelled", "finished_at": now()}
    elif deaths >= POISON_AFTER:
        told = {
            "code": "poison",
            "error": f"{deaths} workers ended while they made it, each without getting on",
        }
        kind, values = "failed", values | {"state": "failed", "finished_at": now(), **told}
    else:
        kind, values, told = "queued", values | {"state": "queued"}, {"why": why}
    held = jobs.c.number == row.number, jobs.c.fence == row.fence, jobs.c.state == "running"
    if connection.execute(update(jobs).where(*held).values(**values)).rowcount:
        tell(connection, row.id, row.owner, kind, **told)


def release(connection: Connection, job: str, fence: int) -> None:
    """Have a job wait again whose worker cannot make it now."""
    held = select(jobs).where(jobs.c.id == job, jobs.c.fence == fence, jobs.c.state == "running")
    if (row := connection.execute(held).one_or_none()) is not None:
        give_back(connection, row, "its worker could not make it", died=True)
