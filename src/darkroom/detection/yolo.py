"""Detectors in files of Ultralytics' (`face_yolov8n.pt`): networks that were pickled whole, read as data alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.detection.layers import FORWARDS, HEADS, Layer, plain_layer
from darkroom.detection.outputs import Boxes, of_grid
from darkroom.detection.seen import Seen, labels_of
from darkroom.errors import GenerationError, ModelError, UnsupportedModel
from darkroom.pixels import Pixels
from darkroom.weights.mapped import WeightsFile
from darkroom.weights.modules import StoredModule, open_module

_USUAL, _LARGEST = 640, 4096
"""The longer side of what is seen, unless the file says another."""


_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What comes of numbers and facts that do not go together."""


class YoloNetwork:
    """A detector of such a file. Raises ModelError for one that is damaged, UnsupportedModel for one of other layers
    than those of the YOLO family."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        weights, stored = open_module(path)
        with weights:
            whole = stored.modules.get("model")
            layers = [] if whole is None else [each for each in whole.modules.values() if each is not None]
            if not layers or layers[-1].name not in HEADS:
                raise UnsupportedModel(
                    f"{path} holds a {stored.name}, which finds no things that Darkroom knows how to draw over: get a "
                    "detector of the YOLO family, or an export of this one as ONNX"
                )
            try:
                network = _Network(
                    [_built(each, weights) for each in layers], [_step(each) for each in layers]
                )
                self._stride = int(max(weights.get(layers[-1].tensors["stride"]).tolist()))
                kinds = int(layers[-1].facts["nc"])
                if not 1 <= self._stride <= _LARGEST or kinds < 1:
                    raise ValueError(f"{kinds} kinds, in steps of {self._stride} pixels")
            except UnsupportedModel as error:
                raise UnsupportedModel(f"{path}: {error}") from None
            except _DAMAGE as error:
                raise ModelError(f"{path} holds a damaged network ({error}): fetch it anew") from error
            weights.check()
        self._network = network.eval().requires_grad_(False).to(device)
        self.labels = labels_of(stored.facts.get("names"))
        self._kinds, self._side = kinds, _side(weights.extra)

    def found(self, pixels: Pixels, least: float) -> tuple[Boxes, Seen]:
        """What it finds in a picture (h, w, 3) uint8 and is at least so sure of, and how it saw the picture."""
        height, width = pixels.shape[:2]
        scale = self._side / max(height, width)
        size = tuple(
            max(math.ceil(round(side * scale) / self._stride), 1) * self._stride for side in (height, width)
        )
        seen = Seen.of((height, width), (size[0], size[1]))
        x = torch.from_numpy(seen.brought(pixels)).permute(2, 0, 1)[None].to(self._device) / 255
        try:
            with torch.no_grad():
                made = self._network(x)
            rows, masks = made["rows"][0].T.cpu().numpy(), made.get("prototypes")
            return of_grid(rows, self._kinds, None if masks is None else masks[0].cpu().numpy(), least), seen
        except _DAMAGE as error:
            raise GenerationError(f"the detector {self._path} fails ({error}): it is damaged") from error


class _Network(nn.Module):
    """Layers one after the other; `before`: of each, the layer or the layers that it goes on from, -1 the last one."""

    def __init__(self, layers: Sequence[nn.Module], before: Sequence[int | Sequence[int]]) -> None:
        super().__init__()
        self.layers, self.before = nn.ModuleList(layers), before

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        made: list[Any] = []
        last: Any = x
        for layer, before in zip(self.layers, self.before, strict=True):
            if isinstance(before, int):
                given = last if before == -1 else made[before]
            else:
                given = [last if each == -1 else made[each] for each in before]
            last = layer(given)
            made.append(last)
        found: Mapping[str, Tensor] = last
        return found


def _step(stored: StoredModule) -> int | list[int]:
    """What a layer goes on from."""
    before = stored.facts.get("f", -1)
    if isinstance(before, int):
        return before
    if not isinstance(before, list | tuple) or not all(isinstance(each, int) for each in before):
        raise ValueError(f"a layer that follows {before!r}")
    return [*before]


def _built(stored: StoredModule, weights: WeightsFile) -> nn.Module:
    # Numbers leave the file: it may be written anew while they are used.
    tensors = {name: weights.get(at).float().clone() for name, at in stored.tensors.items()}
    if stored.kind.startswith("torch.nn."):
        if stored.name in ("Sequential", "ModuleList"):
            several = [_built(each, weights) for each in stored.modules.values() if each is not None]
            return nn.Sequential(*several) if stored.name == "Sequential" else nn.ModuleList(several)
        if stored.name == "BatchNorm2d":
            tensors.pop("num_batches_tracked", None)
            tensors["num_batches_tracked"] = torch.zeros((), dtype=torch.long)
        if (plain := plain_layer(stored.name, stored.facts, tensors)) is not None:
            return plain
    forward = FORWARDS.get(stored.name)
    if forward is None or not stored.kind.startswith("ultralytics."):
        raise UnsupportedModel(
            f"it has layers of the kind {stored.kind}, which Darkroom does not know: export it as ONNX (yolo export "
            "model=FILE format=onnx)"
        )
    # What a distribution comes to needs no weights.
    parts = {name: _built(each, weights) for name, each in stored.modules.items() if each and name != "dfl"}
    return Layer(forward, parts, tensors, stored.facts)


def _side(said: Mapping[str, Any]) -> int:
    """The longer side of what it learned to see."""
    arguments = said.get("train_args")
    side = arguments.get("imgsz") if isinstance(arguments, dict) else None
    sides = [each for each in (side if isinstance(side, list | tuple) else [side]) if isinstance(each, int)]
    return max(sides) if sides and 32 <= max(sides) <= _LARGEST else _USUAL
