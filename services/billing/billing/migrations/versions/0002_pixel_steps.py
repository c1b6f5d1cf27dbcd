"""Holds remember work that is not size x steps x pictures: passes of other sizes, or in part."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # 0: the product of size, steps and pictures
    op.execute("ALTER TABLE holds ADD COLUMN pixel_steps bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE holds DROP COLUMN pixel_steps")
