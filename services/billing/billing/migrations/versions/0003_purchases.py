"""Debt, credits that are bought, refunds, packs, and the outbox of entitlements."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
