"""Where in a picture each word of its prompt was read."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from darkroom.errors import InvalidRequest
from darkroom.networks import Conditioning
from darkroom.networks.watched import Watcher
from darkroom.pixels import sheet
from darkroom.prompt import Prompt
from darkroom.prompt.conditioning import TextConditioner
from darkroom.prompt.words import words

_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Colours from nothing to most: matplotlib's inferno, at five places."""
_STRENGTH = 0.65
_LABEL = 14


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """For each of the words of a picture's prompts how much of the attention of each place was on it: `maps` (n,
    height, width) float32, a number for every place of the latent, 0 to 1; the mean over all layers of the model's own
    network that read the text, all their heads and all calls that were watched: those of a refiner and of other models
    of an ensemble are not, nor are those before a job was resumed.

    `prompts` has for each word the number of the prompt that it is of: there are several where prompts change on the
    way or are joined by AND, and a word has its share of the calls of all of them.
    """

    words: tuple[str, ...]
    maps: NDArray[np.float32]
    prompts: tuple[int, ...]

    def of(self, text: str) -> NDArray[np.float32]:
        """The map (height, width) of a word, or of several that follow one another ("red boat"): within a prompt the
        mean of theirs, wherever they stand; of several prompts the sum. Raises InvalidRequest where no prompt has
        them."""
        asked = text.lower().split()
        whole = [self.maps[places].mean(axis=0) for places in self._places(asked)]
        if not whole:
            known = ", ".join(dict.fromkeys(self.words)) or "none"
            raise InvalidRequest(f"the prompt has no {text!r}: its words are {known}")
        total: NDArray[np.float32] = np.sum(whole, axis=0)
        return total

    def _places(self, asked: Sequence[str]) -> Iterator[list[int]]:
        """Where words stand that follow one another, for each prompt that has them."""
        for prompt in dict.fromkeys(self.prompts):
            own = [place for place, each in enumerate(self.prompts) if each == prompt]
            known = [self.words[place].lower() for place in own]
            found = [
                own[at + number]
                for at in range(len(known) - len(asked) + 1)
                if asked and known[at : at + len(asked)] == [*asked]
                for number in range(len(asked))
            ]
            if found:
                yield found

    def over(self, image: Image.Image, text: str) -> Image.Image:
        """A picture with the map of a word upon it, from dark (its least) to bright (its most)."""
        heat = self.of(text)
        heat = (heat - heat.min()) / max(float(heat.max() - heat.min()), 1e-12)
        large = Image.fromarray(heat.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
        places = np.clip(np.asarray(large), 0, 1) * (len(_HEAT) - 1)
        low = np.minimum(places.astype(int), len(_HEAT) - 2)
        share = (places - low)[..., None]
        colours = _HEAT[low] * (1 - share) + _HEAT[low + 1] * share
        mixed = _STRENGTH * colours + (1 - _STRENGTH) * np.asarray(image.convert("RGB"), np.float32)
        return Image.fromarray(mixed.round().astype(np.uint8))

    def sheet(self, image: Image.Image, texts: Sequence[str] = ()) -> Image.Image:
        """A picture and beside it, with its name below, the map of each of some words, or of all."""
        named = list(dict.fromkeys(texts or (word for word in self.words if any(map(str.isalnum, word)))))
        tiles = [_labelled(image, "")] + [_labelled(self.over(image, text), text) for text in named]
        return sheet(tiles, columns=min(len(tiles), 6))

    def encoded(self) -> bytes:
        """Words, maps and prompts as NumPy's .npz file."""
        content = io.BytesIO()
        np.savez_compressed(
            content, words=np.array(self.words), maps=self.maps, prompts=np.array(self.prompts)
        )
        return content.getvalue()


def _labelled(image: Image.Image, text: str) -> Image.Image:
    whole = Image.new("RGB", (image.width, image.height + _LABEL), "white")
    whole.paste(image)
    ImageDraw.Draw(whole).text((3, image.height), text, fill="black")
    return whole


class Observer:
    """What watches a picture on its way: gives each prompt that a row is told a `Watcher` of its own."""

    def __init__(self, text: TextConditioner, joint: bool) -> None:
        self._text, self._joint = text, joint
        self._watchers: dict[tuple[Any, ...], Watcher] = {}

    def __call__(self, prompt: Prompt, x: Tensor, told: Conditioning) -> Watcher:
        """What watches a row of x (1, C, h, w) that is told a prompt."""
        key = prompt, (x.shape[2], x.shape[3]), told.context.shape[1]
        if key not in self._watchers:
            self._watchers[key] = Watcher(*key[1:], self._joint)
        return self._watchers[key]

    def maps(self) -> AttentionMaps:
        """What was seen so far."""
        calls = sum(each.count for each in self._watchers.values())
        largest = max((size for _, size, _ in self._watchers), default=(0, 0))
        found: dict[tuple[str, ...], Tensor] = {}
        for (prompt, _, tokens), watcher in self._watchers.items():
            own = words(self._text, prompt, tokens)
            large = F.interpolate(watcher.total[None], largest, mode="bilinear")[0] / max(calls, 1)
            maps = [large[list(word.places)].mean(0) for word in own]
            if maps:
                # The same words may be told with other adapters, in another size.
                said = tuple(word.text for word in own)
                found[said] = torch.stack(maps) + found.get(said, 0)
        whole = list(found.values()) or [torch.zeros(0, *largest)]
        return AttentionMaps(
            tuple(word for said in found for word in said),
            torch.cat(whole).numpy(),
            tuple(number for number, said in enumerate(found) for _ in said),
        )
