"""One LoRA of several, and of another rank."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from darkroom.adapters.adapter import deltas, fitted, mismatch, unused_notes
from darkroom.adapters.describe import kind_of
from darkroom.adapters.groups import Contents, read_contents
from darkroom.adapters.names import Place, prefixed, spelt
from darkroom.adapters.patches import Difference, Layered, LowRank, Patch
from darkroom.adapters.truncated import Size, truncated_product
from darkroom.adapters.written import Progress, Written, prefix_of
from darkroom.checkpoint.rules import SAME, SPLIT, SWAP
from darkroom.errors import InvalidRequest, ModelError
from darkroom.language.tags import Tag, parse_tag
from darkroom.library.locate import locate
from darkroom.networks.roles import Role


@dataclass(frozen=True)
class Share:
    """A LoRA's file and how much of it there is to be."""

    path: Path
    tag: Tag

    @cached_property
    def contents(self) -> Contents:
        """What is in the file, read once."""
        return read_contents(self.path)


def parse_share(text: str) -> Share:
    """A LoRA and its strengths, as `Request.adapters` has them. Raises InvalidRequest, and ModelError where there is
    none of that name."""
    tag = parse_tag(text)
    if (tag.start, tag.stop, tag.blocks) != (0, 1, ""):
        raise InvalidRequest(f"{text}: a file has a strength and te=, not steps and blocks")
    return Share(locate(tag.name, kind="lora"), tag)


# How PEFT scales layers, and kohya's hashes.
_OF_THE_FILE = ("lora_adapter_metadata", "sshs_model_hash", "sshs_legacy_hash")

Terms = dict[tuple[str, str], list[tuple[Layered, float]]]
"""What adds up in a layer, by network and layer."""


def merge(
    shares: Sequence[Share],
    networks: Mapping[Role, nn.Module] | None = None,
    size: Size | None = None,
    progress: Progress | None = None,
) -> Written:
    """One LoRA that does what several do at their strengths: exactly, its rank their sum, or as near as `size` allows.

    Without `networks` (a model's, by role; they need no weights) the files must spell their layers alike, and be plain
    LoRAs. Raises ModelError for a file that cannot be read or does not fit, InvalidRequest for what does not add up.
    """
    made = Written(metadata=_metadata(shares))
    terms = _in_networks(shares, networks, made.notes) if networks is not None else _by_spelling(shares)
    roles = {role for role, _ in terms}
    for number, ((role, layer), several) in enumerate(terms.items()):
        shape = None
        if networks is not None:
            weight = networks[Role(role)].get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            shape = tuple(weight.shape)
        key = f"{prefix_of(role, roles)}{spelt(layer)}"
        _add(made, key, several, shape, size)
        if progress is not None:
            progress(number + 1, len(terms))
    words = Counter(word for share in shares for word in share.contents.embeddings)
    made.notes += [
        f"the embedding {word} is that of the last of {n} LoRAs" for word, n in words.items() if n > 1
    ]
    for share in shares:
        for word, tensors in share.contents.embeddings.items():
            made.tensors |= {f"bundle_emb.{word}.{name}": tensor for name, tensor in tensors.items()}
    return made


def _metadata(shares: Sequence[Share]) -> dict[str, str]:
    """What the file of one says of itself, but for what the new one is not; of several, which they were."""
    if len(shares) == 1:
        said = shares[0].contents.metadata
        return {name: value for name, value in said.items() if name not in _OF_THE_FILE}
    each = [
        {"file": share.path.name, "strength": share.tag.strength, "te": share.tag.text_strength}
        for share in shares
    ]
    return {"darkroom_merged": json.dumps(each)}


def _in_networks(shares: Sequence[Share], networks: Mapping[Role, nn.Module], notes: list[str]) -> Terms:
    terms: Terms = {}
    for share in shares:
        contents = share.contents
        fit = fitted(contents, networks)
        if not fit.whole:
            why = mismatch(contents, fit)
            if not (share.tag.partial and fit.patches):
                raise ModelError(f"{share.path} does not fit the model: {why}")
            notes.append(f"{share.path.stem} is used in part: {why}")
        notes += unused_notes(fit, share.path.stem)
        for role, by_place in fit.patches.items():
            for place, layered in by_place.items():
                for layer, own in zip(
                    place.layers, _apart(share.path, layered, place, networks[role]), strict=True
                ):
                    terms.setdefault((role, layer), []).append((own, share.tag.strength_in(role.reads_text)))
    return terms


def _apart(path: Path, layered: Layered, place: Place, network: nn.Module) -> list[Layered]:
    """What is done to each of a place's layers."""
    columns: list[list[Patch | None]] = []
    for leaf, patch in zip(("weight", "bias"), layered, strict=True):
        if patch is None:
            columns.append([None] * len(place.layers))
            continue
        _check_apart(path, place.layers[0], patch)
        if isinstance(patch, LowRank) and place.change in (SAME, SPLIT, SWAP):
            parts = range(len(place.layers))
            columns.append(
                [dataclasses.replace(patch, up=place.change.read(patch.up, part)) for part in parts]
            )
        else:
            columns.append([Difference(each) for each in deltas(patch, place, network, leaf)])
    return [Layered(*both) for both in zip(*columns, strict=True)]


def _check_apart(path: Path, layer: str, patch: Patch | None) -> None:
    """Raises InvalidRequest for what is nothing apart from a model's weights."""
    if patch is not None and patch.reads:
        raise InvalidRequest(
            f"{path}: what it does to {layer} ({kind_of(patch)}) depends on the model's weights and cannot be added to "
            "others: `darkroom lora bake` it, and extract it from that"
        )


def _role_of(layer: str) -> str:
    """The network that a layer without a prefix is of, by its name."""
    words = spelt(layer)
    if words.startswith(("encoder_block", "shared")):
        return Role.TEXT_ENCODER_3
    text = ("text_model", "encoder_layers", "embeddings", "final_layer_norm", "text_projection")
    return Role.TEXT_ENCODER if words.startswith(text) else "denoiser"


def _check_spellings(called: Iterable[str]) -> None:
    """Raises InvalidRequest where layers of the denoising network are called as its authors and as diffusers call
    them: some may be one and the same."""
    layers = [*called]
    theirs = ("input_blocks", "middle_block", "output_blocks", "joint_blocks")
    ours = ("down_blocks", "mid_block", "up_blocks", "transformer_blocks")
    named = [{layer for layer in layers if layer.startswith(names)} for names in (theirs, ours)]
    if all(named):
        one, other = (min(each) for each in named)
        raise InvalidRequest(
            f"the files call layers in different ways ({one}, {other}): say for which model they are (`model=`)"
        )


def _by_spelling(shares: Sequence[Share]) -> Terms:
    terms: Terms = {}
    for share in shares:
        contents = share.contents
        if contents.unknown:
            raise ModelError(f"{share.path} has keys that are not known: {', '.join(contents.unknown[:3])}")
        for key, group in contents.groups.items():
            part, rest = prefixed(key)
            try:
                layered = contents.patches(group)
            except ValueError as error:
                raise ModelError(f"{share.path}: {key}: {error}") from error
            for patch in layered:
                _check_apart(share.path, key, patch)
            if not all(patch is None or isinstance(patch, LowRank | Difference) for patch in layered):
                raise InvalidRequest(
                    f"{share.path} is no plain LoRA ({type(layered.weight).__name__}): say for which model (`model=`)"
                )
            role = part or _role_of(rest)
            strength = share.tag.strength_in(text=role != "denoiser")
            terms.setdefault((role, spelt(rest)), []).append((layered, strength))
    _check_spellings(layer for role, layer in terms if role == "denoiser")
    return terms


def _add(
    made: Written,
    key: str,
    several: Sequence[tuple[Layered, float]],
    shape: tuple[int, ...] | None,
    size: Size | None,
) -> None:
    weights = [(layered.weight, strength) for layered, strength in several if layered.weight is not None]
    biases = [(layered.bias, strength) for layered, strength in several if layered.bias is not None]
    if biases:
        made.tensors[f"{key}.diff_b"] = sum(_whole(patch, strength, None, key) for patch, strength in biases)  # type: ignore[assignment]
    if not weights:
        return
    if all(isinstance(patch, LowRank) for patch, _ in weights):
        pairs = [_factors(patch, strength) for patch, strength in weights if isinstance(patch, LowRank)]
        up, down = torch.cat([pair[0] for pair in pairs], 1), torch.cat([pair[1] for pair in pairs], 0)
        kernel = max((pair[2] for pair in pairs), key=len)
        if size is not None:
            up, down = _counted(made, up, down, truncated_product(up, down, size))
        made.add(key, up, down, kernel)
        return
    whole: Tensor = sum(_whole(patch, strength, shape, key) for patch, strength in weights)  # type: ignore[assignment]
    if whole.ndim < 2:
        made.tensors[f"{key}.w_norm"] = whole
    elif size is None:
        made.tensors[f"{key}.diff"] = whole
    else:
        made.add_nearest(key, whole, size)


def _factors(patch: LowRank, strength: float) -> tuple[Tensor, Tensor, Sequence[int]]:
    """up (out, r), down (r, n) and the kernel of a LoRA; of a Tucker decomposition its core is part of down."""
    up, down = patch.up.float().flatten(1) * (patch.scale * strength), patch.down.float()
    if patch.mid is not None:
        down = torch.einsum("ijkl,jn->inkl", patch.mid.float(), down.flatten(1))
    return up, down.flatten(1), down.shape[2:]


def _counted(made: Written, up: Tensor, down: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Keep account of how near a product comes to another, by their inner products alone."""

    def inner(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
        return float(((a[0].T @ b[0]).double() * (a[1] @ b[1].T).double()).sum())

    whole = up, down
    made.wanted += inner(whole, whole)
    made.missed += max(0.0, inner(whole, whole) - 2 * inner(whole, found) + inner(found, found))
    return found


def _whole(patch: Patch, strength: float, shape: tuple[int, ...] | None, key: str) -> Tensor:
    if shape is None:
        if not isinstance(patch, Difference):
            raise InvalidRequest(f"{key} is changed in several ways: say for which model (`model=`)")
        shape = tuple(patch.change.shape)
    return patch.delta(torch.empty(shape)) * strength
