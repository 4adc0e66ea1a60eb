"""The service's own interface: /v1/jobs, /v1/images, /v1/uploads, /v1/models, /v1/events, /v1/stats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from darkroom.errors import InvalidRequest
from darkroom.serve.api.asking import json_of, parsed
from darkroom.serve.api.schemas import batch_body, job_body, picture_body
from darkroom.serve.api.service import LOCAL, Service
from darkroom.serve.api.views import Batch, Batches, Image, Images, Job, Jobs, Line, Lines, Upload
from darkroom.serve.batches import MOST_LINES
from darkroom.serve.events import Event
from darkroom.serve.problems import Problem
from darkroom.serve.schema import STATES

LONGEST_WAIT = 300
_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_JSONL = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")
_TEXT = "text/plain"
_MOST = 200

router = APIRouter(prefix="/v1")


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def owner_of(request: Request) -> str:
    """Whoever asks."""
    return LOCAL


Here = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]
JobId = Annotated[str, Path(description="the id of a job", max_length=64)]
ImageId = Annotated[str, Path(description="the id of an image", max_length=64)]
Sha256 = Annotated[str, Path(description="the SHA-256 of an upload", pattern="^[0-9a-f]{64}$")]
Wait = Annotated[
    float,
    Query(description="seconds to wait for the job to be over, before it is told", ge=0, le=LONGEST_WAIT),
]
States = Annotated[list[str] | None, Query(description="those in these states")]
BatchId = Annotated[str, Path(description="the id of a batch", max_length=64)]
_KEY = Header(
    description="the same key gives the same, however often it is sent", min_length=1, max_length=255
)
Limit = Annotated[int, Query(description="how many at most", ge=1, le=_MOST)]


@router.post("/jobs", status_code=202, tags=["jobs"], openapi_extra=job_body())
async def new_job(
    request: Request,
    response: Response,
    service: Here,
    owner: Owner,
    wait: Wait = 0,
    idempotency_key: Annotated[str | None, _KEY] = None,
) -> Job:
    """Ask for pictures. The answer comes at once, or with `wait` when they are made; they may also be followed by
    their events."""
    found = await service.submit(owner, await json_of(request), idempotency_key)
    job = str(found.row.id)
    if wait:
        found = await service.finished(owner, job, wait)
    response.status_code = 200 if found.over else 202
    response.headers["Location"] = f"/v1/jobs/{job}"
    return Job.of(found)


@router.get("/jobs", tags=["jobs"])
async def list_jobs(
    service: Here,
    owner: Owner,
    state: States = None,
    batch: Annotated[str | None, Query(description="those of that batch", max_length=64)] = None,
    before: Annotated[int | None, Query(description="those with a lower number", ge=1, lt=2**63)] = None,
    limit: Limit = 50,
) -> Jobs:
    """Jobs, the youngest first."""
    found = await service.listed(owner, states=_states(state), batch=batch, before=before, most=limit)
    rest = found[-1].row.number if len(found) == limit else None
    return Jobs(data=[Job.of(each) for each in found], before=rest)


def _states(given: list[str] | None) -> list[str]:
    if unknown := [each for each in given or () if each not in STATES]:
        raise InvalidRequest(f"there is no state {unknown[0]!r}: choose of {', '.join(STATES)}")
    return given or []


@router.get("/jobs/{job}", tags=["jobs"])
async def get_job(service: Here, owner: Owner, job: JobId, wait: Wait = 0) -> Job:
    """A job as it is; with `wait` when it is over."""
    found = await service.job(owner, job)
    if wait and not found.over:
        found = await service.finished(owner, job, wait)
    return Job.of(found)


@router.post("/jobs/{job}/cancel", tags=["jobs"])
async def cancel_job(service: Here, owner: Owner, job: JobId) -> Job:
    """Stop a job, after the network call that it is in; pictures that are made stay. One that is over stays as it
    is."""
    return Job.of(await service.cancel(owner, job))


@router.post("/jobs/{job}/retry", status_code=202, tags=["jobs"])
async def retry_job(service: Here, owner: Owner, job: JobId) -> Job:
    """A new job of the same request as one that failed or was cancelled."""
    return Job.of(await service.retry(owner, job))


@router.get("/jobs/{job}/preview/{number}", tags=["jobs"], response_class=Response)
async def job_preview(
    service: Here, owner: Owner, job: JobId, number: Annotated[int, Path(ge=0, lt=2**31)]
) -> Response:
    """What a picture of a running job looks like so far: a small JPEG."""
    content = await service.preview(owner, job, number)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.post("/batches", status_code=202, tags=["batches"], openapi_extra=batch_body())
async def new_batch(
    request: Request,
    service: Here,
    owner: Owner,
    idempotency_key: Annotated[str | None, _KEY] = None,
) -> Batch:
    """Ask for many at once: a line of JSON for each (application/jsonl), a prompt on each line (text/plain), or an
    object of `requests` and the `defaults` of all. Either all are taken in, or the answer says which cannot be."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in (*_JSONL, _TEXT):
        bodies = await asyncio.to_thread(_lines, await request.body(), kind == _TEXT)
    else:
        bodies = _requests(await json_of(request))
    if not 1 <= len(bodies) <= MOST_LINES:
        raise InvalidRequest(f"the batch has {len(bodies)} lines: give 1 to {MOST_LINES:,}")
    return Batch.of(await service.submit_batch(owner, bodies, idempotency_key))


def _lines(body: bytes, prompts: bool) -> list[Any]:
    try:
        lines = [line for line in body.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Problem(400, "invalid_text", f"the body is no UTF-8: {error}") from None
    if prompts:
        return [*map(str.strip, lines)]
    found = []
    for place, line in enumerate(lines, 1):
        try:
            found.append(parsed(line.encode()))
        except (ValueError, RecursionError) as error:
            raise Problem(400, "invalid_json", f"line {place} is no JSON: {error}") from None
    return found


def _requests(body: Any) -> list[Any]:
    if not isinstance(body, Mapping) or not isinstance(body.get("requests"), list):
        raise InvalidRequest('the body holds no requests: give {"requests": [{"prompt": "a boat"}]}')
    if others := sorted(body.keys() - {"requests", "defaults"}):
        raise InvalidRequest(f"the body holds {others[0]!r}: give requests and defaults alone")
    defaults = body.get("defaults") or {}
    if not isinstance(defaults, Mapping):
        raise InvalidRequest("defaults is no object: give one of settings")
    said = [{"prompt": each} if isinstance(each, str) else each for each in body["requests"]]
    return [{**defaults, **each} if isinstance(each, Mapping) else each for each in said]


@router.get("/batches", tags=["batches"])
async def list_batches(
    service: Here,
    owner: Owner,
    before: Annotated[str | None, Query(description="those made before that one", max_length=64)] = None,
    limit: Limit = 50,
) -> Batches:
    """Batches, the youngest first."""
    found = [Batch.of(each) for each in await service.batches(owner, before, limit)]
    return Batches(data=found, before=found[-1].id if len(found) == limit else None)


@router.get("/batches/{batch}", tags=["batches"])
async def get_batch(service: Here, owner: Owner, batch: BatchId) -> Batch:
    """A batch as it is."""
    return Batch.of(await service.batch(owner, batch))


@router.get("/batches/{batch}/lines", tags=["batches"])
async def batch_lines(
    service: Here,
    owner: Owner,
    batch: BatchId,
    state: States = None,
    after: Annotated[int, Query(description="those behind that line", ge=0, lt=2**31)] = 0,
    limit: Limit = 50,
) -> Lines:
    """The lines of a batch in order, each with its job."""
    found = await service.batch_lines(owner, batch, _states(state), after, limit)
    data = [Line(line=number, job=Job.of(job)) for number, job in found]
    return Lines(data=data, after=data[-1].line if len(data) == limit else None)


@router.post("/batches/{batch}/cancel", tags=["batches"])
async def cancel_batch(service: Here, owner: Owner, batch: BatchId) -> Batch:
    """Stop all of a batch that is not over."""
    return Batch.of(await service.cancel_batch(owner, batch))


@router.post("/batches/{batch}/resume", status_code=202, tags=["batches"])
async def resume_batch(service: Here, owner: Owner, batch: BatchId) -> Batch:
    """Go on with a batch: what of it failed or was cancelled is tried again, what is made stays."""
    return Batch.of(await service.resume_batch(owner, batch))


async def _known(service: Here, owner: Owner, job: JobId) -> str:
    """Before an answer begins: that there is such a job."""
    await service.job(owner, job)
    return job


@router.get("/jobs/{job}/events", tags=["jobs"], response_class=EventSourceResponse)
async def job_events(
    service: Here,
    owner: Owner,
    job: Annotated[str, Depends(_known)],
    last_event_id: Annotated[int, Header(description="the last that was heard", ge=0, lt=2**63)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """What happens to a job, from its beginning or from `Last-Event-ID` on, until it is over: queued, running,
    progress, picture, and succeeded, failed, cancelled or blocked."""
    async for event in service.follow(owner, job, last_event_id):
        yield _sent(event)


@router.get("/events", tags=["jobs"], response_class=EventSourceResponse)
async def all_events(
    service: Here,
    owner: Owner,
    last_event_id: Annotated[
        int | None, Header(description="the last that was heard", ge=0, lt=2**63)
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """What happens to all your jobs, from now or from `Last-Event-ID` on."""
    async for event in service.follow(owner, None, last_event_id):
        yield _sent(event)


def _sent(event: Event) -> ServerSentEvent:
    said = {"job": event.job, "at": event.at, **event.data}
    return ServerSentEvent(data=said, event=event.kind, id=str(event.seq))


@router.get("/images", tags=["images"])
async def list_images(
    service: Here,
    owner: Owner,
    before: Annotated[
        str | None, Query(description="those made before the image of that id", max_length=64)
    ] = None,
    limit: Limit = 50,
) -> Images:
    """Pictures that were made, the youngest first."""
    found = [Image.of(row) for row in await service.pictures(owner, before, limit)]
    return Images(data=found, before=found[-1].id if len(found) == limit else None)


@router.get("/images/{image}", tags=["images"])
async def get_image(service: Here, owner: Owner, image: ImageId) -> Image:
    """What is known of a picture."""
    return Image.of(await service.picture(owner, image))


@router.get("/images/{image}/file", tags=["images"], response_class=Response)
async def image_file(service: Here, owner: Owner, image: ImageId) -> Response:
    """A picture's file; it says itself how it was made."""
    row = await service.picture(owner, image)
    content = await service.content(row.sha256)
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "ETag": f'"{row.sha256}"',
        "Content-Disposition": f'inline; filename="{row.id}.{row.format}"',
    }
    return Response(content, media_type=_TYPES[row.format], headers=headers)


@router.delete("/images/{image}", status_code=204, tags=["images"], response_class=Response)
async def delete_image(service: Here, owner: Owner, image: ImageId) -> Response:
    """Delete a picture."""
    await service.forget(owner, image)
    return Response(status_code=204)


@router.post("/uploads", status_code=201, tags=["images"], openapi_extra=picture_body())
async def new_upload(request: Request, service: Here, owner: Owner) -> Upload:
    """Give a picture, its file as the body, for jobs to name by its SHA-256."""
    return Upload.of(await service.upload(owner, await request.body()))


@router.get("/uploads/{sha256}", tags=["images"])
async def get_upload(service: Here, owner: Owner, sha256: Sha256) -> Upload:
    """What is known of an upload."""
    return Upload.of(await service.uploaded(owner, sha256))


@router.delete("/uploads/{sha256}", status_code=204, tags=["images"], response_class=Response)
async def delete_upload(service: Here, owner: Owner, sha256: Sha256) -> Response:
    """Delete an upload that no job needs any more."""
    await service.forget_upload(owner, sha256)
    return Response(status_code=204)


@router.get("/models", tags=["models"])
async def list_models(service: Here) -> dict[str, Any]:
    """The models that there are, the usual one first, and whether they are loaded."""
    listed = [{"object": "model", "owned_by": "darkroom", **each} for each in await service.models()]
    return {"object": "list", "data": listed}


@router.get("/models/{model:path}", tags=["models"])
async def get_model(service: Here, model: str) -> dict[str, Any]:
    """A model, and whether it is loaded."""
    return {"object": "model", "owned_by": "darkroom", **await service.model(model)}


@router.post("/models/{model:path}/load", status_code=202, tags=["models"])
async def load_model(service: Here, model: str) -> dict[str, Any]:
    """Have workers load a model; /v1/models says how far they are."""
    return {"object": "model", "id": await service.want(model, True), "wanted": True}


@router.post("/models/{model:path}/unload", status_code=202, tags=["models"])
async def unload_model(service: Here, model: str) -> dict[str, Any]:
    """Have workers let go of a model once no job needs it; it is loaded again when one does."""
    return {"object": "model", "id": await service.want(model, False), "wanted": False}


@router.get("/stats", tags=["service"])
async def stats(service: Here) -> dict[str, Any]:
    """How many jobs there are in each state, and what workers are at."""
    return await service.stats()
