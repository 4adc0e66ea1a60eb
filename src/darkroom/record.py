"""What a picture's file says of how it was made: enough to make it again, and to say why it comes out otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from darkroom.checkpoint.source import Source
from darkroom.engine.devices import Placement
from darkroom.generation.ensemble import Member
from darkroom.generation.infotext import infotext
from darkroom.generation.request import Request
from darkroom.generation.templates import template_of
from darkroom.generation.wording import Extras

# Raised whenever the same request would give other pixels than before.
NUMERICS = 3
Files = Mapping[str, Sequence[Path]]
"""The files of each network of a model, by what it is there."""


def files_of(source: Source, refiner: Source | None, members: Sequence[tuple[Source, Member]]) -> Files:
    """The files of a model, of its refiner and of the others of an ensemble."""
    found: dict[str, list[Path]] = {str(role): files for role, files in source.files().items()}
    if refiner is not None:
        found |= {f"refiner {role}": refiner.parts[role].files() for role in refiner.expert_roles}
    for each, member in members:
        found |= {f"{member.name} {role}": each.parts[role].files() for role in each.expert_roles}
    return found


def hashes_of(extras: Extras) -> dict[str, str]:
    """The SHA-256 of each file that a request named beside the model."""
    adapters = {f"adapter {tag.name}": adapter.sha256 for tag, adapter in extras.adapters.items()}
    return adapters | {f"embedding {name}": each.sha256 for name, each in extras.embeddings}


def described(
    request: Request,
    asked: Request,
    model: Mapping[str, Any],
    denoiser: str,
    numerics: Mapping[str, Any],
    notes: Sequence[str],
) -> tuple[dict[str, Any], str]:
    """The metadata of a picture, and the same in A1111's words. `model`: its name and refiner, what it was loaded with,
    its weights' hashes, that of its `denoiser` among them; `asked`: the request as it was given."""
    weights = model["weights"]
    metadata: dict[str, Any] = {
        "darkroom": version("darkroom"),
        "request": request.to_dict(),
        "model": dict(model),
        "numerics": dict(numerics),
        "notes": [*notes],
    }
    if template := template_of(asked, request):
        metadata["template"] = template
    refiner = model["refiner"]
    # As A1111 names it: with the beginning of its hash.
    refined = None if refiner is None else f"{refiner} [{weights['refiner unet'][:10]}]"
    return metadata, infotext(request, model["name"], weights[denoiser], metadata["darkroom"], refined)


def numerics_of(placement: Placement, rows: int, tiled: bool) -> dict[str, Any]:
    """What besides request and weights decides the pixels."""
    facts: dict[str, Any] = {
        "version": NUMERICS,
        "device": placement.device.type,
        "precision": placement.precision,
        "rows": rows,
        "torch": torch.__version__,
    }
    if tiled:
        facts["tiled"] = True
    if placement.device.type == "cpu":
        facts |= {
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }
    else:
        facts["device_name"] = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return facts
