"""The CLIP stage: a text encoder and an image encoder that agree on what a caption says of a picture.

A contrastive loss alone (Radford et al. 2021, https://arxiv.org/abs/2103.00020) learns a bag of words, even with
negatives that swap colours, counts and sides (Yuksekgonul et al. 2023, https://arxiv.org/abs/2210.01936). As the
world knows every answer, both encoders are also read out: a `Reader` asks their tokens, by attention as a U-Net does,
what is there, how many, in which colour and where.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks import CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from darkroom.networks.layers import attend, merge_heads, split_heads
from darkroom.pixels import to_images
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.train.config import LoopConfig
from darkroom.train.feed import Arrays, Source
from darkroom.train.folders import save_network
from darkroom.train.loop import Batch, Share, shares_by_shape
from darkroom.train.pocket.data import WorldConfig, generator_at, rendered, scene_at
from darkroom.train.pocket.labels import COUNTS, ROLES, SETTING, UNKNOWN, stacked
from darkroom.world import COLOURS, KINDS, Scene, caption, variants


@dataclass(frozen=True, slots=True)
class CLIPData:
    """vocabulary: tokens at most; negatives: captions per picture that are wrong in one respect; texts: further
    captions per step without a picture."""

    vocabulary: int = 2048
    negatives: int = 2
    texts: int = 96


@dataclass(frozen=True, slots=True)
class CLIPLoss:
    """The weights of the terms: contrastive, and what is read from the text's and from the picture's tokens.
    With both of the picture's at 0 no picture is drawn."""

    contrast: float = 1.0
    text: float = 1.0
    picture: float = 1.0


@dataclass(frozen=True, slots=True)
class CLIPSettings:
    """The settings file of this stage. The text encoder's token numbers come from the vocabulary."""

    text: CLIPTextConfig
    vision: CLIPVisionConfig
    loop: LoopConfig = field(default_factory=LoopConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    data: CLIPData = field(default_factory=CLIPData)
    loss: CLIPLoss = field(default_factory=CLIPLoss)


@cache
def world_tokenizer(size: int, captions: int = 20000) -> Tokenizer:
    """The vocabulary of the world's captions; always the same for the same size."""
    world = WorldConfig()
    texts = (caption(scene_at(world, -3, i, "any"), generator_at("vocabulary", i)) for i in range(captions))
    return Tokenizer.train(texts, size)


@dataclass(frozen=True)
class Captions:
    """Pictures with captions right and wrong, and what the captions say.

    {"pictures": (N, size, size, 3), "ids": (M, T), "kinds", "colours", "setting": rows of `labels`}: the first N of
    the M texts tell the pictures, the next `negatives` * N, picture by picture, are wrong about them, the others are of
    scenes of their own. T is the longest text's length: what comes after cannot change a causal encoder's states.
    """

    world: WorldConfig
    seed: int
    vocabulary: int
    negatives: int
    texts: int
    split: str = "train"
    pictured: bool = True

    def __call__(self, start: int, count: int) -> Arrays:
        scenes = [scene_at(self.world, self.seed, i, self.split) for i in range(start, start + count)]
        wrong = [other for i, scene in enumerate(scenes, start) for other in self._wrong(scene, i)]
        more = [
            scene_at(self.world, self.seed + 1, start * self.texts + i, self.split) for i in range(self.texts)
        ]
        told = [*scenes, *wrong, *more]
        texts = [caption(scene, generator_at("caption", self.seed, start, i)) for i, scene in enumerate(told)]
        tokenizer = world_tokenizer(self.vocabulary)
        ids = np.array([tokenizer(text) for text in texts], np.int64)
        longest = int((ids != tokenizer.end).sum(1).max()) + 2
        told_in_words = {"ids": ids[:, :longest], **stacked(told)}
        return told_in_words | ({"pictures": rendered(scenes, self.world.size)} if self.pictured else {})

    def _wrong(self, scene: Scene, i: int) -> list[Scene]:
        """Scenes with other things, or things elsewhere: a caption always tells those. A landscape has others."""
        rng = generator_at("wrong", self.seed, i)
        found = [v for v in variants(scene, rng) if (v.groups, v.relation) != (scene.groups, scene.relation)]
        while len(found) < self.negatives:
            found.append(scene_at(self.world, self.seed + 2, rng.getrandbits(40), self.split))
        return found[: self.negatives]


class Reader(nn.Module):
    """What tokens (B, T, width) say, by one attention layer whose queries are the world's names.

    Returns scores by name: "kinds" (B, 18, 5 + 11 + 7): how many, colour, role; "colours" (B, 11, 5 + 18 + 7): how
    many, kind, role; and place, time, weather, style, clouds.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Parameter(torch.randn(len(KINDS) + len(COLOURS) + len(SETTING), width) * 0.5)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width)
        )
        self.kinds = nn.Linear(width, COUNTS + len(COLOURS) + len(ROLES))
        self.colours = nn.Linear(width, COUNTS + len(KINDS) + len(ROLES))
        self.setting = nn.ModuleDict({name: nn.Linear(width, len(names)) for name, names in SETTING.items()})

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        tokens = self.norm(tokens)
        queries = self.queries.expand(len(tokens), -1, -1)
        q, k, v = (split_heads(x, self.heads) for x in (queries, self.key(tokens), self.value(tokens)))
        answers = self.out(queries + merge_heads(attend(q.to(k.dtype), k, v)))
        kinds, colours, setting = torch.split(answers, [len(KINDS), len(COLOURS), len(SETTING)], dim=1)
        by_name = {name: head(setting[:, i]) for i, (name, head) in enumerate(self.setting.items())}
        return {"kinds": self.kinds(kinds), "colours": self.colours(colours), **by_name}


def reading_loss(scores: dict[str, Tensor], truth: Batch) -> Tensor:
    """The mean cross-entropy of every question, asked of all names for counts and of those present for the rest."""
    losses = [_entropy(scores[name], truth["setting"][:, i]) for i, name in enumerate(SETTING)]
    for name, others in (("kinds", COLOURS), ("colours", KINDS)):
        parts = torch.split(scores[name], [COUNTS, len(others), len(ROLES)], dim=-1)
        losses += [_entropy(part, truth[name][..., i]) * (4 if i == 0 else 1) for i, part in enumerate(parts)]
    return torch.stack(losses).mean()


def _entropy(scores: Tensor, truth: Tensor) -> Tensor:
    flat, wanted = scores.float().flatten(0, -2), truth.flatten().long()
    total = F.cross_entropy(flat, wanted, ignore_index=UNKNOWN, reduction="sum")
    return total / (wanted != UNKNOWN).sum().clamp_min(1)


def reading_accuracy(scores: dict[str, Tensor], truth: Batch) -> dict[str, float]:
    """The share answered right, of the kinds that are there and of what the setting is."""
    found = {}
    parts = torch.split(scores["kinds"], [COUNTS, len(COLOURS), len(ROLES)], dim=-1)
    there = truth["kinds"][..., 0] > 0
    for name, part, wanted in zip(("count", "colour", "role"), parts, truth["kinds"].unbind(-1), strict=True):
        asked = there & (wanted != UNKNOWN)
        found[name] = (part.argmax(-1) == wanted)[asked].float().mean().item()
    for i, name in enumerate(SETTING):
        wanted = truth["setting"][:, i]
        found[name] = (scores[name].argmax(-1) == wanted)[wanted != UNKNOWN].float().mean().item()
    return found


class Meeting(nn.Module):
    """The readers of both encoders, and the temperature of the contrastive loss."""

    def __init__(self, text_width: int, vision_width: int) -> None:
        super().__init__()
        self.text = Reader(text_width)
        self.vision = Reader(vision_width)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


class CLIPStage:
    """Trains `CLIPText` and `CLIPVision` together."""

    name = "clip"

    def __init__(self, settings: CLIPSettings) -> None:
        data, loop = settings.data, settings.loop
        self.settings = settings
        self.tokenizer = world_tokenizer(data.vocabulary)
        torch.manual_seed(loop.seed)
        words = len(self.tokenizer.vocabulary)
        self.text = CLIPText(replace(settings.text, vocab_size=words, eos_token_id=self.tokenizer.end))
        self.vision = CLIPVision(settings.vision)
        self.meeting = Meeting(settings.text.hidden_size, settings.vision.hidden_size)
        self.networks: dict[str, nn.Module] = {
            "text": self.text,
            "vision": self.vision,
            "meeting": self.meeting,
        }
        weights = settings.loss
        self._source = Captions(
            *(settings.world, loop.seed, data.vocabulary, data.negatives, data.texts),
            pictured=bool(weights.contrast or weights.picture),
        )
        unseen = replace(self._source, seed=-10, split="held_out", texts=0, pictured=True)
        self._unseen = {name: torch.from_numpy(value) for name, value in unseen(0, 192).items()}

    def source(self) -> Source:
        return self._source

    def shares(self) -> Iterable[Share]:
        return shares_by_shape(self.networks.values())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.settings.loss
        texts = self.text(batch["ids"])
        read = reading_loss(self.meeting.text(texts.last), batch)
        if "pictures" not in batch:
            return weights.text * read, {"text": read.detach()}
        pictures = self.vision(normalised(batch["pictures"]))
        count = len(batch["pictures"])
        pictured = {name: batch[name][:count] for name in ("kinds", "colours", "setting")}
        seen = reading_loss(self.meeting.vision(pictures.last), pictured)
        told = texts.projected[: count * (1 + self.settings.data.negatives)]
        contrast = contrastive(pictures.projected, told, self.meeting.scale)
        loss = weights.contrast * contrast + weights.text * read + weights.picture * seen
        return loss, {"contrast": contrast.detach(), "text": read.detach(), "picture": seen.detach()}

    def validate(self) -> dict[str, float]:
        batch = {name: value.to(self.meeting.scale.device) for name, value in self._unseen.items()}
        count = len(batch["pictures"])
        texts, pictures = self.text(batch["ids"]), self.vision(normalised(batch["pictures"]))
        pictured = {name: batch[name][:count] for name in ("kinds", "colours", "setting")}
        found = {f"text {k}": v for k, v in reading_accuracy(self.meeting.text(texts.last), batch).items()}
        seen = reading_accuracy(self.meeting.vision(pictures.last), pictured)
        found |= {f"picture {k}": v for k, v in seen.items()}
        own = F.cosine_similarity(pictures.projected[:, None], self._grouped(texts.projected, count), dim=-1)
        return {"right of wrong": (own.argmax(1) == 0).float().mean().item()} | found

    def sheet(self) -> Image.Image:
        """The curves tell this stage; the picture lists what was found on unseen scenes."""
        image = Image.new("RGB", (360, 360), "white")
        lines = [f"{name:20} {value:.3f}" for name, value in self.validate().items()]
        ImageDraw.Draw(image).text((10, 10), "\n".join(lines), fill="black")
        return image

    def export(self, folder: Path) -> None:
        save_network(folder / "text_encoder", self.text)
        save_network(folder / "image_encoder", self.vision)
        self.tokenizer.save(folder / "tokenizer")

    def _grouped(self, texts: Tensor, count: int) -> Tensor:
        """Texts by picture, the right one first: (count, 1 + negatives, P)."""
        return torch.cat([texts[:count, None], texts[count:].view(count, -1, texts.shape[1])], dim=1)


def normalised(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to what CLIP's image encoders take: (N, 3, H, W) of mean 0 and variance about 1."""
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073), device=pictures.device)[:, None, None]
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711), device=pictures.device)[:, None, None]
    return ((to_images(pictures) + 1) / 2 - mean) / std


def contrastive(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """The symmetric cross-entropy of Radford et al. 2021, figure 3. pictures (N, P); texts (M, P), of which the
    first N are theirs and the others nobody's, against which pictures are told apart too."""
    pictures, texts = F.normalize(pictures.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    scores = scale.exp().clamp(max=100) * pictures @ texts.T
    own = torch.arange(len(pictures), device=pictures.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores[:, : len(pictures)].T, own)) / 2
