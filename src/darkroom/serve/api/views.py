"""What clients are shown, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Row

from darkroom.serve.batches import Batch as Batched
from darkroom.serve.jobs import Found


class Image(BaseModel):
    """A picture that was made. `url` gives its file; `seconds`: of the engine, its share of every step that it had a
    part in."""

    id: str
    object: str = "image"
    job: str
    number: int = Field(description="its place in its job")
    url: str
    seed: int
    width: int
    height: int
    format: str
    bytes: int
    sha256: str
    seconds: float
    created_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> Image:
        names = (
            "id",
            "job",
            "number",
            "seed",
            "width",
            "height",
            "format",
            "sha256",
            "seconds",
            "created_at",
        )
        own = {name: getattr(row, name) for name in names}
        return cls(**own, url=f"/v1/images/{row.id}/file", bytes=row.nbytes)


class Failure(BaseModel):
    """Why a job failed: a code that stays the same, and words."""

    code: str
    message: str


class Progress(BaseModel):
    """Network calls behind a job, of all that it takes as far as that is known."""

    done: int
    total: int | None


class Job(BaseModel):
    """A job. Times are seconds since 1970; `seconds` are those of the engine, by phase."""

    id: str
    object: str = "job"
    number: int
    kind: str
    model: str | None
    priority: str
    door: str = Field(description="the interface that it came in by: native, openai or a1111")
    state: str = Field(description="queued, running, succeeded, failed, cancelled or blocked")
    count: int = Field(description="how many pictures it makes")
    progress: Progress
    error: Failure | None
    images: list[Image]
    request: dict[str, Any] = Field(description="what is made, with everything that was left open filled in")
    attempt: int
    retry_of: str | None
    batch: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    seconds: dict[str, float]

    @classmethod
    def of(cls, found: Found) -> Job:
        row = found.row
        names = (
            "id",
            "number",
            "kind",
            "model",
            "priority",
            "door",
            "state",
            "count",
            "request",
            "attempt",
            "retry_of",
            "batch",
        )
        times = ("created_at", "started_at", "finished_at")
        return cls(
            **{name: getattr(row, name) for name in (*names, *times)},
            progress=Progress(done=row.done, total=row.total),
            error=None if row.code is None else Failure(code=row.code, message=row.error or ""),
            images=[Image.of(each) for each in found.pictures],
            seconds=row.seconds or {},
        )


class Jobs(BaseModel):
    """Jobs, the youngest first; `before` gives those that follow, None where there are none."""

    object: str = "list"
    data: list[Job]
    before: int | None


class Batch(BaseModel):
    """Jobs that came in together. `states`: how many of its lines are in which."""

    id: str
    object: str = "batch"
    count: int
    states: dict[str, int]
    over: bool
    created_at: float

    @classmethod
    def of(cls, found: Batched) -> Batch:
        row = found.row
        own = {"id": row.id, "created_at": row.created_at}
        return cls(**own, count=len(found.lines), states=dict(found.states), over=found.over)


class Batches(BaseModel):
    """Batches, the youngest first; `before` gives those that follow, None where there are none."""

    object: str = "list"
    data: list[Batch]
    before: str | None


class Line(BaseModel):
    """A line of a batch, counted from 1, and its job."""

    line: int
    job: Job


class Lines(BaseModel):
    """Lines in order; `after` gives those that follow, None where there are none."""

    object: str = "list"
    data: list[Line]
    after: int | None


class Images(BaseModel):
    """Pictures, the youngest first; `before` gives those that follow, None where there are none."""

    object: str = "list"
    data: list[Image]
    before: str | None


class Upload(BaseModel):
    """A picture that was given: requests name it as {"sha256": "..."}."""

    object: str = "upload"
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    created_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> Upload:
        names = ("sha256", "width", "height", "format", "created_at")
        return cls(**{name: getattr(row, name) for name in names}, bytes=row.nbytes)


class ProblemView(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stays the same for the same kind of problem")
    detail: str
