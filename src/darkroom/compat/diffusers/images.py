"""Pictures in the forms that diffusers' users pass about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from darkroom.errors import InvalidRequest


@dataclass(frozen=True)
class ImageProcessor:
    """diffusers' VaeImageProcessor, as far as callbacks and preparations use it. `unit`: of what sides are multiples;
    `latent_channels`: which tensors are latents; `resample`: what is between pixels of another size."""

    unit: int = 8
    latent_channels: int = 4
    resample: Image.Resampling = Image.Resampling.LANCZOS

    def postprocess(
        self, image: Tensor, output_type: str = "pil", do_denormalize: Sequence[bool] | None = None
    ) -> Any:
        """Pictures (B, 3, H, W) in [-1, 1] as a list of Pillow's, an array (B, H, W, 3) or tensor in [0, 1], or as
        they are ("latent")."""
        if output_type == "latent":
            return image
        wanted = do_denormalize or [True] * len(image)
        parts = [
            (each / 2 + 0.5).clamp(0, 1) if change else each
            for each, change in zip(image.float(), wanted, strict=True)
        ]
        found = torch.stack(parts)
        if output_type == "pt":
            return found
        array = self.pt_to_numpy(found)
        if output_type == "np":
            return array
        if output_type != "pil":
            raise InvalidRequest(f"output_type is {output_type!r}: choose pil, np, pt or latent")
        return self.numpy_to_pil(array)

    def preprocess(self, image: Any, height: int | None = None, width: int | None = None) -> Tensor:
        """Pictures in [-1, 1], (B, 3, H, W), of Pillow's, an array (H, W, 3) or (B, H, W, 3) or a tensor in [0, 1], one
        or a list of them; resized to the size that is given, else to that of the first in multiples of `unit`. Tensors
        of latents are as they were. Raises InvalidRequest for anything else."""
        images = image if isinstance(image, list | tuple) else [image]
        if not images or not all(isinstance(each, Image.Image | np.ndarray | Tensor) for each in images):
            kinds = sorted({type(each).__name__ for each in images}) or "empty"
            raise InvalidRequest(f"image is {kinds}: give pictures of Pillow, NumPy or torch")
        first = images[0]
        if isinstance(first, Tensor) and first.ndim > 2 and first.shape[-3] == self.latent_channels:
            return torch.cat([each if each.ndim == 4 else each[None] for each in images]).float()
        if isinstance(first, Image.Image):
            wide, high = first.size
        else:
            first = first if isinstance(first, Tensor) else self.numpy_to_pt(first)
            high, wide = first.shape[-2:]
        size = height or high // self.unit * self.unit, width or wide // self.unit * self.unit
        if 0 in size:
            raise InvalidRequest(f"image is of {wide}x{high}: give {self.unit} pixels a side at least")
        whole = torch.cat([self._part(each, size) for each in images])
        if whole.ndim != 4 or whole.shape[1] != 3:
            raise InvalidRequest(f"image is of the shape {tuple(whole.shape)}: give 3 channels")
        return whole if bool((whole < 0).any()) else whole * 2 - 1

    def _part(self, image: Any, size: tuple[int, int]) -> Tensor:
        """One picture, or a batch of them in one array or tensor, at a height and width."""
        if isinstance(image, Image.Image):
            resized = image.convert("RGB").resize(size[::-1], self.resample)
            image = np.asarray(resized, np.float32) / 255
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = image.astype(np.float32) / 255  # As everybody else means it.
        part = image if isinstance(image, Tensor) else self.numpy_to_pt(image)
        part = (part if part.ndim == 4 else part[None]).float()
        return part if part.shape[-2:] == size else torch.nn.functional.interpolate(part, size)

    def masks(self, mask: Any, height: int, width: int) -> Tensor:
        """Masks (B, 1, H, W), 1 where something is painted anew: Pillow's, arrays (H, W) or (B, H, W[, 1]) or tensors
        ([B, 1,] H, W), one or a list of them, of which 0.5 and more counts. Raises InvalidRequest for
        anything else."""
        masks, parts = mask if isinstance(mask, list | tuple) else [mask], []
        for each in masks:
            if isinstance(each, Image.Image):
                grey = each.resize((width, height), Image.Resampling.LANCZOS).convert("L")
                each = np.asarray(grey, np.float32) / 255
            elif isinstance(each, np.ndarray):
                each = each.astype(
                    np.float32
                )  # Of bytes, too, whatever is not black is painted, as in diffusers.
                each = each[..., 0] if each.ndim > 2 and each.shape[-1] == 1 else each
            if not isinstance(each, np.ndarray | Tensor) or not 2 <= each.ndim <= 4:
                raise InvalidRequest(
                    f"mask_image is {type(each).__name__}: give pictures of Pillow, NumPy or torch"
                )
            part = torch.as_tensor(each).float()
            part = part.reshape(-1, 1, *part.shape[-2:])
            if part.shape[-2:] != (height, width):
                part = torch.nn.functional.interpolate(part, (height, width))
            parts.append((part >= 0.5).float())
        return torch.cat(parts)

    @staticmethod
    def get_crop_region(
        mask_image: Image.Image, width: int, height: int, pad: int = 0
    ) -> tuple[int, int, int, int]:
        """The part of a picture that a mask takes and so many pixels around it, in the proportions of width to height:
        left, top, right, bottom."""
        box = mask_image.convert("L").getbbox()
        if box is None:
            raise InvalidRequest("mask_image covers nothing: white in it is what is painted anew")
        x1, y1 = max(box[0] - pad, 0), max(box[1] - pad, 0)
        x2, y2 = min(box[2] + pad, mask_image.width), min(box[3] + pad, mask_image.height)
        ratio = width / height
        if (x2 - x1) / (y2 - y1) > ratio:
            y1, y2 = _widened(y1, y2, int((x2 - x1) / ratio - (y2 - y1)), mask_image.height)
        else:
            x1, x2 = _widened(x1, x2, int((y2 - y1) * ratio - (x2 - x1)), mask_image.width)
        return x1, y1, x2, y2

    @staticmethod
    def filled(image: Image.Image, width: int, height: int) -> Image.Image:
        """A picture whole in the middle of one of that size, its outermost pixels going on."""
        size = _beside(image, width, height, width / height >= image.width / image.height)
        resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        whole, (wide, high) = Image.new("RGB", (width, height)), size
        left, top = width // 2 - wide // 2, height // 2 - high // 2
        whole.paste(resized, (left, top))
        # diffusers' very way: Pillow's resampling of a line gives what is near it, too.
        if top:
            sides = [((0, 0, width, 0), (0, 0)), ((0, high, width, high), (0, top + high))]
        else:
            sides = [((0, 0, 0, height), (0, 0)), ((wide, 0, wide, height), (left + wide, 0))]
        for line, place in sides if top or left else ():
            whole.paste(resized.resize((left or width, top or height), Image.Resampling.BICUBIC, line), place)
        return whole

    @staticmethod
    def apply_overlay(
        mask: Image.Image,
        init_image: Image.Image,
        image: Image.Image,
        crop_coords: tuple[int, int, int, int] | None = None,
    ) -> Image.Image:
        """A picture with what was painted in it, where the mask is; `crop_coords`: of which part of it that is."""
        if crop_coords is not None:
            x1, y1, x2, y2 = crop_coords
            width, height = x2 - x1, y2 - y1
            high = width / height > image.width / image.height
            size = _beside(image, width, height, not high)
            part = Image.new("RGB", (width, height))
            resized = image.resize(size, Image.Resampling.LANCZOS)
            part.paste(resized, (width // 2 - size[0] // 2, height // 2 - size[1] // 2))
            image = Image.new("RGB", init_image.size)
            image.paste(part, (x1, y1))
        return Image.composite(image.convert("RGB"), init_image.convert("RGB"), mask.convert("L"))

    @staticmethod
    def normalize(images: Any) -> Any:
        """[0, 1] to [-1, 1]."""
        return images * 2 - 1

    @staticmethod
    def denormalize(images: Any) -> Any:
        """[-1, 1] to [0, 1], what lies beyond cut off."""
        return (images * 0.5 + 0.5).clip(0, 1)

    @staticmethod
    def pil_to_numpy(images: Any) -> NDArray[np.float32]:
        """One of Pillow's pictures or several, as (B, H, W, 3) in [0, 1]."""
        several = images if isinstance(images, list | tuple) else [images]
        return np.stack([np.asarray(each.convert("RGB"), np.float32) / 255 for each in several])

    @staticmethod
    def pt_to_numpy(images: Tensor) -> NDArray[np.float32]:
        return images.detach().cpu().permute(0, 2, 3, 1).float().numpy()

    @staticmethod
    def numpy_to_pt(images: NDArray[Any]) -> Tensor:
        whole = images if images.ndim == 4 else images[None]
        return torch.from_numpy(np.ascontiguousarray(whole.transpose(0, 3, 1, 2)))

    @staticmethod
    def numpy_to_pil(images: NDArray[Any]) -> list[Image.Image]:
        whole = images if images.ndim == 4 else images[None]
        return [Image.fromarray((each * 255).round().astype(np.uint8)) for each in whole]


def _beside(image: Image.Image, width: int, height: int, by_height: bool) -> tuple[int, int]:
    """The size of a picture in its own proportions that is as high, or as wide, as is wanted."""
    if by_height:
        return image.width * height // image.height, height
    return width, image.height * width // image.width


def _widened(start: int, end: int, by: int, most: int) -> tuple[int, int]:
    """A stretch that is longer by so much on both sides alike, within 0 and `most`."""
    start, end = start - by // 2, end + by - by // 2
    if end >= most:
        start, end = start - (end - most), most
    if start < 0:
        start, end = 0, end - start
    return start, min(end, most)
