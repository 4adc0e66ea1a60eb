"""Judges by their names."""

from __future__ import annotations

from pathlib import Path

import torch

from darkroom.errors import ModelError, closest
from darkroom.library.locate import locate
from darkroom.ranking.clip import clip_judge
from darkroom.ranking.judge import Judge

ORACLE, CLIP = "oracle", "clip"


def judge_called(name: str | None, model: Path, preferred: str, device: torch.device) -> Judge:
    """The judge of that name, else the one that a model prefers: "oracle", "clip", which is the model's own pair of
    encoders, or a whole CLIP by name, folder or file; an encoder of pictures alone goes with the model's own text
    encoder, if the two share a space. Raises ModelError where there is none such."""
    wanted = name or preferred or CLIP
    if wanted == ORACLE:
        from darkroom.ranking.oracle import WorldJudge

        return WorldJudge()
    if wanted != CLIP:
        return clip_judge([_located(wanted), model], device)
    try:
        return clip_judge([model], device)
    except ModelError as error:
        if name is not None:
            raise
        raise ModelError(
            f"{model.name} has no judge of its own ({error}); for pictures of the drawn world there is the oracle"
        ) from None


def _located(name: str) -> Path:
    try:
        return locate(name, "image-encoder", "text-encoder", "model")
    except ModelError as error:
        if close := closest(name, (ORACLE, CLIP), alike=0.7):
            raise ModelError(f"there is no judge {name!r}: did you mean {close!r}?") from None
        raise ModelError(
            f"there is no judge {name!r}: give {ORACLE}, {CLIP}, or a CLIP by its name, folder or file ({error})"
        ) from None
