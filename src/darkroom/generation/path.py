"""The way from noise to a picture: what a sampler asks becomes network calls, and their outputs its answers.

The only place where a sampler is driven. What is asked of whom at a step is a function of that step (`Turn`), so that
prompts, adapters, guidance and experts may come and go on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.diffusion import (
    Ask,
    Estimate,
    Guidance,
    Point,
    Points,
    Process,
    Question,
    Run,
    Sampler,
    estimate,
)
from darkroom.generation.ensemble import averaged
from darkroom.generation.tiles import Tiles
from darkroom.generation.work import Denoise, Row, Work


@dataclass(frozen=True)
class Turn:
    """An expert's turn in answering a question of a sampler: by which guidance, and its share of the answer.

    rows: the rows that one of the guidance's asks comes to, given the network's input x (n, C, h, w) and its time: one
    for each picture. step, of steps: where the question stands for what goes by steps. expert: whose memory it is.
    tiles: those in which the network sees the pictures, if that is not as a whole.
    """

    process: Process
    guidance: Guidance
    rows: Callable[[Ask, Tensor, float], Sequence[Row]]
    step: int = 0
    steps: int = 1
    expert: int = 0
    share: float = 1.0
    tiles: Tiles | None = None


def path(
    sampler: Sampler,
    run: Run,
    points: Points,
    turns: Callable[[Tensor, Point], Sequence[Turn]],
    answered: Callable[[Estimate], Estimate] = lambda answer: answer,
) -> Generator[Work, Any, None]:
    """Go from the run's x, pictures (n, C, h, w) at the first of the points that are left, to the last, in run.x.

    `turns` says who answers a sampler's question (x, point); where nobody does, the way ends there. What is `answered`
    may be changed before the sampler is told.
    """
    asked = sampler(run, points)
    question = _sent(asked, None)
    while question is not None and (shared := turns(*question)):
        answers = []
        for turn in shared:
            answers.append(((yield from _taken(turn, *question, run)), turn.share))
        run.calls += 1
        question = _sent(asked, answered(averaged(answers)))


def _sent(asked: Generator[Any, Any, None], answer: Estimate | None) -> tuple[Tensor, Point] | None:
    """A sampler's next question; None where it has none left."""
    try:
        question: tuple[Tensor, Point] = asked.send(answer)
        return question
    except StopIteration:
        return None


def _taken(turn: Turn, x: Tensor, point: Point, run: Run) -> Generator[Work, Any, Estimate]:
    """An expert's answer."""
    memory = run.memory.setdefault(f"guidance {turn.expert}", {})
    question = Question(x, point, turn.process, turn.step, turn.steps, memory)
    given, time = turn.process.network_input(x, point)
    by_ask = [turn.rows(ask, given, time) for ask in turn.guidance.rows(question)]
    # The rows of a picture side by side: where calls are small, they are in one.
    outputs = yield from _denoised(tuple(itertools.chain(*zip(*by_ask, strict=True))), turn.tiles)
    parts = [torch.cat(outputs[number :: len(by_ask)]) for number in range(len(by_ask))]
    return estimate(turn.guidance, parts, question)


def _denoised(rows: Sequence[Row], tiles: Tiles | None) -> Generator[Work, Any, list[Tensor]]:
    """What a network says of each row, whole or in tiles."""
    if tiles is None:
        outputs: list[Tensor] = yield Denoise(tuple(rows))
        return outputs
    parts = [tiles.cut(row) for row in rows]
    made = iter((yield Denoise(tuple(itertools.chain(*parts)))))
    return [tiles.joined(list(itertools.islice(made, len(each)))) for each in parts]
