"""What detectors say, in the forms that people's files have it: boxes, how sure they are, and masks.

The forms are those of the YOLO family's exports (v5 to v13, and those without non-maximum suppression left to do), of
RT-DETR's, and of whole detectors with outputs of their own for boxes, scores and labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darkroom.errors import UnsupportedModel

Array = NDArray[np.float32]
STRIDES = ((8, 16, 32), (8, 16, 32, 64))
"""Of the grids that detectors answer on, in pixels of what they see."""
_OVERLAP = 0.7
"""Intersection over union from which two boxes of a kind are of one thing, as where these files come from."""
_MOST = 300
_FEW = 1000
"""Answers that are as few are no grid's: the network chose them."""


class Boxes(NamedTuple):
    """Things that were found, the surest first: boxes (n, 4) left, top, right, bottom in pixels of what the network
    saw; scores (n,) in [0, 1]; kinds (n,); masks (n, h, w) of the cells of what was seen, above 0 where it is."""

    boxes: Array
    scores: Array
    kinds: NDArray[np.int64]
    masks: Array | None = None


def boxes_in(outputs: Mapping[str, Array], size: tuple[int, int], kinds: int | None, least: float) -> Boxes:
    """The things in a network's outputs on one picture, by their names; `size`: height and width of what it saw;
    `kinds`: how many it knows, None where that is not said; `least`: how sure it is to be of one.

    Raises UnsupportedModel for outputs of another form.
    """
    apart = _apart(outputs, size, least)
    if apart is not None:
        return apart
    rows = next((each for each in outputs.values() if each.ndim == 3 and len(each) == 1), None)
    if rows is None:
        raise _unknown(outputs)
    prototypes = next((each[0] for each in outputs.values() if each.ndim == 4 and len(each) == 1), None)
    found = _of_rows(rows[0], prototypes, size, kinds, least)
    if found is None:
        raise _unknown(outputs)
    return found


def _of_rows(
    rows: Array, prototypes: Array | None, size: tuple[int, int], kinds: int | None, least: float
) -> Boxes | None:
    """Of one table of answers; None where that cannot be."""
    masked = 0 if prototypes is None else len(prototypes)
    cells = [sum((size[0] // by) * (size[1] // by) for by in strides) for strides in STRIDES]
    anchored = rows.shape[0] in (3 * each for each in cells)
    wide = rows.shape[0] not in cells and rows.shape[1] > rows.shape[0] > 4
    if not anchored and (rows.shape[1] in cells or wide):
        rows = rows.T
    width = rows.shape[1] - masked
    on_grid = anchored or rows.shape[0] in cells or rows.shape[0] > _FEW
    # More columns than those six are a pose's.
    pose = width > 6 and kinds is not None and width != 4 + kinds
    chosen = not on_grid and (width == 6 or pose)
    if chosen and bool((rows[:, 5] % 1 == 0).all()):
        # Left, top, right, bottom, score and kind of what is left.
        kind = rows[:, 5].astype(np.int64)
        return _surest(rows[:, :4], rows[:, 4], kind, rows[:, width:], prototypes, least)
    # Those on anchors say apart whether there is anything at all.
    apart = width == 5 + kinds if kinds is not None else anchored
    if apart:
        rows = np.concatenate([rows[:, :4], rows[:, 5:width] * rows[:, 4:5], rows[:, width:]], axis=1)
        width -= 1
    own = width - 4 if kinds is None else kinds
    if own < 1 or width < 4 + own:
        return None
    if not on_grid and len(rows) and rows[:, :4].max() <= 2:  # In shares of what is seen.
        rows = np.concatenate([rows[:, :4] * _sides(size), rows[:, 4:]], axis=1)
    return of_grid(rows, own, prototypes, least)


def of_grid(rows: Array, kinds: int, prototypes: Array | None, least: float) -> Boxes:
    """Of a row a cell: middle, width and height in pixels, how sure each kind is, at the end the weights of the
    prototypes (m, h, w)."""
    half = rows[:, 2:4] / 2
    corners = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
    of_kinds = rows[:, 4 : 4 + kinds]
    weights = rows[:, :0] if prototypes is None else rows[:, rows.shape[1] - len(prototypes) :]
    return _surest(corners, of_kinds.max(axis=1), of_kinds.argmax(axis=1), weights, prototypes, least)


def _sides(size: tuple[int, int]) -> Array:
    return np.array([size[1], size[0], size[1], size[0]], np.float32)


_NAMES: Sequence[tuple[str, Sequence[str]]] = (
    ("boxes", ("boxes", "bboxes", "dets", "pred_boxes", "detection_boxes", "det_boxes")),
    ("scores", ("scores", "pred_scores", "detection_scores", "det_scores", "confidences")),
    ("labels", ("labels", "classes", "pred_labels", "detection_classes", "det_classes", "class_ids")),
)


def _apart(outputs: Mapping[str, Array], size: tuple[int, int], least: float) -> Boxes | None:
    """Of outputs that are called boxes, scores and labels; a fifth column of the boxes is their score."""
    found = {what: next((outputs[name] for name in names if name in outputs), None) for what, names in _NAMES}
    boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
    if boxes is None or boxes.shape[-1] not in (4, 5) or (scores is None and boxes.shape[-1] == 4):
        return None
    boxes = boxes.reshape(-1, boxes.shape[-1])
    score = boxes[:, 4] if scores is None else scores
    if scores is not None and scores.size > len(boxes):  # Of each kind.
        of_kinds = (
            scores.reshape(len(boxes), -1)
            if scores.shape[-2:-1] == (len(boxes),)
            else scores.reshape(-1, len(boxes)).T
        )
        score, labels = of_kinds.max(axis=1), of_kinds.argmax(axis=1)
    score = score.reshape(-1)
    kind = np.zeros(len(boxes), np.int64)
    if labels is not None:
        kind = np.nan_to_num(labels.reshape(-1), posinf=0, neginf=0).astype(np.int64)
    if not len(boxes) == len(score) == len(kind):
        raise ValueError(f"{len(boxes)} boxes, {len(score)} scores, {len(kind)} labels")
    corners = boxes[:, :4]
    if len(corners) and corners.max() <= 2:
        corners = corners * _sides(size)
    return _surest(corners, score, kind, corners[:, :0], None, least)


def _surest(
    boxes: Array,
    scores: Array,
    kinds: NDArray[np.int64],
    weights: Array,
    prototypes: Array | None,
    least: float,
) -> Boxes:
    """Those that are sure enough, each thing once; masks are `weights` of the `prototypes` (Bolya et al. 2019,
    "YOLACT", section 3.2)."""
    sure = np.flatnonzero((scores >= least) & np.isfinite(boxes).all(axis=1))
    sure = sure[np.argsort(-scores[sure], kind="stable")]
    kept = sure[distinct(boxes[sure], kinds[sure])][:_MOST]
    masks = None
    if prototypes is not None and weights.shape[1] == len(prototypes):
        masks = np.einsum("nc,chw->nhw", weights[kept], prototypes).astype(np.float32)
    return Boxes(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), kinds[kept], masks)


def distinct(boxes: Array, kinds: NDArray[np.int64]) -> list[int]:
    """Which boxes (n, 4) are kept, the surest first: none that lies on a surer one of its kind."""
    areas = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < _MOST:
        at, left = int(left[0]), left[1:]
        kept.append(at)
        upper = np.minimum(boxes[at, 2:4], boxes[left, 2:4])
        shared = np.maximum(upper - np.maximum(boxes[at, :2], boxes[left, :2]), 0).prod(axis=1)
        union = areas[at] + areas[left] - shared
        left = left[(shared <= _OVERLAP * np.maximum(union, 1e-9)) | (kinds[left] != kinds[at])]
    return kept


def _unknown(outputs: Mapping[str, Array]) -> UnsupportedModel:
    shapes = ", ".join(f"{name} {'x'.join(map(str, each.shape))}" for name, each in outputs.items())
    return UnsupportedModel(
        f"its outputs ({shapes}) are in no form that Darkroom knows: export a detector of the YOLO family, or one with "
        "outputs called boxes, scores and labels"
    )
