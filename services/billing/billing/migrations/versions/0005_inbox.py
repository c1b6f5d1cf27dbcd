"""Webhooks as they came, who works on which customer, and when reconciliation last ran.

No body of a webhook is kept: it carries personal data, and nothing is read from it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    """
    CREATE TABLE customer_leases (
        customer_id text PRIMARY KEY CHECK (customer_id <> ''),
        -- counts the leases: what an owner that has lost its own writes has no effect
        version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
        lease_owner text,
        lease_until timestamptz,
        CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
        CHECK (lease_owner IS NULL OR version > 0)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE webhook_inbox (
        event_id text PRIMARY KEY CHECK (event_id <> ''),
        type text NOT NULL,
        customer_id text REFERENCES customer_leases,
        created_at timestamptz NOT NULL,
        received_at timestamptz NOT NULL,
        state text NOT NULL CHECK (
            state IN ('pending', 'leased', 'applied', 'ignored', 'retry', 'dead')
        ),
        -- leases so far, those lost with their process included
        attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        next_try_at timestamptz,
        lease_owner text,
        lease_until timestamptz,
        lease_version bigint,
        ended_at timestamptz,
        error text NOT NULL DEFAULT '' CHECK (length(error) <= 200),
        CHECK (customer_id IS NOT NULL OR state = 'ignored'),
        CHECK ((state IN ('pending', 'retry')) = (next_try_at IS NOT NULL)),
        CHECK (
            num_nonnulls(lease_owner, lease_until, lease_version)
            = CASE state WHEN 'leased' THEN 3 ELSE 0 END
        ),
        CHECK ((state IN ('applied', 'ignored', 'dead')) = (ended_at IS NOT NULL)),
        CHECK (attempts > 0 OR state IN ('pending', 'ignored')),
        CHECK (error <> '' OR state NOT IN ('retry', 'dead'))
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE INDEX webhook_inbox_due ON webhook_inbox (coalesce(lease_until, next_try_at), event_id)
    WHERE state IN ('pending', 'retry', 'leased')
    """,
    "CREATE INDEX webhook_inbox_of_customer ON webhook_inbox (customer_id, received_at)",
    """
    CREATE INDEX webhook_inbox_dead ON webhook_inbox (received_at, event_id) WHERE state = 'dead'
    """,
    """
    CREATE INDEX webhook_inbox_done ON webhook_inbox (ended_at)
    WHERE state IN ('applied', 'ignored')
    """,
    """
    CREATE TABLE reconciliation_runs (
        kind text PRIMARY KEY CHECK (kind IN ('hourly', 'nightly')),
        -- when the last run that came to its end had begun
        begun_at timestamptz NOT NULL
    )
    """,
    # in a new schema there is nothing to reconcile yet
    "INSERT INTO reconciliation_runs VALUES ('hourly', now()), ('nightly', now())",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in ("reconciliation_runs", "webhook_inbox", "customer_leases"):
        op.execute(f"DROP TABLE {table}")
