"""Where in a picture each word of its prompt was read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from darkroom.errors import InvalidRequest
from darkroom.files import write_bytes
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
    """For each of a prompt's `words`, in its order, how much of the attention of each place of the picture was on it:
    `maps` (n, height, width) float32, a number for every place of the latent, 0 to 1; the mean over all layers that
    read the text, all their heads and all network calls."""

    words: tuple[str, ...]
    maps: NDArray[np.float32]

    def of(self, text: str) -> NDArray[np.float32]:
        """The map (height, width) of a word, or of several that follow one another ("red boat"): the mean of theirs,
        wherever they stand in the prompt. Raises InvalidRequest where the prompt has none such."""
        asked, known = text.lower().split(), [word.lower() for word in self.words]
        found = [
            at + number
            for at in range(len(known) - len(asked) + 1)
            if asked and known[at : at + len(asked)] == asked
            for number in range(len(asked))
        ]
        if not found:
            raise InvalidRequest(
                f"the prompt has no {text!r}: its words are {', '.join(dict.fromkeys(self.words))}"
            )
        whole: NDArray[np.float32] = self.maps[found].mean(axis=0)
        return whole

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

    def save(self, path: str | Path) -> Path:
        """Write words and maps as NumPy's .npz file."""
        content = io.BytesIO()
        np.savez_compressed(content, words=np.array(self.words), maps=self.maps)
        write_bytes(Path(path), content.getvalue())
        return Path(path)


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
        """What was seen so far, of all prompts that there were on the way, each as often as it was told."""
        calls = sum(each.count for each in self._watchers.values())
        largest = max((size for _, size, _ in self._watchers), default=(0, 0))
        found: list[tuple[str, NDArray[np.float32]]] = []
        for (prompt, _, tokens), watcher in self._watchers.items():
            maps = torch.nn.functional.interpolate(watcher.total[None], largest, mode="bilinear")[0] / max(
                calls, 1
            )
            own = [
                (word.text, maps[list(word.places)].mean(0).numpy())
                for word in words(self._text, prompt, tokens)
            ]
            found = own if not found else _together(found, own)
        return AttentionMaps(
            tuple(word for word, _ in found), np.array([each for _, each in found], np.float32)
        )


def _together(
    one: list[tuple[str, NDArray[np.float32]]], other: list[tuple[str, NDArray[np.float32]]]
) -> list[tuple[str, NDArray[np.float32]]]:
    """The maps of two prompts' words: added up where the words are the same, else one after another."""
    if [word for word, _ in one] == [word for word, _ in other]:
        return [(word, a + b) for (word, a), (_, b) in zip(one, other, strict=True)]
    return [*one, *other]
