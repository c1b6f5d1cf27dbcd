"""Uploaded pictures, small copies, and pictures that their owner has taken out."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # an uploaded picture has job_id '' and seed 0: the release before reads rows without nulls
    op.execute("ALTER TABLE images ADD COLUMN kind text NOT NULL DEFAULT 'generated'")
    # of a small copy; empty: there is none
    op.execute("ALTER TABLE images ADD COLUMN thumbnail_key text NOT NULL DEFAULT ''")
    # the row stays, so that the feed does not bring the picture back
    op.execute("ALTER TABLE images ADD COLUMN deleted_at timestamptz")


def downgrade() -> None:
    op.execute("DELETE FROM images WHERE kind = 'uploaded' OR deleted_at IS NOT NULL")
    op.execute("ALTER TABLE images DROP COLUMN deleted_at")
    op.execute("ALTER TABLE images DROP COLUMN thumbnail_key")
    op.execute("ALTER TABLE images DROP COLUMN kind")
