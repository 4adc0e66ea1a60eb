"""The tables of the service. The row of a job is the truth about it: brokers, engines and clients only hear of it."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

STATES = ("queued", "running", "succeeded", "failed", "cancelled", "blocked")
"""What a job may be: waiting; claimed by a worker; and at its end made, failed, stopped, or refused by a policy."""
TERMINAL = STATES[2:]
PRIORITIES = ("interactive", "batch", "background")
"""Whose turn comes more often, the first most."""
DOORS = ("native", "openai", "a1111")
"""The interfaces by which jobs come in."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows by itself in columns of exactly this type.
_Number = BigInteger().with_variant(Integer, "sqlite")


def _one_of(name: str, words: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{name} IN ({', '.join(map(repr, words))})", name=f"{name}_known")


users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)
"""Whoever asks for something. Jobs, pictures and uploads are always somebody's."""

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, ForeignKey("users.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("model", Text),
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("asked", JSON, nullable=False),
    Column("count", Integer, nullable=False),
    Column("format", Text, nullable=False),
    # Of formats that lose something, 1 to 100; None: the library's own.
    Column("quality", Integer),
    # By which interface it came in, and what its client calls it there.
    Column("door", Text, nullable=False, server_default="native"),
    Column("task", Text),
    # How much of the engine it takes, foretold when it comes in: evaluations of the network at its native size.
    Column("work", Float, nullable=False),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("total", Integer),
    # Grows with every claim and every loss of one: what was begun under an older one counts no more.
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    # How many workers have died over it without having got on.
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("worker", Text),
    Column("cancel", Boolean, nullable=False, server_default="0"),
    Column("code", Text),
    Column("error", Text),
    Column("retry_of", Text),
    Column("batch", Text),
    Column("batch_line", Integer),
    Column("idempotency_key", Text),
    Column("body_sha256", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    # Of the engine, by phase: this job's share of the time of every step that it had a part in.
    Column("seconds", JSON),
    _one_of("state", STATES),
    _one_of("priority", PRIORITIES),
    UniqueConstraint("owner", "idempotency_key"),
    UniqueConstraint("batch", "batch_line"),
    Index(None, "owner", "number"),
    Index(None, "state", "owner", "priority", "number"),
    Index(None, "worker", "state"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, ForeignKey("users.id"), nullable=False),
    Column("idempotency_key", Text),
    Column("body_sha256", Text),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("owner", "idempotency_key"),
)
"""Jobs that came in together: each says of which batch it is, and which line."""

pictures = Table(
    "pictures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job", Text, ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("owner", Text, ForeignKey("users.id"), nullable=False),
    Column("sha256", Text, nullable=False),
    Column("nbytes", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("job", "number"),
    Index(None, "owner", "id"),
    Index(None, "sha256"),
)
"""What jobs have made; the bytes lie in the store under their SHA-256."""

uploads = Table(
    "uploads",
    metadata,
    Column("owner", Text, ForeignKey("users.id"), primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("nbytes", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)
"""Pictures that were given, by what they hold."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("picture", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("done", Integer, nullable=False),
)
"""Where each picture of a running job has come to, as the engine wrote it down last; the bytes lie in the store."""

previews = Table(
    "previews",
    metadata,
    Column("job", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("picture", Integer, primary_key=True),
    Column("jpeg", LargeBinary, nullable=False),
    Column("done", Integer, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("job", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("at", Float, nullable=False),
    Index(None, "job", "seq"),
    Index(None, "owner", "seq"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Whoever writes events counts them here first, so that their numbers follow one another as their commits do."""

turns = Table(
    "turns",
    metadata,
    Column("owner", Text, ForeignKey("users.id"), primary_key=True),
    Column("priority", Text, primary_key=True),
    Column("began", Float, nullable=False),
    Column("had", Float, nullable=False),
)
"""How far each user has come in what has been given out of the engine: where the last job of it began, and where it
ended (`darkroom.serve.claims`)."""

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("started_at", Float, nullable=False),
)
"""Those that are there. One whose `beat` stands still for a lease is dead, and its jobs go to others."""

options = Table(
    "options",
    metadata,
    Column("owner", Text, ForeignKey("users.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", JSON, nullable=False),
)
"""What an owner has said to hold for all requests by A1111's interface, which keeps such a state."""

shelf = Table(
    "shelf",
    metadata,
    Column("model", Text, primary_key=True),
    Column("wanted", Boolean, nullable=False),
    Column("at", Float, nullable=False),
)
"""Which models are to be loaded, or not to be, as operators said last; workers do it when they can."""
