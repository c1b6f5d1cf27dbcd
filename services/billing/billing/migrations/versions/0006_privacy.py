"""The audit chain, its anchors, erasures and the people erased."""

from alembic import op

from easel_kit import audit

revision = "0006"
down_revision = "0005"

TABLES = (
    # since then no hold is placed and nothing is renewed: an erasure was asked for
    "ALTER TABLE accounts ADD COLUMN barred_at timestamptz",
    # the same, in the row that every hold changes: one conditional statement decides
    "ALTER TABLE credit_accounts ADD COLUMN barred boolean NOT NULL DEFAULT false",
    # the tombstones; billing.domain.privacy says what is hashed and why without a key
    """
    CREATE TABLE erased_users (
        user_hash bytea PRIMARY KEY CHECK (octet_length(user_hash) = 32),
        erased_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE erasures (
        id text PRIMARY KEY,
        user_hash bytea NOT NULL UNIQUE REFERENCES erased_users,
        -- null for a user never seen, and again when it is done: nothing leads from the user's hash
        -- to the books
        account_id text REFERENCES accounts,
        state text NOT NULL CHECK (state IN ('requested', 'settled', 'cancelled', 'done')),
        requested_at timestamptz NOT NULL,
        finished_at timestamptz,
        -- how often it was tried in vain since its last step, and when it is tried again
        failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
        try_at timestamptz NOT NULL,
        CHECK ((state = 'done') = (finished_at IS NOT NULL)),
        CHECK (state <> 'done' OR account_id IS NULL)
    )
    """,
    "CREATE INDEX erasures_open ON erasures (try_at) WHERE state <> 'done'",
)

# An ended hold stays as it is, save that an erasure blanks the trace that leads to its caller.
RULES = (
    "DROP TRIGGER ended_once ON holds",
    """
    CREATE TRIGGER ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (
        OLD.state <> 'open'
        AND (NEW.traceparent <> ''
             OR to_jsonb(NEW) - 'traceparent' <> to_jsonb(OLD) - 'traceparent')
    ) EXECUTE FUNCTION refuse_change()
    """,
)

RULES_BEFORE = (
    "DROP TRIGGER ended_once ON holds",
    """
    CREATE TRIGGER ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION refuse_change()
    """,
)


def upgrade() -> None:
    for statement in (*audit.TABLES_V1, *TABLES, *RULES):
        op.execute(statement)


def downgrade() -> None:
    for statement in RULES_BEFORE:
        op.execute(statement)
    op.execute("DROP TABLE erasures")
    op.execute("DROP TABLE erased_users")
    op.execute("ALTER TABLE credit_accounts DROP COLUMN barred")
    op.execute("ALTER TABLE accounts DROP COLUMN barred_at")
    for statement in audit.DROP_V1:
        op.execute(statement)
