"""Reconciliation: what it finds, what it mends by the same handlers, and when it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from billing.domain.holds import JobReport, JobStatus
from billing.domain.payments import CustomerId, Notice
from billing.domain.reconciliation import RunKind, RunReport
from billing.ports.reconciliation import Check
from billing.service.checks import BooksCheck, CustomersCheck, HoldsCheck, InboxCheck
from billing.service.follower import JobFollower
from billing.service.reconciliation import Reconciliation
from billing.storage.check import LedgerCheck
from billing.storage.feed import PostgresFeed
from billing.storage.holds import PostgresHolds
from billing.storage.inbox import PostgresInbox
from billing.storage.reconciliation import PostgresRecords
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.db import Pool, open_pool
from easel_kit.errors import Conflict, DependencyDown, NotFound
from easel_kit.ids import JobId
from tests.fakes.billing_stack import BillingStack

ANN, BEN, EVE = CustomerId("cus_ann"), CustomerId("cus_ben"), CustomerId("cus_eve")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Shop:
    """The ports `CustomerSync` and, of `Payments`, the list of customers."""

    def __init__(self) -> None:
        self.differ: set[CustomerId] = set()
        self.unknown: set[CustomerId] = set()
        self.changed: dict[CustomerId, datetime] = {}
        self.looks: list[CustomerId] = []
        self.is_away = False

    async def sync(self, customer_id: CustomerId) -> bool:
        self.looks.append(customer_id)
        if customer_id in self.unknown:
            raise NotFound("customer", customer_id)
        was_different = customer_id in self.differ
        self.differ.discard(customer_id)
        return was_different

    async def customers(self, *, changed_since: datetime | None) -> AsyncIterator[CustomerId]:
        if self.is_away:
            raise DependencyDown("Stripe is away")
        for customer_id, at in self.changed.items():
            if changed_since is None or at >= changed_since:
                yield customer_id


class Scene:
    """Reconciliation beside a billing that runs."""

    def __init__(self, stack: BillingStack, pool: Pool) -> None:
        self.stack = stack
        self.clock = stack.clock
        self.shop = Shop()
        self.pool = pool
        self.inbox = PostgresInbox(pool)
        self.records = PostgresRecords(pool)
        self.reconciliation = self.replica()

    def replica(self) -> Reconciliation:
        follower = JobFollower(
            PostgresHolds(self.pool),
            PostgresFeed(self.pool),
            self.stack.scheduler,
            self.stack.scheduler,
            self.clock,
            hold_ttl=timedelta(days=30),
        )
        hourly: list[Check] = [
            HoldsCheck(self.records, follower),
            InboxCheck(self.inbox, self.shop, keep=60 * DAY),
            self._customers(everyone=False),
        ]
        nightly: list[Check] = [self._customers(everyone=True), BooksCheck(LedgerCheck(self.pool))]
        return Reconciliation(
            self.records,
            {RunKind.HOURLY: hourly, RunKind.NIGHTLY: nightly},
            self.clock,
            intervals={RunKind.HOURLY: HOUR, RunKind.NIGHTLY: DAY},
        )

    def _customers(self, *, everyone: bool) -> CustomersCheck:
        # of the whole port the check uses the list of customers
        return CustomersCheck(
            self.shop,  # type: ignore[arg-type]
            self.shop,
            self.inbox,
            everyone=everyone,
            settle_s=0,
        )

    async def begin(self) -> None:
        """As if the last runs were now."""
        await self.pool.execute("UPDATE reconciliation_runs SET begun_at = $1", self.clock.now())

    async def keep(self, event_id: str, customer_id: CustomerId) -> None:
        now = self.clock.now()
        await self.inbox.keep(Notice(event_id, "invoice.paid", customer_id, now), now)


@pytest.fixture
async def scene(idle_stack: BillingStack) -> AsyncIterator[Scene]:
    async with (
        idle_stack.running(hold_ttl_s=30 * DAY.total_seconds()) as stack,
        open_pool(stack.url, schema="billing", name="test", max_size=8) as pool,
    ):
        made = Scene(stack, pool)
        await made.begin()
        yield made


def kinds(report: RunReport | None) -> list[tuple[str, str]]:
    assert report is not None
    return [(one.finding.kind, one.finding.reference) for one in report.findings]


async def test_a_hold_whose_job_ended_unnoticed_is_settled(scene: Scene) -> None:
    ended, alive = [(await scene.stack.place()).hold.job_id for _ in range(2)]
    scene.stack.scheduler.reports[JobId(ended)] = JobReport(JobStatus.SUCCEEDED, 10, 10)
    scene.stack.scheduler.reports[JobId(alive)] = JobReport(JobStatus.RUNNING, 1, 10)
    scene.clock.move(minutes=59)
    fresh = (await scene.stack.place()).hold.job_id
    scene.clock.move(minutes=2)
    report = await scene.reconciliation.run_due(RunKind.HOURLY)
    assert kinds(report) == [("hold_overlooked", ended)]
    assert (await scene.stack.hold(ended)).state == pb.HOLD_STATE_CAPTURED
    assert (await scene.stack.hold(alive)).state == pb.HOLD_STATE_OPEN
    # its submit may be on its way: the scheduler was not asked, so it will not refuse it
    assert fresh not in scene.stack.scheduler.resolved
    assert await scene.stack.findings() == [("hold_overlooked", ended)]
    assert await scene.stack.breaches() == []


async def test_a_hold_that_cannot_be_settled_is_a_finding(scene: Scene) -> None:
    broken = (await scene.stack.place()).hold.job_id
    await scene.stack.sql("UPDATE hold_allocations SET millicredits = 1 WHERE job_id = $1", broken)
    scene.stack.scheduler.reports[JobId(broken)] = JobReport(JobStatus.SUCCEEDED, 10, 10)
    scene.clock.move(minutes=61)
    report = await scene.reconciliation.run_due(RunKind.HOURLY)
    assert kinds(report) == [("hold_stuck", broken)]


async def test_webhooks_nobody_answers_are_found(scene: Scene) -> None:
    await scene.keep("evt_old", ANN)
    await scene.keep("evt_dead", BEN)
    await scene.pool.execute(
        "UPDATE webhook_inbox SET state = 'dead', attempts = 3, error = 'x', next_try_at = NULL, "
        "ended_at = received_at WHERE event_id = 'evt_dead'"
    )
    scene.clock.move(minutes=61)
    await scene.keep("evt_new", EVE)
    report = await scene.reconciliation.run_due(RunKind.HOURLY)
    assert kinds(report) == [("webhook_dead", "evt_dead"), ("webhook_stuck", "evt_old")]
    assert scene.shop.looks == [ANN]


async def test_a_change_that_no_webhook_told_of_is_mended(scene: Scene) -> None:
    scene.shop.changed = {
        ANN: scene.clock.now() + timedelta(minutes=5),
        BEN: scene.clock.now() + timedelta(minutes=59),
        EVE: scene.clock.now() - timedelta(days=3),
    }
    scene.shop.differ = {ANN, BEN, EVE}
    scene.clock.move(hours=1)
    await scene.keep("evt_ben", BEN)  # on its way: no finding
    report = await scene.reconciliation.run_due(RunKind.HOURLY)
    assert [kind for kind, _ in kinds(report)] == ["webhook_missed"]
    assert kinds(report)[0][1].startswith(f"{ANN}/")
    assert scene.shop.differ == {EVE}
    # the night looks at everyone
    scene.clock.move(days=1)
    report = await scene.reconciliation.run_due(RunKind.NIGHTLY)
    assert [kind for kind, _ in kinds(report)] == ["drift_repaired"]
    assert scene.shop.differ == set()


async def test_a_customer_nobody_knows_and_a_broken_ledger_are_findings(scene: Scene) -> None:
    scene.shop.changed = {EVE: scene.clock.now()}
    scene.shop.unknown = {EVE}
    await scene.stack.place()
    account = await scene.stack.sql(
        "UPDATE credit_accounts SET available = available + 1 RETURNING account_id"
    )
    first = await scene.reconciliation.run_now(RunKind.NIGHTLY)
    assert ("customer_unknown", EVE) in kinds(first)
    assert ("ledger_breach", f"balance that differs from its entries: {account}") in kinds(first)
    assert all(recorded.is_new for recorded in first.findings)
    again = await scene.reconciliation.run_now(RunKind.NIGHTLY)
    assert kinds(again) == kinds(first)
    assert not any(recorded.is_new for recorded in again.findings)


async def test_a_run_without_stripe_does_the_rest_and_is_due_again(scene: Scene) -> None:
    await scene.keep("evt_old", ANN)
    scene.shop.is_away = True
    scene.clock.move(hours=2)
    report = await scene.reconciliation.run_due(RunKind.HOURLY)
    assert report is not None
    assert report.failed == ("changed_customers",)
    assert kinds(report) == [("webhook_stuck", "evt_old")]
    scene.shop.is_away = False
    report = await scene.reconciliation.run_due(RunKind.HOURLY)
    assert report is not None
    assert report.failed == ()
    assert await scene.reconciliation.run_due(RunKind.HOURLY) is None


async def test_a_restart_neither_skips_nor_repeats_a_run(scene: Scene) -> None:
    scene.clock.move(minutes=59)
    assert await scene.replica().run_due(RunKind.HOURLY) is None
    scene.clock.move(minutes=1)
    assert await scene.replica().run_due(RunKind.HOURLY) is not None
    assert await scene.replica().run_due(RunKind.HOURLY) is None
    scene.clock.move(minutes=60)
    assert await scene.replica().run_due(RunKind.HOURLY) is not None


async def test_of_several_replicas_one_reconciles(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(customer_id: CustomerId) -> bool:
        del customer_id
        begun.set()
        await go_on.wait()
        return False

    scene.shop.changed = {ANN: scene.clock.now()}
    monkeypatch.setattr(scene.shop, "sync", slow)
    scene.clock.move(hours=1)
    first = asyncio.create_task(scene.reconciliation.run_due(RunKind.HOURLY))
    await begun.wait()
    assert await scene.replica().run_due(RunKind.HOURLY) is None
    with pytest.raises(Conflict):
        await scene.replica().run_now(RunKind.NIGHTLY)
    # no transaction is open while Stripe is asked
    count = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert await scene.pool.fetchval(count) == 0
    go_on.set()
    assert await first is not None
    assert (await scene.replica().run_now(RunKind.NIGHTLY)).failed == ()
