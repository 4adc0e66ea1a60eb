"""A pair of CLIP encoders as a judge: how near a picture lies to a text in the space that both share (Radford et al.
2021, https://arxiv.org/abs/2103.00020; as a score of pictures: Hessel et al. 2021, https://arxiv.org/abs/2104.08718).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from darkroom.checkpoint.beside import held_at
from darkroom.checkpoint.components import CLIP_TEXT, CLIP_VISION, HUGGING_FACE, ORIGINAL
from darkroom.checkpoint.components.component import Names
from darkroom.checkpoint.folder import component_at
from darkroom.checkpoint.infer import Found, within
from darkroom.checkpoint.load import Reader
from darkroom.checkpoint.settings import read_json
from darkroom.checkpoint.single_file import Holding
from darkroom.checkpoint.source import Part, part_of
from darkroom.engine.looking import clip_pixels
from darkroom.errors import GenerationError, ModelError
from darkroom.library.locate import name_of
from darkroom.networks.clip import CLIPText, CLIPVision
from darkroom.networks.roles import Role
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.ranking.judge import Interrogation, Judgement, Phrase
from darkroom.ranking.phrases import PHRASES, Phrases
from darkroom.weights.mapped import WeightsFile

_VISION = Role.IMAGE_ENCODER
_OPENCLIP = "visual."
"""Where OpenCLIP's whole models keep their picture's side."""
_SHARP = 100.0
"""By how much CLIP's models multiply likeness before it is a share of all (their `logit_scale`, at its limit)."""
_ROUNDS, _TRIED, _GAIN = 8, 6, 2e-3
"""How many phrases a prompt has at most, how many of each sort are tried, and how much nearer one has to bring it."""
_BATCH = 64


@dataclass(frozen=True)
class Pair:
    """Encoders of texts and of pictures that share a space."""

    tokenizer: Tokenizer
    text: CLIPText
    vision: CLIPVision

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, P) on the CPU. Of a text that is longer than the encoder reads at once, the mean of what
        its parts are."""
        room = self.text.config.max_position_embeddings - 2
        parts = [_parts(self.tokenizer.encode(text), room) for text in texts]
        rows = [ids for each in parts for ids in each]
        found = torch.empty(len(rows), self.text.config.projection_dim or 0)
        # What follows the end mark changes nothing before it: short texts are read as short ones.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            longest = max(len(rows[i]) for i in batch) + 2
            ids = torch.tensor([self.tokenizer.framed(rows[i])[:longest] for i in batch])
            projected = self.text(ids.to(_device(self.text))).projected
            assert projected is not None
            found[batch] = F.normalize(projected.float(), dim=-1).cpu()
        vectors = torch.split(found, [len(each) for each in parts])
        return _numbers(torch.stack([each.mean(0) for each in vectors]))

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors (N, P) on the CPU, of pictures in RGB."""
        found = []
        for picture in pictures:
            seen = clip_pixels(np.asarray(picture), self.vision.config.image_size)
            projected = self.vision(seen.to(_device(self.vision))).projected
            assert projected is not None
            found.append(_numbers(projected.float().cpu()))
        return torch.cat(found)


def _numbers(vectors: Tensor) -> Tensor:
    """Vectors (N, P) as unit vectors. Raises GenerationError where they are no numbers."""
    if not bool(vectors.isfinite().all()):
        raise GenerationError(
            "the judge's encoders make no numbers: its files are damaged, give another (`judge=`)"
        )
    return F.normalize(vectors, dim=-1)


def _device(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device


def _parts(ids: Sequence[int], room: int) -> list[Sequence[int]]:
    return [ids[at : at + room] for at in range(0, max(len(ids), 1), room)]


class ClipJudge:
    """Judges pictures by how near they are to a prompt (`darkroom.ranking.judge.Judge`): scores are cosines."""

    def __init__(self, name: str, path: Path, pair: Pair) -> None:
        self.name, self.path, self.pair = name, path, pair

    def asked(self, prompt: str, negative: str) -> _Asked:
        """Ready to judge pictures of a prompt. What is not to be there it cannot tell."""
        return _Asked(self.pair, self.pair.texts([prompt])[0])

    def interrogate(
        self, picture: Image.Image, phrases: Mapping[str, Phrases] | None = None
    ) -> Interrogation:
        """A prompt of phrases, by what they are about: what comes nearest to the picture of the first sort, and then
        whatever brings the whole nearer. `score` of a phrase is its share among those of its sort."""
        sorts = phrases or PHRASES
        (seen,) = self.pair.pictures([picture])
        ranked = {about: self._ranked(seen, each.texts, about) for about, each in sorts.items()}
        first, *_ = ranked
        chosen = [ranked[first][0]]
        nearness = self._nearness(seen, [chosen[0].text])[0]
        while len(chosen) < _ROUNDS:
            taken = Counter(each.about for each in chosen)
            tried = [
                each
                for about, several in ranked.items()
                if taken[about] < sorts[about].most
                for each in [one for one in several if one not in chosen][:_TRIED]
            ]
            if not tried:
                break
            prompts = [", ".join(part.text for part in (*chosen, each)) for each in tried]
            near = self._nearness(seen, prompts)
            best = max(range(len(tried)), key=near.__getitem__)
            if near[best] < nearness + _GAIN:
                break
            chosen.append(tried[best])
            nearness = near[best]
        others = [each for several in ranked.values() for each in several[:3] if each not in chosen]
        return Interrogation(", ".join(each.text for each in chosen), tuple(chosen), tuple(others))

    def _nearness(self, seen: Tensor, texts: Sequence[str]) -> list[float]:
        near: list[float] = (self.pair.texts(texts) @ seen).tolist()
        return near

    def _ranked(self, seen: Tensor, phrases: Sequence[str], about: str) -> list[Phrase]:
        shares = (_SHARP * torch.tensor(self._nearness(seen, phrases))).softmax(0).tolist()
        found = [Phrase(text, share, about) for text, share in zip(phrases, shares, strict=True)]
        return sorted(found, key=lambda each: -each.score)


@dataclass(frozen=True)
class _Asked:
    pair: Pair
    text: Tensor
    notes: tuple[str, ...] = ()

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Judgement]:
        return [Judgement(score) for score in (self.pair.pictures(pictures) @ self.text).tolist()]


def clip_judge(paths: Sequence[Path], device: torch.device) -> ClipJudge:
    """The judge of the first encoders of pictures and of texts, in these files or folders, that share a space. In
    float32: what ranks pictures is in the third digit. Raises ModelError where there are no two."""
    with ExitStack() as opened:
        held = [_held(path, opened) for path in paths]
        pair = _matching(paths[0], held)
        vision, text = (Reader(part, device, torch.float32).fill() for part in pair[:2])
        assert isinstance(vision, CLIPVision) and isinstance(text, CLIPText)
        return ClipJudge(name_of(paths[0]), paths[0], Pair(pair[2], text, vision))


def _held(path: Path, opened: ExitStack) -> Holding:
    """The networks of a file or folder; of a whole CLIP both sides, where elsewhere the text's alone is of use."""
    held = held_at(path, None, opened)
    texts = [part for part in held.parts if part.component is CLIP_TEXT]
    if held.weights is None or not texts or any(part.component is CLIP_VISION for part in held.parts):
        return held
    config, start = path / "config.json", texts[0].prefix
    if path.is_dir() and config.is_file() and "vision_config" in read_json(config):
        vision = component_at(_VISION, path, CLIP_VISION, held.weights)
    elif f"{start}{_OPENCLIP}conv1.weight" in held.shapes:
        vision = _part(held.weights, start + _OPENCLIP, ORIGINAL)
    elif f"{start}vision_model.embeddings.class_embedding" in held.shapes:
        vision = _part(held.weights, start, HUGGING_FACE)
    else:
        return held
    if vision.described is None:  # Both sides of one were trained with the same.
        vision = replace(vision, config=replace(vision.config, hidden_act=texts[0].config.hidden_act))
    return replace(held, parts=[*held.parts, vision])


def _part(weights: WeightsFile, prefix: str, layout: str) -> Part:
    found = Found(CLIP_VISION, prefix, layout, Names(within(weights.shapes, prefix)))
    return part_of(_VISION, found, weights)


def _matching(path: Path, held: Sequence[Holding]) -> tuple[Part, Part, Tokenizer]:
    visions = [part for each in held for part in each.parts if part.component is CLIP_VISION]
    texts = [(each, part) for each in held for part in each.parts if part.component is CLIP_TEXT]
    for vision in visions:
        for each, text in texts:
            width = vision.config.projection_dim
            if width is not None and width == text.config.projection_dim:
                return vision, text, _tokenizer(each, text)
    lacks = "holds no encoder of pictures"
    if visions:
        lacks = "has an encoder of pictures, and no text encoder with a projection into the same space"
    raise ModelError(
        f"{path} {lacks}: give as judge the folder or file of a whole CLIP, with both of its sides (`judge=`)"
    )


def _tokenizer(held: Holding, text: Part) -> Tokenizer:
    own = held.tokenizers.get(text.role)
    return Tokenizer.load(own) if isinstance(own, Path) else own or Tokenizer.clip()
