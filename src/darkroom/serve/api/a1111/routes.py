"""/sdapi/v1/* and what belongs to it, as AUTOMATIC1111 1.10 has it (its `modules/api/api.py`).

Requests are jobs like all others: they wait for their turn, go on after a crash, and are listed in /v1/jobs. What there
is nothing for here is refused by its name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from darkroom.checkpoint.family import Family
from darkroom.errors import InvalidRequest
from darkroom.recipes.recipe import Recipe
from darkroom.serve.api import asking
from darkroom.serve.api.a1111 import lists, meaning, options, told
from darkroom.serve.api.a1111.payload import IMG2IMG, SEVERAL, SINGLE, TXT2IMG, Payload, read
from darkroom.serve.api.answers import telling
from darkroom.serve.api.native import Here, Owner
from darkroom.serve.api.schemas import a1111_body
from darkroom.serve.api.service import Service
from darkroom.serve.intake import picture_of
from darkroom.serve.jobs import Found
from darkroom.serve.problems import Problem

_DOOR = "a1111"


def _told(problem: Problem) -> tuple[int, Any]:
    """An error as A1111's clients read it."""
    return problem.status, {
        "error": problem.code,
        "detail": problem.detail,
        "body": "",
        "errors": problem.detail,
    }


router = APIRouter(route_class=telling(_told), tags=["a1111"])
_sdapi = APIRouter(prefix="/sdapi/v1", route_class=telling(_told))


# Pictures.


@_sdapi.post("/txt2img", openapi_extra=a1111_body("txt2img", TXT2IMG))
async def txt2img(request: Request, service: Here, owner: Owner) -> dict[str, Any]:
    """Pictures of a prompt."""
    return await _made(read(await asking.json_of(request), TXT2IMG), request, service, owner)


@_sdapi.post("/img2img", openapi_extra=a1111_body("img2img", IMG2IMG))
async def img2img(request: Request, service: Here, owner: Owner) -> dict[str, Any]:
    """Pictures drawn over another one, or into it."""
    return await _made(read(await asking.json_of(request), IMG2IMG), request, service, owner)


async def _made(payload: Payload, request: Request, service: Service, owner: str) -> dict[str, Any]:
    said = options.check(payload["override_settings"] or {})
    if said and not payload["override_settings_restore_afterwards"]:
        await service.write(partial(options.put, owner=owner, said=said))
    held = await service.read(partial(options.of_owner, owner=owner))
    body, recipe = await service.beside(partial(_meant, service, payload, held | said))
    found = await service.submit(owner, body, door=_DOOR, task=payload["force_task_id"])
    # Whoever has a name for it, or has it kept, may come back for it.
    stays = payload["save_images"] or payload["force_task_id"]
    found = await asking.over(service, owner, found, None if stays else request)
    if found.row.state != "cancelled":
        asking.check(found)
    contents = await asking.files(service, found)
    return {
        "images": [told.encoded(each) for each in contents] if payload["send_images"] else [],
        "parameters": told.echoed(payload),
        "info": await service.beside(partial(told.info, payload, found, contents, recipe)),
    }


def _meant(service: Service, payload: Payload, said: Mapping[str, Any]) -> tuple[dict[str, Any], Recipe]:
    catalogue = service.catalogue

    def family(model: str | None) -> Family:
        return catalogue.opened(catalogue.named(model)).source.family

    return meaning.job_of(payload, said, catalogue.usual, family)


@_sdapi.post("/extra-single-image", openapi_extra=a1111_body("extra-single-image", SINGLE))
async def extra_single_image(request: Request, service: Here, owner: Owner) -> dict[str, Any]:
    """A picture made larger."""
    payload = read(await asking.json_of(request), SINGLE)
    ((content, words),) = await _enlarged(payload, [payload["image"]], request, service, owner)
    return {"html_info": f"<p>{words}</p>", "image": content}


@_sdapi.post("/extra-batch-images", openapi_extra=a1111_body("extra-batch-images", SEVERAL))
async def extra_batch_images(request: Request, service: Here, owner: Owner) -> dict[str, Any]:
    """Pictures made larger."""
    payload = read(await asking.json_of(request), SEVERAL)
    files = [each.get("data") if isinstance(each, Mapping) else None for each in payload["imageList"]]
    if not files or not all(isinstance(each, str) for each in files):
        raise InvalidRequest('imageList holds no pictures: give [{"data": "...", "name": "..."}]')
    made = await _enlarged(payload, files, request, service, owner)
    return {"html_info": f"<p>{made[-1][1]}</p>", "images": [content for content, _ in made]}


async def _enlarged(
    payload: Payload, images: list[Any], request: Request, service: Service, owner: str
) -> list[tuple[str, str]]:
    """Pictures made larger, in base64, each with what was done in words."""
    bodies = [await service.beside(partial(meaning.larger, payload, each)) for each in images]
    jobs = [None if body is None else await service.submit(owner, body, door=_DOOR) for body in bodies]
    made = []
    for image, job in zip(images, jobs, strict=True):
        if job is None:
            made.append((told.encoded(picture_of("image", image)), ""))
            continue
        found = await asking.over(service, owner, job, request)
        asking.check(found)
        (content,) = await asking.files(service, found)
        said = (await service.beside(partial(told.infotext, content)))[1]
        made.append((told.encoded(content), said.get("postprocessing", "")))
    return made


@_sdapi.post("/png-info")
async def png_info(request: Request, service: Here) -> dict[str, Any]:
    """What a picture says of how it was made."""
    body = await asking.json_of(request)
    image = body.get("image") if isinstance(body, Mapping) else None
    if not isinstance(image, str) or not image.strip():
        raise Problem(404, "image_not_found", 'Image not found: give {"image": "..."} in base64')
    content = picture_of("image", image)
    said, others = await service.beside(partial(told.infotext, content))
    items = {"parameters": said, **others} if said else others
    return {"info": said, "items": items, "parameters": told.parameters(said)}


@_sdapi.post("/interrogate")
async def interrogate() -> None:
    """Words for a picture: there is nothing here that finds them."""
    raise Problem(
        501,
        "not_here",
        "interrogate: there is no captioner here, CLIP's and DeepDanbooru's are other programs",
    )


# What is going on.


@_sdapi.get("/progress")
async def progress(service: Here, owner: Owner, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the oldest request of this interface is that is not over."""
    going = await service.going(owner, _DOOR)
    first = next((each for each in going if each.row.state == "running"), None)
    image = None if skip_current_image or first is None else await _preview(service, owner, first)
    return {
        "progress": told.share(first) if first else 0.0,
        "eta_relative": told.seconds_left(first) if first else 0.0,
        "state": told.state([first] if first else going),
        "current_image": image,
        "textinfo": "Waiting..." if going and first is None else None,
    }


async def _preview(service: Service, owner: str, found: Found) -> str | None:
    for number in range(len(found.pictures), found.count):
        try:
            return told.encoded(await service.preview(owner, found.row.id, number))
        except Problem:
            break
    return None


@_sdapi.post("/interrupt")
async def interrupt(service: Here, owner: Owner) -> dict[str, Any]:
    """End the oldest request of this interface: it answers with the pictures that are finished."""
    for each in (await service.going(owner, _DOOR))[:1]:
        await service.cancel(owner, each.row.id)
    return {}


@_sdapi.post("/skip")
async def skip(service: Here, owner: Owner) -> dict[str, Any]:
    """The same where it makes one picture. Pictures of one request are made side by side: there is no current one."""
    going = await service.going(owner, _DOOR)
    if going and going[0].count > 1:
        raise Problem(
            422,
            "not_here",
            "skip: pictures of a request are made side by side here; interrupt ends it with those made",
        )
    return await interrupt(service, owner)


@router.get("/internal/pending-tasks")
async def pending_tasks(service: Here, owner: Owner) -> dict[str, Any]:
    """The requests of this interface that are not over, by their clients' names for them."""
    going = await service.going(owner, _DOOR)
    return {"size": len(going), "tasks": [each.row.task or each.row.id for each in going]}


@router.post("/internal/progress")
async def internal_progress(request: Request, service: Here, owner: Owner) -> dict[str, Any]:
    """How far the request is that its client calls by that name."""
    body = await asking.json_of(request)
    task = body.get("id_task") if isinstance(body, Mapping) else None
    if not isinstance(task, str):
        raise InvalidRequest('id_task is missing: give {"id_task": "..."}')
    found = await service.task(owner, task)
    running = found is not None and found.row.state == "running"
    image = (
        await _preview(service, owner, found)
        if found and running and body.get("live_preview", True)
        else None
    )
    number = found.row.done if found else 0
    return {
        "active": running,
        "queued": found is not None and found.row.state == "queued",
        "completed": found is not None and found.over,
        "progress": told.share(found) if found else None,
        "eta": told.seconds_left(found) if found and running else None,
        "live_preview": None if image is None else f"data:image/jpeg;base64,{image}",
        "id_live_preview": number if image else -1,
        "textinfo": None if running or found is None else "Waiting..." if not found.over else "",
    }


# Options and models.


@_sdapi.get("/options")
async def get_options(service: Here, owner: Owner) -> dict[str, Any]:
    """The options that hold for whoever asks."""
    said = await service.read(partial(options.of_owner, owner=owner))
    catalogue = service.catalogue
    name = meaning.model_named(str(said.get("sd_model_checkpoint", "")), catalogue.usual) or catalogue.usual
    sha256 = await service.beside(partial(catalogue.sha256, name))
    usual = {each: option.usual for each, option in options.OPTIONS.items()}
    return {
        **usual,
        **said,
        "sd_model_checkpoint": lists.title(name, sha256),
        "sd_checkpoint_hash": sha256 or "",
    }


@_sdapi.post("/options")
async def set_options(request: Request, service: Here, owner: Owner) -> None:
    """Have options hold for all later requests of whoever asks."""
    body = await asking.json_of(request)
    if not isinstance(body, Mapping):
        raise InvalidRequest('the body is no object: give one such as {"CLIP_stop_at_last_layers": 2}')
    said = options.check(body)
    # What cannot be is said now, not with the next picture.
    tried, _ = await service.beside(partial(_meant, service, read({"prompt": "a"}, TXT2IMG), said))
    await service.beside(partial(service.settled, owner, tried))
    said.pop("sd_checkpoint_hash", None)
    await service.write(partial(options.put, owner=owner, said=said))
    if (model := said.get("sd_model_checkpoint")) is not None:
        await service.want(
            meaning.model_named(str(model), service.catalogue.usual) or service.catalogue.usual, True
        )


@_sdapi.get("/sd-models")
async def sd_models(service: Here) -> list[dict[str, Any]]:
    """The models."""
    return await service.beside(partial(lists.models, service.catalogue))


async def _usual(service: Service, owner: str) -> str:
    said = await service.read(partial(options.of_owner, owner=owner))
    usual = service.catalogue.usual
    return meaning.model_named(str(said.get("sd_model_checkpoint", "")), usual) or usual


@_sdapi.post("/unload-checkpoint")
async def unload_checkpoint(service: Here, owner: Owner) -> dict[str, Any]:
    """Have the workers let go of the model that is set."""
    await service.want(await _usual(service, owner), False)
    return {}


@_sdapi.post("/reload-checkpoint")
async def reload_checkpoint(service: Here, owner: Owner) -> dict[str, Any]:
    """Have the workers load the model that is set."""
    await service.want(await _usual(service, owner), True)
    return {}


@_sdapi.post("/refresh-checkpoints")
@_sdapi.post("/refresh-vae")
@_sdapi.post("/refresh-loras")
@_sdapi.post("/refresh-embeddings")
async def refresh() -> dict[str, Any]:
    """Nothing is to be done: what there is is looked at each time."""
    return {}


@_sdapi.get("/memory")
async def memory(service: Here) -> dict[str, Any]:
    """Bytes of memory of the API's machine; of GPUs what the workers say."""
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = (os.sysconf(name) * page for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    return {
        "ram": {"free": free, "used": total - free, "total": total},
        "cuda": {"error": "unavailable: /v1/stats tells what workers are at"},
    }


# Lists.

_LISTS = {
    "samplers": lists.samplers,
    "schedulers": lists.schedulers,
    "loras": lists.loras,
    "embeddings": lists.embeddings,
    "hypernetworks": lists.hypernetworks,
    "sd-vae": lists.vaes,
    "upscalers": lists.upscalers,
    "latent-upscale-modes": lists.latent_modes,
    "prompt-styles": lists.prompt_styles,
    "face-restorers": list,
    "realesrgan-models": list,
    "script-info": list,
    "extensions": list,
    "scripts": partial(dict, txt2img=[], img2img=[]),
    "cmd-flags": dict,
}
_OF_CONTROL: Mapping[str, Mapping[str, Any]] = {
    "version": {"version": 0},
    "model_list": {"model_list": []},
    "module_list": {"module_list": [], "module_detail": {}},
    "control_types": {"control_types": {}},
}


def _listing(name: str, listed: Any) -> None:
    async def listing() -> Any:
        return await asyncio.to_thread(listed)

    words = f"What there is of {name.replace('-', ' ')}."
    _sdapi.add_api_route(f"/{name}", listing, methods=["GET"], name=name, description=words)


def _control(name: str, found: Mapping[str, Any]) -> None:
    async def controlled() -> Mapping[str, Any]:
        return found

    router.add_api_route(
        f"/controlnet/{name}",
        controlled,
        methods=["GET"],
        name=name,
        description="Of ControlNets: there are none yet.",
    )


for _name, _listed in _LISTS.items():
    _listing(_name, _listed)
for _name, _found in _OF_CONTROL.items():
    _control(_name, _found)


@router.post("/controlnet/detect")
async def controlnet_detect() -> None:
    """What a preprocessor sees in a picture: there is none here."""
    raise Problem(501, "not_here", "controlnet/detect: there are no preprocessors here")


router.include_router(_sdapi)
