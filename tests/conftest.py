"""Fixtures shared by all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


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


@pytest.fixture(autouse=True)
def empty_library(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps the library of whoever runs the tests out of them, and them out of it."""
    home = tmp_path_factory.mktemp("library") / "home"
    monkeypatch.setenv("DARKROOM_HOME", str(home))
    monkeypatch.delenv("DARKROOM_LOCK", raising=False)
    return home
