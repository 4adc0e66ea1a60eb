"""Adapters that fit a model: a file's layers, each found in the model's networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.adapters.groups import Contents, read_contents
from darkroom.adapters.names import Place, places, prefixed, spelt
from darkroom.adapters.patches import Layered, Narrow, Patch, Scaled, converted, outline
from darkroom.checkpoint.encoders import SD2_LAYER
from darkroom.errors import ModelError
from darkroom.networks import CLIPText, UNet
from darkroom.networks.roles import Role
from darkroom.weights.hashes import sha256_of

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Adapter:
    """What a file does to a model: for each network, by its role, its patches.

    `sha256` is the file's; `embeddings` are textual inversions that came along, as their files would have them; `notes`
    say what of it is not used. A `hypernetwork` has, for some widths, a network for what keys are made of, and one for
    what values are.
    """

    name: str
    sha256: str
    patches: Mapping[Role, Mapping[Place, Layered]]
    embeddings: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hypernetwork: Mapping[int, tuple[nn.Module, nn.Module]] = field(default_factory=dict)
    made: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What was computed of its patches, kept by those who compute it."""


@dataclass(frozen=True)
class Fit:
    """How a file's layers compare with a model's networks.

    `patches` are those that fit, by role; `absent` layers that the model has not; `misshapen` those whose shapes
    differ, and how; `broken` those that make no patch, and why; `unused` what is left out without harm, and why.
    """

    patches: dict[Role, dict[Place, Layered]]
    absent: list[str]
    misshapen: dict[str, str]
    broken: dict[str, str]
    unused: dict[str, str]

    @property
    def whole(self) -> bool:
        return not (self.absent or self.misshapen or self.broken)


def read_adapter(
    path: Path,
    networks: Mapping[Role, nn.Module],
    model: str,
    name: str | None = None,
    partial: bool = False,
) -> Adapter:
    """The adapter in a file, or in a folder of PEFT's, for a model of these networks, by their roles, called `model`.

    Nothing is left out in silence, and what does not fit only where `partial` asks for what does. Raises ModelError
    where the file cannot be read, and where layers of it are not the model's: which, why, and what the file is for.
    """
    contents = read_contents(path)
    fit = fitted(contents, networks)
    if not fit.whole and not (partial and fit.patches):
        raise ModelError(f"{path} does not fit {model}: {mismatch(contents, fit)}")
    if not fit.patches and not contents.embeddings:
        raise ModelError(f"{path} holds no LoRA and nothing of the kind: it is another sort of file")
    notes = unused_notes(fit, name or path.stem)
    if not fit.whole:
        notes.append(f"{name or path.stem} is used in part: {mismatch(contents, fit)}")
    return Adapter(
        name or path.stem, sha256_of(contents.files), fit.patches, contents.embeddings, tuple(notes)
    )


def unused_notes(fit: Fit, name: str) -> list[str]:
    """What is to be said of the layers of an adapter of that name that are left out without harm."""
    return [
        f"{name}: {count} layers are not used: {why}" for why, count in Counter(fit.unused.values()).items()
    ]


def fitted(contents: Contents, networks: Mapping[Role, nn.Module]) -> Fit:
    """A file's layers beside those of a model's networks."""
    tables: dict[str, Mapping[str, Place]] = {}
    for name, network in networks.items():
        role = Role(name)
        tables["denoiser" if role.denoises else role] = places(network, role)
    fit = Fit({}, [], {}, dict.fromkeys(contents.unknown, "the key is of no kind that is known"), {})
    for key, group in contents.groups.items():
        part, rest = prefixed(key)
        possible = list(_places(tables, part, rest))
        if not possible:
            if why := _dispensable(part, rest, networks):
                fit.unused[key] = why
            else:
                fit.absent.append(key)
            continue
        try:
            layered = contents.patches(group)
        except ValueError as error:
            fit.broken[key] = str(error)
            continue
        errors: list[Exception] = []
        for place in possible:
            try:
                fitting = _checked(layered, networks[place.role], place)
            except (ValueError, RuntimeError, IndexError) as error:
                errors.append(error)
                continue
            own = fit.patches.setdefault(place.role, {})
            if place in own:
                fit.broken[key] = "the file has this layer under another name as well"
            else:
                own[place] = fitting
            break
        else:
            fit.misshapen[key] = str(errors[0]).splitlines()[0]
    return fit


def _places(tables: Mapping[str, Mapping[str, Place]], part: str, rest: str) -> Iterator[Place]:
    """Where a key may belong: to the network that its prefix says, else to any that has such a layer."""
    for name, table in tables.items():
        if part in ("", name) and (place := table.get(spelt(rest))):
            yield place


def _dispensable(part: str, rest: str, networks: Mapping[Role, nn.Module]) -> str | None:
    """Why a layer that the model has not may be left out, if it may."""
    if part == Role.TEXT_ENCODER_3 and part not in networks and Role.TRANSFORMER in networks:
        return "the model was loaded without T5"
    encoder = networks.get(Role.TEXT_ENCODER)
    if part == Role.TEXT_ENCODER and isinstance(encoder, CLIPText):
        layers = encoder.config.num_hidden_layers
        last = spelt(f"text_model.encoder.layers.{SD2_LAYER}.")
        if layers == SD2_LAYER and (spelt(rest) + "_").startswith((last, last.removeprefix("text_model_"))):
            return "Stable Diffusion 2 does without the last layer of its text encoder"
    return None


def _checked(layered: Layered, network: nn.Module, place: Place) -> Layered:
    """The patches of a place. Raises ValueError, RuntimeError or IndexError where their shapes are others than the
    model's."""
    weight, bias = (_parameter(network, place, leaf) for leaf in ("weight", "bias"))
    if bias is None and isinstance(layered.bias, Scaled):
        layered = layered._replace(bias=None)  # It scales an output, with whatever adds up to it.
    for patch, own in zip(layered, (weight, bias), strict=True):
        if patch is None:
            continue
        if own is None:
            raise ValueError("the model's layer has no bias")
        bare, empty = outline(patch), torch.empty_like(own, device="meta")
        try:
            bare.delta(empty)
        except (ValueError, RuntimeError, IndexError):
            channels = _latent_channels(network, place)
            if patch is not layered.weight or channels is None or own.shape[1] <= channels:
                raise
            # Made for the ordinary model, used in one that is told more: for inpainting, of depths, of a picture.
            narrow = Narrow(patch, channels)
            outline(narrow).delta(empty)
            layered = layered._replace(weight=narrow)
    return layered


def _latent_channels(network: nn.Module, place: Place) -> int | None:
    """How many channels a latent has that a U-Net's first layer reads; None for another layer."""
    return network.config.out_channels if isinstance(network, UNet) and place.layers == ("conv_in",) else None


def _parameter(network: nn.Module, place: Place, leaf: str) -> Tensor | None:
    """The weight or the bias of a place, as the file's author keeps it, without what was merged into it; on the meta
    device where it is not whole on another."""
    found = [getattr(network.get_submodule(layer), leaf, None) for layer in place.layers]
    tensors = [unmerged(tensor) for tensor in found if tensor is not None]
    if len(tensors) != len(found):
        return None
    if any(tensor.is_meta for tensor in tensors):
        tensors = [tensor.to("meta") for tensor in tensors]
    return place.change.write(tensors)


def unmerged(parameter: Tensor) -> Tensor:
    """A parameter as it was before adapters were merged into it (`darkroom.adapters.merged` says so of them): what they
    add is measured from the model's own weights, in whatever order they come."""
    own: Tensor = getattr(parameter, "unmerged", parameter)
    return own


def deltas(patch: Patch, place: Place, network: nn.Module, leaf: str = "weight") -> list[Tensor]:
    """What a patch adds to the weight (or the bias) of each of a place's layers, float32; on the meta device where it
    follows from numbers that are not there."""
    whole = _parameter(network, place, leaf)
    assert whole is not None
    if whole.is_meta and not patch.reads:
        whole = torch.empty_like(whole, device="cpu")
    device = whole.device
    added = converted(patch, lambda tensor: tensor.to(device)).delta(whole)
    return [place.change.read(added, number) for number in range(len(place.layers))]


# What is said of a file that does not fit


def mismatch(contents: Contents, fit: Fit) -> str:
    """In words, why a file does not fit, and what it seems to be for."""
    total = len(contents.groups) + len(contents.unknown)
    said = []
    if fit.absent:
        said.append(f"{len(fit.absent)} of its {total} layers are none of this model's ({_some(fit.absent)})")
    if fit.misshapen:
        said.append(
            f"{len(fit.misshapen)} of {total} have other shapes ({_some(map(': '.join, fit.misshapen.items()))})"
        )
    if fit.broken:
        said.append(
            f"{len(fit.broken)} of {total} cannot be read ({_some(map(': '.join, fit.broken.items()))})"
        )
    if made_for := family_of_adapter(contents):
        said.append(f"it looks like one for {made_for}")
    return "; ".join(said)


def _some(said: Iterable[str]) -> str:
    every = list(said)
    return ", ".join(every[:_SHOWN]) + (", ..." if len(every) > _SHOWN else "")


_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}


def family_of_adapter(contents: Contents) -> str | None:
    """The family of models that a file was made for, by its layers' names and widths; None where they do not tell."""
    keys = " ".join(contents.groups)
    for family, words in (
        ("FLUX", ("double_blocks", "single_blocks", "single_transformer_blocks")),
        ("Stable Diffusion 3", ("joint_blocks", "add_k_proj", "lora_te3_", "text_encoder_3.")),
        ("Stable Diffusion XL", ("lora_te2_", "text_encoder_2.")),
    ):
        if any(word in keys for word in words):
            return family
    for key, group in contents.groups.items():
        if spelt(key).endswith("attn2_to_k"):
            factors = [group.parts[name] for name in ("down", "hada_w1_b", "diff") if name in group.parts]
            if factors and factors[0].ndim > 1 and (known := _WIDTHS.get(factors[0].shape[1])):
                return known
    return None
