"""Batches; by which interface a job came in and what its client calls it there; options; how good JPEGs are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("quality", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("door", sa.Text(), server_default="native", nullable=False))
    op.add_column("jobs", sa.Column("task", sa.Text(), nullable=True))
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("body_sha256", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name=op.f("fk_batches_owner_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("owner", "idempotency_key", name=op.f("uq_batches_owner_idempotency_key")),
    )
    op.create_table(
        "options",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name=op.f("fk_options_owner_users")),
        sa.PrimaryKeyConstraint("owner", "name", name=op.f("pk_options")),
    )
