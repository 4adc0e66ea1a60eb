from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import insert

from darkroom.model import Model, load
from darkroom.serve.api.app import make_app
from darkroom.serve.api.server import _bound
from darkroom.serve.api.service import Service
from darkroom.serve.database import Database
from darkroom.serve.jobs import Submission
from darkroom.serve.migrations import upgrade
from darkroom.serve.objects import Folder
from darkroom.serve.schema import users
from darkroom.serve.settings import Serving
from darkroom.serve.worker.worker import Worker

PATIENCE = 60
"""Seconds that nothing here takes, however busy the machine is."""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without rows."""
    path = tmp_path_factory.mktemp("migrated") / "darkroom.sqlite"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture
def serving(tmp_path: Path, migrated: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """The settings of a service of the toy model, without workers of its own."""
    return _serving(tmp_path, migrated, toy_folder, monkeypatch)


def _serving(folder: Path, migrated: Path, toy_folder: Path, patch: pytest.MonkeyPatch) -> Serving:
    patch.setenv("DARKROOM_MODELS", str(toy_folder.parent))
    patch.setenv("DARKROOM_HOME", str(folder / "home"))
    patch.setattr("darkroom.library.locate._paths", None)  # What a service says holds for its process.
    shutil.copy(migrated, folder / "darkroom.sqlite")
    return Serving(model="toy", data=str(folder), workers=0, checkpoint=0.1, lease=5, drain=20).checked()


@pytest.fixture
def database(serving: Serving) -> Iterator[Database]:
    """A database with two users."""
    found = Database(str(serving.database))
    for name in ("local", "other"):
        found.write(
            lambda c, name=name: c.execute(insert(users).values(id=name, name=name, created_at=0))
        ).result()
    yield found
    found.close()


@pytest.fixture
def objects(serving: Serving) -> Folder:
    return Folder(Path(str(serving.store)))


@pytest.fixture
def put(database: Database) -> Callable[..., Any]:
    """Changes the database, and gives what comes of it."""
    return lambda change, *given, **named: database.write(lambda c: change(c, *given, **named)).result(
        PATIENCE
    )


def a_job(owner: str = "local", **changes: Any) -> Submission:
    return Submission(
        **{"owner": owner, "kind": "generate", "model": "toy", "request": {}, "asked": {}} | changes
    )


class Api:
    """An API at work, and a client of it."""

    def __init__(self, url: str, app: Any) -> None:
        self.url, self.app = url, app
        self.client = httpx.Client(base_url=url, timeout=PATIENCE)

    @property
    def service(self) -> Any:
        return self.app.state.service

    def job(self, **settings: Any) -> dict[str, Any]:
        """A job that is taken in."""
        answer = self.client.post("/v1/jobs", json={"prompt": "a boat", "steps": 2} | settings)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


@contextmanager
def an_api(serving: Serving) -> Iterator[Api]:
    app = make_app(Service(serving))
    here = _bound(serving.host, 0)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [here]})
    thread.start()
    api = Api(f"http://127.0.0.1:{here.getsockname()[1]}", app)
    try:
        until(lambda: server.started or not thread.is_alive())
        yield api
    finally:
        api.client.close()
        server.should_exit = True
        thread.join(PATIENCE)
        here.close()


@pytest.fixture
def api(serving: Serving) -> Iterator[Api]:
    """An API without workers."""
    with an_api(serving) as found:
        yield found


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path, toy_folder: Path
) -> Iterator[tuple[Api, Model]]:
    """An API with a worker in this process, for all tests of a module, and the model that it makes pictures with."""
    with pytest.MonkeyPatch.context() as patch:
        serving = _serving(tmp_path_factory.mktemp("house"), migrated, toy_folder, patch)
        with an_api(serving) as api:
            database = Database(str(serving.database))
            worker = Worker(serving, database, Folder(Path(str(serving.store))))
            api.service.database.told.append(worker.ring)
            thread = threading.Thread(target=worker.run)
            thread.start()
            until(lambda: api.get("/readyz").status_code == 200)
            yield api, load(toy_folder)
            worker.drain()
            thread.join(PATIENCE)
            database.close()


def until(true: Callable[[], Any], every: float = 0.02) -> Any:
    """What something is once it is true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(every)
    raise AssertionError("it never came to be")
