"""Drawn pictures as training data. Sample i is a pure function of (seed, i). No torch is imported here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from darkroom.train.config import require
from darkroom.train.feed import Arrays
from darkroom.world import MIX, STYLES, Scene, render, sample_scene


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Which drawn pictures are trained on.

    size: side in pixels; core: the share drawn from the simple part of the world; mix: how landscapes,
    single things, counting, two things and positions are weighed (all zero: the world's own mix).
    """

    size: int = 128
    core: float = 0.0
    landscape: float = 0.0
    single: float = 0.0
    counting: float = 0.0
    two: float = 0.0
    position: float = 0.0

    def __post_init__(self) -> None:
        require(self.size > 0 and self.size % 8 == 0, "size", self.size, "a multiple of 8")
        require(0 <= self.core <= 1, "core", self.core, "between 0 and 1")
        require(all(share >= 0 for share in self.mix.values()), "mix", self.mix, "0 or more each")

    @property
    def mix(self) -> dict[str, float]:
        names = ("landscape", "single", "counting", "two", "position")
        return {name: getattr(self, name) for name in names}


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
