"""The engine: many jobs in few calls, each exactly as if it were alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.engine.conftest import kill_at_every_step
from tests.tables import pairs, wide

from darkroom.diffusion import SAMPLERS
from darkroom.engine import Engine
from darkroom.errors import Cancelled, GenerationError
from darkroom.generation.work import Prepare


def alone(networks, job):
    engine = Engine(networks)
    task = engine.submit(job)
    engine.run()
    return task.result()


def crowd(make_job):
    """Jobs that differ in everything that may differ inside one group, and in size."""
    return [
        make_job(seed=1, steps=6, sampler="euler"),
        make_job(seed=2, steps=3, sampler="heun", prompt="another"),
        make_job(seed=3, steps=4, sampler="euler_ancestral", guidance=1.0),
        make_job(seed=4, steps=5, sampler="dpmpp_2m", width=48),
        make_job(seed=5, steps=4, sampler="dpmpp_2m_sde", guidance=9.0, negative="rain"),
        make_job(seed=6, steps=3, width=64, height=64),
    ]


@pytest.mark.parametrize("calls", [1, 2, 8])
def test_jobs_together_equal_jobs_alone(networks, make_job, calls):
    expected = [alone(networks, job) for job in crowd(make_job)]
    engine = Engine(networks, calls=calls)
    tasks = [engine.submit(job) for job in crowd(make_job)]
    engine.run()
    for task, pixels in zip(tasks, expected, strict=True):
        np.testing.assert_array_equal(task.result(), pixels)


def test_every_call_has_the_same_number_of_rows(networks, make_job):
    engine = Engine(networks, calls=3)
    for job in crowd(make_job):
        engine.submit(job)
    engine.run()
    assert set(networks.calls) == {2}


def test_unguided_jobs_share_calls(networks, make_job):
    for seed in range(2):
        alone(networks, make_job(seed=seed, guidance=1.0, steps=5, sampler="euler"))
    apart = len(networks.calls)
    networks.calls.clear()
    engine = Engine(networks)
    for seed in range(2):
        engine.submit(make_job(seed=seed, guidance=1.0, steps=5, sampler="euler"))
    engine.run()
    assert len(networks.calls) * 2 == apart


OTHER = {"seed": 99, "sampler": "euler", "steps": 3}
# As it comes, the adaptive one makes 90 calls: so it makes 18, and rejects a step of them.
QUICK = [name + (":rtol=0.3,h_init=4" if name == "dpm_adaptive" else "") for name in sorted(SAMPLERS)]


@pytest.mark.parametrize(("sampler", "family"), pairs(QUICK, ["flow", "epsilon"]))
def test_a_job_killed_at_any_step_resumes_to_the_same_picture(networks, make_job, sampler, family):
    settings = {"family": family, "sampler": sampler, "steps": 4, "width": 64, "height": 64, "seed": 11}
    expected = alone(networks, make_job(**settings))
    kill_at_every_step(
        networks, partial(make_job, **settings), expected, partial(make_job, **OTHER, family=family)
    )


REFINED = {"family": "epsilon", "refiner": "velocity", "refiner_switch": 0.5}


@pytest.mark.parametrize("sampler", [name if at % 3 == 0 else wide(name) for at, name in enumerate(QUICK)])
def test_two_experts_resume_to_the_same_picture(networks, make_job, sampler):
    settings = {**REFINED, "sampler": sampler, "steps": 4, "width": 64, "height": 64, "seed": 11}
    expected = alone(networks, make_job(**settings))
    assert set(networks.experts) == {0, 1}
    other = partial(make_job, **OTHER, family="epsilon")
    kill_at_every_step(networks, partial(make_job, **settings), expected, other, calls=2)


@pytest.mark.parametrize("switch", [0.001, 0.4, 0.8, 1.0])
def test_the_refiner_makes_the_steps_after_the_switch(networks, make_job, switch):
    job = make_job(**REFINED | {"refiner_switch": switch}, sampler="heun", schedule="simple", steps=10)
    alone(networks, job)
    # Ten steps from times 999, 899 ... 99, two calls each but for the last.
    base = sum(999 - 100 * i >= round(1000 - 1000 * switch) for i in range(10))
    calls = [2] * 9 + [1]
    assert networks.experts == [0] * sum(calls[:base]) + [1] * sum(calls[base:])


def test_experts_never_share_a_call(networks, make_job):
    settings = REFINED | {"sampler": "euler", "guidance": 1.0, "steps": 4}
    expected = [alone(networks, make_job(**settings, seed=seed)) for seed in range(3)]
    engine = Engine(networks, calls=4)
    tasks = []
    for seed in range(3):  # Each a step behind the one before it.
        tasks.append(engine.submit(make_job(**settings, seed=seed)))
        engine.tick()
        engine.tick()
    engine.run()
    for task, pixels in zip(tasks, expected, strict=True):
        np.testing.assert_array_equal(task.result(), pixels)


def test_a_failing_job_fails_alone(networks, make_job):
    networks.broken = "poison"
    engine = Engine(networks, calls=4)
    tasks = [engine.submit(make_job(seed=i, prompt=p)) for i, p in enumerate(["a", "poison", "b"])]
    engine.run()
    with pytest.raises(RuntimeError, match="toy network broke"):
        tasks[1].result()
    networks.broken = None
    for i, prompt in ((0, "a"), (2, "b")):
        np.testing.assert_array_equal(tasks[i].result(), alone(networks, make_job(seed=i, prompt=prompt)))


def test_numbers_that_are_none_are_an_error_that_says_so(networks, make_job):
    networks.nan_after = 2
    with pytest.raises(GenerationError, match="step 3 of"):
        alone(networks, make_job())


def test_out_of_memory_halves_the_call_and_is_noted(networks, make_job):
    networks.memory = 1
    engine = Engine(networks)
    task = engine.submit(make_job())
    engine.run()
    assert task.rows == 1
    assert task.notes == ["memory did not suffice for 2 rows in a call: went on with 1"]
    assert task.result().shape == (32, 32, 3)


def test_pictures_after_it_have_all_their_rows_again(networks, make_job):
    expected = alone(networks, make_job(seed=2))
    engine = Engine(networks)
    first = engine.submit(make_job(seed=1))
    networks.memory = 1
    engine.tick()
    engine.tick()
    networks.memory = 1000
    second = engine.submit(make_job(seed=2))
    networks.calls.clear()
    engine.run()
    assert (first.rows, second.rows) == (1, 2)
    assert set(networks.calls) == {1, 2}
    assert not second.notes
    np.testing.assert_array_equal(second.result(), expected)


def test_a_job_that_makes_nothing_is_finished_too(networks):
    class Nothing:
        done = total = 0

        def develop(self):
            yield Prepare(np.zeros((8, 8, 3), np.uint8))

    task = Engine(networks).submit(Nothing())
    assert not task.finished
    engine = Engine(networks)
    task = engine.submit(Nothing())
    engine.run()
    assert task.finished
    assert task.result() is None


def test_hopeless_memory_is_an_error_in_words(networks, make_job):
    networks.memory = 0
    with pytest.raises(GenerationError, match="smaller picture"):
        alone(networks, make_job())


def test_cancelling_one_leaves_the_others(networks, make_job):
    engine = Engine(networks)
    first, second = engine.submit(make_job(seed=1)), engine.submit(make_job(seed=2))
    engine.tick()
    first.cancel()
    engine.run()
    with pytest.raises(Cancelled):
        first.result()
    np.testing.assert_array_equal(second.result(), alone(networks, make_job(seed=2)))
    second.cancel()
    assert second.result() is not None


def test_progress_counts_calls_exactly(networks, make_job):
    engine = Engine(networks)
    task = engine.submit(make_job(sampler="heun", steps=10))
    assert task.job.total == 19
    seen = []
    while engine.tick():
        seen.append(task.job.done)
    assert seen == sorted(seen)
    assert task.job.done == 19
    assert task.job.denoised is not None


def test_earlier_jobs_finish_first(networks, make_job):
    engine = Engine(networks)
    tasks = [engine.submit(make_job(seed=i)) for i in range(3)]
    finished = []
    while engine.tick():
        finished += [task.number for task in tasks if task.finished and task.number not in finished]
    assert finished[:2] == [0, 1]


def turn(engine):
    """The owners of the next group, if it shares network calls: one word, or none."""
    sharing = {task for task in engine.tasks if task.work is not None and task.work.rows}
    owners = "".join(task.owner for task in engine.tick() if task in sharing)
    return [owners] if owners else []


def test_owners_take_turns(networks, make_job):
    engine = Engine(networks)
    jobs = [
        (name, make_job(sampler="euler", steps=steps))
        for name, steps in (("a", 8), ("a", 8), ("b", 8), ("c", 2))
    ]
    first, second, *_ = tasks = [engine.submit(job, owner) for owner, job in jobs]
    order = []
    while engine.tasks:
        order += turn(engine)
        assert not (second.job.done and not first.finished)
    assert sorted(order[:3]) == sorted(order[3:6]) == ["a", "b", "c"]
    assert abs(order[6:18].count("a") - 6) <= 1
    assert order.count("a") == 16
    assert all(task.finished for task in tasks)


def test_whoever_comes_back_waits_for_all_others(networks, make_job):
    engine, order = Engine(networks), []
    for name in "ab":
        engine.submit(make_job(sampler="euler", steps=6), owner=name)
    while len(order) < 15:
        if all(task.owner != "q" for task in engine.tasks):
            engine.submit(make_job(sampler="euler", steps=1), owner="q")
        order += turn(engine)
    assert [order.count(name) for name in "abq"] == [5, 5, 5]


def test_turns_are_taken_within_a_group_too(networks, make_job):
    engine, order = Engine(networks, calls=2), []
    for name in "aaab":
        engine.submit(make_job(sampler="euler", steps=3), owner=name)
    while engine.tasks:
        order += turn(engine)
    assert [sorted(each) for each in order[:3]] == [["a", "b"]] * 3
