"""The service's own interface: /v1/jobs, /v1/images, /v1/uploads, /v1/models, /v1/events, /v1/stats."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from darkroom.serve.api.schemas import job_body, picture_body
from darkroom.serve.api.service import LOCAL, Service
from darkroom.serve.api.views import Image, Images, Job, Jobs, Upload
from darkroom.serve.events import Event
from darkroom.serve.problems import Problem
from darkroom.serve.schema import STATES

LONGEST_WAIT = 300
_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
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
Limit = Annotated[int, Query(description="how many at most", ge=1, le=_MOST)]


async def _json(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "unsupported_media_type", f"the content type is {kind!r}: send application/json")
    try:
        return json.loads(await request.body(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "invalid_json", f"the body is no JSON: {error}") from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON's")


@router.post("/jobs", status_code=202, tags=["jobs"], openapi_extra=job_body())
async def new_job(
    request: Request,
    response: Response,
    service: Here,
    owner: Owner,
    wait: Wait = 0,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="the same key gives the same job, however often it is sent",
            min_length=1,
            max_length=255,
        ),
    ] = None,
) -> Job:
    """Ask for pictures. The answer comes at once, or with `wait` when they are made; they may also be followed by
    their events."""
    found = await service.submit(owner, await _json(request), idempotency_key)
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
    state: Annotated[list[str] | None, Query(description="those in these states")] = None,
    before: Annotated[int | None, Query(description="those with a lower number", ge=1, lt=2**63)] = None,
    limit: Limit = 50,
) -> Jobs:
    """Jobs, the youngest first."""
    if unknown := [each for each in state or () if each not in STATES]:
        raise Problem(
            422, "invalid_request", f"there is no state {unknown[0]!r}: choose of {', '.join(STATES)}"
        )
    found = await service.listed(owner, state or (), before, limit)
    rest = found[-1].row.number if len(found) == limit else None
    return Jobs(data=[Job.of(each) for each in found], before=rest)


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


@router.get("/models", tags=["models"])
async def list_models(service: Here) -> dict[str, Any]:
    """The models that there are, the usual one first, and whether they are loaded."""
    listed = [{"object": "model", "owned_by": "darkroom", **each} for each in await service.models()]
    return {"object": "list", "data": listed}


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
