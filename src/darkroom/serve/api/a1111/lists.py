"""What there is, as A1111's clients ask for it: models, LoRAs, samplers and the like.

Files go by their names alone: where they lie is nothing for clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darkroom.checkpoint.upscalers import upscaler_in
from darkroom.diffusion import SAMPLERS, SCHEDULES, SamplerInfo, ScheduleInfo
from darkroom.errors import DarkroomError
from darkroom.generation.infotext import UPSCALERS
from darkroom.generation.parts import LATENT
from darkroom.generation.templates import styles
from darkroom.library.installed import installed
from darkroom.library.records import Library
from darkroom.serve.catalogue import Catalogue
from darkroom.weights.opening import weights_at

_SHORT = 10
"""Digits of a hash as it stands in titles."""
_AUTOMATIC = {
    "name": "automatic",
    "label": "Automatic",
    "aliases": None,
    "default_rho": -1,
    "need_inner_model": False,
}


def title(name: str, sha256: str | None) -> str:
    """A model as its clients show it: "name [hash]"."""
    return f"{name} [{sha256[:_SHORT]}]" if sha256 else name


def models(catalogue: Catalogue) -> list[dict[str, Any]]:
    """All models, the usual one first."""
    found = []
    for name in catalogue.names():
        sha256 = catalogue.sha256(name)
        short = sha256[:_SHORT] if sha256 else None
        found.append(
            {
                "title": title(name, sha256),
                "model_name": name,
                "hash": short,
                "sha256": sha256,
                "filename": name,
            }
            | {"config": None}
        )
    return found


def samplers() -> list[dict[str, Any]]:
    """The samplers, by A1111's names for them."""
    return [
        {"name": info.label, "aliases": [info.name, f"k_{info.name}"], "options": _options(info)}
        for info in SAMPLERS.values()
    ]


def _options(info: SamplerInfo) -> dict[str, str]:
    return {} if info.schedule == "normal" else {"scheduler": info.schedule}


def schedulers() -> list[dict[str, Any]]:
    """The noise schedules."""
    return [_AUTOMATIC, *(_schedule(info) for info in SCHEDULES.values())]


def _schedule(info: ScheduleInfo) -> dict[str, Any]:
    rho = info.options.get("rho")
    return {
        "name": info.name,
        "label": info.label,
        "aliases": list(info.aliases) or None,
        "default_rho": -1 if rho is None else rho.default,
        "need_inner_model": False,
    }


def loras() -> list[dict[str, Any]]:
    """The LoRAs, with what their headers say."""
    return [
        {"name": name, "alias": said.get("ss_output_name") or name, "path": name, "metadata": dict(said)}
        for name, path in _of_kind("lora")
        for said in [_metadata(path)]
    ]


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        with weights_at(path) as weights:
            return weights.metadata
    except (DarkroomError, OSError):
        return {}


def embeddings() -> dict[str, Any]:
    """The textual inversions, with how many vectors each has and of what length."""
    found: dict[str, Any] = {"loaded": {}, "skipped": {}}
    for name, path in _of_kind("embedding"):
        try:
            with weights_at(path) as weights:
                shapes = [each for each in weights.shapes.values() if each]
                extra = dict(weights.extra)
        except (DarkroomError, OSError):
            continue
        if not shapes:
            continue
        vectors = shapes[0][0] if len(shapes[0]) > 1 else 1
        found["loaded"][name] = {
            "step": extra.get("step"),
            "sd_checkpoint": extra.get("sd_checkpoint"),
            "sd_checkpoint_name": extra.get("sd_checkpoint_name"),
            "shape": shapes[0][-1],
            "vectors": vectors,
        }
    return found


def hypernetworks() -> list[dict[str, Any]]:
    """The hypernetworks."""
    return [{"name": name, "path": name} for name, _ in _of_kind("hypernetwork")]


def vaes() -> list[dict[str, Any]]:
    """The autoencoders that are there by themselves."""
    return [{"model_name": name, "filename": name} for name, _ in _of_kind("vae")]


def upscalers() -> list[dict[str, Any]]:
    """What makes pictures larger: filters, and networks by their files."""
    filters = [UPSCALERS[name] for name in UPSCALERS if name not in LATENT]
    found = [_upscaler(name, None, 4.0) for name in ("None", *filters)]
    return found + [_upscaler(name, name, _scale(path)) for name, path in _of_kind("upscaler")]


def _upscaler(name: str, model: str | None, scale: float | None) -> dict[str, Any]:
    return {"name": name, "model_name": model, "model_path": model, "model_url": None, "scale": scale}


def _scale(path: Path) -> float | None:
    try:
        with weights_at(path) as weights:
            found = upscaler_in(weights.shapes)
    except (DarkroomError, OSError):
        return None
    return None if found is None else float(found.config.scale)


def latent_modes() -> list[dict[str, str]]:
    """The ways in which hires fix makes latents larger."""
    return [{"name": UPSCALERS[name]} for name in UPSCALERS if name in LATENT]


def prompt_styles() -> list[dict[str, str]]:
    """The saved styles."""
    return [
        {"name": each.name, "prompt": each.prompt, "negative_prompt": each.negative}
        for each in styles().values()
    ]


def _of_kind(kind: str) -> Iterable[tuple[str, Path]]:
    """What of a kind the library and the folders of models have, by name."""
    there = {entry.name: entry.version.path for entry in Library.read().of_kind(kind)}
    return sorted({**installed(kind), **there}.items())
