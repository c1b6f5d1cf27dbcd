"""Rows of subscriptions as domain types."""

from __future__ import annotations

import asyncpg

from billing.domain.payments import SubscriptionSnapshot, SubscriptionStatus


def subscription_of(row: asyncpg.Record, prefix: str = "") -> SubscriptionSnapshot:
    """A row of `subscriptions`, its columns named with a prefix."""
    return SubscriptionSnapshot(
        id=row[f"{prefix}id"],
        status=SubscriptionStatus(row[f"{prefix}status"]),
        plan_key=row[f"{prefix}plan_key"],
        plan_version=row[f"{prefix}plan_version"],
        period_start=row[f"{prefix}period_start"],
        period_end=row[f"{prefix}period_end"],
        cancel_at_period_end=row[f"{prefix}cancel_at_period_end"],
        created_at=row[f"{prefix}created_at"],
    )
