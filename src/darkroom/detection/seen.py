"""A picture as a detector sees it: whole, at its network's size, with grey around it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from darkroom.detection.outputs import Array, Boxes
from darkroom.generation.masks import Box, Found
from darkroom.pixels import Pixels

_GREY = 114
"""What is around it, as networks of the YOLO family learned it."""


_LONGEST_LABEL = 60


def labels_of(names: Any) -> dict[int, str]:
    """What a detector's kinds are called, by whatever stands in its file: plain words, none of which means anything in
    a prompt. Those that are no names are left out."""
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    found = {}
    for kind, name in names.items():
        if isinstance(kind, int) and isinstance(name, str):
            words = "".join(sign if sign.isalnum() or sign in "-'" else " " for sign in name[:1000]).split()
            if label := " ".join(word.lower() if word.isupper() else word for word in words)[
                :_LONGEST_LABEL
            ].strip():
                found[kind] = label
    return found


class Seen(NamedTuple):
    """Where in what is seen, of `size`, the picture lies, which is of `whole`: heights and widths."""

    whole: tuple[int, int]
    size: tuple[int, int]
    within: Box

    @classmethod
    def of(cls, whole: tuple[int, int], size: tuple[int, int]) -> Seen:
        """A picture as large as there is room for, in the middle."""
        scale = min(size[0] / whole[0], size[1] / whole[1])
        height, width = (
            max(min(round(side * scale), most), 1) for side, most in zip(whole, size, strict=True)
        )
        return cls(whole, size, Box((size[1] - width) // 2, (size[0] - height) // 2, width, height))

    def brought(self, pixels: Pixels) -> Pixels:
        """The picture (h, w, 3) so."""
        canvas = np.full((*self.size, 3), _GREY, np.uint8)
        inner = Image.fromarray(pixels).resize(
            (self.within.width, self.within.height), Image.Resampling.BILINEAR
        )
        canvas[self.within.slices] = np.asarray(inner)
        return canvas

    def things(self, found: Boxes, labels: dict[int, str]) -> list[Found]:
        """What was found there, as it is in the picture itself."""
        left, top, width, height = self.within
        scale = np.array([self.whole[1] / width, self.whole[0] / height] * 2, np.float32)
        boxes = (found.boxes - np.array([left, top, left, top], np.float32)) * scale
        things = []
        for number, edges in enumerate(boxes):
            if (box := box_of(edges, self.whole)) is None:
                continue
            kind = int(found.kinds[number])
            share = None if found.masks is None else self._share(found.masks[number], box)
            things.append(Found(labels.get(kind, f"thing {kind}"), float(found.scores[number]), box, share))
        return things

    def _share(self, mask: Array, box: Box) -> Array | None:
        """A mask of what is seen, as that of a box of the picture; None where nothing of it is left."""
        there = Image.fromarray(mask).resize(self.size[::-1], Image.Resampling.BILINEAR)
        left, top, width, height = self.within
        inner = there.crop((left, top, left + width, top + height))
        whole = np.asarray(inner.resize(self.whole[::-1], Image.Resampling.BILINEAR)) > 0
        share = whole[box.slices].astype(np.float32)
        return share if share.any() else None


def box_of(edges: Array, whole: tuple[int, int]) -> Box | None:
    """Left, top, right and bottom, in pixels, as a box within a picture of that height and width; None where nothing of
    it is there."""
    height, width = whole
    left, top = (
        int(np.clip(np.floor(each), 0, most)) for each, most in zip(edges[:2], (width, height), strict=True)
    )
    right, bottom = (
        int(np.clip(np.ceil(each), 0, most)) for each, most in zip(edges[2:], (width, height), strict=True)
    )
    return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None
