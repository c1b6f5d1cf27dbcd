"""Debt, credits that are bought, refunds, packs, and the outbox of entitlements.

A balance is either above zero or owed, never both: whatever makes credits available pays what is
owed first. What pays for something owed (`repay`) is a line of its own in the ledger.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

KINDS_BEFORE = "'grant', 'hold', 'capture', 'release', 'expire'"
KINDS = f"{KINDS_BEFORE}, 'purchase', 'clawback', 'give_back', 'repay'"
BOOKS_BEFORE = "'available', 'held', 'granted', 'spent', 'expired'"
BOOKS = f"{BOOKS_BEFORE}, 'clawed', 'debt'"


def wider(table: str, name: str, condition: str) -> tuple[str, str]:
    """A constraint in the place of a stricter one: rows of before need no look."""
    return (
        f"""
        -- squawk-ignore ban-drop-constraint
        ALTER TABLE {table} DROP CONSTRAINT {name}
        """,
        f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID",
    )


LEDGER = (
    *wider("transfers", "transfers_kind_check", f"kind IN ({KINDS})"),
    *wider("entries", "entries_book_check", f"book IN ({BOOKS})"),
    # nobody owed anything before
    """
    ALTER TABLE credit_accounts ADD CONSTRAINT available_or_owed
    CHECK (available = 0 OR debt = 0) NOT VALID
    """,
    # Stripe's id of the payment that bought the lot, which refunds name; '': granted
    "ALTER TABLE credit_lots ADD COLUMN payment text NOT NULL DEFAULT ''",
    "ALTER TABLE credit_lots ADD COLUMN clawed bigint NOT NULL DEFAULT 0 CHECK (clawed >= 0)",
    # went to what was owed
    "ALTER TABLE credit_lots ADD COLUMN repaid bigint NOT NULL DEFAULT 0 CHECK (repaid >= 0)",
    """
    ALTER TABLE credit_lots ADD CONSTRAINT parts_of_the_whole
    CHECK (remaining + expired + clawed + repaid <= granted) NOT VALID
    """,
    # not CONCURRENTLY: no lot has a payment yet
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX credit_lots_of_payment ON credit_lots (account_id, payment) WHERE payment <> ''
    """,
    """
    CREATE TABLE clawbacks (
        account_id text NOT NULL REFERENCES accounts,
        -- of the refund, the dispute or the invoice line that takes credits back
        reference text NOT NULL,
        payment text NOT NULL,
        asked bigint NOT NULL CHECK (asked > 0),
        -- of what was asked: had expired unused, came from lots, became debt
        lapsed bigint NOT NULL CHECK (lapsed >= 0),
        taken bigint NOT NULL CHECK (taken >= 0),
        owed bigint NOT NULL CHECK (owed >= 0),
        clawed_at timestamptz NOT NULL,
        -- when the last lot of the payment would have expired
        expires_at timestamptz NOT NULL,
        given_back_at timestamptz,
        PRIMARY KEY (account_id, reference),
        CHECK (lapsed + taken + owed <= asked)
    )
    """,
    "CREATE INDEX clawbacks_of_payment ON clawbacks (account_id, payment)",
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON clawbacks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER given_back_once BEFORE UPDATE ON clawbacks
    FOR EACH ROW WHEN (
        OLD.given_back_at IS NOT NULL
        OR (OLD.account_id, OLD.reference, OLD.payment, OLD.asked, OLD.lapsed, OLD.taken, OLD.owed,
            OLD.clawed_at, OLD.expires_at)
        IS DISTINCT FROM
           (NEW.account_id, NEW.reference, NEW.payment, NEW.asked, NEW.lapsed, NEW.taken, NEW.owed,
            NEW.clawed_at, NEW.expires_at)
    ) EXECUTE FUNCTION refuse_change()
    """,
)

USAGE = (
    # not CONCURRENTLY: it would wait for a second migrator that waits for the lock on migrations
    """
    -- squawk-ignore require-concurrent-index-creation
    CREATE INDEX holds_ended ON holds (account_id, ended_at, job_id) WHERE state <> 'open'
    """,
)

PLANS = (
    # what versions of before the column promised
    """
    ALTER TABLE plan_versions ADD COLUMN storage_bytes bigint NOT NULL DEFAULT 1073741824
    CHECK (storage_bytes > 0)
    """,
    """
    CREATE TABLE pack_versions (
        pack_key text NOT NULL,
        version integer NOT NULL CHECK (version > 0),
        -- as in plan_versions
        fingerprint text NOT NULL,
        name text NOT NULL,
        price_cents integer NOT NULL CHECK (price_cents > 0),
        currency text NOT NULL,
        millicredits bigint NOT NULL CHECK (millicredits > 0),
        valid_days integer NOT NULL CHECK (valid_days > 0),
        published_at timestamptz NOT NULL,
        PRIMARY KEY (pack_key, version),
        UNIQUE (pack_key, fingerprint)
    )
    """,
    """
    CREATE TRIGGER written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON pack_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    # who decides the plan; before there were subscriptions, a paid plan was an operator's doing
    """
    ALTER TABLE accounts ADD COLUMN plan_source text NOT NULL DEFAULT 'default'
    CHECK (plan_source IN ('default', 'granted', 'subscription'))
    """,
    """
    UPDATE accounts AS a SET plan_source = 'granted' FROM plan_versions AS p
    WHERE (p.plan_key, p.version) = (a.plan_key, a.plan_version) AND p.price_cents > 0
    """,
    # what monthly periods are counted from; null: from the opening
    "ALTER TABLE accounts ADD COLUMN period_anchor timestamptz",
    # a change of entitlements that the scheduler may not have heard of; gone when it has
    """
    CREATE TABLE entitlements_outbox (
        account_id text PRIMARY KEY REFERENCES accounts,
        version bigint NOT NULL CHECK (version > 0),
        changed_at timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in (*LEDGER, *USAGE, *PLANS):
        op.execute(statement)


def downgrade() -> None:
    for table in ("entitlements_outbox", "pack_versions", "clawbacks"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX holds_ended")
    for table, columns in (
        ("accounts", ("period_anchor", "plan_source")),
        ("plan_versions", ("storage_bytes",)),
        ("credit_lots", ("repaid", "clawed", "payment")),
    ):
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    op.execute("ALTER TABLE credit_accounts DROP CONSTRAINT available_or_owed")
    for statement in (
        *wider("transfers", "transfers_kind_check", f"kind IN ({KINDS_BEFORE})"),
        *wider("entries", "entries_book_check", f"book IN ({BOOKS_BEFORE})"),
    ):
        op.execute(statement)
