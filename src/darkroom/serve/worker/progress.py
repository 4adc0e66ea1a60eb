"""Where the pictures of jobs have come to, written down so that others can go on there."""

from __future__ import annotations

import logging

from darkroom.generation.job import Job
from darkroom.generation.request import Request
from darkroom.generation.saved import Saved
from darkroom.model import Model
from darkroom.serve import results
from darkroom.serve.claims import Claimed
from darkroom.serve.database import Database
from darkroom.serve.objects import Objects

log = logging.getLogger(__name__)

_DIGITS = 16


class Checkpoints:
    """The checkpoints of a worker's jobs. Each says what it was made by: with other weights, in another precision or on
    another machine's kind of processor the picture would become another one, and begins anew instead."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database, self._objects = database, objects

    def save(self, job: Claimed, model: Model, number: int, saved: Saved) -> None:
        """Write down where a picture of a job has come to. Raises Lost where the job is no longer ours, Unavailable and
        Unstored."""
        place = f"{number}-{job.fence}-{saved.done}-{_identity(model)}"
        key = f"checkpoints/{job.id}/{place}"
        self._objects.put(key, saved.to_bytes())
        before = self._database.write(
            lambda connection: results.checkpoint(connection, job, number, key, saved.done)
        ).result()
        if before is not None and before != key:
            self._objects.delete(before)

    def resumed(self, job: Claimed, model: Model, number: int, single: Request) -> Job:
        """The work on a picture, from its last checkpoint on; anew where that is another's or cannot be read."""
        if (key := job.checkpoints.get(number)) is not None:
            try:
                if key.rpartition("-")[2] != _identity(model):
                    raise ValueError("it was made by other weights, or by another kind of machine")
                return model.job(single, Saved.from_bytes(self._objects.get(key)))
            except Exception as error:
                log.warning("%s: picture %d begins anew (%s)", job.id, number, error)
        return model.job(single)


def _identity(model: Model) -> str:
    return model.provenance.identity()[:_DIGITS]
