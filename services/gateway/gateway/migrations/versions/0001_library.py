"""The library's pictures, and how far the event feed has filled it."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE images (
            id text PRIMARY KEY,
            user_id text NOT NULL,
            job_id text NOT NULL,
            object_key text NOT NULL,
            width_px integer NOT NULL,
            height_px integer NOT NULL,
            media_type text NOT NULL,
            size_bytes bigint NOT NULL,
            sha256 text NOT NULL,
            seed bigint NOT NULL,
            created_at timestamptz NOT NULL
        )
        """
    )
    # ids begin with the time, so this is also a user's pictures by age
    op.execute("CREATE INDEX images_of_user ON images (user_id, id)")
    op.execute("CREATE INDEX images_of_job ON images (job_id)")
    op.execute(
        """
        CREATE TABLE feed_cursor (
            consumer text PRIMARY KEY,
            generation bigint NOT NULL,
            transaction_id bigint NOT NULL,
            sequence bigint NOT NULL,
            moved_at timestamptz NOT NULL
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE feed_cursor")
    op.execute("DROP TABLE images")
