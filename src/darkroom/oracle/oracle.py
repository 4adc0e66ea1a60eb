"""The oracle: a small convolutional judge that says what a picture of the drawn world shows.

Things are found as in "Objects as Points" (Zhou et al. 2019, https://arxiv.org/abs/1904.07850): for each
kind a map of how likely a cell holds the centre of such a thing, and at each cell the colour and the
edges of the box. Place, time, weather and style are each read with an attention of their own over the
cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.errors import InvalidRequest, ModelError
from darkroom.files import replacing, write_json
from darkroom.library.installed import folders
from darkroom.oracle.judging import SETTING, Guess, Reading, Thing, overlap
from darkroom.pixels import to_images
from darkroom.weights.hashes import sha256
from darkroom.world.scene import COLOURS, KINDS, PLACES, STYLES, TIMES, WEATHERS

NAMES = {"place": PLACES, "time": TIMES, "weather": WEATHERS, "style": STYLES}
STRIDE = 8
LONGEST = 8.0
"""The longest proportions in which pictures are read."""
_COARSEST = 16
CONFIG, WEIGHTS = "config.json", "oracle.safetensors"


@dataclass(frozen=True, slots=True)
class OracleConfig:
    """`size`: side of the pictures it reads; `widths`: channels at strides 2, 4, 8 and 16; `depths`: residual
    blocks at strides 4, 8 and 16; `threshold`: how sure it must be of a thing to report it."""

    size: int = 128
    widths: tuple[int, ...] = (32, 48, 96, 128)
    depths: tuple[int, ...] = (1, 2, 2)
    threshold: float = 0.4


class Maps(NamedTuple):
    """The network's raw answers, on a grid of h by w cells: `kinds` (B, kinds, h, w) and `colours`
    (B, colours, h, w) logits; `edges` (B, 4, h, w) distances from a cell's centre to the box's left, top,
    right and bottom, in fractions of the picture; `setting`: logits (B, names) for each of SETTING."""

    kinds: Tensor
    colours: Tensor
    edges: Tensor
    setting: dict[str, Tensor]


class Layer(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(self, a: int, b: int, size: int = 3, stride: int = 1) -> None:
        convolution = nn.Conv2d(a, b, size, stride, padding=size // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(b), nn.SiLU(inplace=True))


class Residual(nn.Module):
    """x plus two layers of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(width, width), Layer(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers(x)
        return y


class OracleNetwork(nn.Module):
    """(B, 3, height, width) in [-1, 1] to `Maps` with cells of STRIDE pixels. It learns from squares of `size`; sides
    are multiples of 16."""

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        self.config = config
        stem, fine, middle, coarse = config.widths
        a, b, c = config.depths
        self.stem = Layer(3, stem, 3, 2)
        self.fine = nn.Sequential(Layer(stem, fine, 3, 2), *(Residual(fine) for _ in range(a)))
        self.middle = nn.Sequential(Layer(fine, middle, 3, 2), *(Residual(middle) for _ in range(b)))
        self.coarse = nn.Sequential(Layer(middle, coarse, 3, 2), *(Residual(coarse) for _ in range(c)))
        self.down = Layer(coarse, middle, 1)
        self.joined = nn.Sequential(Layer(middle, middle), Layer(middle, middle))
        self.kinds = nn.Conv2d(middle, len(KINDS), 1)
        self.colours = nn.Conv2d(middle, len(COLOURS), 1)
        self.edges = nn.Conv2d(middle, 4, 1)
        self.look = nn.Conv2d(middle, len(SETTING), 1)
        # Beside the places that they look at, the setting's heads are told the mean of the finest features: what a
        # style does to neighbouring pixels is gone on the coarse grid.
        self.setting = nn.ModuleDict({n: nn.Linear(middle + stem, len(NAMES[n])) for n in SETTING})
        with torch.no_grad():  # A cell holds a centre about once in a hundred: sigmoid(-4.6).
            self.kinds.bias.fill_(-4.6)  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Maps:
        stem = self.stem(images)
        middle = self.middle(self.fine(stem))
        above = self.down(self.coarse(middle))
        x = self.joined(middle + F.interpolate(above, scale_factor=2, mode="nearest"))
        weights = self.look(x).float().flatten(2).softmax(-1)
        seen = torch.einsum("bcp,bap->bac", x.float().flatten(2), weights)
        texture = stem.float().mean((2, 3))
        setting = {n: self.setting[n](torch.cat([seen[:, k], texture], 1)) for k, n in enumerate(SETTING)}
        height, width = (self.config.size / side for side in images.shape[2:])
        share = torch.tensor([width, height, width, height], device=x.device)[:, None, None]
        edges = F.softplus(self.edges(x).float()) / STRIDE * share
        return Maps(self.kinds(x), self.colours(x), edges, setting)


def cell_centres(count: int, device: torch.device | None = None) -> Tensor:
    """(count,) where the cells of a row lie, in fractions of the picture."""
    return (torch.arange(count, device=device) + 0.5) / count


def decode(maps: Maps, threshold: float) -> list[Reading]:
    """The maps of a batch as readings: peaks of likelihood at or above the threshold, one thing at one
    place."""
    heat, kind = maps.kinds.float().sigmoid().max(1)
    peaks = (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat >= threshold)
    colour = maps.colours.float().argmax(1)
    rows = {name: logits.float().softmax(-1).max(-1) for name, logits in maps.setting.items()}
    readings = []
    for b in range(len(heat)):
        things = []
        for y, x in peaks[b].nonzero().tolist():
            cx, cy = (x + 0.5) / heat.shape[2], (y + 0.5) / heat.shape[1]
            left, top, right, bottom = maps.edges[b, :, y, x].tolist()
            edges = (cx - left, cy - top, cx + right, cy + bottom)
            names = KINDS[int(kind[b, y, x])], COLOURS[int(colour[b, y, x])]
            things.append(Thing(*names, *edges, confidence=float(heat[b, y, x])))
        place, time, weather, style = (
            Guess(NAMES[n][int(rows[n].indices[b])], float(rows[n].values[b])) for n in SETTING
        )
        aspect = heat.shape[2] / heat.shape[1]
        readings.append(Reading(distinct(things), place, time, weather, style, aspect))
    return readings


def distinct(things: Sequence[Thing], most: float = 0.4) -> tuple[Thing, ...]:
    """The surest things first, without those that overlap a surer one by more than `most` (non-maximum
    suppression, whatever the kinds: one place holds one thing)."""
    kept: list[Thing] = []
    for thing in sorted(things, key=lambda thing: -thing.confidence):
        if all(overlap(thing, other) <= most for other in kept):
            kept.append(thing)
    return tuple(kept)


class Oracle:
    """A judge of pictures. `Oracle.load()` gives the one that ships with Darkroom."""

    def __init__(self, network: OracleNetwork, hash: str = "") -> None:
        self.network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = network.config
        self.hash = hash
        """Settings and weights in one: the SHA-256 of the two files' SHA-256 in hexadecimal."""

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Oracle:
        """The oracle of a folder, by default the shipped one. Raises ModelError where it is missing or
        damaged."""
        where = Path(folder) if folder else _shipped()
        try:
            config = json.loads((where / CONFIG).read_text("utf-8"))
            size, widths, depths, threshold = (config[f.name] for f in fields(OracleConfig))
            network = OracleNetwork(OracleConfig(size, tuple(widths), tuple(depths), threshold))
            if config["kinds"] != list(KINDS) or config["colours"] != list(COLOURS):
                raise ModelError(
                    f"the oracle in {where} knows another world: train it anew (darkroom train oracle)"
                )
            weights = {name: tensor.float() for name, tensor in load_file(where / WEIGHTS).items()}
            network.load_state_dict(weights)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"cannot load the oracle in {where}: {error}") from error
        files = sha256(where / CONFIG) + sha256(where / WEIGHTS)
        return cls(network, hashlib.sha256(files.encode()).hexdigest())

    def save(self, folder: Path) -> None:
        """Write it for `load`, the weights in half precision."""
        names = {"kinds": KINDS, "colours": COLOURS, **NAMES}
        write_json(folder / CONFIG, {**asdict(self.config), **names})
        state = self.network.state_dict()
        weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
        with replacing(folder / WEIGHTS) as file:
            save_file(weights, file)

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.uint8] | Sequence[Image.Image], batch: int = 32) -> list[Reading]:
        """Read pictures: (N, H, W, 3) uint8, or Pillow images of any sizes. One reading each, in order."""
        return [reading for part in self._batches(pictures, batch) for reading in self._read(part)]

    def _batches(self, pictures: NDArray[np.uint8] | Sequence[Image.Image], batch: int) -> Iterator[Tensor]:
        if isinstance(pictures, np.ndarray) and (pictures.ndim != 4 or pictures.dtype != np.uint8):
            raise InvalidRequest(f"pictures are {pictures.shape} {pictures.dtype}: give (N, H, W, 3) uint8")
        part: list[NDArray[np.uint8]] = []
        for picture in pictures:
            sized = _sized(picture, self.config.size)
            if part and (len(part) == batch or part[0].shape != sized.shape):
                yield torch.from_numpy(np.stack(part))
                part = []
            part.append(sized)
        if part:
            yield torch.from_numpy(np.stack(part))

    def _read(self, pictures: Tensor) -> list[Reading]:
        device = next(self.network.parameters()).device
        images = to_images(pictures.to(device))
        with torch.autocast(device.type, enabled=False):
            return decode(self.network(images), self.config.threshold)


def _sized(picture: NDArray[np.uint8] | Image.Image, size: int) -> NDArray[np.uint8]:
    """The picture as it is read, (h, w, 3): a square as (size, size, 3), another one in its proportions. By averaging
    over areas where it is larger."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture.convert("RGB")
    width, height = read_size(*image.size, size)
    if image.size == (width, height):
        return np.asarray(image)
    larger = image.width >= width and image.height >= height
    return np.asarray(
        image.resize((width, height), Image.Resampling.BOX if larger else Image.Resampling.BICUBIC)
    )


def read_size(width: int, height: int, size: int) -> tuple[int, int]:
    """The size at which a picture of width x height is read. Things may be as large as in a square of its area, or of
    its short side: halfway between, and in multiples of 16. What is longer than LONGEST is squeezed."""
    if width == height:
        return size, size
    ratio = min(max(width, height) / min(width, height), LONGEST)
    short = size / ratio**0.25
    long, short = (max(1, round(each / _COARSEST)) * _COARSEST for each in (ratio * short, short))
    return (long, short) if width > height else (short, long)


def _shipped() -> Path:
    found = next((f / "oracle" for f in folders() if (f / "oracle" / WEIGHTS).is_file()), None)
    if found is None:
        raise ModelError(
            "the oracle is not installed: reinstall Darkroom, or train it (darkroom train oracle)"
        )
    return found
