"""Jobs, their attempts and results, who has how many open, tombstones, and the event feed.

Locks are taken in one order everywhere: jobs by id, then open_jobs by user.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE open_jobs (
        user_id text PRIMARY KEY,
        -- jobs that wait or run: the limit on them holds by a conditional update of this row
        open integer NOT NULL DEFAULT 0 CHECK (open >= 0),
        -- entitlements; an older version never replaces a newer one
        version bigint NOT NULL,
        priority integer NOT NULL,
        weight integer NOT NULL CHECK (weight > 0),
        max_running integer NOT NULL CHECK (max_running > 0),
        max_waiting integer NOT NULL CHECK (max_waiting >= 0),
        queue_time_s integer NOT NULL CHECK (queue_time_s > 0)
    )
    """,
    """
    CREATE TABLE jobs (
        id text PRIMARY KEY,
        user_id text NOT NULL,
        lane text NOT NULL,
        state text NOT NULL
            CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
        -- order of acceptance; a job keeps its place through all its attempts
        place bigint GENERATED ALWAYS AS IDENTITY,
        generation jsonb NOT NULL,
        cost_ms bigint NOT NULL CHECK (cost_ms > 0),
        queued_at timestamptz NOT NULL,
        start_by timestamptz NOT NULL,
        claimed_at timestamptz,
        first_step_at timestamptz,
        finished_at timestamptz,
        steps_done integer NOT NULL DEFAULT 0,
        error_code text,
        error_message text,
        attempts integer NOT NULL DEFAULT 0,
        -- the attempt that runs, or ran last
        attempt_id text,
        cancel_requested boolean NOT NULL DEFAULT false,
        -- W3C trace context of the submit
        traceparent text NOT NULL,
        CHECK ((finished_at IS NULL) = (state IN ('queued', 'running'))),
        CHECK ((error_code IS NULL) = (error_message IS NULL))
    )
    """,
    "CREATE UNIQUE INDEX jobs_by_user ON jobs (user_id, place)",
    "CREATE UNIQUE INDEX jobs_open ON jobs (lane, state, place) WHERE finished_at IS NULL",
    """
    CREATE TABLE attempts (
        id text PRIMARY KEY,
        job_id text NOT NULL REFERENCES jobs,
        number integer NOT NULL CHECK (number > 0),
        worker_id text NOT NULL,
        claimed_at timestamptz NOT NULL,
        ended_at timestamptz,
        outcome text,
        -- it used up one of the job's tries
        counted boolean NOT NULL DEFAULT false,
        steps_done integer NOT NULL DEFAULT 0,
        error_code text,
        error_message text,
        CHECK ((ended_at IS NULL) = (outcome IS NULL))
    )
    """,
    "CREATE INDEX attempts_by_job ON attempts (job_id)",
    """
    CREATE TABLE results (
        job_id text PRIMARY KEY REFERENCES jobs,
        -- the attempt whose success was the first
        attempt_id text NOT NULL REFERENCES attempts,
        images jsonb NOT NULL,
        warnings jsonb NOT NULL
    )
    """,
    """
    CREATE TABLE tombstones (
        -- ids that were asked for before they were submitted, and may not be submitted any more
        job_id text PRIMARY KEY,
        buried_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE feed (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        -- raised when the database is restored or moved, since transaction ids may then begin lower
        generation bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
        -- the last event that was removed
        pruned_generation bigint NOT NULL DEFAULT 0,
        pruned_transaction_id bigint NOT NULL DEFAULT 0,
        pruned_sequence bigint NOT NULL DEFAULT 0
    )
    """,
    "INSERT INTO feed DEFAULT VALUES",
    """
    CREATE TABLE events (
        generation bigint NOT NULL,
        transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
        sequence bigint GENERATED ALWAYS AS IDENTITY,
        type text NOT NULL CHECK (type IN ('queued', 'succeeded', 'failed', 'cancelled')),
        job_id text NOT NULL,
        user_id text NOT NULL,
        occurred_at timestamptz NOT NULL,
        steps_done integer NOT NULL,
        steps integer NOT NULL,
        images jsonb NOT NULL,
        error_code text,
        error_message text,
        traceparent text NOT NULL,
        PRIMARY KEY (generation, transaction_id, sequence)
    )
    """,
    # one end per job, whatever the code above does
    "CREATE UNIQUE INDEX events_one_end ON events (job_id) WHERE type <> 'queued'",
    "CREATE INDEX events_by_time ON events (occurred_at)",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    for table in ("events", "feed", "tombstones", "results", "attempts", "jobs", "open_jobs"):
        op.execute(f"DROP TABLE {table}")
