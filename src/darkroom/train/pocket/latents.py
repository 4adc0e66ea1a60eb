"""Drawn scenes as latents on disk: rendered and encoded once, read many times, with fresh captions each time.

A cache is a folder of `latents.f16` (N, C, h, w), `cells.i8` (N, 2, h/2, w/2; see `labels.cells`) and `info.json`.
Scene i is `scene_at(world, seed, i)`. It grows in chunks, can be read while it does, and goes on where it was
interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.errors import InvalidRequest, ModelError
from darkroom.files import write_json
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.train.config import load_config, parse, require
from darkroom.train.feed import Arrays, feed
from darkroom.train.pocket.data import WorldConfig, generator_at, rendered, scene_at
from darkroom.train.pocket.labels import cells
from darkroom.world import caption


@dataclass(frozen=True, slots=True)
class LatentSettings:
    """What is rendered: `scenes` of the world, in batches of `batch` by `workers` processes."""

    world: WorldConfig = field(default_factory=WorldConfig)
    scenes: int = 60000
    seed: int = 1
    batch: int = 50
    workers: int = 1

    def __post_init__(self) -> None:
        require(self.scenes > 0, "scenes", self.scenes, "at least 1")
        require(self.batch > 0, "batch", self.batch, "at least 1")


@dataclass(frozen=True)
class Drawn:
    """Pictures and where their things are: {"pictures": (N, size, size, 3), "cells": (N, 2, size/16, size/16)}."""

    world: WorldConfig
    seed: int

    def __call__(self, start: int, count: int) -> Arrays:
        scenes = [scene_at(self.world, self.seed, i) for i in range(start, start + count)]
        grids = np.stack([cells(scene, self.world.size // 16) for scene in scenes])
        return {"pictures": rendered(scenes, self.world.size), "cells": grids}


def build(config: str, changes: list[str], vae_folder: Path, out: Path, device: str) -> int:
    """Fill a cache; 0 when it is complete, 130 when interrupted."""
    import torch
    from tqdm import tqdm

    from darkroom.networks import VAE
    from darkroom.pixels import to_images
    from darkroom.train.folders import load_network, weights_hash

    settings = load_config(LatentSettings, config, changes)
    vae = load_network(vae_folder, VAE).to(device, torch.bfloat16).eval()
    hashed = weights_hash(vae_folder)
    out.mkdir(parents=True, exist_ok=True)
    count = _begun(out, settings, hashed)
    made = feed(Drawn(settings.world, settings.seed), count, settings.batch, settings.workers)
    progress = tqdm(total=settings.scenes, initial=count, desc="latents", unit=" scenes")
    try:
        with closing(made), progress, torch.inference_mode():
            while count < settings.scenes:
                arrays = next(made)
                images = to_images(torch.from_numpy(arrays["pictures"]).to(device)).bfloat16()
                latents = vae.to_latent(images).float().cpu().numpy().astype(np.float16)
                for name, rows in (("latents.f16", latents), ("cells.i8", arrays["cells"])):
                    _put(out / name, count, rows)
                count += len(latents)
                _write_info(out, settings, hashed, count, latents.shape[1:])
                progress.update(len(latents))
    except KeyboardInterrupt:
        return 130
    return 0


def _begun(out: Path, settings: LatentSettings, hashed: str) -> int:
    """How many scenes the cache already holds. Raises InvalidRequest where it is of another kind."""
    if not (out / "info.json").exists():
        return 0
    info = _info(out)
    mine = {"world": asdict(settings.world), "seed": settings.seed, "vae": hashed}
    for name, value in mine.items():
        if info[name] != value:
            raise InvalidRequest(
                f"{out} was made with {name} {info[name]}, not {value}: choose another folder"
            )
    return int(info["count"])


def _put(path: Path, start: int, rows: NDArray[Any]) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(start * rows[0].nbytes)
        file.write(np.ascontiguousarray(rows).tobytes())


def _write_info(out: Path, settings: LatentSettings, hashed: str, count: int, shape: tuple[int, ...]) -> None:
    info = {"count": count, "shape": list(shape), "world": asdict(settings.world), "seed": settings.seed}
    write_json(out / "info.json", info | {"vae": hashed})


def _info(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "info.json").read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} is no cache of latents ({error}): make it with 'darkroom train latents'"
        ) from None


@dataclass(frozen=True)
class Latents:
    """Batches of a cache: {"latents": (N, C, h, w) float16, "cells": (N, 2, h/2, w/2) int8, "ids": (N, 77)}.

    Each epoch goes through the `count` scenes in an order of its own, with new captions.
    """

    folder: Path
    tokenizer: Path
    seed: int
    count: int

    @classmethod
    def open(cls, folder: Path, tokenizer: Path, seed: int) -> Latents:
        """All that the cache holds by now."""
        return cls(folder, tokenizer, seed, int(_info(folder)["count"]))

    def __call__(self, start: int, count: int) -> Arrays:
        latents, grids, info = _opened(self.folder)
        tokenizer, world = _tokenizer(self.tokenizer), parse(WorldConfig, info["world"], str(self.folder))
        rows, ids = [], []
        for i in range(start, start + count):
            row = int(_order(self.seed, i // self.count, self.count)[i % self.count])
            scene = scene_at(world, info["seed"], row)
            rows.append(row)
            ids.append(tokenizer(caption(scene, generator_at("caption", self.seed, i))))
        return {"latents": latents[rows], "cells": grids[rows], "ids": np.array(ids, np.int64)}


@dataclass(frozen=True)
class Turns:
    """Whole batches of several sources in turn, each going on where its last turn ended.

    All batches must have the same number of samples.
    """

    sources: Sequence[Latents]

    def __call__(self, start: int, count: int) -> Arrays:
        rounds, turn = divmod(start // count, len(self.sources))
        source = self.sources[turn]
        taken = rounds * self.sources.count(source) + self.sources[:turn].count(source)
        return source(taken * count, count)


@cache
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@cache
def _opened(folder: Path) -> tuple[NDArray[np.float16], NDArray[np.int8], dict[str, Any]]:
    info = _info(folder)
    channels, height, width = info["shape"]
    latents = np.memmap(folder / "latents.f16", np.float16, "r").reshape(-1, channels, height, width)
    grids = np.memmap(folder / "cells.i8", np.int8, "r").reshape(-1, 2, height // 2, width // 2)
    return latents, grids, info


@cache
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)
