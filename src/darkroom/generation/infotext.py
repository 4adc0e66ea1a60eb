"""The `parameters` text that A1111 and the tools around it read and write in pictures."""

from __future__ import annotations

import json

from darkroom.diffusion import sampler_info, sampler_options, schedule_info, schedule_options
from darkroom.generation.request import Request
from darkroom.generation.starting import Edit, Inpaint, Seen


def infotext(request: Request, model: str, model_hash: str, version: str, refiner: str | None = None) -> str:
    """Prompt, negative prompt, and one line of settings, of a settled request for one picture."""
    sampling, guidance, canvas = request.sampling, request.guidance, request.canvas
    assert sampling.sampler and sampling.schedule
    settings: dict[str, object] = {
        "Steps": sampling.steps,
        "Sampler": sampler_info(sampling.sampler).label,
        "Schedule type": schedule_info(sampling.schedule).label,
        "CFG scale": f"{guidance.scale:g}",
        "Seed": request.seed,
        "Size": f"{canvas.first_width or canvas.width}x{canvas.first_height or canvas.height}",
        **_enlarging(request),
        **_edited(request.edit, request.seen),
        **_inpainted(request.inpaint),
        **({"Clip skip": request.text.clip_skip} if request.text.clip_skip > 1 else {}),
        **_options(sampling.sampler, sampling.schedule),
        "Model hash": model_hash[:10],
        "Model": model,
        **(
            {}
            if refiner is None
            else {"Refiner": refiner, "Refiner switch at": f"{request.xl.refiner_switch:g}"}
        ),
        **({"Details": "; ".join(request.detail.details)} if request.detail.details else {}),
        **({"Tiling": True} if request.tiling.seamless == "xy" else {}),
        **_seeds(request),
        "Version": f"Darkroom {version}",
    }
    lines = [request.prompt]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def _enlarging(request: Request) -> dict[str, object]:
    """Two passes as A1111's hires fix, where the first one's size is said."""
    canvas, second = request.canvas, request.second
    if canvas.first_width is None:
        return {}
    own: dict[str, object] = {"Hires prompt": second.prompt, "Hires negative prompt": second.negative}
    if second.sampler is not None:
        own["Hires sampler"] = sampler_info(second.sampler).label
    if second.schedule is not None:
        own["Hires schedule type"] = schedule_info(second.schedule).label
    if second.guidance is not None:
        own["Hires CFG Scale"] = f"{second.guidance:g}"
    return {
        **({} if canvas.second_steps is None else {"Hires steps": canvas.second_steps}),
        "Denoising strength": f"{canvas.second_strength:g}",
        "Hires resize": f"{canvas.width}x{canvas.height}",
        "Hires upscaler": UPSCALERS.get(str(canvas.upscaler), canvas.upscaler),
        **{name: each for name, each in own.items() if each is not None},
    }


def _edited(edit: Edit, seen: Seen) -> dict[str, object]:
    """What is said of a picture that another one began."""
    if edit.image is None:
        return {}
    counts = {} if seen.image_guidance is None else {"Image CFG scale": f"{seen.image_guidance:g}"}
    noise = {} if edit.noise_multiplier == 1 else {"Noise multiplier": f"{edit.noise_multiplier:g}"}
    return {**counts, "Denoising strength": f"{edit.strength:g}", **noise}


def _inpainted(inpaint: Inpaint) -> dict[str, object]:
    """What is said of a mask."""
    if inpaint.blur is None:
        return {}
    fill = {"neighbors": "fill", "noise": "latent noise", "nothing": "latent nothing"}
    found: dict[str, object] = {"Mask blur": f"{inpaint.blur:g}"}
    if inpaint.fill != "original":
        found["Masked content"] = fill.get(str(inpaint.fill), inpaint.fill)
    if inpaint.only_masked:
        found |= {"Inpaint area": "Only masked", "Masked area padding": inpaint.padding}
    return found


def _seeds(request: Request) -> dict[str, object]:
    """How noise comes of the seed, as far as A1111 says so."""
    noise = request.noise
    # ComfyUI's way has no word in A1111's.
    found: dict[str, object] = {"RNG": "CPU" if noise.source == "comfy" else noise.source.upper()}
    if noise.full:
        found["SGM noise multiplier"] = True
    if noise.ensd:
        found["ENSD"] = noise.ensd
    if noise.variation_strength:
        found |= {
            "Variation seed": noise.variation_seed,
            "Variation seed strength": f"{noise.variation_strength:g}",
        }
    if noise.resize_width:
        found["Seed resize from"] = f"{noise.resize_width}x{noise.resize_height}"
    return found


UPSCALERS = {
    "lanczos": "Lanczos",
    "nearest": "Nearest",
    "latent": "Latent",
    "latent-antialiased": "Latent (antialiased)",
    "latent-bicubic": "Latent (bicubic)",
    "latent-bicubic-antialiased": "Latent (bicubic antialiased)",
    "latent-nearest": "Latent (nearest)",
    "latent-nearest-exact": "Latent (nearest-exact)",
}
"""What makes pictures larger, as A1111 calls it (`modules/shared.py`, latent_upscale_modes)."""

CALLED = {
    "eta": "Eta",
    "s_churn": "Sigma churn",
    "s_tmin": "Sigma tmin",
    "s_tmax": "Sigma tmax",
    "s_noise": "Sigma noise",
    "sigma_min": "Schedule min sigma",
    "sigma_max": "Schedule max sigma",
    "rho": "Schedule rho",
    "alpha": "Beta schedule alpha",
    "beta": "Beta schedule beta",
}
"""Options of samplers and schedules in A1111's words (`modules/shared_options.py`)."""


def _options(sampler: str, schedule: str) -> dict[str, object]:
    """The options of a sampler and a schedule that A1111 has too, in its words."""
    eta = "Eta DDIM" if sampler_info(sampler).name.startswith("ddim") else "Eta"
    given = {**sampler_options(sampler), **schedule_options(schedule)}
    called = {**CALLED, "eta": eta}
    return {called[name]: value for name, value in given.items() if name in called}


def _quoted(value: object) -> str:
    """A value that holds a separator is written as a JSON string, as A1111 does."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",:\n") else text
