"""What the service takes: to start, to take jobs in, to claim them; and how long short jobs wait for long ones.

    python benchmarks/service.py start          # seconds from a cold start to /livez and to /readyz
    python benchmarks/service.py intake         # jobs taken in a second, and how long each waits; no worker
    python benchmarks/service.py claims         # with 10,000 jobs of 50 users in the queue
    python benchmarks/service.py turns          # four steps that come while fifty are being made

Each in a folder of its own, with the pocket model. Medians of `--runs`; all figures are in the docs (docs/service.md).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

PROMPT = {"prompt": "a red boat on a calm sea", "seed": 7}


class Client:
    """Requests to a service, a connection a thread."""

    def __init__(self, address: str) -> None:
        self._host = address.removeprefix("http://")
        self._own = threading.local()

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if not hasattr(self._own, "connection"):
            self._own.connection = HTTPConnection(self._host, timeout=300)
        connection = self._own.connection
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextmanager
def serving(*options: str) -> Iterator[tuple[Client, float]]:
    """A service in a new folder: a client of it, and when it was begun."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "darkroom", "serve", "--port", "0", "--data", folder, *options]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[2]
            try:
                yield Client(address), began
            finally:
                process.terminate()
                process.wait(60)


def until_ready(ask: Client) -> None:
    while ask("GET", "/readyz")[0] != 200:
        time.sleep(0.05)


def start(runs: int) -> None:
    live, ready = [], []
    for _ in range(runs):
        with serving() as (ask, began):
            while ask("GET", "/livez")[0] != 200:
                time.sleep(0.01)
            live.append(time.perf_counter() - began)
            until_ready(ask)
            ready.append(time.perf_counter() - began)
    print(f"/livez after {statistics.median(live):.2f} s, /readyz after {statistics.median(ready):.2f} s")


def intake(runs: int, jobs: int = 2000, clients: int = 8) -> None:
    rates, waits = [], []
    for _ in range(runs):
        with serving("--workers", "0") as (ask, _):

            def post(number: int, ask: Client = ask) -> float:
                began = time.perf_counter()
                status, said = ask("POST", "/v1/jobs", PROMPT | {"seed": number})
                assert status == 202, said
                return time.perf_counter() - began

            with ThreadPoolExecutor(clients) as pool:
                [*pool.map(post, range(clients))]
                began = time.perf_counter()
                waits += [*pool.map(post, range(jobs))]
                rates.append(jobs / (time.perf_counter() - began))
    found = statistics.quantiles(waits, n=100)
    print(
        f"{statistics.median(rates):.0f} jobs a second from {clients} clients; each waits "
        f"{1000 * statistics.median(waits):.0f} ms (median), {1000 * found[98]:.0f} ms (99 of 100)"
    )


def fill(database: Any, users: list[str], jobs: int) -> None:
    """Have jobs of these users, in turns, wait in a database."""
    from darkroom.serve.jobs import Submission, submit

    several = [
        Submission(users[n % len(users)], "generate", "pocket", {}, {}, work=n % 7 + 1) for n in range(jobs)
    ]
    for each in [database.write(lambda c, job=job: submit(c, job)) for job in several]:
        each.result()


def claims(runs: int, jobs: int = 10_000, users: int = 50) -> None:
    from sqlalchemy import insert

    from darkroom.serve import claims
    from darkroom.serve import jobs as table
    from darkroom.serve.database import Database
    from darkroom.serve.migrations import upgrade
    from darkroom.serve.schema import users as owners

    claimed, listed = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            database = Database(f"sqlite:///{folder}/darkroom.sqlite")
            upgrade(database)
            names = [f"user {number}" for number in range(users)]
            rows = [{"id": name, "name": name, "created_at": 0.0} for name in names]
            database.write(lambda c, rows=rows: c.execute(insert(owners), rows)).result()
            fill(database, names, jobs)
            worker = database.write(lambda c: claims.enlist(c, "here", 1, {})).result()
            for _ in range(200):
                began = time.perf_counter()
                (job,) = database.write(lambda c, worker=worker: claims.claim(c, worker, 1, False)).result()
                claimed.append(time.perf_counter() - began)
                began = time.perf_counter()
                assert database.read(lambda c, job=job: table.listed(c, job.owner))
                listed.append(time.perf_counter() - began)
            database.close()
    for what, found in (("a claim", claimed), ("a page of a user's jobs", listed)):
        late = statistics.quantiles(found, n=20)[18]
        print(
            f"{what}, {jobs:,} jobs of {users} users: {1000 * statistics.median(found):.1f} ms (median), "
            f"{1000 * late:.1f} ms (95 of 100)"
        )


def turns(runs: int) -> None:
    alone, beside, whole = [], [], []
    short, long = PROMPT | {"steps": 4}, PROMPT | {"steps": 50, "seed": 8}
    with serving() as (ask, _):
        until_ready(ask)
        for body in (short, long):
            ask("POST", "/v1/jobs?wait=60", body)

        def timed(body: dict[str, Any]) -> float:
            began = time.perf_counter()
            assert ask("POST", "/v1/jobs?wait=60", body)[1]["state"] == "succeeded"
            return time.perf_counter() - began

        for _ in range(runs):
            alone.append(timed(short))
            one_after_another = alone[-1] + timed(long)
            began = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                first = pool.submit(timed, long)
                time.sleep(0.5)
                beside.append(pool.submit(timed, short).result())
                first.result()
            whole.append(one_after_another / (time.perf_counter() - began))
    ratio = statistics.median(beside) / statistics.median(alone)
    print(
        f"four steps take {statistics.median(alone):.2f} s alone, {statistics.median(beside):.2f} s within fifty "
        f"({ratio:.2f} times as long); both together {statistics.median(whole):.2f} times as fast as one after another"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = {"start": start, "intake": intake, "claims": claims, "turns": turns}
    parser.add_argument("what", choices=commands, nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    for name in args.what:
        commands[name](args.runs)


if __name__ == "__main__":
    main()
