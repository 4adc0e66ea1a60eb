"""The stage that trains an upscaler: a few steps on a toy, and what comes of it is read as people's are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import darkroom
from darkroom.train.config import LoopConfig
from darkroom.train.loop import Trainer
from darkroom.train.pocket.cli import build_stage
from darkroom.train.pocket.upscaler import Pairs

TOY = ["network.features=8", "network.layers=2", "network.scale=2", "world.size=64", "data.patch=24"]


@pytest.fixture(scope="module")
def stage():
    changes = [
        *TOY,
        "loop.batch=4",
        "loop.steps=3",
        "loop.warmup=0",
        "loop.workers=0",
        "loop.validate_every=0",
    ]
    return build_stage("upscaler", "pocket/upscaler", [*changes, "loop.sample_every=0"])


def test_pairs_show_the_same_at_two_sizes(stage):
    found = stage[0].source()(0, 6)
    assert found["small"].shape == (6, 24, 24, 3)
    assert found["large"].shape == (6, 48, 48, 3)
    halved = found["large"].reshape(6, 24, 2, 24, 2, 3).mean((2, 4))
    assert np.abs(halved - found["small"]).mean() < 6
    assert np.array_equal(found["large"], Pairs(stage[0].settings)(0, 6)["large"])


def test_a_few_steps(stage, tmp_path):
    torch.manual_seed(0)
    made, loop = stage
    assert isinstance(loop, LoopConfig)
    assert Trainer(made, loop, tmp_path / "run").run()
    file = tmp_path / "run/result/upscaler.safetensors"
    upscaler = darkroom.load_upscaler(file, device="cpu", precision="float32")
    assert upscaler.scale == 2
    assert upscaler.upscale(np.zeros((8, 9, 3), np.uint8)).image.size == (18, 16)
    assert made.validate().keys() >= {"psnr", "neon"}
    assert made.sheet().size[0] > 3 * 128
