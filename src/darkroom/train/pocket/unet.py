"""The U-Net stage: latents from noise and text, with any process of `darkroom.diffusion`.

Beside the process's own loss the network can be asked on its way, through a small head that is thrown away, which
thing of which colour belongs on each cell of the picture. It is representation alignment (Yu et al. 2024,
https://arxiv.org/abs/2410.06940) with the world's own answers in place of another network's features, and puts the
meaning of counts and positions where attention to the text can place it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.diffusion import (
    Ask,
    ClassifierFree,
    Discrete,
    FlowSchedule,
    NoiseSchedule,
    Run,
    SeededNoise,
    logit_normal,
    min_snr,
    points_for,
    process,
    rows,
    sampler,
    spread,
)
from darkroom.engine import Expert, LatentDiffusion, Placement
from darkroom.files import write_json
from darkroom.generation.path import Turn, path
from darkroom.generation.work import Row, alone
from darkroom.networks import VAE, CLIPText, Conditioning, UNet, UNetConfig
from darkroom.pixels import sheet, to_images
from darkroom.prompt import ClipText, TextConditioner, Tokenizer
from darkroom.train.config import LoopConfig, require
from darkroom.train.feed import Source
from darkroom.train.folders import load_network, save_network, weights_hash
from darkroom.train.loop import Batch, Share, shares_by_shape
from darkroom.train.pocket.data import WorldConfig, generator_at, rendered, scene_at
from darkroom.train.pocket.grow import grown
from darkroom.train.pocket.latents import Latents, Turns
from darkroom.world import COLOURS, KINDS, caption

PROMPTS = (
    *("a red circle", "a photo of a blue boat", "a green tree", "a yellow cat"),
    *("three orange stars", "two purple birds", "four pink mushrooms", "two white cars and a red house"),
    *(
        "a red circle left of a blue square",
        "a black cat right of a pink tree",
        "a yellow star above a green boat",
    ),
    *(
        "a blue bird on a brown house",
        "a sailing boat on the sea at sunset, watercolour",
        "a city at night, neon",
    ),
    *(
        "a majestic mountain landscape at sunset with golden clouds",
        "three red balloons above a blue sea at night",
    ),
)


@dataclass(frozen=True, slots=True)
class UNetLoss:
    """What is predicted and how it weighs.

    process: epsilon, v_prediction, sample or flow. mean, std: where on the schedule it is trained
    most (`logit_normal`); std 0 spreads evenly. min_snr: the gamma of min-SNR weights (0: all alike). cells: the
    weight of naming the cells. dropout: the share of rows without their caption, for guidance.
    """

    process: Literal["epsilon", "v_prediction", "sample", "flow"] = "flow"
    mean: float = 0.0
    std: float = 1.0
    min_snr: float = 0.0
    cells: float = 0.1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(self.std >= 0, "std", self.std, "0 or more")


@dataclass(frozen=True, slots=True)
class UNetSettings:
    """The settings file of this stage.

    vae, clip: folders that those stages wrote. latents: caches, of pictures of any size, whose batches take turns;
    one that is named twice gets two turns of each round. start_from: the folder of a trained U-Net to begin with; one
    of fewer levels than `network` becomes its inner levels (`grown`). text_rate: the text encoder's learning rate as
    a multiple of the U-Net's (0: it stays as it is). guidance, steps, sampler: of the sample sheets.
    """

    network: UNetConfig
    vae: str = "runs/vae/result/vae"
    clip: str = "runs/clip/result"
    latents: tuple[str, ...] = ("runs/latents",)
    start_from: str = ""
    text_rate: float = 0.2
    guidance: float = 4.0
    steps: int = 20
    sampler: str = "dpmpp_2m"
    loop: LoopConfig = field(default_factory=LoopConfig)
    loss: UNetLoss = field(default_factory=UNetLoss)


class CellHead(nn.Sequential):
    """States (B, width, h, w) to scores (B, 19 + 12, h, w): which kind and which colour is there, 0 for none."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.GroupNorm(8, width),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 + len(KINDS) + len(COLOURS), 1),
        )


class UNetStage:
    """Trains `UNet`, and the text encoder with it, on cached latents."""

    name = "unet"

    def __init__(self, settings: UNetSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.loop.seed)
        self.vae = load_network(Path(settings.vae), VAE).eval().requires_grad_(False)
        text = load_network(Path(settings.clip) / "text_encoder", CLIPText)
        text.text_projection, text.config = None, replace(text.config, projection_dim=None)
        self.text = text.requires_grad_(settings.text_rate > 0)
        self.tokenizer = Tokenizer.load(Path(settings.clip) / "tokenizer")
        self.unet = UNet(replace(settings.network, cross_attention_dim=text.config.hidden_size))
        if settings.start_from:
            grown(self.unet, load_network(Path(settings.start_from), UNet))
        self.networks: dict[str, nn.Module] = {"unet": self.unet, "text": self.text}
        self._middle: list[Tensor] = []
        if settings.loss.cells:
            place, width = _at_cells(self.unet)
            self.networks["cells"] = CellHead(width)
            place.register_forward_hook(lambda module, given, made: self._middle.append(made))
        self.process = process(settings.loss.process)
        self.schedule: NoiseSchedule = FlowSchedule() if settings.loss.process == "flow" else Discrete()
        tokenizer, seed = Path(settings.clip) / "tokenizer", settings.loop.seed
        self._data = Turns([Latents.open(Path(folder), tokenizer, seed) for folder in settings.latents])
        self._empty = torch.tensor(self.tokenizer(""))
        self._unseen = self._held_out(64)

    def source(self) -> Source:
        return self._data

    def shares(self) -> Iterable[Share]:
        own = [network for name, network in self.networks.items() if name != "text"]
        return [*shares_by_shape(own), *shares_by_shape([self.text], self.settings.text_rate)]

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        weights, x0 = self.settings.loss, batch["latents"].float()
        device = x0.device
        noise = torch.randn(x0.shape, generator=generator, device=device)
        # Not drawn on the device: reading a number back would make the host wait for it at every step.
        offset = random.Random(generator.initial_seed()).random()
        dropped = torch.rand(len(x0), generator=generator, device=device) < weights.dropout
        ids = torch.where(dropped[:, None], self._empty.to(device), batch["ids"])
        order = torch.randperm(len(x0), generator=generator, device=device)
        error, middle = self._error(x0[order], noise, ids[order], offset)
        parts = {"error": error.mean().detach()}
        loss = error.mean()
        if middle is not None:
            kept = ~dropped[order]
            named = cell_loss(self.networks["cells"](middle), batch["cells"][order], kept)
            parts["cells"] = named.detach()
            loss = loss + weights.cells * named
        return loss, parts

    def _error(self, x0: Tensor, noise: Tensor, ids: Tensor, offset: float) -> tuple[Tensor, Tensor | None]:
        """The weighted squared error of each row, (B,), and the middle's states. Rows are spread over the schedule."""
        weights = self.settings.loss
        shares = spread(offset, len(x0))
        if weights.std:
            shares = [logit_normal(u, weights.mean, weights.std) for u in shares]
        points = [self.schedule.drawn(share) for share in shares]
        at = rows(points, x0)
        x, time = self.process.network_input(at.alpha * x0 + at.sigma * noise, at)
        self._middle.clear()
        output = self.unet(x, time, Conditioning(self._context(ids))).float()
        error = (output - self.process.target(x0, noise, at)).square().mean((1, 2, 3))
        if weights.min_snr:
            error = error * error.new_tensor([min_snr(self.process, p, weights.min_snr) for p in points])
        return error, self._middle.pop() if self._middle else None

    def _context(self, ids: Tensor) -> Tensor:
        with nullcontext() if self.settings.text_rate else torch.no_grad():
            return self.text(ids).last  # type: ignore[no-any-return]

    def validate(self) -> dict[str, float]:
        latents, ids, noise = (each.to(self._device) for each in self._unseen)
        found = [
            self._error(latents, noise, ids, offset)[0].mean().item() for offset in (0.1, 0.35, 0.6, 0.85)
        ]
        return {"error": sum(found) / len(found)}

    def sheet(self) -> Image.Image:
        pictures = self.draw(PROMPTS, range(1, len(PROMPTS) + 1))
        return sheet(list(pictures), columns=4, gap=2)

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Pictures (N, H, W, 3) uint8 of prompts, by the settings' sampler and guidance, on the way that everybody's
        pictures take."""
        settings, device = self.settings, self._device
        text = TextConditioner([ClipText(self.tokenizer, self.text)], device=device)
        placement = Placement(device, torch.float32, "where it is trained")
        networks = LatentDiffusion((Expert(text, self.unet),), self.vae.to(device), placement)
        told = {"negative": text([""] * len(prompts)), "positive": text(prompts)}

        def asked(ask: Ask, x: Tensor, time: float) -> list[Row]:
            self._middle.clear()
            return [
                Row(own, time, each) for own, each in zip(torch.split(x, 1), told[ask.prompt], strict=True)
            ]

        shape = self._unseen[0].shape[1:]
        points = points_for(self.schedule, settings.steps, settings.sampler)
        run = Run(points[0].sigma * torch.stack([SeededNoise(seed, shape)(0) for seed in seeds]))
        turn = Turn(self.process, ClassifierFree(settings.guidance), asked)
        alone(path(sampler(settings.sampler), run, points, lambda x, point: [turn]), networks)
        return np.stack([networks.decode(latent) for latent in torch.split(run.x, 1)])

    def export(self, folder: Path) -> None:
        save_network(folder / "unet", self.unet)
        save_network(folder / "text_encoder", self.text)
        self.tokenizer.save(folder / "tokenizer")
        settings = self.settings
        write_json(
            folder / "trained.json",
            {
                "process": settings.loss.process,
                "guidance": settings.guidance,
                "sampler": settings.sampler,
                "steps": settings.steps,
                "vae": weights_hash(Path(settings.vae)),
            },
        )

    @property
    def _device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @torch.no_grad()
    def _held_out(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, ids and noise of scenes that are never trained on, half of them simple ones."""
        scenes = [scene_at(WorldConfig(core=0.5), -5, i, "held_out") for i in range(count)]
        pictures = torch.from_numpy(rendered(scenes, self.unet.config.sample_size * self.vae.config.factor))
        latents = torch.cat(
            [self.vae.to_latent(to_images(part)) for part in torch.split(pictures, 16)]
        ).float()
        ids = [self.tokenizer(caption(scene, generator_at("unseen", i))) for i, scene in enumerate(scenes)]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        return latents, torch.tensor(ids), noise


def _at_cells(unet: UNet) -> tuple[nn.Module, int]:
    """The block after which the states of the network are as fine as the cells, half as fine as latents, and their
    width."""
    widths = unet.config.block_out_channels
    if len(widths) < 3:
        return cast(nn.Module, unet.mid_block), widths[-1]
    return unet.up_blocks[-3], widths[2]


def cell_loss(scores: Tensor, cells: Tensor, kept: Tensor) -> Tensor:
    """Cross-entropy of kind and colour on every cell, over the rows that had their caption.

    scores (B, 31, h, w); cells (B, 2, h, w) as `labels.cells` gives them; kept (B,) of bool.
    """
    kinds, colours = torch.split(scores.float(), [1 + len(KINDS), 1 + len(COLOURS)], dim=1)
    wanted = cells.long()
    each = F.cross_entropy(kinds, wanted[:, 0], reduction="none") + F.cross_entropy(
        colours, wanted[:, 1], reduction="none"
    )
    return (each.mean((1, 2)) * kept).sum() / kept.sum().clamp_min(1)
