"""The oracle judged: how it fares on drawn pictures, of which everything is known."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from darkroom.errors import InvalidRequest
from darkroom.evaluation.benchmark import TASKS, Prompt, prompts
from darkroom.evaluation.scores import Score, breakdown, columns, percent
from darkroom.generation.frames import continued
from darkroom.oracle.judging import ATTRIBUTES, Expectation, Reading, Wanted, agreement, satisfies
from darkroom.oracle.judging import truth as perfect
from darkroom.oracle.oracle import LONGEST, Oracle
from darkroom.world.render import render
from darkroom.world.sampling import sample_scene, variants
from darkroom.world.scene import COLOURS, PLACES, STYLES, Group, Scene


def scene_for(prompt: Prompt, rng: random.Random, core: bool = False) -> Scene:
    """A random scene that a picture of the prompt may show: what is asked for, the rest at random."""
    wanted = prompt.expectation
    while True:
        scene = sample_scene(rng, split="any", core=core)
        changes: dict[str, Any] = {n: getattr(wanted, n) for n in ("place", "time", "weather", "style")}
        changes = {name: value for name, value in changes.items() if value}
        if wanted.things:
            changes |= {
                "groups": tuple(_group(each, rng) for each in wanted.things),
                "relation": wanted.relation,
            }
        try:
            scene = replace(scene, **changes)
        except InvalidRequest:
            continue  # The plain place has neither time nor weather, and no landscape.
        if satisfies(perfect(scene), wanted):
            return scene


def _group(wanted: Wanted, rng: random.Random) -> Group:
    return Group(wanted.kind, wanted.colour or rng.choice(COLOURS), wanted.count)


def readings(
    oracle: Oracle, scenes: Iterable[Scene], batch: int = 64, aspect: float = 1.0
) -> Iterator[Reading]:
    """What the oracle says of each scene when it is rendered. Pictures that are not squares but `aspect` times as wide
    as high are squares continued: the world draws no others."""
    waiting, side = list(scenes), oracle.config.size
    aspect = min(max(aspect, 1 / LONGEST), LONGEST)
    width, height = round(side * max(aspect, 1)), round(side / min(aspect, 1))
    for start in range(0, len(waiting), batch):
        part = [render(scene, side) for scene in waiting[start : start + batch]]
        if aspect != 1:
            part = [continued(picture, width, height) for picture in part]
        yield from oracle(np.stack(part))


def ceiling(
    oracle: Oracle, asked: Sequence[Prompt], core: bool = False, seed: int = 0, aspect: float = 1.0
) -> Score:
    """How often the oracle passes pictures that are right: drawn ones, of scenes that satisfy the prompts, `aspect`
    times as wide as high."""
    rng = random.Random(f"ceiling {seed}")
    scenes = [scene_for(prompt, rng, core) for prompt in asked]
    seen = readings(oracle, scenes, aspect=aspect)
    return Score.of(satisfies(r, prompt.expectation) for r, prompt in zip(seen, asked, strict=True))


def refusals(oracle: Oracle, asked: Sequence[Prompt], seed: int = 0) -> Score:
    """How often the oracle refuses pictures that are wrong: drawn ones, of scenes that differ from right
    ones in a single respect (a colour, the count, the relation, things exchanged ...), so that the prompt
    does not hold."""
    rng = random.Random(f"refusals {seed}")
    wrong: list[tuple[Scene, Expectation]] = []
    for prompt in asked:
        others = variants(scene_for(prompt, rng), rng)
        failing = [scene for scene in others if not satisfies(perfect(scene), prompt.expectation)]
        if failing:
            wrong.append((failing[0], prompt.expectation))
    seen = readings(oracle, [scene for scene, _ in wrong])
    return Score.of(not satisfies(r, wanted) for r, (_, wanted) in zip(seen, wrong, strict=True))


@dataclass(frozen=True)
class Report:
    """`attributes`: right answers on drawn pictures, for each group of pictures ("all", each style, each
    place); `passed` and `refused`: for each task, right pictures passed and wrong ones refused."""

    oracle: str
    attributes: dict[str, dict[str, Score]]
    passed: dict[str, Score]
    refused: dict[str, Score]

    def table(self) -> str:
        """For people: percentages."""
        tasks: list[Sequence[str]] = [["task", "right pictures passed", "wrong pictures refused"], []]
        tasks += [[task, percent(self.passed[task]), percent(self.refused[task])] for task in self.passed]
        return breakdown("right answers, %", self.attributes, ATTRIBUTES) + "\n\n" + columns(tasks)

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        groups = {g: {a: s.to_dict() for a, s in found.items()} for g, found in self.attributes.items()}
        tasks = {
            t: {"passed": s.to_dict(), "refused": self.refused[t].to_dict()} for t, s in self.passed.items()
        }
        return {"oracle": self.oracle, "attributes": groups, "tasks": tasks}


def report(oracle: Oracle, count: int = 2000, per_task: int = 200, seed: int = 0) -> Report:
    """The oracle on `count` unseen drawn pictures of all styles and places, and on `per_task` pictures a
    task."""
    rng = random.Random(f"truth {seed}")
    scenes = [replace(sample_scene(rng, split="any"), style=STYLES[i % len(STYLES)]) for i in range(count)]
    verdicts = [agreement(r, s) for r, s in zip(readings(oracle, scenes), scenes, strict=True)]
    groups = {"all": verdicts}
    for style in STYLES:
        groups[style] = [v for v, s in zip(verdicts, scenes, strict=True) if s.style == style]
    for place in PLACES:
        groups[place] = [v for v, s in zip(verdicts, scenes, strict=True) if s.place == place]
    attributes = {
        name: {a: Score.of(v[a] for v in found if a in v) for a in ATTRIBUTES}
        for name, found in groups.items()
    }
    asked = {task: prompts(task, per_task, seed) for task in TASKS}
    passed = {task: ceiling(oracle, each, seed=seed) for task, each in asked.items()}
    refused = {task: refusals(oracle, each, seed) for task, each in asked.items()}
    return Report(oracle.hash, attributes, passed, refused)
