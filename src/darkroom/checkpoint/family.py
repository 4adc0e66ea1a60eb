"""What the shapes of a model's weights do not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from darkroom.diffusion import NoiseSchedule, Process
from darkroom.prompt.conditioning import TextUse


@dataclass(frozen=True)
class Preferences:
    """What a request that leaves a setting open gets."""

    steps: int = 20
    guidance: float = 7.5
    sampler: str = "dpmpp_2m"
    schedule: str = "karras"
    second_strength: float = 0.5

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Family:
    """How a model's networks are to be used.

    `latent_channels` and `factor` are those of its autoencoder; `native` is the side in pixels of the
    square pictures it was trained on. `preview` holds, where it is known, the rows of the affine map
    from a latent's channels (and 1) to RGB in [-1, 1]: a picture of an unfinished latent for next to
    nothing. `text` says how each CLIP encoder is used, by the name of its component. `sizes` says which numbers it is
    told beside the text: "" none, "base" original size, crop and target size (SDXL), "refiner" original size, crop
    and an aesthetic score. `zero_empty`: an empty negative prompt is a row of zeros. `embeds_guidance`: the network is
    told the guidance scale and runs no negative row. `patch`: the sides of latents are multiples of it, of
    `most_patches` at most where there is a limit. `needs`: what it cannot be without besides text, in words (""
    nothing).
    """

    name: str
    process: Process
    schedule: NoiseSchedule
    latent_channels: int = 4
    factor: int = 8
    native: int = 512
    preferences: Preferences = field(default_factory=Preferences)
    preview: tuple[tuple[float, ...], ...] | None = None
    text: dict[str, TextUse] = field(default_factory=lambda: {"text_encoder": TextUse()})
    sizes: str = ""
    zero_empty: bool = False
    embeds_guidance: bool = False
    patch: int = 1
    most_patches: int | None = None
    needs: str = ""

    @property
    def unit(self) -> int:
        """Sides of pictures are multiples of it, in pixels."""
        return self.factor * self.patch

    @property
    def largest(self) -> int | None:
        """The longest side of a picture in pixels, where there is a limit."""
        return None if self.most_patches is None else self.most_patches * self.unit
