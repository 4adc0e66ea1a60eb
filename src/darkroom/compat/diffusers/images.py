"""Pictures in the forms that diffusers' users pass about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from darkroom.errors import InvalidRequest


class ImageProcessor:
    """diffusers' VaeImageProcessor, as far as callbacks and preparations use it."""

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
        or a list of them; resized where a size is given."""
        images = image if isinstance(image, list | tuple) else [image]
        parts = []
        for each in images:
            if isinstance(each, Image.Image):
                # As its networks need them: multiples of 8.
                size = width or each.width // 8 * 8, height or each.height // 8 * 8
                resized = each.convert("RGB").resize(size, Image.Resampling.LANCZOS)
                each = np.asarray(resized, np.float32) / 255
            part = each if isinstance(each, Tensor) else self.numpy_to_pt(np.asarray(each))
            part = part if part.ndim == 4 else part[None]
            if (height, width) != (None, None) and part.shape[-2:] != (height, width):
                part = torch.nn.functional.interpolate(
                    part, (height or part.shape[-2], width or part.shape[-1])
                )
            parts.append(part.float())
        whole = torch.cat(parts)
        return whole if bool((whole < 0).any()) else whole * 2 - 1

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
