"""What happens to jobs, written down in order: clients follow it, and catch up on what they missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from darkroom.serve.database import now
from darkroom.serve.schema import counters, events


@dataclass(frozen=True)
class Event:
    """Something that happened to a job of somebody's, at a time of the database's clock. `seq`: its place among all.
    `kind`: a state that the job came to, a `picture` that was made, or `progress`, which is forgotten at its end."""

    seq: int
    job: str
    owner: str
    kind: str
    data: Mapping[str, Any]
    at: float


def tell(connection: Connection, job: str, owner: str, kind: str, **data: Any) -> None:
    """Write an event down, within the transaction of what it tells of."""
    tell_all(connection, [(job, owner, kind, data)])


def tell_all(connection: Connection, told: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> None:
    """The same of several: job, owner, kind and data."""
    if not told:
        return
    # The row stays locked until the commit: events become visible in the order of their numbers.
    counted = update(counters).where(counters.c.name == "events")
    counting = counted.values(value=counters.c.value + len(told)).returning(counters.c.value, now())
    last, at = connection.execute(counting).one()
    names = ("job", "owner", "kind", "data")
    rows = [
        {"seq": last - len(told) + place, "at": at, **dict(zip(names, each, strict=True))}
        for place, each in enumerate(told, 1)
    ]
    connection.execute(insert(events), rows)
    connection.info["events"] = True


def last_seq(connection: Connection) -> int:
    """The number of the last event that there is."""
    found: int = connection.execute(select(counters.c.value).where(counters.c.name == "events")).scalar_one()
    return found


def since(
    connection: Connection,
    seq: int,
    job: str | None = None,
    owner: str | None = None,
    most: int = 500,
) -> list[Event]:
    """The events after `seq`, of a job or of whoever's, in order."""
    wanted = select(events).where(events.c.seq > seq).order_by(events.c.seq).limit(most)
    if job is not None:
        wanted = wanted.where(events.c.job == job)
    if owner is not None:
        wanted = wanted.where(events.c.owner == owner)
    return [Event(*row) for row in connection.execute(wanted)]
