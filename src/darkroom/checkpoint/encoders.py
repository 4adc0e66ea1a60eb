"""Which of a model's CLIP text encoders is which, and how each is used there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from darkroom.checkpoint.components import HUGGING_FACE
from darkroom.checkpoint.components.clip import OPENCLIP_WIDTHS
from darkroom.checkpoint.source import Part
from darkroom.errors import ModelError
from darkroom.networks.roles import Role
from darkroom.prompt.use import TextUse

SD2_LAYER = 23
"""The layer of OpenCLIP-H whose state Stable Diffusion 2 was trained on, of 24: the last one in its folders, and in
files made of these."""

# What the names of the first and of the second of two begin with in single files.
_NUMBERED = (
    ("embedders.0.", "clip_l.", "cond_stage_model.0."),
    ("embedders.1.", "clip_g.", "cond_stage_model.1."),
)


def in_order(prefix: str, width: int) -> tuple[int, int]:
    """Sorts CLIP's encoders in the order that a model takes them: as the file numbers them, else the smaller first."""
    return _number(prefix) or 0, width


def _number(prefix: str) -> int | None:
    return next((i for i, marks in enumerate(_NUMBERED) if any(mark in prefix for mark in marks)), None)


def seats_of(texts: Sequence[Part], uses: Mapping[Role, TextUse]) -> dict[Role, Part]:
    """The role of each encoder, of those that the model uses; whatever it has no place for is left out."""
    if len(texts) == 1 and len(uses) > 1:
        return {role: texts[0] for role, use in uses.items() if use.openclip == is_openclip(texts[0])}
    return dict(zip(uses, texts, strict=False))


def is_openclip(part: Part) -> bool:
    """Whether a CLIP text encoder is OpenCLIP's: by its place or names in the file or by its configuration, else by
    its width."""
    if (number := _number(part.prefix)) is not None:
        return bool(number)
    if part.described is not None:
        return bool(part.config.hidden_act == "gelu")
    return part.layout != HUGGING_FACE or part.config.hidden_size in OPENCLIP_WIDTHS


def seated(part: Part, role: Role, use: TextUse) -> tuple[Part, TextUse]:
    """A CLIP text encoder in a model's role, and how it is used there. What shapes do not tell is the role's.

    Raises ModelError where it lacks a projection that the model needs.
    """
    config = part.config
    if not use.pooled:
        config = replace(config, projection_dim=None)
    elif config.projection_dim is None:
        raise ModelError(
            f"{part.weights.path}: its CLIP text encoder has no text_projection, which this model's {role} needs: "
            "give a CLIPTextModelWithProjection or a whole CLIP"
        )
    if part.described is None:
        config = replace(config, hidden_act="gelu" if use.openclip else "quick_gelu")
    if use.openclip and use.normed:  # Stable Diffusion 2: folders lack the layer that is not used.
        layers = config.num_hidden_layers
        folder = part.layout == HUGGING_FACE and (part.described is not None or layers < SD2_LAYER)
        use = replace(use, layer=-1 if folder or layers == SD2_LAYER else -2)
    return replace(part, role=role, config=config), use
