"""The detectors of a model's details, by what they are called: files, the oracle, or else the model itself."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom.detection.seen import box_of
from darkroom.errors import ModelError
from darkroom.files import expanded
from darkroom.generation.details import DETECTORS, ORACLE, parse_detail
from darkroom.generation.masks import Found
from darkroom.generation.work import Detect, Seeker, Work
from darkroom.library.installed import installed
from darkroom.library.locate import locate, name_of
from darkroom.library.records import Library
from darkroom.pixels import Pixels

_OTHERS = (".engine", ".torchscript", ".tflite", ".safetensors", ".task")
_LEAST = 0.01
"""How sure detectors are at least of what a detail is chosen from."""


class Detectors:
    """Finds what details name: read when they are first needed, and kept.

    thing: what finds things by their names with the model itself; device: where the networks of files run.
    """

    def __init__(self, thing: Callable[[str], Seeker], device: torch.device) -> None:
        self._thing, self._device = thing, device
        self._read: dict[object, Detector] = {}

    def __call__(self, detail: str) -> Seeker:
        """The seeker of a detail. Raises ModelError where its file is missing or is no detector."""
        name = parse_detail(detail).name
        if name == ORACLE:
            return self._kept(ORACLE, _oracle)
        if (path := file_of(name)) is None:
            return self._thing(name)
        stat = path.stat()
        return self._kept((path, stat.st_mtime_ns, stat.st_size), partial(_by_file, path, self._device))

    def _kept(self, key: object, read: Callable[[], Detector]) -> Detector:
        if key not in self._read:
            self._read[key] = read()
        return self._read[key]


def file_of(name: str) -> Path | None:
    """The file of a detector by its path or by its name, here or in the library; None for what is called as things are.
    Raises ModelError where it is missing, or of a sort that is not read."""
    path = expanded(name)
    if path.suffix.lower() in DETECTORS or _known(name):
        # What is known by a name may be called as its file is.
        own = path.stem if path.name == name and not path.exists() and _known(path.stem) else name
        return locate(own, kind="detector")
    if path.suffix.lower() in _OTHERS:
        raise ModelError(
            f"{name} is no detector that is read here: give a .pt file of the YOLO family, or an .onnx file"
        )
    if "/" in name or "\\" in name or "_" in name:
        raise ModelError(
            f"there is no detector {name!r}: give a .pt or .onnx file, or a thing by its name, 'the boat'"
        )
    return None


def _known(name: str) -> bool:
    try:
        return name in installed("detector") or Library.read().match(name, "detector") is not None
    except ModelError:  # Of a damaged library, or of several that are called so.
        return False


class Detector:
    """Finds things in pictures (`darkroom.generation.work.Detector` and `Seeker`); `find` does."""

    def __init__(self, name: str, path: Path | None, find: Callable[[Pixels], list[Found]]) -> None:
        self.name, self.path, self._find = name, path, find

    def found(self, pixels: Pixels) -> list[Found]:
        """What it finds in a picture (h, w, 3) uint8."""
        return self._find(pixels)

    def seek(self, pixels: Pixels, request: Any) -> Generator[Work, Any, list[Found]]:
        """As work of a job."""
        found: list[Found] = yield Detect(pixels, self)
        return found


# What networks need is imported with the first of them: most pictures have no details.


def _by_file(path: Path, device: torch.device) -> Detector:
    from darkroom.detection.onnx import OnnxNetwork
    from darkroom.detection.yolo import YoloNetwork

    network: OnnxNetwork | YoloNetwork
    if path.suffix.lower() == ".onnx":
        network = OnnxNetwork(path, torch.get_num_threads())
    else:
        network = YoloNetwork(path, device)

    def find(pixels: Pixels) -> list[Found]:
        boxes, seen = network.found(pixels, _LEAST)
        return seen.things(boxes, network.labels)

    return Detector(name_of(path), path, find)


def _oracle() -> Detector:
    from darkroom.oracle.oracle import Oracle

    oracle = Oracle.load()

    def find(pixels: Pixels) -> list[Found]:
        (reading,) = oracle([Image.fromarray(pixels)])
        height, width = pixels.shape[:2]
        found = []
        for thing in reading.things:
            edges = np.array(
                [thing.x0 * width, thing.y0 * height, thing.x1 * width, thing.y1 * height], np.float32
            )
            if (box := box_of(edges, (height, width))) is not None:
                found.append(Found(f"{thing.colour} {thing.kind}", thing.confidence, box))
        return found

    return Detector(ORACLE, None, find)
