"""What a model's image encoder makes of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.errors import ModelError
from darkroom.generation.work import Looked
from darkroom.networks.clip import CLIPVision, EmbeddingNormalizer
from darkroom.networks.configs import CLIP_MEAN, CLIP_STD
from darkroom.pixels import Pixels


@dataclass(frozen=True)
class Looker:
    """An image encoder, and the statistics of what it makes of pictures."""

    encoder: CLIPVision
    normalizer: EmbeddingNormalizer

    @property
    def side(self) -> int:
        """Of the squares that the encoder sees, in pixels."""
        return self.encoder.config.image_size

    def embeddings(self, seen: Tensor) -> Tensor:
        """Of pictures as the encoder is shown them, (B, 3, side, side): (B, E). Raises ModelError for an encoder that
        makes none."""
        projected: Tensor | None = self.encoder(seen).projected
        if projected is None:
            raise ModelError("the image encoder has no projection: it is another model's")
        return projected

    def looked(self, embeddings: Tensor) -> Looked:
        """Embeddings with their statistics, float32 on the CPU."""
        found = embeddings, self.normalizer.mean, self.normalizer.std
        return Looked(*(each.detach().to("cpu", torch.float32) for each in found))


def clip_pixels(pixels: Pixels, side: int) -> Tensor:
    """The middle square of a picture (height, width, 3) uint8 as CLIP is shown it: (1, 3, side, side)."""
    height, width = pixels.shape[:2]
    short, long = sorted((height, width))
    other = int(side * long / short)
    size = (side, other) if width <= height else (other, side)
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), np.float32) / 255
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    mean, std = (np.array(each, np.float32) for each in (CLIP_MEAN, CLIP_STD))
    square = (resized[top : top + side, left : left + side] - mean) / std
    return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))[None]
