"""Models kept loaded within a budget."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from darkroom.errors import InvalidRequest, ModelError
from darkroom.shelf import Shelf

HERE = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from toys import write_model

    base = tmp_path_factory.mktemp("shelf")
    return [write_model(base / name, seed=seed) for seed, name in enumerate(("a", "b", "c"))]


@pytest.fixture
def size(folders):
    shelf = Shelf("1TB")
    shelf.get(folders[0], **HERE)
    return shelf.used


def test_a_model_that_is_here_is_not_loaded_again(folders, size):
    shelf = Shelf(2 * size)
    first, second = (shelf.get(folder, **HERE) for folder in folders[:2])
    assert shelf.get(folders[0], **HERE) is first
    assert shelf.get(folders[1], **HERE) is second
    assert shelf.get(folders[0], device="cpu", precision="bfloat16") is not first


def test_the_longest_unused_goes_first_and_its_memory_with_it(folders, size):
    shelf = Shelf(2 * size)
    shelf.get(folders[0], **HERE)
    gone = weakref.ref(shelf.get(folders[1], **HERE))
    shelf.get(folders[0], **HERE)
    shelf.get(folders[2], **HERE)
    assert len(shelf) == 2
    assert shelf.used == 2 * size
    gc.collect()
    assert gone() is None


def test_what_is_here_is_had_while_another_is_loaded(folders, size):
    shelf, begun, go_on = Shelf(3 * size), threading.Event(), threading.Event()
    first = shelf.get(folders[0], **HERE)

    def progress(*_):
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(3) as pool:
        loading = [pool.submit(shelf.get, folders[1], progress=progress, **HERE) for _ in range(2)]
        assert begun.wait(60)
        assert shelf.get(folders[0], **HERE) is first
        go_on.set()
        assert loading[0].result(60) is loading[1].result(60)
    shelf.forget(folders[1], **HERE)
    assert len(shelf) == 1


def test_one_model_may_exceed_the_budget(folders, size):
    shelf = Shelf(size // 2)
    shelf.get(folders[0], **HERE)
    model = shelf.get(folders[1], **HERE)
    assert len(shelf) == 1
    assert model.generate("a", steps=1, width=32, height=32)


def test_a_failure_changes_nothing(folders, size, tmp_path):
    shelf = Shelf(size)
    model = shelf.get(folders[0], **HERE)
    with pytest.raises(ModelError):
        shelf.get(tmp_path / "nothing", **HERE)
    assert shelf.get(folders[0], **HERE) is model


@pytest.mark.parametrize("budget", [0, -1, "much"])
def test_a_budget_that_is_none(budget):
    with pytest.raises(InvalidRequest, match="budget"):
        Shelf(budget)
