"""A job on a canvas of its own: what must be remembered from one step to the next survives a loss."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from tests.engine.conftest import kill_at_every_step, make_job, networks  # noqa: F401
from tests.tables import wide

from darkroom.diffusion import SAMPLERS, Estimate
from darkroom.generation.canvas import Canvas
from darkroom.generation.work import Decode, Prepare, alone

GROUND = np.random.default_rng(1).integers(0, 255, (32, 48, 3), np.uint8)


@dataclass(frozen=True)
class HalfKept(Canvas):
    """What is on the left of a picture stays: samplers are told of it, whatever the network sees."""

    def begin(self, source, point, before):
        assert before is None
        ground = yield Prepare(GROUND)
        run = yield from super().begin(source, point, before)
        run.memory["canvas"] = {"ground": ground}
        return run

    def answered(self, run, answer):
        left = torch.arange(run.x.shape[-1]) < run.x.shape[-1] // 2
        ground = run.memory["canvas"]["ground"]
        return Estimate(*(None if each is None else torch.where(left, ground, each) for each in answer))

    def end(self, run):
        pixels = yield Decode(run.x)
        pixels[:, :24] = GROUND[:, :24]
        return pixels


@pytest.fixture
def make(make_job):  # noqa: F811
    def made(**settings):
        job = make_job(**{"seed": 3, "steps": 4} | settings, width=48, height=32)
        job.passes[0] = replace(job.passes[0], canvas=HalfKept(48, 32))
        return job

    return made


@pytest.mark.parametrize(
    "sampler", [name if at % 3 == 1 else wide(name) for at, name in enumerate(sorted(SAMPLERS))]
)
def test_a_job_killed_at_any_step_has_its_canvas_again(sampler, make, networks):  # noqa: F811
    expected = alone(make(sampler=sampler).develop(), networks)
    assert np.array_equal(expected[:, :24], GROUND[:, :24])
    begin, other = (
        partial(make, sampler=sampler, family="flow"),
        partial(make, seed=99, sampler="euler", steps=3),
    )
    kill_at_every_step(networks, begin, expected, other)


def test_what_was_kept_is_there_at_the_end(make, networks):  # noqa: F811
    seen = []

    def watched(steps):
        work = next(steps)
        with suppress(StopIteration):
            while True:
                seen.append(work)
                work = steps.send((yield work))

    alone(watched(make(sampler="euler").develop()), networks)
    assert [type(work).__name__ for work in seen] == ["Encode", "Prepare", *["Denoise"] * 4, "Decode"]
    ground = networks.prepare(GROUND)
    torch.testing.assert_close(seen[-1].latent[..., :3], ground[..., :3])
