"""Upscalers from files: networks that there are here, and those that spandrel knows besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.checkpoint.foreign import refuse_foreign
from darkroom.checkpoint.infer import within
from darkroom.checkpoint.rules import Rule
from darkroom.checkpoint.upscalers import UpscalerFile, upscaler_in
from darkroom.engine.devices import Placement
from darkroom.errors import ModelError, UnsupportedModel
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.opening import open_weights


@dataclass(frozen=True)
class Enlarging:
    """A network that enlarges pictures. run: what makes of (B, in_channels, H, W) in [0, 1], float32 on the CPU, what
    is `scale` times as large, (B, out_channels, scale * H, scale * W), there as well; `tiled`: large ones are given to
    it in parts. described: what it is, in words."""

    run: Callable[[Tensor], Tensor]
    scale: int
    in_channels: int
    out_channels: int
    described: str
    tiled: bool = True


def read_upscaler(path: Path, placement: Placement) -> Enlarging:
    """The network of a file. Raises ModelError where there is none, or it is damaged, and UnsupportedModel for one that
    neither Darkroom nor spandrel knows, or which spandrel would be needed for."""
    with open_weights(path) as weights:
        found, mistake = None, None
        try:
            found = upscaler_in(weights.shapes)
        except ModelError as error:  # Of ours, or one of another sort that begins alike.
            mistake = ModelError(f"{path}: {error}")
        if found is not None and (rules := _rules(found, weights)) is not None:
            return _own(found, rules, weights, placement)
        refuse_foreign(path, weights.entries)
        return _by_spandrel(weights, placement, mistake)


def _rules(found: UpscalerFile, weights: WeightsFile) -> list[Rule] | None:
    """How its tensors come from the file's; None where that has others besides, as another network's has that only
    begins alike. Raises ModelError where some are missing."""
    rules = found.rules(found.build())
    own = within(weights.entries, found.prefix)
    wanted = {rule.theirs for rule in rules}
    if own.keys() - wanted:
        return None
    if missing := sorted(wanted - own.keys()):
        raise ModelError(
            f"{weights.path} lacks {', '.join(missing[:3])} ({len(missing)} in all): it is incomplete, fetch it anew"
        )
    return rules


def _own(found: UpscalerFile, rules: list[Rule], weights: WeightsFile, placement: Placement) -> Enlarging:
    network, state = found.build(), {}
    expected = network.state_dict()
    for rule in rules:
        tensor = weights.get(found.prefix + rule.theirs)
        (name,) = rule.ours
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{weights.path}: {rule.theirs} is {tuple(tensor.shape)}, {found.described} needs "
                f"{tuple(expected[name].shape)}"
            )
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        state[name] = tensor.to(placement.device, placement.dtype, memory_format=layout, copy=True)
    weights.check()
    network.load_state_dict(state, strict=True, assign=True)
    network.requires_grad_(False).eval()
    config = found.config
    return Enlarging(
        _run(network, placement), config.scale, config.in_channels, config.out_channels, found.described
    )


def _run(network: nn.Module | Any, placement: Placement) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        there = x.to(placement.device, placement.dtype, memory_format=torch.channels_last)
        with torch.no_grad():
            made: Tensor = network(there).to("cpu", torch.float32)
        return made

    return run


_EXTRA = "install it (pip install 'darkroom[upscalers]'), or choose another upscaler"


def _by_spandrel(weights: WeightsFile, placement: Placement, mistake: ModelError | None) -> Enlarging:
    """A network of any other sort, whose code spandrel has. It gets tensors alone: nothing of a file is executed.
    Raises the `mistake` that there is in one of ours, if any, where spandrel is not here or knows nothing better."""
    try:
        import spandrel
    except ImportError as error:
        if mistake is not None:
            raise mistake from None
        raise UnsupportedModel(
            f"{weights.path} is an upscaler that Darkroom does not run by itself, or none at all, and spandrel, which "
            f"knows more of them, cannot be imported ({error}): {_EXTRA}"
        ) from None
    state = {name: weights.get(name).clone() for name in weights.entries}
    weights.check()
    try:
        made = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except spandrel.UnsupportedModelError:
        if mistake is not None:
            raise mistake from None
        raise UnsupportedModel(
            f"{weights.path} holds no upscaler that Darkroom or spandrel {spandrel.__version__} knows: choose another"
        ) from None
    except Exception as error:  # What is damaged shows in as many ways as there are networks.
        raise ModelError(f"{weights.path} cannot be read as an upscaler: {error}") from error
    if not isinstance(made, spandrel.ImageModelDescriptor):
        raise UnsupportedModel(
            f"{weights.path} paints in holes ({made.architecture.name}), it enlarges no pictures"
        )
    supported = {torch.float16: made.supports_half, torch.bfloat16: made.supports_bfloat16}
    dtype = placement.dtype if supported.get(placement.dtype, True) else torch.float32
    made.to(placement.device, dtype).eval()
    return Enlarging(
        _run(made, Placement(placement.device, dtype, placement.why)),
        made.scale,
        made.input_channels,
        made.output_channels,
        f"{made.architecture.name}, x{made.scale} (by spandrel)",
        tiled=made.tiling is not spandrel.ModelTiling.INTERNAL,
    )
