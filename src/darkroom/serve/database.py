"""The database: SQLite for one machine, PostgreSQL for many.

All that a process writes goes through one thread of its own, which puts whatever waits into one transaction: a commit
waits for the disk (some milliseconds), and many share one. What is written is there when its future has a result; what
fails leaves nothing behind, and the others of its transaction as they are.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Float, Table, create_engine, event, insert, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from darkroom.errors import DarkroomError, InvalidRequest

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Change: TypeAlias = Callable[[Connection], Result]

_MOST_TOGETHER = 256
"""Changes in one transaction."""
_PATIENCE = 5.0
"""Seconds that SQLite waits for whoever else writes."""


class Unavailable(DarkroomError):
    """The database does not answer now; `full`: because the disk is full."""

    def __init__(self, words: str, full: bool = False) -> None:
        super().__init__(words)
        self.full = full


class now(FunctionElement[float]):  # noqa: N801 # It reads as SQL does.
    """The database's own clock, in seconds since 1970: those of the machines around it may differ."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_of_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_of_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::float"


def identity(prefix: str) -> str:
    """A new name that no other has, those of one machine in the order in which they are given."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


def put_row(connection: Connection, table: Table, key: Mapping[str, Any], /, **values: Any) -> None:
    """Have a row say something: the one of a key, or a new one."""
    mine = update(table).where(*(table.c[name] == value for name, value in key.items()))
    if not connection.execute(mine.values(**values)).rowcount:
        connection.execute(insert(table).values(**key, **values))


class Database:
    """Where the service keeps what it knows. `url` as SQLAlchemy writes it: sqlite:///PATH or postgresql://HOST/NAME.

    Raises InvalidRequest for an address that is none, or whose driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url = make_url(url)
        except ArgumentError:
            raise InvalidRequest(
                f"the database is {url!r}: give sqlite:///PATH or postgresql://USER@HOST/NAME"
            ) from None
        self.dialect = self.url.get_backend_name()
        if self.dialect == "postgresql" and self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        if self.dialect not in ("sqlite", "postgresql"):
            raise InvalidRequest(f"the database is of {self.dialect}: SQLite and PostgreSQL are known")
        self._readers, self._writer = self._engines()
        self._changes: queue.SimpleQueue[tuple[Change[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open, self._closed = threading.Lock(), False
        self.told: list[Callable[[], object]] = []
        """Called in the writing thread after each commit that holds events."""

    def _engines(self) -> tuple[Engine, Engine]:
        try:
            if self.dialect == "postgresql":
                # One connection writes, a few read.
                readers = create_engine(self.url, pool_size=8, pool_pre_ping=True)
                return readers, create_engine(self.url, pool_size=1, max_overflow=0, pool_pre_ping=True)
            if self.url.database:
                Path(self.url.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"check_same_thread": False, "timeout": _PATIENCE}}
            readers, writer = create_engine(self.url, **options), create_engine(self.url, **options)
        except (ImportError, NoSuchModuleError) as error:
            raise InvalidRequest(
                f"{self.url.render_as_string()} needs a driver that is not installed ({error}): "
                "pip install 'darkroom[postgres]'"
            ) from error
        except OSError as error:
            raise InvalidRequest(
                f"cannot make the folder of {self.url.database}: {error.strerror}"
            ) from error
        _tune(readers, "BEGIN")
        _tune(writer, "BEGIN IMMEDIATE")
        return readers, writer

    def read(self, question: Callable[[Connection], Result]) -> Result:
        """What a question comes to, in this thread. Raises Unavailable where the database does not answer."""
        try:
            with self._readers.begin() as connection:
                return question(connection)
        except DBAPIError as error:
            if _is_away(error):
                raise _unavailable(error) from error
            raise

    def write(self, change: Change[Result]) -> Future[Result]:
        """Have something changed, with whatever else is to be; from any thread. The future raises Unavailable where
        nothing is written, and whatever `change` raises."""
        future: Future[Result] = Future()
        with self._open:  # Nothing comes behind the end.
            if self._closed:
                future.set_exception(Unavailable("the service is ending: nothing more is written"))
                return future
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="database", daemon=True)
                self._thread.start()
            self._changes.put((change, future))
        return future

    def close(self) -> None:
        """Write what is still to be written, and let go of the database."""
        with self._open:
            self._closed = True
            self._changes.put(None)
        if self._thread is not None:
            self._thread.join()
        self._readers.dispose()
        self._writer.dispose()

    def _write(self) -> None:
        while True:
            together = [self._changes.get()]
            while len(together) < _MOST_TOGETHER and not self._changes.empty():
                together.append(self._changes.get())
            self._commit([each for each in together if each is not None])
            if None in together:
                return
            del together  # Nothing of it may live on while the thread waits.

    def _commit(self, together: Iterable[tuple[Change[Any], Future[Any]]]) -> None:
        wanted = [each for each in together if each[1].set_running_or_notify_cancel()]
        if not wanted:
            return
        outcomes: list[Callable[[], object]] = []
        try:
            with self._writer.begin() as connection:
                connection.info.pop("events", None)
                for change, future in wanted:
                    outcomes.append(_outcome(connection, change, future))
                heard = "events" in connection.info
                if heard and self.dialect == "postgresql":
                    connection.exec_driver_sql("NOTIFY darkroom_events")
        except Exception as error:
            said = _unavailable(error) if isinstance(error, DBAPIError) and _is_away(error) else error
            for _, future in wanted:
                future.set_exception(said)
            return
        for outcome in outcomes:
            outcome()
        for told in self.told if heard else ():
            try:
                told()
            except Exception:  # Whoever listens is gone: what is written stays written.
                log.debug("nobody hears of events", exc_info=True)


def _outcome(connection: Connection, change: Change[Any], future: Future[Any]) -> Callable[[], object]:
    """Make a change apart from the others; gives what to do once all are committed. Raises what concerns them all."""
    try:
        with connection.begin_nested():
            result = change(connection)
    except Exception as error:
        if isinstance(error, DBAPIError) and _is_away(error):
            raise
        failed = error
        return lambda: future.set_exception(failed)
    return lambda: future.set_result(result)


def _tune(engine: Engine, begin: str) -> None:
    """SQLite as it is to be used by several processes at once, each commit kept whatever becomes of the machine."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # Transactions begin as we say, not as Python's module does.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _is_away(error: DBAPIError) -> bool:
    """Whether it is the database that does not answer, and not a question that it refuses."""
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def _unavailable(error: DBAPIError) -> Unavailable:
    words = str(error.orig)
    if "full" in words or "No space" in words:
        return Unavailable("the disk with the database is full: make room on it", full=True)
    return Unavailable(f"the database does not answer ({words.strip()}): try again in some seconds")
