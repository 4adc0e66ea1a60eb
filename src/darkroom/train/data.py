"""Drawn pictures as training data. Sample i is a pure function of (seed, i). No torch is imported here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from darkroom.train.config import WorldConfig
from darkroom.train.feed import Arrays
from darkroom.world import MIX, STYLES, Scene, render, sample_scene


def generator_at(*numbers: int | str) -> random.Random:
    """A generator of its own for each sequence of numbers."""
    return random.Random("/".join(map(str, numbers)))


def scene_at(world: WorldConfig, seed: int, i: int, split: str = "train") -> Scene:
    """Scene i of the world that the settings describe."""
    rng = generator_at("scene", seed, i)
    core = rng.random() < world.core
    return sample_scene(rng, split=split, core=core, mix=world.mix if any(world.mix.values()) else MIX)


def scenes_by_style(world: WorldConfig, count: int, split: str = "held_out") -> dict[str, list[Scene]]:
    """The first `count` scenes of each style, never trained on."""
    found: dict[str, list[Scene]] = {style: [] for style in STYLES}
    i = 0
    while any(len(scenes) < count for scenes in found.values()):
        scene = scene_at(world, -1, i, split)
        if len(found[scene.style]) < count:
            found[scene.style].append(scene)
        i += 1
    return found


def rendered(scenes: Sequence[Scene], size: int) -> NDArray[np.uint8]:
    """(N, size, size, 3) uint8."""
    return np.stack([render(scene, size=size) for scene in scenes])


@dataclass(frozen=True)
class Pictures:
    """Rendered scenes alone: {"pictures": (N, size, size, 3) uint8}."""

    world: WorldConfig
    seed: int

    def __call__(self, start: int, count: int) -> Arrays:
        scenes = [scene_at(self.world, self.seed, i) for i in range(start, start + count)]
        return {"pictures": rendered(scenes, self.world.size)}
