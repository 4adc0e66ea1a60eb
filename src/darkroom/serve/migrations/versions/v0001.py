"""The first tables: users, jobs and what becomes of them, workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# What is over stays as it is, whoever writes.
_OVER = "('succeeded', 'failed', 'cancelled', 'blocked')"
_TRIGGERS = {
    "sqlite": [
        f"""
        CREATE TRIGGER jobs_over BEFORE UPDATE ON jobs WHEN OLD.state IN {_OVER}
        BEGIN SELECT RAISE(ABORT, 'the job is over'); END
        """,
    ],
    "postgresql": [
        """
        CREATE FUNCTION jobs_over() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the job is over'; END $$
        """,
        f"""
        CREATE TRIGGER jobs_over BEFORE UPDATE ON jobs FOR EACH ROW WHEN (OLD.state IN {_OVER})
        EXECUTE FUNCTION jobs_over()
        """,
    ],
}


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_job_seq"), "events", ["job", "seq"])
    op.create_index(op.f("ix_events_owner_seq"), "events", ["owner", "seq"])
    op.create_table(
        "shelf",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_shelf")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("beat", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "jobs",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("work", sa.Float(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("cancel", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("retry_of", sa.Text(), nullable=True),
        sa.Column("batch", sa.Text(), nullable=True),
        sa.Column("batch_line", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("body_sha256", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("seconds", sa.JSON(), nullable=True),
        sa.CheckConstraint(
            "priority IN ('interactive', 'batch', 'background')", name=op.f("ck_jobs_priority_known")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'blocked')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name=op.f("fk_jobs_owner_users")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_jobs")),
        sa.UniqueConstraint("batch", "batch_line", name=op.f("uq_jobs_batch_batch_line")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.UniqueConstraint("owner", "idempotency_key", name=op.f("uq_jobs_owner_idempotency_key")),
    )
    op.create_index(op.f("ix_jobs_owner_number"), "jobs", ["owner", "number"])
    op.create_index(
        op.f("ix_jobs_state_owner_priority_number"), "jobs", ["state", "owner", "priority", "number"]
    )
    op.create_index(op.f("ix_jobs_worker_state"), "jobs", ["worker", "state"])
    op.create_table(
        "turns",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("began", sa.Float(), nullable=False),
        sa.Column("had", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name=op.f("fk_turns_owner_users")),
        sa.PrimaryKeyConstraint("owner", "priority", name=op.f("pk_turns")),
    )
    op.create_table(
        "uploads",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("nbytes", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name=op.f("fk_uploads_owner_users")),
        sa.PrimaryKeyConstraint("owner", "sha256", name=op.f("pk_uploads")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("picture", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_checkpoints_job_jobs")),
        sa.PrimaryKeyConstraint("job", "picture", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "pictures",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("nbytes", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_pictures_job_jobs")),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name=op.f("fk_pictures_owner_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pictures")),
        sa.UniqueConstraint("job", "number", name=op.f("uq_pictures_job_number")),
    )
    op.create_index(op.f("ix_pictures_owner_id"), "pictures", ["owner", "id"])
    op.create_index(op.f("ix_pictures_sha256"), "pictures", ["sha256"])
    op.create_table(
        "previews",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("picture", sa.Integer(), nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_previews_job_jobs")),
        sa.PrimaryKeyConstraint("job", "picture", name=op.f("pk_previews")),
    )
    for trigger in _TRIGGERS[op.get_bind().dialect.name]:
        op.execute(trigger)
    op.execute("INSERT INTO counters (name, value) VALUES ('events', 0)")
