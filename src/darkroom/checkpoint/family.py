"""What the shapes of a model's weights do not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from darkroom.checkpoint.components.component import Place
from darkroom.checkpoint.preferences import Preferences
from darkroom.diffusion import Discrete, NoiseSchedule, Process
from darkroom.networks.configs import MMDiTConfig, UNetConfig
from darkroom.networks.roles import Role
from darkroom.prompt.use import TextUse


@dataclass(frozen=True)
class Shapes:
    """What shapes tell of a model: the dimensions of its denoising network, whether a text encoder in the file is
    OpenCLIP's, and how wide each CLIP text encoder is."""

    network: UNetConfig | MMDiTConfig
    openclip: bool
    widths: tuple[int, ...]


MASKS = "a picture and a mask"
PICTURE = "a picture"
DEPTH = "a picture and its depth"
SMALL = "a picture to enlarge"
VARIED = "a picture to vary"
GIVEN = {MASKS, PICTURE, DEPTH, SMALL, VARIED}
"""What models need besides text and a request can give: those for inpainting, InstructPix2Pix, for depth, upscalers,
unCLIP."""


@dataclass(frozen=True)
class Augmentation:
    """The noise that is laid over what a network is shown of a picture, as much as it is told (Ho et al. 2021,
    https://arxiv.org/abs/2106.15282): `usual` a level, `most` of them, which are times of a schedule; `config` is the
    scheduler_config.json that says so, `component` its folder."""

    component: str
    schedule: Discrete
    usual: int
    most: int
    config: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Variant:
    """A family's networks with more channels in, for something else than text to image: what is added to the family's
    id and name, what it needs in words, and the class of its pipeline; `others`: what else of the family's record is
    otherwise."""

    id: str
    name: str
    needs: str
    pipeline: str
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """How a model's networks are to be used.

    `name` is for people, `id` for programs. `latent_channels` and `factor` are those of its autoencoder, `scaling`
    and `shift` how that one's are scaled; `native` is the side in pixels of the square pictures it was trained on.
    `preview` holds, where it is known, the rows of the affine map from a latent's channels (and 1) to RGB in [-1,
    1]: a picture of an unfinished latent for next to nothing. `text` says how each CLIP encoder is used. `sizes`
    says which numbers it is told beside the text: "" none, "base" original size, crop and target size (SDXL),
    "refiner" original size, crop and an aesthetic score. `zero_empty`: an empty negative prompt is a row of zeros.
    `embeds_guidance`: the network is told the guidance scale and runs no negative row. `patch`: the sides of
    latents are multiples of it, of `most_patches` at most where there is a limit. `needs`: what it cannot be
    without besides text, in words ("" nothing); `augmentation`: what is done to what it is shown then; `looks`:
    whether an encoder of pictures is part of its models; `judge`: who ranks pictures of it (`darkroom.ranking`), ""
    its own pair of encoders.

    How others write it: `places`, where single files keep each CLIP encoder; `pipeline` and `scheduler`, diffusers'
    classes; `encoders`, the text encoders that this pipeline knows, present or not.
    `recognised`: whether a model's shapes are the family's; `variants`: by the channels that the network takes.
    """

    name: str
    process: Process
    schedule: NoiseSchedule
    id: str = ""
    latent_channels: int = 4
    factor: int = 8
    scaling: float = 0.18215
    shift: float = 0.0
    native: int = 512
    preferences: Preferences = field(default_factory=Preferences)
    preview: tuple[tuple[float, ...], ...] | None = None
    text: dict[Role, TextUse] = field(default_factory=lambda: {Role.TEXT_ENCODER: TextUse()})
    sizes: str = ""
    zero_empty: bool = False
    embeds_guidance: bool = False
    patch: int = 1
    most_patches: int | None = None
    needs: str = ""
    augmentation: Augmentation | None = None
    looks: bool = False
    judge: str = ""
    places: Mapping[Role, Place] = field(default_factory=dict)
    pipeline: str = "StableDiffusionPipeline"
    scheduler: str = "PNDMScheduler"
    encoders: tuple[Role, ...] = (Role.TEXT_ENCODER,)
    recognised: Callable[[Shapes], bool] = lambda shapes: False
    variants: Mapping[int, Variant] = field(default_factory=dict)

    @property
    def sees_masks(self) -> bool:
        """Whether its network is shown, beside the latent, a mask and what of a picture the mask leaves."""
        return self.needs == MASKS

    @property
    def sees_pictures(self) -> bool:
        """Whether its network is shown, beside the latent, the picture that it draws over."""
        return self.needs not in ("", MASKS)

    @property
    def enlarges(self) -> int:
        """How many times as wide and high as the picture that it is shown it draws."""
        return self.factor if self.needs == SMALL else 1

    @property
    def unit(self) -> int:
        """Sides of pictures are multiples of it, in pixels."""
        return self.factor * self.patch

    @property
    def numbers(self) -> int:
        """How many numbers its network is told beside the text."""
        return {"": 0, "base": 6, "refiner": 5}[self.sizes]

    @property
    def largest(self) -> int | None:
        """The longest side of a picture in pixels, where there is a limit."""
        return None if self.most_patches is None else self.most_patches * self.unit

    def with_channels(self, channels: int) -> Family:
        """The family's variant whose network takes so many channels, or itself."""
        if (variant := self.variants.get(channels)) is None:
            return self
        return replace(
            self,
            id=f"{self.id}-{variant.id}",
            name=f"{self.name} {variant.name}",
            needs=variant.needs,
            pipeline=variant.pipeline,
            **variant.others,
        )
