"""The part of the composition root that keeps billing in step: inbox workers and reconciliation."""

from __future__ import annotations

import random
from datetime import timedelta

from billing.domain.inbox import RetryPolicy
from billing.domain.reconciliation import RunKind
from billing.loop.inbox import measure_inbox, work_inbox
from billing.loop.reconciliation import reconcile
from billing.ports.inbox import CustomerSync
from billing.ports.payments import Payments
from billing.ports.reconciliation import Check
from billing.service.checks import BooksCheck, CustomersCheck, HoldsCheck, InboxCheck
from billing.service.follower import JobFollower
from billing.service.inbox import InboxWorker
from billing.service.reconciliation import Reconciliation
from billing.settings import InboxSettings, Settings
from billing.storage.check import LedgerCheck
from billing.storage.inbox import PostgresInbox
from billing.storage.reconciliation import PostgresRecords
from easel_kit.clock import Clock
from easel_kit.db import Pool
from easel_kit.lifecycle import Supervisor

_MEASURE_S = 15.0


def build_reconciliation(
    settings: Settings,
    pool: Pool,
    follower: JobFollower,
    money: tuple[Payments, CustomerSync] | None,
    clock: Clock,
) -> Reconciliation:
    """All checks; without `money` those that need no payment provider."""
    inbox, records = PostgresInbox(pool), PostgresRecords(pool)
    hourly: list[Check] = [HoldsCheck(records, follower)]
    nightly: list[Check] = [BooksCheck(LedgerCheck(pool))]
    if money is not None:
        payments, sync = money
        keep = timedelta(days=settings.inbox.keep_days)
        hourly.append(InboxCheck(inbox, sync, keep=keep))
        for everyone, checks in ((False, hourly), (True, nightly)):
            settle_s = settings.reconciliation.settle_s
            checks.append(
                CustomersCheck(payments, sync, inbox, everyone=everyone, settle_s=settle_s)
            )
    return Reconciliation(
        PostgresRecords(pool),
        {RunKind.HOURLY: hourly, RunKind.NIGHTLY: nightly},
        clock,
        intervals={
            RunKind.HOURLY: timedelta(seconds=settings.reconciliation.hourly_s),
            RunKind.NIGHTLY: timedelta(seconds=settings.reconciliation.nightly_s),
        },
    )


def start_reconciliation(
    side: Supervisor, settings: Settings, reconciliation: Reconciliation, clock: Clock
) -> None:
    """Runs it whenever it is due."""
    work = reconcile(reconciliation, clock, poll_s=settings.reconciliation.poll_s)
    side.start("reconciliation", work)


def start_inbox(
    side: Supervisor,
    settings: InboxSettings,
    inbox: PostgresInbox,
    sync: CustomerSync,
    clock: Clock,
) -> None:
    """Answers webhooks and measures how many wait."""
    worker = InboxWorker(
        inbox,
        sync,
        clock,
        RetryPolicy(
            settings.max_attempts,
            timedelta(seconds=settings.retry_base_s),
            timedelta(seconds=settings.retry_cap_s),
        ),
        lease=timedelta(seconds=settings.lease_s),
        chance=random.random,
    )
    side.start("inbox", work_inbox(worker, workers=settings.workers, poll_s=settings.poll_s))
    side.start("inbox-figures", measure_inbox(inbox, clock, interval_s=_MEASURE_S))
