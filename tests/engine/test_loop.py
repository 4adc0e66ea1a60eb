"""The loop: jobs from any thread, cancelled from any thread, each exactly as if it were alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from tests.engine.test_engine import alone, crowd

from darkroom.engine import Engine
from darkroom.engine.loop import Loop
from darkroom.errors import GenerationError, InvalidRequest

LONG = 60  # Seconds that nothing here takes, unless it hangs.


@pytest.fixture
def loop(networks):
    with Loop(Engine(networks)) as loop:
        yield loop


@pytest.fixture
def gate(networks):
    """Holds the next network call until it is opened."""

    class Gate:
        def __init__(self):
            self.reached, self.open = threading.Event(), threading.Event()

    gate, denoise = Gate(), networks.denoise

    def held(rows):
        gate.reached.set()
        assert gate.open.wait(LONG)
        return denoise(rows)

    networks.denoise = held
    yield gate
    gate.open.set()


def test_jobs_from_many_threads_equal_jobs_alone(networks, make_job):
    expected = [alone(networks, job) for job in crowd(make_job)]
    with Loop(Engine(networks, calls=2)) as loop:
        found = [None] * len(expected)

        def work(number, job):
            found[number] = loop.submit(job, owner=number % 4).result(LONG)

        threads = [threading.Thread(target=work, args=each) for each in enumerate(crowd(make_job))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        for task, pixels in zip(found, expected, strict=True):
            np.testing.assert_array_equal(task.value, pixels)
            assert task.job.done == task.job.total


def test_what_is_cancelled_goes_no_further(networks, make_job, loop, gate):
    told = []
    first = loop.submit(make_job(seed=1), lambda task: told.append(task.job.done))
    second = loop.submit(make_job(seed=2), owner="another")
    assert gate.reached.wait(LONG)
    canceller = threading.Thread(target=first.cancel)
    canceller.start()
    canceller.join(LONG)
    assert first.cancelled()
    told.clear()
    gate.open.set()
    assert second.result(LONG).value.shape == (32, 32, 3)
    assert not told
    # Waiting for several knows it as well.
    assert concurrent.futures.wait([first, second], LONG).done == {first, second}
    with pytest.raises(concurrent.futures.CancelledError):
        first.result(LONG)
    assert not second.cancel()


def test_what_is_cancelled_before_its_time_never_begins(networks, make_job, loop, gate):
    loop.submit(make_job(seed=1))
    assert gate.reached.wait(LONG)
    job = make_job(seed=2)
    late = loop.submit(job)
    assert late.cancel()
    gate.open.set()
    assert loop.submit(make_job(seed=3)).result(LONG).finished
    assert job.done == 0


def test_a_job_that_fails_fails_alone(networks, make_job, loop):
    networks.broken = "poison"

    def raises(task):
        if task.job.done == 2:
            raise ArithmeticError("the listener's own")

    def leaves(task):
        sys.exit()

    good = loop.submit(make_job(seed=1), owner="good")
    assert isinstance(loop.submit("not a job").exception(LONG), AttributeError)
    assert isinstance(loop.submit(make_job(), raises).exception(LONG), ArithmeticError)
    assert isinstance(loop.submit(make_job(), leaves).exception(LONG), SystemExit)
    with pytest.raises(RuntimeError, match="toy network broke"):
        loop.submit(make_job(prompt="poison")).result(LONG)
    networks.broken = None
    np.testing.assert_array_equal(good.result(LONG).value, alone(networks, make_job(seed=1)))


def test_a_network_that_ends_the_program_ends_the_jobs_and_not_the_loop(networks, make_job, loop):
    denoise, networks.denoise = networks.denoise, lambda rows: sys.exit("a library's own")
    waiting = [loop.submit(make_job(seed=seed), owner=seed) for seed in range(3)]
    for each in waiting:
        assert isinstance(each.exception(LONG), SystemExit)
    networks.denoise = denoise
    assert loop.submit(make_job()).result(LONG).finished


def test_notes_and_fewer_rows_are_the_task_s(networks, make_job, loop):
    networks.memory = 1
    task = loop.submit(make_job()).result(LONG)
    assert task.rows == 1
    assert "memory did not suffice" in task.notes[0]
    networks.memory = 0
    with pytest.raises(GenerationError, match="smaller picture"):
        loop.submit(make_job()).result(LONG)


def test_snapshots_of_what_runs_go_on_elsewhere(networks, make_job, loop):
    saved = []
    settings = {"sampler": "heun", "steps": 4, "seed": 5}
    whole = loop.submit(make_job(**settings), lambda task: saved.append(task.job.snapshot())).result(LONG)
    kept = [each for each in saved if each is not None]
    assert len(kept) >= 7
    for each in kept:
        again = loop.submit(make_job(saved=each, **settings)).result(LONG)
        np.testing.assert_array_equal(again.value, whole.value)


def test_the_end_of_a_loop(networks, make_job, gate):
    loop = Loop(Engine(networks))
    loop.close()
    loop = Loop(Engine(networks))
    running, waiting = loop.submit(make_job(seed=1)), loop.submit(make_job(seed=2))
    thread = loop._thread
    assert gate.reached.wait(LONG)
    late = loop.submit(make_job(seed=3))
    threading.Timer(0.05, gate.open.set).start()
    loop.close()
    assert not thread.is_alive()
    assert all(each.cancelled() for each in (running, waiting, late))
    assert len(networks.calls) == 1
    with pytest.raises(InvalidRequest, match="closed"):
        loop.submit(make_job())
    loop.close()


def test_a_loop_may_be_closed_by_what_it_tells(networks, make_job):
    loop = Loop(Engine(networks))
    future = loop.submit(make_job(), lambda task: loop.close())
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(LONG)
    loop._thread.join(LONG)
    assert not loop._thread.is_alive()


def test_nothing_of_a_finished_job_stays(networks, make_job, loop):
    job = make_job()
    gone = weakref.ref(job)
    loop.submit(job).result(LONG)
    del job
    loop.submit(make_job()).result(LONG)
    gc.collect()
    assert gone() is None


def test_futures_can_be_awaited(networks, make_job, loop):
    async def both():
        one, other = (asyncio.wrap_future(loop.submit(make_job(seed=seed), owner=seed)) for seed in (1, 2))
        other.cancel()
        return await asyncio.wait_for(one, LONG), other.cancelled()

    task, cancelled = asyncio.run(both())
    np.testing.assert_array_equal(task.value, alone(networks, make_job(seed=1)))
    assert cancelled


def test_a_program_that_ends_meanwhile_ends():
    program = """
import darkroom
model = darkroom.load("pocket", device="cpu")
step = __import__("threading").Event()
future = model.submit("a red boat", steps=500, callback=lambda each: step.set())
future.add_done_callback(lambda future: print("cancelled", future.cancelled()))
step.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "cancelled True", "")
