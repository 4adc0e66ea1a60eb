"""What a network is shown beside the latent that it denoises: a picture, a mask of it, its depth.

Each kind is a generator that asks for its work and gives tensors by name: `channels` (1, C, h, w) stand beside the
latent's own, `labels` are told with the time. A job keeps them in its memory. Another kind is another function, listed
under what its families need.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from darkroom.checkpoint.family import DEPTH, MASKS, PICTURE, SMALL, VARIED, Augmentation, Family
from darkroom.diffusion import SeededNoise, Seeding
from darkroom.generation.edits import Subject, brought, brought_depth, left_by_mask, recolored
from darkroom.generation.masks import thin
from darkroom.generation.parts import next_seed
from darkroom.generation.request import Request
from darkroom.generation.work import Look, Looked, Prepare, Work
from darkroom.networks.layers import timestep_embedding
from darkroom.pixels import Pixels, to_images

Shown: TypeAlias = Generator[Work, Any, dict[str, Tensor]]

# The noise over what is shown is of a seed far from those that pictures count up to, not to be the latent's own.
_APART = 1 << 48


@dataclass(frozen=True)
class View:
    """For what something is shown: a settled request and its picture, the family of the network, the size of the
    canvas, the picture of the canvas `before` this one, if there is one, and the seed of its noise."""

    request: Request
    subject: Subject | None
    family: Family
    width: int
    height: int
    before: Pixels | None = None
    seed: int = 0

    @property
    def seamless(self) -> str:
        """Along which axes the edges of the canvas meet."""
        return self.request.tiling.seamless or ""


def shown(view: View) -> Shown:
    """What the networks of a family are shown, by name; nothing of those that draw from text alone."""
    if (kind := KINDS.get(view.family.needs)) is None:
        return {}
    return (yield from kind(view))


def _mask(view: View) -> Shown:
    """The mask, then what it leaves of the picture."""
    factor = view.family.factor
    left, painted = left_by_mask(view.request, view.subject, view.width, view.height)
    latent = yield Prepare(left, view.seamless)
    by_latents = np.maximum(painted[::factor, ::factor], thin(painted, factor))
    mask = torch.from_numpy(by_latents.astype(np.float32))[None, None]
    return {"channels": torch.cat([mask, latent], dim=1)}


def _picture(view: View) -> Shown:
    """The picture's latent as the autoencoder makes it, not scaled: so InstructPix2Pix was trained. A loop changes what
    the one before came to."""
    request, subject = view.request, view.subject
    pixels = brought(request, subject) if view.before is None else recolored(view.before, request, subject)
    latent = yield Prepare(pixels, view.seamless)
    return {"channels": latent / view.family.scaling + view.family.shift}


def _depth(view: View) -> Shown:
    """Its depth, from -1 where it is furthest to 1 where it is nearest."""
    yield from ()
    grey = brought_depth(view.request, view.subject).astype(np.float32).mean(axis=2)
    size = view.height // view.family.factor, view.width // view.family.factor
    return {"channels": ranged(F.interpolate(torch.from_numpy(grey)[None, None], size, mode="bicubic"))}


def ranged(depth: Tensor) -> Tensor:
    """Depths (B, 1, h, w), each from -1 to 1; 0 where there is but one."""
    low, high = depth.amin(dim=(1, 2, 3), keepdim=True), depth.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(high > low, 2 * (depth - low) / (high - low) - 1, torch.zeros_like(depth))


def _small(view: View) -> Shown:
    """The picture itself at the size of the latent, with noise, and how much that is."""
    yield from ()
    level, family = view.request.seen.noise_level, view.family
    assert family.augmentation is not None and level is not None
    pixels = to_images(brought(view.request, view.subject, smaller=family.enlarges)[None])
    seen = noised(pixels, _noise(view, pixels), family.augmentation, level)
    return {"channels": seen, "labels": torch.tensor([level])}


def _noise(view: View, like: Tensor) -> Tensor:
    """What is laid over what is shown, which is of that shape."""
    seed = next_seed(view.seed, _APART)
    return SeededNoise(seed, like.shape, seeding=Seeding(view.request.noise.source))(0)


def noised(pixels: Tensor, noise: Tensor, augmentation: Augmentation, level: int) -> Tensor:
    """Pictures (B, 3, h, w), or what there is of them, with so much noise over them."""
    point = augmentation.schedule.table[level]
    return point.alpha * pixels + point.sigma * noise


def _varied(view: View) -> Shown:
    """What the image encoder makes of the whole picture, with noise and how much that is; of nothing, nothing."""
    augmentation, level = view.family.augmentation, view.request.seen.noise_level
    assert augmentation is not None and level is not None
    whole = brought(view.request, None) if view.subject is None else view.subject.photo.over()
    looked = yield Look(whole)
    likeness = likened(looked, _noise(view, looked.embedding), augmentation, level)
    return {"labels": likeness, "labels negative": torch.zeros_like(likeness)}


def likened(looked: Looked, noise: Tensor, augmentation: Augmentation, level: int) -> Tensor:
    """What unCLIP's networks are told of pictures: embeddings (B, E) with so much noise over them where they are 0 on
    average and spread by 1, then how much it is: (B, 2E)."""
    normal = (looked.embedding - looked.mean) / looked.std
    louder = noised(normal, noise, augmentation, level) * looked.std + looked.mean
    told = timestep_embedding(torch.full((len(louder),), level), louder.shape[1])
    return torch.cat([louder, told], dim=1)


KINDS: Mapping[str, Callable[[View], Shown]] = {
    MASKS: _mask,
    PICTURE: _picture,
    DEPTH: _depth,
    SMALL: _small,
    VARIED: _varied,
}
"""By what a family needs besides text. Those for inpainting draw all of a picture where there is no mask."""
