"""Jobs that their user has taken out of sight, found for a copy of all jobs and for an erasure."""

from alembic import op

revision = "0005"
down_revision = "0004"

# With jobs_of_user_open and jobs_of_user_ended all jobs of a user have an index; one over all of
# them would cost a write with each change of any job. Not CONCURRENTLY: see 0002.
INDEX = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX jobs_of_user_hidden ON jobs (user_id, queued_at, place)
    WHERE finished_at IS NOT NULL AND hidden_at IS NOT NULL
"""


def upgrade() -> None:
    op.execute(INDEX)


def downgrade() -> None:
    op.execute("DROP INDEX jobs_of_user_hidden")
