"""Steps of a job in one place: over all passes where a request says so, else steps x pictures."""

from alembic import op

revision = "0004"
down_revision = "0003"

# `Generation.total_steps` of the domain says the same. One expression, so that it is inlined.
TOTAL_STEPS = """
CREATE FUNCTION total_steps(generation jsonb) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(
        (generation ->> 'total_steps')::int,
        (generation ->> 'steps')::int * (generation ->> 'image_count')::int
    )
$$
"""

# The function of 0003 with another count of steps.
ACCEPT_JOBS = """
CREATE OR REPLACE FUNCTION accept_jobs(
    burial_lock bigint, lane text,
    users text[], asked int[], versions bigint[], priorities int[], weights int[], runnings int[],
    waitings int[], queue_times_s int[],
    ids text[], owners text[], generations text[], costs_ms bigint[], traceparents text[],
    batch_ids text[], retries_of text[]
) RETURNS TABLE (
    id text, place bigint, queued_at timestamptz, start_by timestamptz, home_lane text,
    version bigint, priority int, weight int, max_running int
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    plain boolean;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(burial_lock);
    WITH counted AS (
        INSERT INTO open_jobs AS old (home_lane, user_id, open, version, priority, weight,
            max_running, max_waiting, queue_time_s)
        SELECT accept_jobs.lane, * FROM unnest(users, asked, versions, priorities, weights,
            runnings, waitings, queue_times_s)
        ON CONFLICT (user_id) DO UPDATE SET open = old.open + excluded.open,
            home_lane = CASE WHEN old.open = 0 THEN excluded.home_lane ELSE old.home_lane END,
            version = greatest(old.version, excluded.version),
            priority = CASE WHEN excluded.version >= old.version
                THEN excluded.priority ELSE old.priority END,
            weight = CASE WHEN excluded.version >= old.version
                THEN excluded.weight ELSE old.weight END,
            max_running = CASE WHEN excluded.version >= old.version
                THEN excluded.max_running ELSE old.max_running END,
            max_waiting = CASE WHEN excluded.version >= old.version
                THEN excluded.max_waiting ELSE old.max_waiting END,
            queue_time_s = CASE WHEN excluded.version >= old.version
                THEN excluded.queue_time_s ELSE old.queue_time_s END
        RETURNING open <= max_running + max_waiting AS fits
    )
    SELECT bool_and(fits) INTO plain FROM counted;
    IF NOT plain OR EXISTS (SELECT FROM tombstones WHERE job_id = ANY (ids)) THEN
        RAISE EXCEPTION 'not all of the group can be accepted';
    END IF;
    RETURN QUERY
    WITH fresh AS (
        INSERT INTO jobs AS new (id, user_id, lane, state, generation, cost_ms, queued_at,
            start_by, traceparent, batch_id, retry_of)
        SELECT asked.id, user_id, home_lane, 'queued', generation::jsonb, cost_ms, now(),
            now() + queue_time_s * interval '1 second', traceparent, batch_id, retry_of
        FROM unnest(ids, owners, generations, costs_ms, traceparents, batch_ids, retries_of)
            WITH ORDINALITY AS asked (id, user_id, generation, cost_ms, traceparent, batch_id,
                retry_of, n)
            JOIN open_jobs USING (user_id)
        ORDER BY n
        RETURNING new.id, user_id, place, queued_at, start_by, traceparent,
            @steps AS steps
    ), told AS (
        INSERT INTO events (generation, type, job_id, user_id, occurred_at, steps_done, steps,
            images, traceparent)
        SELECT feed.generation, 'queued', fresh.id, user_id, queued_at, 0, steps, '[]', traceparent
        FROM fresh, feed ORDER BY place
    )
    SELECT fresh.id, place, queued_at, start_by, home_lane, version, priority, weight, max_running
    FROM fresh JOIN open_jobs USING (user_id);
END
$$
"""


_BEFORE = "(generation ->> 'steps')::int * (generation ->> 'image_count')::int"


def upgrade() -> None:
    op.execute(TOTAL_STEPS)
    op.execute(ACCEPT_JOBS.replace("@steps", "total_steps(generation)"))


def downgrade() -> None:
    op.execute(ACCEPT_JOBS.replace("@steps", _BEFORE))
    op.execute("DROP FUNCTION total_steps")
