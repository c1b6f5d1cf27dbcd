"""The loops of the inbox and of reconciliation go on, whatever a round fails with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from billing.domain.feed import Finding
from billing.domain.inbox import (
    CustomerLease,
    EventState,
    InboxFigures,
    RetryPolicy,
    error_text,
    first_state,
)
from billing.domain.payments import CustomerId, Notice
from billing.domain.reconciliation import Recorded, RunKind, RunReport
from billing.loop.inbox import measure_inbox, work_inbox
from billing.loop.reconciliation import reconcile
from billing.service.inbox import Answer, Look
from easel_kit.errors import DependencyDown
from tests.fakes.billing import MovableClock

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ANN = CustomerId("cus_ann")
SECOND = timedelta(seconds=1)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def turn(until: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not until():  # noqa: ASYNC110 (a loop runs beside)
            await asyncio.sleep(0)


# --- what becomes of an event


@pytest.mark.parametrize(
    ("kind", "customer", "state"),
    [
        ("invoice.paid", ANN, EventState.PENDING),
        ("customer.subscription.deleted", ANN, EventState.PENDING),
        ("charge.dispute.created", ANN, EventState.PENDING),
        ("charge.refunded", ANN, EventState.PENDING),
        ("charge.dispute.created", None, EventState.IGNORED),
        ("customer.tax_id.created", ANN, EventState.IGNORED),
        ("charge.succeeded", ANN, EventState.IGNORED),
    ],
)
def test_only_what_tells_of_a_customers_money_is_answered(
    kind: str, customer: CustomerId | None, state: EventState
) -> None:
    assert first_state(Notice("evt_1", kind, customer, NOW)) is state


def test_tries_are_ever_further_apart_up_to_a_limit() -> None:
    policy = RetryPolicy(6, base=2 * SECOND, cap=10 * SECOND)
    whole = [policy.retry_at(NOW, attempts, 1.0) for attempts in range(1, 7)]
    assert whole == [*[NOW + SECOND * wait for wait in (2, 4, 8, 10, 10)], None]
    assert policy.retry_at(NOW, 2, 0.0) == NOW + 2 * SECOND
    endless = RetryPolicy(10_000, base=timedelta(hours=1), cap=timedelta(hours=2))
    assert endless.retry_at(NOW, 9_999, 1.0) == NOW + timedelta(hours=2)


def test_an_errors_text_is_one_short_line() -> None:
    assert error_text("a\n b") == "a b"
    assert error_text("") == "unknown"
    assert len(error_text("x" * 999)) == 200


# --- loops


class Worker:
    """Stands for `InboxWorker`; each take is answered by the next of a script."""

    def __init__(self, script: list[Look | Exception | None]) -> None:
        self.script = script
        self.next: Look | None = None
        self.waits: list[float] = []

    async def take(self, owner: str) -> CustomerLease | None:
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        self.next = step
        return None if step is None else CustomerLease(ANN, owner, 1, {"evt_1": 1})

    async def answer(self, lease: CustomerLease) -> Look:
        del lease
        assert self.next is not None
        return self.next

    async def kept(self, *, within_s: float) -> None:
        self.waits.append(within_s)
        await asyncio.sleep(0 if len(self.waits) < 3 else 60)


async def test_the_worker_goes_on_after_every_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.loop.pause._FIRST_PAUSE_S", 0.001)
    before = value("easel_billing_inbox_answered_total", outcome="dead")
    worker = Worker(
        [
            DependencyDown("the database is away"),
            ValueError("planted"),
            Look(ANN, Answer.APPLIED, 2),
            Look(ANN, Answer.FAILED, 3, dead=1, error=ValueError("planted")),
            Look(ANN, Answer.LOST, 0, error=DependencyDown("Stripe is away")),
        ]
    )
    task = asyncio.create_task(
        work_inbox(worker, workers=1, poll_s=9.0)  # type: ignore[arg-type]
    )
    await turn(lambda: len(worker.waits) == 3)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert worker.script == []
    assert set(worker.waits) == {9.0}
    assert value("easel_billing_inbox_answered_total", outcome="dead") == before + 1


class Figures:
    """Of the port `Inbox` the figures; the first question fails."""

    def __init__(self) -> None:
        self.asked = 0

    async def figures(self) -> InboxFigures:
        self.asked += 1
        if self.asked == 1:
            raise DependencyDown("the database is away")
        if self.asked == 2:
            raise ValueError("planted")
        return InboxFigures({EventState.DEAD: 2}, NOW - 90 * SECOND)


async def test_the_figures_are_measured() -> None:
    inbox = Figures()
    clock = MovableClock(NOW)
    task = asyncio.create_task(
        measure_inbox(inbox, clock, interval_s=0)  # type: ignore[arg-type]
    )
    await turn(lambda: inbox.asked > 3)
    task.cancel()
    assert value("easel_billing_inbox_events", state="dead") == 2
    assert value("easel_billing_inbox_events", state="pending") == 0
    assert value("easel_billing_inbox_oldest_seconds") == 90


class Runs:
    """Stands for `Reconciliation`."""

    def __init__(self, script: list[RunReport | Exception | None]) -> None:
        self.script = script
        self.asked: list[RunKind] = []

    async def run_due(self, kind: RunKind) -> RunReport | None:
        self.asked.append(kind)
        if kind is RunKind.NIGHTLY or not self.script:
            return None
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


async def test_reconciliation_goes_on_and_does_not_hurry_after_a_failure() -> None:
    finding = Finding("webhook_missed", "cus_ann/x", {})
    report = RunReport(
        RunKind.HOURLY, (Recorded(finding, is_new=True), Recorded(finding, is_new=False)), ()
    )
    incomplete = RunReport(RunKind.HOURLY, (), ("customers",))
    runs = Runs([DependencyDown("away"), report, incomplete, ValueError("planted")])
    before = value("easel_billing_findings_total", kind="webhook_missed")
    clock = MovableClock(NOW)
    task = asyncio.create_task(
        reconcile(runs, clock, poll_s=0)  # type: ignore[arg-type]
    )
    await turn(lambda: len(runs.script) == 1)
    assert value("easel_billing_findings_total", kind="webhook_missed") == before + 1
    assert value("easel_billing_reconciliation_seconds", kind="hourly") == NOW.timestamp()
    nights = runs.asked.count(RunKind.NIGHTLY)
    await turn(lambda: runs.asked.count(RunKind.NIGHTLY) > nights + 3)
    assert len(runs.script) == 1  # not again within five minutes
    clock.move(minutes=5)
    await turn(lambda: not runs.script)
    clock.move(minutes=5)
    hours = runs.asked.count(RunKind.HOURLY)
    await turn(lambda: runs.asked.count(RunKind.HOURLY) > hours)
    task.cancel()
