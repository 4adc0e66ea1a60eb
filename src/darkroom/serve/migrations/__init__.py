"""The tables as they came to be, step by step (Alembic): a database of any released version becomes one of this."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from darkroom.errors import DarkroomError
from darkroom.serve.database import Database

HEAD = "0002"
"""The last step."""
_LOCK = 0x6461726B
"""PostgreSQL's advisory lock under which one process at a time changes the tables."""


def upgrade(database: Database) -> None:
    """Bring the tables to this version, whatever they were. Raises DarkroomError where they are of a later one."""

    def brought(connection: Connection) -> None:
        if database.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if (now := version(connection)) != HEAD:
            _run(connection, now)

    if database.read(version) != HEAD:
        database.write(brought).result()


def version(connection: Connection) -> str | None:
    """The step that the tables are at; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _run(connection: Connection, now: str | None) -> None:
    # Nobody waits for Alembic who has nothing to change.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    if now is not None and now not in {
        each.revision for each in ScriptDirectory.from_config(config).walk_revisions()
    }:
        raise DarkroomError(
            f"the database is of a later Darkroom (its tables are at {now!r}, this one knows {HEAD!r}): update it"
        )
    command.upgrade(config, "head")
