"""What every test runs under, and fixtures shared by all."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

# The same on every machine, whoever starts it from wherever, here and in the programs that tests start.
# One thread of torch's, before it is imported: results do not hang on the number of cores, and test processes side
# by side do not wait for one another. `make test-all` gives the tests of full width all cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_THEIRS = ("DARKROOM_", "HF_", "HUGGING_FACE_", "CIVITAI_", "INVOKEAI_", "XDG_", "COLUMNS", "LINES")
for _name in list(os.environ):
    if _name.startswith(_THEIRS) or _name.lower().endswith("_proxy"):
        del os.environ[_name]
# A shell has what it starts in its background ignore interrupts, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is not a failure. Continuous integration draws the same examples every time.
settings.register_profile("free", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", settings.get_profile("free"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "free")


def pytest_collection_finish() -> None:
    """The peers and the tests themselves are here to stay: who collects garbage need not look at them each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes down how it ended, for continuous integration, which tries once more what failed where all else ran."""
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("darkroom/status", int(exitstatus))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy flow model on disk."""
    from toys import write_model

    return write_model(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its name in `tests.families`, written by diffusers when it is first asked for."""
    root, written = tmp_path_factory.mktemp("families"), dict[str, Path]()

    def get(name: str) -> Path:
        if name not in written:
            from tests.families import WRITERS

            written[name] = WRITERS[name](root / name)
        return written[name]

    return get


@pytest.fixture
def run(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `darkroom ...` in an empty folder; returns (status, stdout, stderr)."""
    from darkroom.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_MODELS", str(toy_folder.parent))

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code  # type: ignore[assignment]
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws from the global generators does not hang on which tests ran before it."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes an empty folder. pytest's `mktemp` finds a free number by reading all names there are, which takes
    milliseconds when a thousand tests have been."""
    root, numbers = tmp_path_factory.mktemp("tests"), count()

    def make(name: str) -> Path:
        path = root / f"{name}{next(numbers)}"
        path.mkdir(mode=0o700)
        return path

    return make


@pytest.fixture
def tmp_path(new_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Path:
    return new_folder(re.sub(r"\W", "_", request.node.name)[:30])


@pytest.fixture(autouse=True)
def empty_library(new_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps the library and the settings of whoever runs the tests out of them, and them out of it."""
    home = new_folder("library") / "home"
    monkeypatch.setenv("DARKROOM_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.parent / "config"))
    return home
