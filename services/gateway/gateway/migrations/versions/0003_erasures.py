"""Erasures of people; a row stays for good, so that a token of theirs opens nothing again."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE erasures (
            -- easel_kit.erasure.hash_of
            user_hash bytea PRIMARY KEY CHECK (length(user_hash) = 32),
            user_id text,
            state text NOT NULL CHECK (state IN ('requested', 'stopped', 'done')),
            requested_at timestamptz NOT NULL,
            stopped_at timestamptz,
            finished_at timestamptz,
            try_at timestamptz NOT NULL,
            failures integer NOT NULL DEFAULT 0,
            CHECK ((state = 'done') = (user_id IS NULL)),
            CHECK ((state = 'done') = (finished_at IS NOT NULL)),
            CHECK (state <> 'stopped' OR stopped_at IS NOT NULL)
        )
        """
    )
    op.execute("CREATE INDEX erasures_due ON erasures (try_at) WHERE state <> 'done'")


def downgrade() -> None:
    op.execute("DROP TABLE erasures")
