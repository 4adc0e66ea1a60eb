"""Detectors in ONNX files, run by onnxruntime: numbers and operations, nothing of a file is executed as code."""

from __future__ import annotations

import ast
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.detection.outputs import Boxes, boxes_in
from darkroom.detection.seen import Seen, labels_of
from darkroom.errors import GenerationError, ModelError, UnsupportedModel
from darkroom.pixels import Pixels

_USUAL, _LARGEST = 640, 4096
"""The side of what a detector sees that takes any, and the longest."""
_TASKS = ("detect", "segment", "pose")
_TYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork:
    """A detector of an ONNX file. Raises ModelError for one that is damaged, UnsupportedModel for one that sees no
    pictures as people's detectors do, or where onnxruntime is not here."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UnsupportedModel(
                f"{path} is a detector that onnxruntime runs, which cannot be imported ({error}): install it "
                "(pip install 'darkroom[detectors]')"
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        try:
            # Of bytes, so that it can name no other files.
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no ancestor of their own.
            raise ModelError(f"cannot read the detector {path}: {_first_line(error)}") from error
        self._path = path
        first = self._session.get_inputs()[0]
        self._input, self._shape, kind = first.name, first.shape, first.type
        if len(self._shape) != 4 or self._shape[1] not in (3, "3") or kind not in _TYPES:
            seen = "x".join(map(str, self._shape))
            raise UnsupportedModel(
                f"{path} is given {seen} of {kind}: a detector sees pictures, 1x3xHEIGHTxWIDTH of numbers"
            )
        large = [each for each in self._shape if isinstance(each, int) and each > _LARGEST]
        if large or (task := self._said.get("task", "detect")) not in _TASKS:
            what = f"sees pictures of {large[0]} pixels a side" if large else f"is for the task {task[:20]!r}"
            raise UnsupportedModel(
                f"{path} {what}: give a detector, whose things have upright boxes or masks"
            )
        self._dtype = _TYPES[kind]

    @cached_property
    def _said(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @cached_property
    def labels(self) -> dict[int, str]:
        """What its kinds are called, as far as its file says."""
        return labels_of(_literal(self._said.get("names", "")))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of what it sees."""
        said = _literal(self._said.get("imgsz", ""))
        usual = said if isinstance(said, list) and len(said) == 2 else [_USUAL, _USUAL]
        found = [own if _is_side(own) else each for own, each in zip(self._shape[2:], usual, strict=True)]
        height, width = (each if _is_side(each) else _USUAL for each in found)
        return height, width

    def found(self, pixels: Pixels, least: float) -> tuple[Boxes, Seen]:
        """What it finds in a picture (h, w, 3) uint8 and is at least so sure of, and how it saw the picture."""
        seen = Seen.of(pixels.shape[:2], self.size)
        x = seen.brought(pixels).astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        names = [each.name for each in self._session.get_outputs()]
        try:
            made = self._session.run(names, {self._input: np.ascontiguousarray(x, self._dtype)})
        except Exception as error:
            raise GenerationError(f"the detector {self._path} fails: {_first_line(error)}") from error
        outputs: dict[str, NDArray[np.float32]] = {
            name: np.asarray(each, np.float32)
            for name, each in zip(names, made, strict=True)
            if isinstance(each, np.ndarray)
        }
        try:
            return boxes_in(outputs, self.size, len(self.labels) or None, least), seen
        except UnsupportedModel as error:
            raise UnsupportedModel(f"{self._path}: {error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise GenerationError(f"what the detector {self._path} says fits nowhere: {error}") from error


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _literal(text: str) -> Any:
    """What a text is in Python, of plain data; None where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
