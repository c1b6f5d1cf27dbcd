"""Uploaded pictures, small copies, and pictures that their owner has taken out."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE images ADD COLUMN kind text NOT NULL DEFAULT 'generated'")
    # of a small copy; empty: there is none
    op.execute("ALTER TABLE images ADD COLUMN thumbnail_key text NOT NULL DEFAULT ''")
    # the row stays, so that the feed does not bring the picture back
    op.execute("ALTER TABLE images ADD COLUMN deleted_at timestamptz")
    # an uploaded picture has neither
    op.execute("ALTER TABLE images ALTER COLUMN job_id DROP NOT NULL")
    op.execute("ALTER TABLE images ALTER COLUMN seed DROP NOT NULL")


def downgrade() -> None:
    op.execute("DELETE FROM images WHERE job_id IS NULL OR deleted_at IS NOT NULL")
    op.execute("ALTER TABLE images ALTER COLUMN seed SET NOT NULL")
    op.execute("ALTER TABLE images ALTER COLUMN job_id SET NOT NULL")
    op.execute("ALTER TABLE images DROP COLUMN deleted_at")
    op.execute("ALTER TABLE images DROP COLUMN thumbnail_key")
    op.execute("ALTER TABLE images DROP COLUMN kind")
