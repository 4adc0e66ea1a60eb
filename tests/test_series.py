"""Pictures in the background: `Model.submit`."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError

import pytest

import darkroom
from darkroom.errors import GenerationError, InvalidRequest

SETTINGS = {"steps": 3, "width": 32, "height": 32}
LONG = 60


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu")


def data(pictures):
    return [picture.image.tobytes() for picture in pictures]


def test_pictures_are_those_of_generate_in_its_order(model):
    asked = ["a red boat", darkroom.Request("a blue boat", steps=1, guidance=1.0), "a house"]
    expected = model.generate(asked, seed=3, count=3, width=32, height=32)
    assert [picture.index for picture in expected] == [*range(9)]
    found = model.submit(asked, seed=3, count=3, width=32, height=32).result(LONG)
    assert data(found) == data(expected)
    assert [picture.metadata for picture in found] == [picture.metadata for picture in expected]
    assert [picture.index for picture in found] == [*range(9)]


def test_several_at_once_from_several_threads(model):
    expected = [data(model.generate("a boat", seed=seed, count=2, **SETTINGS)) for seed in range(4)]
    found = [None] * 4

    def work(seed):
        found[seed] = data(model.submit("a boat", seed=seed, count=2, **SETTINGS).result(LONG))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert found == expected


def test_a_short_one_does_not_wait_for_long_ones(model):
    order = []

    def heard(name):
        return lambda step: order.append(name)

    long = [
        model.submit("a", seed=1, count=3, callback=heard(name), **SETTINGS | {"steps": 12}) for name in "ab"
    ]
    short = model.submit("a", seed=1, callback=heard("s"), **SETTINGS | {"steps": 2, "sampler": "euler"})
    short.result(LONG)
    for each in long:
        each.result(LONG)
    last = len(order) - order[::-1].index("s")
    assert last <= order.index("s") + 4


def test_callbacks_stop_the_work(model):
    steps = []

    def callback(step):
        steps.append((step.index, step.done, step.total))
        return (step.index, step.done) != (1, 2)

    asked = {"seed": 1, "count": 4, "sampler": "euler", **SETTINGS}
    found = model.submit("a boat", callback=callback, **asked).result(LONG)
    assert steps == [(0, 1, 3), (0, 2, 3), (0, 3, 3), (1, 1, 3), (1, 2, 3)]
    assert data(found) == data(model.generate("a boat", **asked | {"count": 1}))


def test_what_a_callback_raises_is_raised(model):
    def callback(step):
        raise ArithmeticError("the user's own")

    future = model.submit("a boat", seed=1, count=3, callback=callback, **SETTINGS)
    with pytest.raises(ArithmeticError, match="user's own"):
        future.result(LONG)
    assert model.submit("a boat", seed=1, **SETTINGS).result(LONG)


def test_cancelled_from_another_thread(model):
    steps, far = [], threading.Event()

    def callback(step):
        steps.append(step)
        if len(steps) == 2:
            far.set()
            canceller.join(LONG)

    future = model.submit("a boat", seed=1, count=50, callback=callback, **SETTINGS)
    canceller = threading.Thread(target=lambda: far.wait(LONG) and future.cancel())
    canceller.start()
    with pytest.raises(CancelledError):
        future.result(LONG)
    model.submit("a boat", seed=1, **SETTINGS).result(LONG)
    assert len(steps) == 2
    model.unfuse()  # Nothing is being made any more.


def test_one_within_another(model):
    expected = data(model.generate("inner", seed=1, **SETTINGS))
    inner = []

    def callback(step):
        if not inner:
            inner.append(model.submit("inner", seed=1, **SETTINGS))

    model.submit("a boat", seed=1, callback=callback, **SETTINGS).result(LONG)
    assert data(inner[0].result(LONG)) == expected


def test_mistakes_are_told_at_once(model):
    with pytest.raises(InvalidRequest, match="steps"):
        model.submit("a boat", steps=-1)
    model.unfuse()


def test_failures_are_the_future_s(model, monkeypatch):
    real = type(model._networks).denoise

    def full(self, rows):
        raise MemoryError

    monkeypatch.setattr(type(model._networks), "denoise", full)
    future = model.submit("a boat", seed=1, count=3, **SETTINGS)
    with pytest.raises(GenerationError, match="out of memory"):
        future.result(LONG)
    monkeypatch.setattr(type(model._networks), "denoise", real)
    assert model.submit("a boat", seed=1, **SETTINGS).result(LONG)


def test_weights_stay_as_they_are_meanwhile(model):
    reached, go = threading.Event(), threading.Event()

    def callback(step):
        reached.set()
        assert go.wait(LONG)

    future = model.submit("a boat", seed=1, callback=callback, **SETTINGS)
    assert reached.wait(LONG)
    with pytest.raises(InvalidRequest, match="is making pictures"):
        model.unfuse()
    go.set()
    future.result(LONG)
    model.unfuse()


def test_closing_a_model_cancels(toy_folder):
    model = darkroom.load(toy_folder, device="cpu")
    reached = threading.Event()
    future = model.submit("a boat", seed=1, count=50, callback=lambda step: reached.set(), **SETTINGS)
    assert reached.wait(LONG)
    model.close()
    assert future.cancelled()
    with pytest.raises(InvalidRequest, match="was closed"):
        model.submit("a boat", **SETTINGS)


def test_a_model_lives_as_long_as_it_works_and_no_longer(toy_folder):
    model = darkroom.load(toy_folder, device="cpu")
    network = weakref.ref(model.networks()[0])
    future = model.submit("a boat", seed=1, count=2, **SETTINGS)
    thread = model._loop._thread
    del model
    gc.collect()
    assert len(future.result(LONG)) == 2
    began = time.monotonic()
    while network() is not None and time.monotonic() - began < LONG:
        gc.collect()
    assert network() is None
    thread.join(LONG)
    assert not thread.is_alive()
