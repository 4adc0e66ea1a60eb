"""Textual inversions (Gal et al. 2022, arXiv 2208.01618): vectors that a word of their own stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from darkroom.errors import ModelError
from darkroom.networks.roles import Role
from darkroom.weights.opening import open_weights

ENCODERS = ("clip_l", "clip_g", "t5xxl", "t5")
"""What files for several text encoders call their vectors, in the encoders' order. T5's are not used."""
OUTPUTS = tuple(f"{name}_out" for name in ENCODERS)
"""What OneTrainer calls vectors that take the place of what an encoder makes of a word. They are not used."""


def read_embedding(path: Path) -> dict[str, Tensor]:
    """The vectors in a file by the names they have there: A1111's (`string_to_param`), diffusers' (`<word>`), kohya's
    (`emb_params`), or `clip_l` and `clip_g`. Raises ModelError where there are none."""
    with open_weights(path) as weights:
        found = {name: weights.get(name).float().clone() for name in weights.entries}
        weights.check()
    return checked(found, str(path))


def checked(found: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors as (n, width) arrays of vectors. Raises ModelError, which names `where`, if they are none."""
    arrays = {
        name: tensor.float().reshape(-1, tensor.shape[-1]) for name, tensor in found.items() if tensor.ndim
    }
    if len(found.keys() - {*ENCODERS, *OUTPUTS}) > 1:
        raise ModelError(f"{where} holds no embedding but {len(found)} tensors: it is another sort of file")
    for name, array in arrays.items():
        if found[name].ndim > 2 or not array.is_floating_point() or not array.numel():
            raise ModelError(f"{where} holds no embedding: {name} has shape {tuple(found[name].shape)}")
        if not bool(array.isfinite().all()):
            raise ModelError(f"{where}: {name} holds numbers that are none (NaN or infinite): it is damaged")
    if not arrays:
        raise ModelError(f"{where} holds no embedding: it is another sort of file")
    return arrays


def for_encoders(
    arrays: Mapping[str, Tensor], widths: Mapping[Role, int], where: str, model: str
) -> dict[Role, Tensor]:
    """The vectors for each of a model's text encoders, told by how many numbers a vector has there: `widths`, by role.
    Raises ModelError where there are none for one of them."""
    left = [arrays[name] for name in ENCODERS if name in arrays]
    left += [array for name, array in arrays.items() if name not in (*ENCODERS, *OUTPUTS)]
    chosen: dict[Role, Tensor] = {}
    for role, width in widths.items():
        number = next((number for number, array in enumerate(left) if array.shape[1] == width), None)
        if number is None:
            if not {*arrays} - {*OUTPUTS}:
                raise ModelError(
                    f"{where} has only what stands behind text encoders, {', '.join(arrays)}: it is not used"
                )
            has = " and ".join(str(array.shape[1]) for name, array in arrays.items() if name not in OUTPUTS)
            wants = " and ".join(map(str, widths.values()))
            raise ModelError(
                f"{where} has vectors of {has} numbers: the text encoders of {model} read {wants}"
            )
        chosen[role] = left.pop(number)
    return chosen


def not_used(arrays: Mapping[str, Tensor]) -> list[str]:
    """Which vectors of a file are for what Darkroom gives no vectors to."""
    return [name for name in arrays if name in OUTPUTS or name.startswith("t5")]
