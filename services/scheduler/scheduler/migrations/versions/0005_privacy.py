"""For a copy of all jobs of a user and for an erasure: hidden jobs, and users by their hash."""

from alembic import op

revision = "0005"
down_revision = "0004"

# None CONCURRENTLY: see 0002.
STATEMENTS = (
    # With jobs_of_user_open and jobs_of_user_ended all jobs of a user have an index; one over all
    # of them would cost a write with each change of any job.
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX jobs_of_user_hidden ON jobs (user_id, queued_at, place)
        WHERE finished_at IS NOT NULL AND hidden_at IS NOT NULL
    """,
    # `easel_kit.erasure.hash_of` says the same
    """
    CREATE FUNCTION user_hash(user_id text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
        SELECT sha256(convert_to('easel.erased-user.v1:' || user_id, 'UTF8'))
    $$
    """,
    # written once a user
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX open_jobs_by_hash ON open_jobs (user_hash(user_id))
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX open_jobs_by_hash")
    op.execute("DROP FUNCTION user_hash")
    op.execute("DROP INDEX jobs_of_user_hidden")
