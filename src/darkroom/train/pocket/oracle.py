"""The oracle stage: a judge for pictures of the drawn world, taught on its perfect labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.oracle.judging import ATTRIBUTES, SETTING, Reading, agreement
from darkroom.oracle.oracle import Maps, Oracle, OracleConfig, OracleNetwork, cell_centres
from darkroom.pixels import Pixels, sheet, to_images
from darkroom.train.config import LoopConfig
from darkroom.train.feed import Source
from darkroom.train.loop import Batch, Share, shares_by_shape
from darkroom.train.pocket.artefacts import degraded, moved
from darkroom.train.pocket.data import WorldConfig
from darkroom.train.pocket.judged import UNSURE, Judged, oracle_scene
from darkroom.world import KINDS, Scene, render


@dataclass(frozen=True, slots=True)
class OracleLoss:
    """The weights of the terms: kinds (focal), colours, edges of the boxes, place to style."""

    kinds: float = 1.0
    colours: float = 0.5
    edges: float = 5.0
    setting: float = 0.4


@dataclass(frozen=True, slots=True)
class OracleSettings:
    """The settings file of this stage. `start_from`: the folder of a trained oracle to begin with, in place of
    `network`. `spoiled`, `joined` and `mush`: see `Judged`."""

    network: OracleConfig = field(default_factory=OracleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    loss: OracleLoss = field(default_factory=OracleLoss)
    start_from: str = ""
    views: int = 2
    spoiled: float = 0.25
    joined: float = 0.15
    mush: float = 0.04
    unseen: int = 240


class Targets(NamedTuple):
    """What the maps should be: `heat` (B, kinds, h, w), 1 where a centre is, falling off around it; `learn`
    (B, h, w), 0 where nothing is to be learned; `owner` (B, h, w), the number of the box a cell belongs
    to, and `weight` (B, h, w), how much it does."""

    heat: Tensor
    learn: Tensor
    owner: Tensor
    weight: Tensor


def targets(boxes: Tensor, kinds: Tensor, cells: int) -> Targets:
    """Targets on a grid of cells x cells for boxes (B, K, 4) of kinds (B, K).

    Around the cell of a centre the heat is a Gaussian as wide as a sixth of the box (TTFNet, Liu et al. 2019,
    https://arxiv.org/abs/1909.00700). A box whose centre lies beyond the frame is nothing.
    """
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    inside = ((centre > 0) & (centre < 1)).all(-1)
    real, unsure = (kinds >= 0) & inside, kinds == UNSURE
    at = cell_centres(cells, boxes.device)
    snapped = ((centre * cells).floor() + 0.5) / cells
    width = (size / 6).clamp_min(0.45 / cells)
    reach = ((at - snapped[..., None]) / width[..., None]).square()  # (B, K, 2, cells)
    bell = torch.exp(-(reach[:, :, 0, None, :] + reach[:, :, 1, :, None]) / 2) * real[..., None, None]
    heat = boxes.new_zeros(len(boxes), len(KINDS), cells, cells)
    rows = torch.arange(len(boxes), device=boxes.device)
    for k in range(boxes.shape[1]):
        kind = kinds[:, k].clamp_min(0)
        heat[rows, kind] = torch.maximum(heat[rows, kind], bell[:, k])
    weight, owner = bell.max(1)
    within = (at > boxes[..., :2, None]) & (at < boxes[..., 2:, None])
    masked = within[:, :, 0, None, :] & within[:, :, 1, :, None] & unsure[..., None, None]
    return Targets(heat, (~masked.any(1)).float(), owner, weight * (weight > 0.3))


def focal(logits: Tensor, heat: Tensor, learn: Tensor) -> Tensor:
    """The penalty-reduced focal loss of CornerNet (Law & Deng 2018, https://arxiv.org/abs/1808.01244, eq. 1),
    per centre."""
    logits = logits.float()
    p = logits.sigmoid()
    centre = (heat == 1).float()
    hit = centre * (1 - p).square() * F.logsigmoid(logits)
    miss = (1 - heat) ** 4 * p.square() * F.logsigmoid(-logits)
    return -((hit + miss) * learn[:, None]).sum() / centre.sum().clamp_min(1)


def detection_loss(maps: Maps, batch: Batch, weights: OracleLoss) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms for "boxes" (B, K, 4), "kinds", "colours" (B, K) and "setting" (B, 4) of a batch."""
    boxes, cells = batch["boxes"], maps.kinds.shape[-1]
    aim = targets(boxes, batch["kinds"], cells)
    mass = aim.weight.sum().clamp_min(1)
    wanted = batch["colours"].gather(1, aim.owner.flatten(1)).view_as(aim.owner)
    colour = F.cross_entropy(maps.colours.float(), wanted, reduction="none")
    owned = boxes.gather(1, aim.owner.flatten(1)[..., None].expand(-1, -1, 4))
    at = cell_centres(cells, boxes.device)
    here = torch.stack([at.expand(cells, cells), at[:, None].expand(cells, cells)]).flatten(1).T
    distances = torch.cat([here - owned[..., :2], owned[..., 2:] - here], -1).mT.view_as(maps.edges)
    edges = F.smooth_l1_loss(maps.edges, distances, reduction="none", beta=0.02).sum(1)
    setting = maps.kinds.new_zeros((), dtype=torch.float32)
    for k, name in enumerate(SETTING):
        truth = batch["setting"][:, k]
        error = F.cross_entropy(maps.setting[name].float(), truth, ignore_index=-1, reduction="sum")
        setting = setting + error / (truth >= 0).sum().clamp_min(1)
    terms = {
        "kinds": focal(maps.kinds, aim.heat, aim.learn),
        "colours": (colour * aim.weight).sum() / mass,
        "edges": (edges * aim.weight).sum() / mass,
        "setting": setting,
    }
    total = sum((getattr(weights, name) * term for name, term in terms.items()), torch.zeros_like(setting))
    return total, {name: term.detach() for name, term in terms.items()}


class OracleStage:
    """Trains `OracleNetwork` on drawn pictures of every composition: it must judge the held-out ones too."""

    name = "oracle"

    def __init__(self, settings: OracleSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.loop.seed)
        begun = Oracle.load(settings.start_from).network if settings.start_from else None
        self.network = begun or OracleNetwork(settings.network)
        self.networks: dict[str, nn.Module] = {"oracle": self.network}
        self._scenes = [oracle_scene(-1, i) for i in range(settings.unseen)]
        self._unseen = np.stack([render(scene, settings.network.size) for scene in self._scenes])

    def source(self) -> Source:
        s = self.settings
        world = WorldConfig(size=s.network.size)
        return Judged(world, s.loop.seed, s.views, s.spoiled, s.joined, s.mush)

    def shares(self) -> Iterable[Share]:
        return shares_by_shape(self.networks.values())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(batch["boxes"].device.type, enabled=False):
            images, boxes = moved(to_images(batch["pictures"]), batch["boxes"], generator)
            images = degraded(images, generator)
        return detection_loss(self.network(images), {**batch, "boxes": boxes}, self.settings.loss)

    def validate(self) -> dict[str, float]:
        return shares_right(self._judge(), self._scenes)

    def sheet(self) -> Image.Image:
        """Unseen pictures with what the oracle says of them."""
        count = 24
        readings = Oracle(self.network)(self._unseen[:count])
        return annotated(self._unseen[:count], readings)

    def export(self, folder: Path) -> None:
        Oracle(self.network).save(folder / "oracle")

    def _judge(self) -> list[Reading]:
        return Oracle(self.network)(self._unseen)


def shares_right(readings: Sequence[Reading], scenes: Sequence[Scene]) -> dict[str, float]:
    """For each attribute, the share of the pictures that show it where the reading has it right."""
    verdicts = [agreement(reading, scene) for reading, scene in zip(readings, scenes, strict=True)]
    found = {name: [v[name] for v in verdicts if name in v] for name in ATTRIBUTES}
    return {name: sum(right) / max(len(right), 1) for name, right in found.items()}


def annotated(pictures: Pixels, readings: Sequence[Reading]) -> Image.Image:
    """Pictures (N, H, W, 3) enlarged, in rows of six, with boxes and names."""
    side, columns = 220, 6
    tiles = []
    for picture, reading in zip(pictures, readings, strict=True):
        tile = Image.new("RGB", (side, side + 14), "white")
        tile.paste(Image.fromarray(picture).resize((side, side)))
        draw = ImageDraw.Draw(tile)
        for thing in reading.things:
            edges = [v * side for v in (thing.x0, thing.y0, thing.x1, thing.y1)]
            draw.rectangle(edges, outline=(0, 220, 90), width=1)
            draw.text(
                (edges[0] + 2, edges[1] + 1),
                f"{thing.colour} {thing.kind} {thing.confidence:.2f}",
                "white",
                stroke_width=1,
                stroke_fill="black",
            )
        draw.text((0, side + 1), ", ".join(getattr(reading, name).name for name in SETTING), "black")
        tiles.append(tile)
    return sheet(tiles, columns)
