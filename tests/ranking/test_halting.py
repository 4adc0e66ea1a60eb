"""What a job comes to, foreseen: it is where the sampler would go in as many steps, and changes nothing of the job."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom
from darkroom.generation import Request
from darkroom.generation.templates import pictures
from darkroom.generation.work import alone
from darkroom.ranking.halting import Halting, halts_after

STEPS = 6
IMAGE = Image.fromarray(np.random.default_rng(2).integers(0, 256, (32, 40, 3), np.uint8))
SORTS = {
    "plain": {},
    "seamless": {"seamless": "xy"},
    "edit": {"image": IMAGE, "strength": 1.0},
    "mask": {"image": IMAGE, "strength": 1.0, "mask_box": "8,8,16,16", "only_masked": False},
    "prompt by steps": {"prompt": "[a red boat:a green tree:0.5]"},
    "guided by memory": {"guides": ["apg:momentum=-0.5"]},
}


@pytest.fixture(scope="module", params=["toy", "sd1"])
def model(request, toy_folder, folder):
    path = toy_folder if request.param == "toy" else folder("sd1")
    return darkroom.load(path, device="cpu", precision="float32")


def job_of(model, **settings):
    asked = {"prompt": "a red boat", "width": 40, "height": 32, "steps": STEPS, "seed": 3, **settings}
    (single,) = pictures(model.settle(Request(**asked)))
    return model.job(single)


def begun(model, job, done):
    """The works of a job that has made so many network calls and stands before the next."""
    steps = job.develop()
    work = next(steps)
    while job.done < done or job.snapshot() is None:
        work = steps.send(work.run(model._networks))
    return steps, work


def ended(model, steps, work):
    try:
        while True:
            work = steps.send(work.run(model._networks))
    except StopIteration as finished:
        return finished.value


@pytest.mark.parametrize("sort", SORTS)
def test_from_the_beginning_in_all_steps_it_is_the_whole_way(model, sort):
    job = job_of(model, sampler="dpmpp_2m", **SORTS[sort])
    with torch.inference_mode():
        steps, work = begun(model, job, 0)
        foreseen = alone(job.outlook(STEPS), model._networks)
        pixels = ended(model, steps, work)
        whole = alone(job_of(model, sampler="dpmpp_2m", **SORTS[sort]).develop(), model._networks)
    np.testing.assert_array_equal(pixels, whole)
    torch.testing.assert_close(foreseen, job.latents, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "sampler", ["euler", "heun", "euler_ancestral", "dpmpp_2m_sde", "unipc", "lcm", "dpm_adaptive"]
)
def test_whatever_the_sampler_nothing_of_the_job_changes(model, sampler):
    with torch.inference_mode():
        whole = alone(job_of(model, sampler=sampler).develop(), model._networks)
        job = job_of(model, sampler=sampler)
        steps, work = begun(model, job, 3)
        done, saved = job.done, job.snapshot().to_bytes()
        for calls in (1, 2, 3):
            assert torch.isfinite(alone(job.outlook(calls), model._networks)).all()
        assert (job.done, job.snapshot().to_bytes()) == (done, saved)
        np.testing.assert_array_equal(ended(model, steps, work), whole)


def test_nearer_to_the_end_more_of_it_is_foreseen(model):
    with torch.inference_mode():
        job = job_of(model, sampler="euler", steps=12)
        end = alone(job_of(model, sampler="euler", steps=12).develop(), model._networks)
        apart = []
        steps, work = begun(model, job, 1)
        for done in (1, 6, 11):
            while job.done < done:
                work = steps.send(work.run(model._networks))
            seen = model.decode(alone(job.outlook(3), model._networks))[0]
            apart.append(np.abs(np.asarray(seen, float) - end).mean())
    assert apart[2] < apart[1] < apart[0]


def test_halves_are_the_whole_and_each_call_is_made_once(model):
    with torch.inference_mode():
        whole = alone(job_of(model).develop(), model._networks)
        halting = Halting(job_of(model), 0.5)
        looked = alone(halting.first.develop(), model._networks)
        assert halting.job.done == halts_after(STEPS, 0.5)[0]
        assert looked.shape == whole.shape
        np.testing.assert_array_equal(alone(halting.whole.develop(), model._networks), whole)
        # Without the first half, too.
        np.testing.assert_array_equal(
            alone(Halting(job_of(model), 0.5).whole.develop(), model._networks), whole
        )
        # One that is too short to halt is over with its first.
        short = Halting(job_of(model, steps=2), 0.3)
        looked = alone(short.first.develop(), model._networks)
        assert alone(short.whole.develop(), model._networks) is looked


@pytest.mark.parametrize("share", [0.01, 0.2, 1 / 3, 0.5, 0.8, 1.0])
def test_of_every_number_of_calls_there_is_something_left(share):
    for total in range(1, 60):
        halts, ahead = halts_after(total, share)
        if halts > total:
            assert ahead == 0
        else:
            assert halts >= 1
            assert 1 <= ahead <= 3
            assert halts + ahead < total
            assert halts + ahead <= max(2, int(total * share) + 1)
