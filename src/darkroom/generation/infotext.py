"""The `parameters` text that A1111 and the tools around it read and write in pictures."""

from __future__ import annotations

import json

from darkroom.diffusion import SAMPLERS, SCHEDULES
from darkroom.generation.request import Request


def infotext(request: Request, model: str, model_hash: str, version: str, refiner: str | None = None) -> str:
    """Prompt, negative prompt, and one line of settings, of a settled request for one picture."""
    assert request.sampler and request.schedule
    settings: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": SAMPLERS[request.sampler].label,
        "Schedule type": SCHEDULES[request.schedule].label,
        "CFG scale": f"{request.guidance:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash[:10],
        "Model": model,
        **(
            {}
            if refiner is None
            else {"Refiner": refiner, "Refiner switch at": f"{request.refiner_switch:g}"}
        ),
        "RNG": "CPU",
        "Version": f"Darkroom {version}",
    }
    lines = [request.prompt]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    """A value that holds a separator is written as a JSON string, as A1111 does."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",:\n") else text
