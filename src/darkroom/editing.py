"""What a model does with pictures that there are: edits, masks of things in them, their latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image

from darkroom.checkpoint.family import Family
from darkroom.engine import LatentDiffusion
from darkroom.errors import InvalidRequest
from darkroom.generation import Picture, Request
from darkroom.generation.checks import a_whole, showing
from darkroom.generation.frames import by_network
from darkroom.generation.named import Finder
from darkroom.generation.parts import next_seed
from darkroom.generation.picture import edit_of
from darkroom.generation.request import SETTINGS, Settings
from darkroom.generation.settle import upscaler_of
from darkroom.generation.sources import a_source, several
from darkroom.generation.work import Decode, Prepare
from darkroom.series import Callback
from darkroom.upscaling.upscaler import Upscalers, load_upscaler

MAX_ROUNDS = 100


def check_rounds(rounds: object, settings: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for rounds that cannot be, with settings of their pictures that are said."""
    a_whole(1, MAX_ROUNDS)("rounds", rounds)
    if rounds == 1:
        return
    for name, usual in (("mask", None), ("mask_box", None), ("count", 1)):
        if settings.get(name, usual) != usual:
            raise InvalidRequest(
                f"rounds is {rounds}, which does not go with {name}: leave one of the two out"
            )


class Edits:
    """The half of a model that is about pictures to begin with; `generate` and the rest is the other's."""

    family: Family
    refiner: Any
    generate: Callable[..., list[Picture]]
    _drawing: Callable[[], AbstractContextManager[None]]
    _networks: LatentDiffusion
    _find: Finder
    _upscalers: Upscalers

    @showing(SETTINGS)
    def edit(  # type: ignore[misc]  # The one setting that stands by itself here.
        self,
        image: Any,
        prompt: str | None = None,
        *,
        like: Any = None,
        callback: Callback | None = None,
        attention: bool = False,
        **settings: Unpack[Settings],
    ) -> list[Picture]:
        """Make pictures of a picture: of a file, of its bytes, of Pillow's, NumPy's or torch's, of a `Picture`; of
        those in a folder, or in a list, of each.

        One that Darkroom made starts from its own recipe: the prompt where none is given, and all but its seed, its
        size and what it began with itself. `like` is another picture, or a request, whose recipe takes that place;
        False is none. What is given as settings of `generate` comes before it. Raises InvalidRequest where there is no
        prompt, and as `generate` does.
        """
        requests = self._edits(image, prompt, like, None, settings)
        return self.generate(requests, callback=callback, attention=attention)

    def _edits(
        self, image: Any, prompt: str | None, like: Any, usual: str | None, settings: Mapping[str, Any]
    ) -> list[Request]:
        refined = self.refiner is not None
        return [
            edit_of(each, prompt, each if like is None else like, refined, usual).replace(
                **{**settings, "image": each}
            )
            for each in several(image)
        ]

    @showing(SETTINGS)
    def detail(
        self,
        image: Any,
        *details: Any,
        prompt: str | None = None,
        like: Any = None,
        callback: Callback | None = None,
        **settings: Any,
    ) -> list[Picture]:
        """Draw over what `details` find in a picture, each thing by itself and larger (`darkroom.generation.details`);
        all else stays as it is, to the byte. Pictures and recipes are as those of `edit`. Where neither the picture nor
        its details have a prompt, things are told what they are. Raises InvalidRequest for no detail, ModelError where
        a detector is missing or damaged."""
        several = [*details, *settings.get("details", ())]
        if several and isinstance(several[0], list | tuple):
            several = [*several[0], *several[1:]]
        settings = {**settings, "details": several, "loops": 0}
        return self.generate(self._edits(image, prompt, like, "", settings), callback=callback)

    @showing(SETTINGS)
    def outpaint(
        self,
        image: Any,
        prompt: str | None = None,
        *,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        rounds: int = 1,
        **settings: Any,
    ) -> list[Picture]:
        """`edit` that goes on beyond the edges of a picture by so many pixels; what is there stays as it is. In several
        `rounds` each goes on with what the last one made, with the next seed, and all that were made are returned.
        Raises InvalidRequest for no side, and for a mask or several pictures at once in rounds."""
        sides = {"extend_left": left, "extend_top": top, "extend_right": right, "extend_bottom": bottom}
        if not any(sides.values()):
            raise InvalidRequest("no side to go on at: give left, top, right or bottom, in pixels")
        check_rounds(rounds, settings)
        made = self.edit(image, prompt, **{**settings, **sides})
        if rounds == 1:
            return made
        found = []
        for picture in made:
            chain = [picture]
            for _ in range(rounds - 1):
                again = {**settings, **sides, "seed": next_seed(chain[-1].seed)}
                chain += self.edit(chain[-1], prompt, **again)
            found += chain
        return found

    def upscale(
        self,
        image: Any,
        by: float | None = None,
        *,
        width: int | None = None,
        height: int | None = None,
        upscaler: str | Path | None = None,
        frame: int | None = None,
    ) -> list[Picture]:
        """Make a picture larger, or each of several, as `darkroom.load_upscaler` does, where this model runs: by the
        upscaler that the model prefers, if none is named. Raises as that does."""
        name = str(upscaler_of(self.family.preferences) if upscaler is None else upscaler)
        size: dict[str, Any] = {"by": by, "width": width, "height": height}
        with self._drawing():
            found = self._upscalers(name, True) if by_network(name) else load_upscaler(name)
            assert found is not None
            return [found.upscale(each, frame=frame, **size) for each in several(image)]

    def mask_of(self, image: Any, thing: str, prompt: str = "") -> Image.Image:
        """A mask of a thing in a picture by its name, white where the model's network reads it: in the prompt of a
        picture that Darkroom made, in the one that is given, or alone. A mode "L" picture of the same size. Raises
        InvalidRequest where it is no picture, and for models that see no text alone."""
        source, photo = a_source("image", image).found("image")
        with self._drawing():
            found = self._find(source, photo, thing, Request(prompt).checked())
        return Image.fromarray(found.found("mask")[1].over()).convert("L")

    def encode(self, image: Any) -> torch.Tensor:
        """A picture's latents, (1, C, h, w) float32 on the CPU, by the model's autoencoder; it is given as `edit` takes
        it. Raises InvalidRequest where it is no picture, or its sides are no multiples of `family.unit`."""
        pixels = a_source("image", image).found("image")[1].over()
        height, width = pixels.shape[:2]
        if height % self.family.unit or width % self.family.unit:
            raise InvalidRequest(
                f"the picture is of {width}x{height}: give sides in multiples of {self.family.unit}"
            )
        with self._drawing(), torch.no_grad():
            found: torch.Tensor = Prepare(pixels).run(self._networks)
        return found.to("cpu", torch.float32)

    def decode(self, latents: torch.Tensor | np.ndarray[Any, Any]) -> list[Image.Image]:
        """The pictures of latents (n, C, h, w), such as `Picture.latents`. Raises InvalidRequest for other shapes,
        GenerationError where they are no numbers."""
        try:
            given = torch.as_tensor(latents).float()
        except (TypeError, ValueError, RuntimeError):
            raise InvalidRequest(
                f"latents are a {type(latents).__name__}: give torch's or NumPy's array"
            ) from None
        if given.ndim != 4 or given.shape[1] != self.family.latent_channels:
            raise InvalidRequest(
                f"latents are of {tuple(given.shape)}: give (n, {self.family.latent_channels}, height, width)"
            )
        with self._drawing(), torch.no_grad():
            return [Image.fromarray(Decode(each[None]).run(self._networks)) for each in given]
