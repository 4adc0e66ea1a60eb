"""What A1111's interface answers: pictures with all that is known of them, progress, what a picture says of itself."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from darkroom.generation.picture import texts_of
from darkroom.recipes.infotext import parse, size_of
from darkroom.recipes.recipe import Recipe
from darkroom.serve.api.a1111.payload import Payload
from darkroom.serve.jobs import Found
from darkroom.version import __version__

_OWN = ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model hash", "Version")
"""What is said of a picture in fields of their own."""


def encoded(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode()


def infotext(content: bytes) -> tuple[str, dict[str, str]]:
    """What a picture's file says in A1111's words, and all other texts in it. Raises InvalidRequest for no picture."""
    _, texts = texts_of(io.BytesIO(content), ("parameters",))
    comment = texts.pop("comment", "")
    said = texts.pop("parameters", "")
    return said or comment, {name: text for name, text in texts.items() if text}


def parameters(said: str) -> dict[str, str]:
    """The settings of such a text by name, as A1111 takes it apart (`modules/infotext_utils.py`)."""
    if not said:
        return {}
    prompt, negative, found = parse(said)
    found = {"Prompt": prompt, "Negative prompt": negative, **found}
    for name in ("Size", "Hires resize", "Seed resize from", "First pass size"):
        if (size := size_of(found.get(name, ""))) is not None:
            found |= {f"{name}-1": str(size[0]), f"{name}-2": str(size[1])}
    return found


def info(payload: Payload, found: Found, contents: Sequence[bytes], recipe: Recipe) -> str:
    """All that is known of the pictures of a job, as a text of JSON (`Processed.js` in its `modules/processing.py`)."""
    texts = [infotext(each)[0] for each in contents]
    parsed = [parse(text) for text in texts]
    seeds = [row.seed for row in found.pictures] or [payload["seed"]]
    first = parsed[0][2] if parsed else {}
    subseeds = [int(said.get("Variation seed", 0)) + place for place, (*_, said) in enumerate(parsed)]
    prompts = [each[0] for each in parsed] or [payload["prompt"]]
    negatives = [each[1] for each in parsed] or [payload["negative_prompt"]]
    size = (found.pictures[0].width, found.pictures[0].height) if found.pictures else (0, 0)
    said = {
        "prompt": prompts[0],
        "all_prompts": prompts,
        "negative_prompt": negatives[0],
        "all_negative_prompts": negatives,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0] if subseeds else payload["subseed"],
        "all_subseeds": subseeds,
        "subseed_strength": payload["subseed_strength"],
        "width": size[0],
        "height": size[1],
        "sampler_name": first.get("Sampler", payload["sampler_name"] or payload["sampler_index"]),
        "cfg_scale": payload["cfg_scale"],
        "steps": payload["steps"],
        "batch_size": payload["batch_size"],
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.get("Model", found.row.model),
        "sd_model_hash": first.get("Model hash"),
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": payload["seed_resize_from_w"],
        "seed_resize_from_h": payload["seed_resize_from_h"],
        "denoising_strength": payload["denoising_strength"],
        "extra_generation_params": {name: value for name, value in first.items() if name not in _OWN},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": payload["styles"],
        "job_timestamp": stamp(found.row.created_at),
        "clip_skip": int(first.get("Clip skip", 1)),
        "is_using_inpainting_conditioning": False,
        "version": f"Darkroom {__version__}",
        "comments": "\n".join(recipe.lost),
        "job": found.row.id,
    }
    return json.dumps(said, ensure_ascii=False)


def echoed(payload: Payload) -> dict[str, Any]:
    """The request with what it left out, as answers repeat it."""
    found = dict(payload.values)
    if not found.get("include_init_images", True):
        found |= {"init_images": None, "mask": None}
    return found


def stamp(at: float) -> str:
    """A time as A1111 writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S")


def share(found: Found) -> float:
    """How much of a job is done, 0 to 1."""
    row = found.row
    if found.over:
        return 1.0
    done: float = row.done / row.total if row.total else 0.0
    return min(done, 1.0)


def seconds_left(found: Found) -> float:
    """How long a job will take yet, by how long it has taken; 0 where it has not begun."""
    done = share(found)
    if not done or found.row.started_at is None:
        return 0.0
    passed = max(time.time() - float(found.row.started_at), 0.0)
    return passed * (1 - done) / done


def state(going: Sequence[Found]) -> Mapping[str, Any]:
    """What is being done, as its `shared.state` says it."""
    if not going:
        return {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": "",
            "job_count": 0,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0,
            "sampling_steps": 0,
        }
    first = going[0]
    row = first.row
    of_one = (row.total or 0) // max(first.count, 1)
    return {
        "skipped": False,
        "interrupted": bool(row.cancel),
        "stopping_generation": bool(row.cancel),
        "job": row.task or row.id,
        "job_count": first.count,
        "job_timestamp": stamp(row.created_at),
        "job_no": len(first.pictures),
        "sampling_step": row.done % of_one if of_one else 0,
        "sampling_steps": of_one,
    }
