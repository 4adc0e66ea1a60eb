"""The service as a whole, in processes of its own: what becomes of jobs when these end."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.serve.conftest import PATIENCE, until

from darkroom.model import load
from darkroom.serve import jobs
from darkroom.serve.database import Database
from darkroom.serve.objects import key_of, objects_at
from darkroom.serve.worker.worker import Worker

LONG = {"prompt": "a boat", "seed": 1, "steps": 300}
"""A job that takes a while."""


class Running:
    """`darkroom serve` at work."""

    def __init__(self, process, url):
        self.process, self.url = process, url
        self.client = httpx.Client(base_url=url, timeout=PATIENCE)

    def ready(self):
        until(lambda: self.client.get("/readyz").status_code == 200, every=0.1)
        return self

    def job(self, **settings):
        answer = self.client.post("/v1/jobs", json=settings)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def look(self, job):
        return self.client.get(f"/v1/jobs/{job}").json()

    def picture(self, job):
        done = self.client.get(f"/v1/jobs/{job}?wait=120").json()
        assert done["state"] == "succeeded", done
        (image,) = done["images"]
        with Image.open(io.BytesIO(self.client.get(image["url"]).content)) as opened:
            return np.asarray(opened), done

    def worker(self):
        """The process of its worker."""
        return until(lambda: [each["pid"] for each in self.client.get("/v1/stats").json()["workers"]])[0]

    def end(self, number=signal.SIGTERM):
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def serve(tmp_path, toy_folder, monkeypatch):
    """Has a service run within a block; the next one has the same data."""
    environment = os.environ | {
        "DARKROOM_MODELS": str(toy_folder.parent),
        "DARKROOM_HOME": str(tmp_path / "home"),
    }
    options = [
        "--port",
        "0",
        "--model",
        "toy",
        "--data",
        str(tmp_path / "data"),
        "--checkpoint",
        "0.2",
        "--lease",
        "2",
    ]

    @contextmanager
    def serve(*others):
        command = [sys.executable, "-m", "darkroom", "serve", *options, *others]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as it:
            said = it.stdout.readline()
            address = re.search(r"http://\S+\d", said)
            assert address, it.stderr.read()
            running = Running(it, address[0])
            try:
                yield running
            finally:
                running.client.close()
                if it.poll() is None:
                    it.kill()
                it.communicate()

    return serve


@pytest.fixture
def finished(tmp_path, serving):
    """What a job comes to that a service has left behind: a worker of this process makes it."""

    def finished(job):
        own = dataclasses.replace(serving, data=str(tmp_path / "data"), database=None, store=None).checked()
        database, objects = Database(own.database), objects_at(own.store)
        worker = Worker(own, database, objects)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            found = until(
                lambda: it if (it := database.read(lambda c: jobs.find(c, "local", job))).over else None
            )
        finally:
            worker.drain()
            thread.join(PATIENCE)
            database.close()
        assert found.row.state == "succeeded", found.row.error
        with Image.open(io.BytesIO(objects.get(key_of(found.pictures[0].sha256)))) as opened:
            return np.asarray(opened), found.row

    return finished


@pytest.fixture(scope="module")
def alone(toy_folder):
    """What the long job comes to with nobody else there."""
    (picture,) = load(toy_folder).generate(**LONG)
    return np.asarray(picture.image)


def test_workers_and_apis_that_are_killed_cost_no_job(serve, finished, alone):
    with serve() as service:
        service.ready()
        first, second, third = (
            service.job(**LONG),
            service.job(prompt="a house", steps=2),
            service.job(**LONG),
        )
        until(lambda: service.look(first)["progress"]["done"] > 100)
        with open(f"/proc/{service.process.pid}/maps") as maps:
            assert "libtorch" not in maps.read()
        os.kill(service.worker(), signal.SIGKILL)
        pixels, done = service.picture(first)
        np.testing.assert_array_equal(pixels, alone)
        assert done["attempt"] == 2
        service.picture(second)
        until(lambda: service.look(third)["progress"]["done"] > 100)
        service.end(signal.SIGKILL)
    np.testing.assert_array_equal(finished(third)[0], alone)


def test_told_to_end_it_finishes_what_it_has(serve):
    with serve("--drain", "60") as service:
        service.ready()
        job = service.job(**LONG)
        until(lambda: service.look(job)["progress"]["done"])
        with service.client.stream("GET", f"/v1/jobs/{job}/events") as events:
            service.process.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
            assert httpx.post(f"{service.url}/v1/jobs", json={"prompt": "x"}).status_code == 503
            # Whoever follows a job hears of its end.
            kinds = [line for line in events.iter_lines() if line.startswith("event:")]
        assert kinds[-1] == "event: succeeded"
        assert service.process.wait(PATIENCE) == 0


def test_told_twice_it_ends_at_once_and_nothing_is_lost(serve, finished, alone):
    with serve("--drain", "60") as service:
        service.ready()
        job = service.job(**LONG)
        until(lambda: service.look(job)["progress"]["done"] > 50)
        service.process.send_signal(signal.SIGTERM)
        until(lambda: service.client.get("/readyz").status_code == 503)
        assert service.end() == 0
    pixels, row = finished(job)
    np.testing.assert_array_equal(pixels, alone)
    assert (row.attempt, row.deaths) == (2, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "this machine alone"),
        (["--host", "nowhere"], "give an address"),
        (["--port", "99999"], "port is 99999"),
        (["--model", "nonesuch"], "no model"),
        (["--database", "mysql://x"], "mysql"),
        (["--store", "ftp://x"], "store"),
        (["--models-memory", "much"], "models_memory|budget|memory"),
    ],
)
def test_what_cannot_be_served_is_told(run, serving, tmp_path, options, words):
    status, _, errors = run("serve", "--model", "toy", "--data", tmp_path, "--workers", "0", *options)
    assert (status, bool(re.search(words, errors))) == (2 if status == 2 else 1, True), errors
    assert "Traceback" not in errors


def test_an_address_that_is_taken(run, serving, tmp_path):
    import socket

    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        status, _, errors = run(
            "serve", "--model", "toy", "--data", tmp_path, "--port", there.getsockname()[1]
        )
    assert (status, "cannot listen" in errors) == (2, True)


def test_settings_stand_elsewhere_too(tmp_path, monkeypatch):
    import argparse

    from darkroom.cli.serve import gathered
    from darkroom.errors import InvalidRequest

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = tmp_path / "config" / "darkroom" / "darkroom.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[serve]\nport = 1\nhost = "::1"\nslots = 3\n[generate]\nsteps = 3\n')
    (tmp_path / "darkroom.toml").write_text("[serve]\nport = 2\nlease = 20\n")
    monkeypatch.setenv("DARKROOM_SERVE_LEASE", "30")
    found = gathered(argparse.Namespace(settings=None, slots=5))
    assert (found.port, found.host, found.lease, found.slots) == (2, "::1", 30, 5)
    for text, words in (
        ("prt = 3", "did you mean 'port'"),
        ("port = 'x'", "port is 'x'"),
        ("drain = -1", "drain"),
    ):
        (tmp_path / "darkroom.toml").write_text(f"[serve]\n{text}\n")
        with pytest.raises(InvalidRequest, match=words):
            gathered(argparse.Namespace(settings=None))
