"""Batches, retries, moves to the front, delayed tries, hidden history, and a user's home lane."""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    # jobs that were submitted together, as their submitter names them
    "ALTER TABLE jobs ADD COLUMN batch_id text",
    # the job that this one repeats
    "ALTER TABLE jobs ADD COLUMN retry_of text",
    # negative: stands before all of the user's jobs that have none; the lowest is first
    "ALTER TABLE jobs ADD COLUMN front bigint",
    # a failed job waits until then before its next try
    "ALTER TABLE jobs ADD COLUMN not_before timestamptz",
    # its user has taken it out of sight
    "ALTER TABLE jobs ADD COLUMN hidden_at timestamptz",
    # where the user's jobs go; changes only while none is open
    "ALTER TABLE open_jobs ADD COLUMN home_lane text NOT NULL DEFAULT 'default'",
    # when plan or order changed outside a submit, for queues that did not hear of it
    "ALTER TABLE open_jobs ADD COLUMN changed_at timestamptz",
    """
    UPDATE open_jobs SET home_lane = jobs.lane FROM jobs
    WHERE jobs.user_id = open_jobs.user_id AND jobs.finished_at IS NULL
    """,
    "CREATE SEQUENCE fronts",
    # None CONCURRENTLY: it waits for every snapshot, so also for a second migrator that waits for
    # the lock on migrations, and neither would go on.
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX jobs_of_user_open ON jobs (user_id, place) WHERE finished_at IS NULL
    """,
    # in the order of lists; state by state, so that a page of one state costs what it shows
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX jobs_of_user_ended ON jobs (user_id, state, queued_at, place)
        WHERE finished_at IS NOT NULL AND hidden_at IS NULL
    """,
    """
    -- squawk-ignore require-concurrent-index-deletion
    DROP INDEX jobs_by_user
    """,
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX jobs_by_batch ON jobs (user_id, batch_id, place) WHERE batch_id IS NOT NULL
    """,
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL
    """,
    # removing an attempt looks whether a result names it
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX results_by_attempt ON results (attempt_id)
    """,
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX open_jobs_by_change ON open_jobs (changed_at) WHERE changed_at IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX results_by_attempt")
    op.execute("DROP INDEX jobs_by_end")
    op.execute("DROP INDEX jobs_by_batch")
    op.execute("DROP INDEX jobs_of_user_ended")
    op.execute("DROP INDEX jobs_of_user_open")
    op.execute("CREATE UNIQUE INDEX jobs_by_user ON jobs (user_id, place)")
    op.execute("DROP SEQUENCE fronts")
    for column in ("changed_at", "home_lane"):  # open_jobs_by_change goes with its column
        op.execute(f"ALTER TABLE open_jobs DROP COLUMN {column}")
    for column in ("hidden_at", "not_before", "front", "retry_of", "batch_id"):
        op.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
