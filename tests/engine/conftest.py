"""A toy family and toy networks: arithmetic in place of a model, with the knobs tests need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from darkroom.checkpoint.family import Family
from darkroom.checkpoint.preferences import Preferences
from darkroom.diffusion import Discrete, FlowSchedule, process
from darkroom.engine import Engine
from darkroom.generation import Request
from darkroom.generation.job import Job
from darkroom.generation.saved import Saved
from darkroom.networks import Conditioning
from darkroom.prompt import Prompt


class ToyNetworks:
    """Satisfies `darkroom.engine.Networks`. Like a real network, its last bits depend on the number of
    rows in a call; unlike one, it can be told to fail."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.experts: list[int] = []
        self.told: list[list[str]] = []
        self.memory = 1000
        self.broken: str | None = None
        self.nan_after = 10**9

    def encode(self, prompts: Sequence[Prompt], expert: int = 0) -> list[Conditioning]:
        self.told.append([prompt.texts[0] for prompt in prompts])
        values = [(sum(map(ord, text)) % 97) / 97 + expert / 3 for text in self.told[-1]]
        return [Conditioning(torch.full((1, 77, 2), value)) for value in values]

    def denoise(self, rows):
        self.calls.append(len(rows))
        (expert,) = {row.expert for row in rows}  # One network a call.
        self.experts.append(expert)
        if len(rows) > self.memory:
            raise torch.OutOfMemoryError("toy memory is full")
        context = torch.cat([row.conditioning.context for row in rows]).mean((1, 2))
        if (
            self.broken is not None
            and (context == self.encode([Prompt((self.broken,))])[0].context.mean()).any()
        ):
            raise RuntimeError("toy network broke")
        x = torch.cat([row.x for row in rows])
        time = torch.tensor([row.time for row in rows]) / 1000
        y = (
            torch.sin((3 + 2 * expert) * x + time[:, None, None, None]) * 0.6
            + context[:, None, None, None]
            + 1e-7 * len(rows)
        )
        if len(self.calls) > self.nan_after:
            y = y * float("nan")
        return list(y.split(1))

    def prepare(self, pixels, note=None, seamless=""):
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
        small = torch.nn.functional.avg_pool2d(image, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1)

    def decode(self, latent, note=None, seamless=""):
        big = torch.nn.functional.interpolate(latent[:, :3], scale_factor=8)
        return ((big[0] * 40 + 128).clamp(0, 255)).byte().permute(1, 2, 0).numpy().copy()


FAMILIES = {
    "flow": Family("toy flow", process("flow"), FlowSchedule(), native=32),
    "epsilon": Family("toy epsilon", process("epsilon"), Discrete(), native=32),
    "velocity": Family("toy velocity", process("v_prediction"), Discrete(), native=32),
}


def settled(**settings) -> Request:
    preferences = vars(Preferences(steps=5, guidance=3.0)) | {"width": 32, "height": 32}
    return Request.from_dict({"prompt": "a toy", "seed": 1, **settings}).settled(**preferences)


def kill_at_every_step(networks, begin, expected, bystander, calls=1):
    """A job killed after any number of ticks, beside another one, goes on to the picture that is expected. begin: makes
    it, of where it can go on; gives the jobs that went on, each with where that was."""
    ticks, gone_on = 0, []
    while True:
        ticks += 1
        engine = Engine(networks, calls=calls)
        task = engine.submit(begin(saved=None))
        other = engine.submit(bystander())
        for _ in range(ticks):
            engine.tick()
        if task.finished:
            break
        saved = task.job.snapshot()
        if saved is not None:
            saved = Saved.from_bytes(saved.to_bytes())
        task.cancel()
        again = engine.submit(begin(saved=saved))
        engine.run()
        np.testing.assert_array_equal(again.result(), expected)
        assert again.job.done == again.job.total
        assert other.result() is not None
        gone_on.append((again.job, saved))
    assert ticks > 4
    return gone_on


@pytest.fixture
def networks() -> ToyNetworks:
    return ToyNetworks()


@pytest.fixture
def make_job():
    def make(family="flow", saved=None, refiner=None, **settings) -> Job:
        return Job(settled(**settings), FAMILIES[family], saved, refiner and FAMILIES[refiner])

    return make
