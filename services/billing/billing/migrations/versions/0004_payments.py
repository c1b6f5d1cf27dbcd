"""Customers and subscriptions at Stripe as last looked at."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = (
    """
    CREATE TABLE customers (
        -- Stripe's id
        id text PRIMARY KEY,
        account_id text NOT NULL REFERENCES accounts,
        -- grows with each snapshot that is applied
        version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
        is_deleted boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        -- when it was last looked at
        synced_at timestamptz,
        CHECK ((version = 0) = (synced_at IS NULL))
    )
    """,
    # an account has one customer, beside those that were deleted at Stripe
    "CREATE UNIQUE INDEX customers_of_account ON customers (account_id) WHERE NOT is_deleted",
    "CREATE INDEX customers_by_account ON customers (account_id, created_at)",
    """
    CREATE TABLE subscriptions (
        -- Stripe's id
        id text PRIMARY KEY,
        customer_id text NOT NULL REFERENCES customers,
        account_id text NOT NULL REFERENCES accounts,
        status text NOT NULL CHECK (status IN (
            'incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'canceled',
            'unpaid', 'paused')),
        -- it decides the account's plan
        is_deciding boolean NOT NULL,
        plan_key text NOT NULL,
        plan_version integer NOT NULL CHECK (plan_version > 0),
        period_start timestamptz NOT NULL,
        period_end timestamptz NOT NULL,
        cancel_at_period_end boolean NOT NULL,
        created_at timestamptz NOT NULL,
        CHECK (period_start < period_end),
        CHECK (NOT is_deciding OR status IN ('trialing', 'active', 'past_due'))
    )
    """,
    "CREATE INDEX subscriptions_of_customer ON subscriptions (customer_id)",
    """
    CREATE UNIQUE INDEX subscriptions_deciding ON subscriptions (account_id) WHERE is_deciding
    """,
    # a dispute names a payment and no customer; not CONCURRENTLY: no lot has a payment yet
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX credit_lots_by_payment ON credit_lots (payment) WHERE payment <> ''
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX credit_lots_by_payment")
    op.execute("DROP TABLE subscriptions")
    op.execute("DROP TABLE customers")
