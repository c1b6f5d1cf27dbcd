"""Accounts, plan versions, the ledger, holds, and how far the scheduler's feed is applied.

Credits are whole millicredits. `credit_accounts` is the hot row of each account: whoever changes a
balance updates it before touching lots, so that it is the one lock.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE plan_versions (
        plan_key text NOT NULL,
        version integer NOT NULL CHECK (version > 0),
        -- SHA-256 of the terms: the same terms are published once
        fingerprint text NOT NULL,
        name text NOT NULL,
        price_cents integer NOT NULL CHECK (price_cents >= 0),
        currency text NOT NULL,
        monthly_millicredits bigint NOT NULL CHECK (monthly_millicredits >= 0),
        priority integer NOT NULL CHECK (priority >= 0),
        weight integer NOT NULL CHECK (weight > 0),
        max_running integer NOT NULL CHECK (max_running > 0),
        max_waiting integer NOT NULL CHECK (max_waiting >= 0),
        queue_time_s integer NOT NULL CHECK (queue_time_s > 0),
        max_pixels bigint NOT NULL CHECK (max_pixels > 0),
        max_images integer NOT NULL CHECK (max_images > 0),
        requests_per_minute integer NOT NULL CHECK (requests_per_minute > 0),
        model_keys text[] NOT NULL,
        default_factor bigint NOT NULL CHECK (default_factor > 0),
        model_factors jsonb NOT NULL,
        published_at timestamptz NOT NULL,
        PRIMARY KEY (plan_key, version),
        UNIQUE (plan_key, fingerprint)
    )
    """,
    """
    CREATE TABLE accounts (
        id text PRIMARY KEY,
        opened_at timestamptz NOT NULL,
        plan_key text NOT NULL,
        plan_version integer NOT NULL,
        entitlements_version bigint NOT NULL DEFAULT 1 CHECK (entitlements_version > 0),
        period_start timestamptz NOT NULL,
        period_end timestamptz NOT NULL,
        CHECK (period_start < period_end),
        FOREIGN KEY (plan_key, plan_version) REFERENCES plan_versions
    )
    """,
    "CREATE INDEX accounts_by_period_end ON accounts (period_end)",
    # the erasable part: without this row nothing leads from an account to a person
    """
    CREATE TABLE account_pii (
        account_id text PRIMARY KEY REFERENCES accounts DEFERRABLE INITIALLY DEFERRED,
        user_id text NOT NULL UNIQUE
    )
    """,
    """
    CREATE TABLE credit_accounts (
        account_id text PRIMARY KEY REFERENCES accounts,
        available bigint NOT NULL DEFAULT 0 CHECK (available >= 0),
        held bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
        debt bigint NOT NULL DEFAULT 0 CHECK (debt >= 0),
        -- number of the account's last transfer
        sequence bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE credit_lots (
        id text PRIMARY KEY,
        account_id text NOT NULL REFERENCES accounts,
        source text NOT NULL,
        source_ref text NOT NULL,
        -- lower is spent first; among equals what expires first
        priority integer NOT NULL DEFAULT 0,
        granted bigint NOT NULL CHECK (granted > 0),
        remaining bigint NOT NULL CHECK (remaining >= 0),
        -- of what remains, reserved by open holds
        held bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
        expired bigint NOT NULL DEFAULT 0 CHECK (expired >= 0),
        granted_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        UNIQUE (source, source_ref),
        CHECK (held <= remaining),
        CHECK (remaining + expired <= granted)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE INDEX credit_lots_free ON credit_lots (account_id, priority, expires_at, id)
    WHERE remaining > held
    """,
    "CREATE INDEX credit_lots_by_expiry ON credit_lots (expires_at) WHERE remaining > held",
    """
    CREATE TABLE transfers (
        id text PRIMARY KEY,
        account_id text NOT NULL REFERENCES accounts,
        sequence bigint NOT NULL CHECK (sequence > 0),
        kind text NOT NULL CHECK (kind IN ('grant', 'hold', 'capture', 'release', 'expire')),
        reference text NOT NULL,
        job_id text,
        description text NOT NULL,
        available_change bigint NOT NULL,
        available_after bigint NOT NULL CHECK (available_after >= 0),
        booked_at timestamptz NOT NULL,
        UNIQUE (account_id, sequence),
        UNIQUE (account_id, kind, reference)
    )
    """,
    "CREATE UNIQUE INDEX transfers_of_job ON transfers (job_id, kind) WHERE job_id IS NOT NULL",
    """
    CREATE TABLE entries (
        transfer_id text NOT NULL REFERENCES transfers,
        account_id text NOT NULL REFERENCES accounts,
        book text NOT NULL CHECK (book IN ('available', 'held', 'granted', 'spent', 'expired')),
        millicredits bigint NOT NULL CHECK (millicredits <> 0),
        PRIMARY KEY (transfer_id, book)
    )
    """,
    "CREATE INDEX entries_by_book ON entries (account_id, book)",
    """
    CREATE TABLE holds (
        job_id text PRIMARY KEY,
        id text NOT NULL UNIQUE,
        -- null: a tombstone, released before it was placed
        account_id text REFERENCES accounts,
        state text NOT NULL CHECK (state IN ('open', 'captured', 'released')),
        millicredits bigint NOT NULL CHECK (millicredits >= 0),
        captured_millicredits bigint NOT NULL DEFAULT 0 CHECK (captured_millicredits >= 0),
        barred boolean NOT NULL DEFAULT false,
        reason text NOT NULL DEFAULT '',
        model_key text,
        width_px integer,
        height_px integer,
        steps integer,
        image_count integer,
        plan_key text,
        plan_version integer,
        -- W3C trace context of the call that placed it
        traceparent text NOT NULL DEFAULT '',
        placed_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        ended_at timestamptz,
        CHECK (captured_millicredits <= millicredits),
        CHECK ((state = 'captured') = (captured_millicredits > 0)),
        CHECK ((state = 'open') = (ended_at IS NULL)),
        CHECK (
            CASE WHEN account_id IS NULL
            THEN state = 'released' AND barred AND millicredits = 0
            ELSE millicredits > 0 AND num_nonnulls(
                model_key, width_px, height_px, steps, image_count, plan_key, plan_version) = 7
            END
        ),
        FOREIGN KEY (plan_key, plan_version) REFERENCES plan_versions
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX holds_by_expiry ON holds (expires_at) WHERE state = 'open'",
    "CREATE INDEX holds_of_account ON holds (account_id) WHERE state = 'open'",
    """
    CREATE TABLE hold_allocations (
        job_id text NOT NULL REFERENCES holds,
        lot_id text NOT NULL REFERENCES credit_lots,
        millicredits bigint NOT NULL CHECK (millicredits > 0),
        captured_millicredits bigint NOT NULL DEFAULT 0 CHECK (captured_millicredits >= 0),
        PRIMARY KEY (job_id, lot_id),
        CHECK (captured_millicredits <= millicredits)
    )
    """,
    "CREATE INDEX hold_allocations_of_lot ON hold_allocations (lot_id)",
    """
    CREATE TABLE feed_cursor (
        feed text PRIMARY KEY,
        generation bigint NOT NULL,
        transaction_id numeric(20) NOT NULL,
        sequence bigint NOT NULL
    )
    """,
    "INSERT INTO feed_cursor VALUES ('scheduler', 0, 0, 0)",
    """
    CREATE TABLE reconciliation_findings (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind text NOT NULL,
        reference text NOT NULL,
        detail jsonb NOT NULL,
        found_at timestamptz NOT NULL,
        UNIQUE (kind, reference)
    )
    """,
)

# What a CHECK cannot say: what is written once, and what must hold over rows at commit.
RULES = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is written once', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    *(
        f"""
        CREATE TRIGGER written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """
        for table in ("plan_versions", "transfers", "entries")
    ),
    """
    CREATE TRIGGER ended_once BEFORE UPDATE ON holds
    FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON holds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE FUNCTION check_transfer() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
    DECLARE
        total bigint;
        change bigint;
    BEGIN
        SELECT sum(e.millicredits),
               coalesce(sum(e.millicredits) FILTER (WHERE e.book = 'available'), 0)
        INTO total, change
        FROM entries e JOIN transfers t ON t.id = e.transfer_id AND t.account_id = e.account_id
        WHERE e.transfer_id = NEW.id;
        IF total IS DISTINCT FROM 0 OR change <> NEW.available_change THEN
            RAISE EXCEPTION 'the entries of transfer % do not add up', NEW.id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER adds_up AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer()
    """,
    """
    CREATE FUNCTION check_entry() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
    DECLARE
        total bigint;
    BEGIN
        SELECT sum(millicredits) INTO total FROM entries WHERE transfer_id = NEW.transfer_id;
        IF total <> 0 THEN
            RAISE EXCEPTION 'the entries of transfer % do not add up', NEW.transfer_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER adds_up AFTER INSERT ON entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_entry()
    """,
)


def upgrade() -> None:
    for statement in (*TABLES, *RULES):
        op.execute(statement)


def downgrade() -> None:
    for table in (
        "reconciliation_findings",
        "feed_cursor",
        "hold_allocations",
        "holds",
        "entries",
        "transfers",
        "credit_lots",
        "credit_accounts",
        "account_pii",
        "accounts",
        "plan_versions",
    ):
        op.execute(f"DROP TABLE {table}")  # rules that hang on the table go with it
    for function in ("check_entry", "check_transfer", "refuse_change"):
        op.execute(f"DROP FUNCTION {function}")
