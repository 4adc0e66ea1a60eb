"""The life of a job, in the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import Connection, create_engine, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from tests.serve.conftest import PATIENCE, a_job

from darkroom.errors import DarkroomError, InvalidRequest
from darkroom.serve import claims, events, jobs, migrations, results
from darkroom.serve.claims import ALONE_AFTER, POISON_AFTER, WEIGHTS, Claimed, Watch
from darkroom.serve.database import Database
from darkroom.serve.migrations import HEAD, upgrade, version
from darkroom.serve.problems import Problem
from darkroom.serve.results import Lost, Made, Progress
from darkroom.serve.schema import TERMINAL, metadata, pictures, previews, users, workers
from darkroom.serve.schema import jobs as table
from darkroom.serve.sweep import sweep

Put = Callable[..., Any]


def made(number: int = 0) -> Made:
    return Made(number, "0" * 64, 9, "png", 8, 8, 7, 0.5)


@pytest.fixture
def worker(put: Put) -> str:
    return str(put(claims.enlist, "here", 1, {}))


def submitted(put: Put, job: Any) -> str:
    """The id of a job that is taken in."""
    return str(put(jobs.submit, job).row.id)


def state(database: Database, job: str) -> Any:
    return database.read(lambda c: c.execute(select(table).where(table.c.id == job)).one())


def kinds(database: Database, job: str) -> list[str]:
    return [each.kind for each in database.read(lambda c: events.since(c, 0, job=job))]


# The tables


def test_migrations_come_to_the_tables(database):
    assert database.read(version) == HEAD
    assert database.read(lambda c: compare_metadata(MigrationContext.configure(c), metadata)) == []


def test_an_upgrade_with_jobs_in_the_queue_loses_none(tmp_path):
    old = Database(f"sqlite:///{tmp_path / 'old.sqlite'}")

    def first(connection):
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(insert(users).values(id="local", name="local", created_at=0))
        connection.execute(
            text(
                "INSERT INTO jobs (id, owner, kind, model, priority, state, request, asked, count, format, work,"
                " created_at) VALUES ('job_1', 'local', 'generate', 'toy', 'interactive', 'queued',"
                """ '{"prompt": "a boat"}', '{}', 1, 'png', 1.0, 0.0)"""
            )
        )

    old.write(first).result()
    upgrade(old)
    assert old.read(version) == HEAD

    def claimed(connection):
        return claims.claim(connection, claims.enlist(connection, "here", 1, {}), 1, True)

    (job,) = old.write(claimed).result()
    assert (job.id, job.request, job.quality) == ("job_1", {"prompt": "a boat"}, None)
    assert old.read(lambda c: jobs.find(c, "local", "job_1")).row.door == "native"
    old.close()


def test_a_database_of_a_later_version_is_refused(database, put):
    put(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(DarkroomError, match="later Darkroom"):
        upgrade(database)


@pytest.mark.parametrize("url", ["nonsense", "mysql://localhost/x", "sqlite:////proc/none/x.sqlite"])
def test_no_database(url):
    with pytest.raises(InvalidRequest):
        Database(url)


def test_one_change_that_fails_is_alone_with_that(database):
    def fails(connection: Connection) -> None:
        connection.execute(insert(users).values(id="third", name="third", created_at=0))
        raise ValueError("no")

    futures = [database.write(each) for each in (lambda c: jobs.submit(c, a_job()), fails, lambda c: 3) * 20]
    assert {type(each.exception(PATIENCE)) for each in futures[1::3]} == {ValueError}
    assert len({each.result(PATIENCE).row.id for each in futures[::3]}) == 20
    assert [each.result(PATIENCE) for each in futures[2::3]] == [3] * 20
    assert database.read(lambda c: c.execute(select(users).where(users.c.id == "third")).all()) == []


def test_what_is_over_stays_as_it_is(database, put, worker):
    job = submitted(put, a_job())
    put(jobs.cancel, "local", job)
    with pytest.raises(IntegrityError, match="over"):
        put(lambda c: c.execute(update(table).where(table.c.id == job).values(state="queued")))


# Turns


def claimed_order(put: Put, worker: str, count: int) -> list[str]:
    return ["".join(each.owner for each in put(claims.claim, worker, 1, False)) for _ in range(count)]


def test_users_take_turns_by_the_work_they_ask_for(put, worker):
    for _ in range(20):
        submitted(put, a_job("local", work=4))
        submitted(put, a_job("other", work=1))
    order = claimed_order(put, worker, 20)
    assert order.count("other") == 16


def test_whoever_comes_late_does_not_have_what_others_had_before(put, worker):
    for _ in range(20):
        submitted(put, a_job("local", work=1))
    claimed_order(put, worker, 10)
    for _ in range(10):
        submitted(put, a_job("other", work=1))
    order = claimed_order(put, worker, 10)
    assert abs(order.count("other") - 5) <= 1


def test_priorities_have_their_weights(put, worker):
    for _ in range(40):
        for priority in WEIGHTS:
            submitted(put, a_job(priority=priority))
    found = [put(claims.claim, worker, 1, False)[0].priority for _ in range(44)]
    assert [found.count(priority) for priority in WEIGHTS] == pytest.approx([32, 8, 4], abs=1)


def test_workers_that_are_ready_have_their_share(put, worker):
    others = [put(claims.enlist, "here", number, {}) for number in (2, 3)]
    for each in (worker, others[0]):
        put(claims.beat, each, "ready", {})
    for _ in range(6):
        submitted(put, a_job())
    # The third one is not ready.
    assert [len(put(claims.claim, worker, 9, True)) for _ in range(2)] == [3, 1]
    assert len(put(claims.claim, others[0], 9, True)) == 2


def test_nothing_waits_for_whoever_has_nothing_to_do(put, worker):
    assert put(claims.claim, worker, 5, True) == []
    submitted(put, a_job())
    assert len(put(claims.claim, worker, 5, True)) == 1


# Deaths


def test_a_job_of_a_dead_worker_waits_again(database, put, worker):
    job = submitted(put, a_job())
    (lost,) = put(claims.claim, worker, 1, True)
    assert put(claims.bury, worker)
    assert state(database, job).state == "queued"
    with pytest.raises(Lost):
        put(results.add, lost, made(), {})
    (again,) = put(claims.claim, put(claims.enlist, "here", 2, {}), 1, True)
    assert again.fence > lost.fence
    put(results.add, again, made(), {"denoise": 1.0})
    assert state(database, job).state == "succeeded"
    assert kinds(database, job) == ["queued", "running", "queued", "running", "picture", "succeeded"]


def test_what_ends_its_workers_is_given_up(database, put):
    job = submitted(put, a_job())
    for death in range(POISON_AFTER):
        worker = put(claims.enlist, "here", death, {})
        (claimed,) = put(claims.claim, worker, 9, True)
        assert claimed.alone == (death >= ALONE_AFTER)
        put(claims.bury, worker)
    assert (state(database, job).state, state(database, job).code) == ("failed", "poison")


def test_what_is_to_be_alone_has_nothing_beside_it(put, worker):
    first, second = submitted(put, a_job()), submitted(put, a_job("other"))
    put(lambda c: c.execute(update(table).where(table.c.id == first).values(deaths=ALONE_AFTER)))
    # Nothing is begun before it, or it would wait for ever.
    assert put(claims.claim, worker, 9, False) == []
    assert [each.id for each in put(claims.claim, worker, 9, True)] == [first]
    assert [each.id for each in put(claims.claim, worker, 9, False)] == [second]


def test_what_the_machine_cannot_do_now_waits_again(database, put, worker):
    job = submitted(put, a_job())
    (claimed,) = put(claims.claim, worker, 1, True)
    put(claims.release, job, claimed.fence)
    assert state(database, job).state == "queued"
    put(claims.release, job, claimed.fence)
    assert kinds(database, job) == ["queued", "running", "queued"]


def test_what_is_left_of_jobs_that_are_over_is_swept(database, put, worker, objects):
    job = submitted(put, a_job())
    (claimed,) = put(claims.claim, worker, 1, True)
    put(results.advance, worker, [Progress(claimed, 1, 4, {})])
    for key in ("checkpoints/a/1", "checkpoints/a/2", "content/00/00"):
        objects.put(key, b"x")
    put(results.checkpoint, claimed, 0, "checkpoints/a/1", 1)
    put(results.preview, claimed, 0, b"jpeg", 1)
    assert sweep(database, objects, age=0) == 2
    assert objects.get("checkpoints/a/1") == b"x"
    put(claims.leave, worker)
    put(jobs.cancel, "local", job)
    assert sweep(database, objects, age=0) == 1
    assert kinds(database, job) == ["queued", "running", "queued", "cancelled"]
    assert database.read(lambda c: c.execute(select(previews)).all()) == []


def test_who_did_not_look_has_seen_nobody_stand_still(put, worker, monkeypatch):
    here = [100.0]
    monkeypatch.setattr("darkroom.serve.claims.time.monotonic", lambda: here[0])
    watch = Watch(lease=10)
    for _ in range(3):
        assert put(watch.look) == []
        here[0] += 20  # The database, or the whole machine, was away.


def test_nothing_is_seen_of_what_is_over(database, put, worker):
    submitted(put, a_job())
    (claimed,) = put(claims.claim, worker, 1, True)
    put(results.preview, claimed, 0, b"jpeg", 1)
    put(results.end, claimed, "cancelled")
    put(results.preview, claimed, 0, b"jpeg", 2)
    assert database.read(lambda c: c.execute(select(previews)).all()) == []


def test_a_picture_that_is_there_is_not_added_again(database, put, worker):
    job = submitted(put, a_job(count=2))
    (claimed,) = put(claims.claim, worker, 1, True)
    for _ in range(2):
        assert put(results.add, claimed, made(0), {}) == ([], False)
    assert put(results.add, claimed, made(1), {}) == ([], True)
    assert kinds(database, job) == ["queued", "running", "picture", "picture", "succeeded"]


def test_what_a_worker_claimed_and_does_not_know_of_waits_again(database, put, worker):
    first, second = submitted(put, a_job()), submitted(put, a_job())
    put(claims.claim, worker, 2, True)
    assert put(claims.stray, worker, {second}) == [first]
    assert (state(database, first).state, state(database, second).state) == ("queued", "running")


def test_a_checkpoint_forgives_deaths(database, put):
    job = submitted(put, a_job())
    for death in range(2 * POISON_AFTER):
        worker = put(claims.enlist, "here", death, {})
        (claimed,) = put(claims.claim, worker, 1, True)
        put(results.checkpoint, claimed, 0, f"key {death}", death + 1)
        put(claims.bury, worker)
    assert state(database, job).state == "queued"
    (claimed,) = put(claims.claim, put(claims.enlist, "here", 99, {}), 1, True)
    assert claimed.checkpoints == {0: f"key {2 * POISON_AFTER - 1}"}


def test_a_worker_whose_beat_stands_still_is_dead(database, put, worker, monkeypatch):
    here = [100.0]
    monkeypatch.setattr("darkroom.serve.claims.time.monotonic", lambda: here[0])
    watch, alive = Watch(lease=10), put(claims.enlist, "here", 2, {})
    for _ in range(6):
        assert put(watch.look) == []
        here[0] += 2
        assert put(claims.beat, alive, "ready", {})
    assert put(watch.look) == [worker]
    assert not put(claims.beat, worker, "ready", {})
    assert put(watch.look) == []


def test_the_clocks_of_machines_are_never_asked(put, worker, monkeypatch):
    """An hour more or less on a worker's clock takes no job from anybody."""
    watch = Watch(lease=10)
    for shift in (0, 3600, -3600):
        monkeypatch.setattr("time.time", lambda shift=shift: 1e9 + shift)
        assert put(watch.look) == []


# What owners do


def test_one_key_is_one_job(put):
    first, same = (submitted(put, a_job(idempotency_key="k", body_sha256="a")) for _ in range(2))
    assert first == same
    assert submitted(put, a_job("other", idempotency_key="k", body_sha256="b")) != first
    with pytest.raises(Problem, match="another request"):
        submitted(put, a_job(idempotency_key="k", body_sha256="b"))


def test_others_jobs_are_as_if_they_were_not(put):
    job = submitted(put, a_job("other"))
    for change in (jobs.find, jobs.cancel, jobs.tried_again):
        with pytest.raises(Problem, match="no job"):
            put(change, "local", job)
    assert put(jobs.listed, "local") == []


def test_cancelling(database, put, worker):
    waiting, running = submitted(put, a_job()), submitted(put, a_job())
    put(jobs.cancel, "local", waiting)
    (claimed,) = put(claims.claim, worker, 1, True)
    assert put(jobs.cancel, "local", running).row.state == "running"
    assert put(results.advance, worker, [Progress(claimed, 1, 4, {})]) == ({running}, {running})
    put(results.end, claimed, "cancelled")
    assert [state(database, each).state for each in (waiting, running)] == ["cancelled"] * 2
    assert kinds(database, running) == ["queued", "running", "cancelled"]
    again = put(jobs.tried_again, "local", running).row.id
    assert state(database, again).retry_of == running
    with pytest.raises(Problem, match="queued"):
        put(jobs.tried_again, "local", again)


def test_pages_of_jobs(put):
    names = [submitted(put, a_job()) for _ in range(5)]
    first = put(jobs.listed, "local", most=3)
    rest = put(jobs.listed, "local", most=3, before=first[-1].row.number)
    assert [each.row.id for each in (*first, *rest)] == names[::-1]
    put(jobs.cancel, "local", names[2])
    assert [each.row.id for each in put(jobs.listed, "local", states=["cancelled"])] == [names[2]]


def test_events_are_numbered_as_they_are_committed(database, put):
    for _ in range(3):
        submitted(put, a_job())
    found = database.read(lambda c: events.since(c, 0))
    assert [each.seq for each in found] == [1, 2, 3] == [*range(1, database.read(events.last_seq) + 1)]
    assert database.read(lambda c: events.since(c, 2, owner="other")) == []


# All of it, in any order


class Life(RuleBasedStateMachine):
    """Users, workers and their deaths in any order."""

    jobs = Bundle("jobs")
    claimed = Bundle("claimed")

    @initialize()
    def begin(self) -> None:
        self.engine = create_engine("sqlite://")

        @event.listens_for(self.engine, "connect")
        def connected(connection: Any, _: object) -> None:
            connection.isolation_level = None

        @event.listens_for(self.engine, "begin")
        def begun(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        self.connection = self.engine.connect()
        self.connection.connection.driver_connection.executescript(MIGRATED)  # type: ignore[union-attr]
        self.connection.execute(insert(users).values(id="local", name="local", created_at=0))
        self.connection.commit()
        self.fences: dict[str, int] = {}
        self.ends: dict[str, Any] = {}

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
            self.engine.dispose()

    @rule(target=jobs, count=st.integers(1, 3), priority=st.sampled_from([*WEIGHTS]))
    def submit(self, count: int, priority: str) -> str:
        return str(jobs.submit(self.connection, a_job(count=count, priority=priority)).row.id)

    @rule(target=claimed, most=st.integers(1, 4), idle=st.booleans())
    def claim(self, most: int, idle: bool) -> Any:
        worker = claims.enlist(self.connection, "here", 1, {})
        return multiple(*((worker, each) for each in claims.claim(self.connection, worker, most, idle)))

    @rule(target=claimed, each=claimed)
    def claim_more(self, each: tuple[str, Claimed]) -> Any:
        """By a worker that may be dead by now."""
        more = claims.claim(self.connection, each[0], 1, False)
        return multiple(*((each[0], one) for one in more))

    def _attempt(self, change: Callable[[], object], job: Claimed) -> None:
        """A worker's write, which is to be lost exactly where the job is no longer its own."""
        row = self.connection.execute(select(table).where(table.c.id == job.id)).one()
        held = row.state == "running" and row.fence == job.fence
        try:
            change()
        except Lost:
            assert not held
        else:
            assert held

    @rule(each=claimed, done=st.integers(1, 9))
    def checkpoint(self, each: tuple[str, Claimed], done: int) -> None:
        self._attempt(lambda: results.checkpoint(self.connection, each[1], 0, "key", done), each[1])

    @rule(each=claimed)
    def finish_one(self, each: tuple[str, Claimed]) -> None:
        _, job = each
        there = select(pictures.c.number).where(pictures.c.job == job.id)
        numbers = {*self.connection.execute(there).scalars()}
        number = min({*range(job.count)} - numbers, default=0)
        self._attempt(lambda: results.add(self.connection, job, made(number), {}), job)

    @rule(each=claimed, how=st.sampled_from(["failed", "cancelled"]))
    def end(self, each: tuple[str, Claimed], how: str) -> None:
        self._attempt(lambda: results.end(self.connection, each[1], how, "code", "why"), each[1])

    @rule(each=claimed)
    def advance(self, each: tuple[str, Claimed]) -> None:
        results.advance(self.connection, each[0], [Progress(each[1], 1, 2, {})])

    @rule(each=claimed)
    def die(self, each: tuple[str, Claimed]) -> None:
        claims.bury(self.connection, each[0])

    @rule(each=claimed)
    def leave(self, each: tuple[str, Claimed]) -> None:
        claims.leave(self.connection, each[0])

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        jobs.cancel(self.connection, "local", job)

    @rule(job=jobs)
    def retry(self, job: str) -> None:
        if self.ends.get(job, ("",))[0] in ("failed", "cancelled"):
            jobs.tried_again(self.connection, "local", job)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "connection"):
            return
        there = {*self.connection.execute(select(workers.c.id)).scalars()}
        for row in self.connection.execute(select(table)):
            assert row.fence >= self.fences.get(row.id, 0)
            self.fences[row.id] = row.fence
            made_of = select(pictures.c.number).where(pictures.c.job == row.id)
            numbers = sorted(self.connection.execute(made_of).scalars())
            assert (row.state == "succeeded") == (numbers == [*range(row.count)])
            assert row.state != "running" or row.worker in there
            told = [each.kind for each in events.since(self.connection, 0, job=row.id)]
            ended = [kind for kind in told if kind in TERMINAL]
            assert ended == ([row.state] if row.state in TERMINAL else [])
            if row.state in TERMINAL:
                now = (row.state, row.fence, row.finished_at, tuple(numbers))
                assert self.ends.setdefault(row.id, now) == now


MIGRATED = ""


def test_lives(migrated: Path) -> None:
    global MIGRATED
    import sqlite3

    source = sqlite3.connect(migrated)
    MIGRATED = "\n".join(source.iterdump())
    source.close()
    from hypothesis.stateful import run_state_machine_as_test

    quick = settings(
        max_examples=25, stateful_step_count=30, deadline=None, database=None, derandomize=True,
        suppress_health_check=[*HealthCheck],
    )  # fmt: skip
    run_state_machine_as_test(Life, settings=quick)
