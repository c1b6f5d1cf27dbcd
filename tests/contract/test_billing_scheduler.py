"""The scheduler as billing's ports see it: in memory and over gRPC, the same."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from billing.clients.scheduler import SchedulerEvents, SchedulerJobs, SchedulerQueue
from billing.domain.accounts import AccountId, EntitlementsChange
from billing.domain.feed import Cursor, JobEvent
from billing.domain.holds import JobReport, JobStatus
from billing.domain.plans import PlanVersion
from billing.ports.entitlements import Queue
from billing.ports.jobs import EventFeed, JobResolver
from billing.storage.plans import read_plan_book
from easel_kit.errors import DependencyDown, DomainError, OutOfRange
from easel_kit.ids import JobId, UserId, new_job_id
from easel_kit.rpc.channel import open_channel
from tests.fakes.billing import MemoryScheduler, Tier, serve_scheduler

ALICE = UserId("alice")
REPORTS = [
    JobReport(JobStatus.QUEUED),
    JobReport(JobStatus.SUCCEEDED, 10, 10),
    JobReport(JobStatus.FAILED, 3, 10),
    JobReport(JobStatus.CANCELLED, 4, 10),
    None,
]


@dataclass
class Sides:
    """The ports, and what is behind them."""

    scheduler: MemoryScheduler
    events: EventFeed
    resolver: JobResolver
    queue: Queue

    async def read(self, after: Cursor, count: int) -> list[JobEvent]:
        stream: Any = self.events.subscribe(after)
        found: list[JobEvent] = []
        async with aclosing(stream):
            async for batch in stream:
                found.extend(batch)
                if len(found) >= count:
                    break
        return found


@pytest.fixture(params=["memory", "grpc"])
async def sides(request: pytest.FixtureRequest) -> AsyncIterator[Sides]:
    scheduler = MemoryScheduler()
    if request.param == "memory":
        yield Sides(scheduler, scheduler, scheduler, scheduler)
        return
    async with serve_scheduler(scheduler) as address, open_channel(address) as channel:
        yield Sides(
            scheduler,
            SchedulerEvents(channel),
            SchedulerJobs(channel, timeout_s=2),
            SchedulerQueue(channel, timeout_s=2),
        )


async def test_events_come_in_order_with_all_they_say(sides: Sides) -> None:
    happened = [
        await sides.scheduler.happen(new_job_id(), ALICE, report, traceparent=f"00-{index}")
        for index, report in enumerate(REPORTS)
    ]
    assert await sides.read(Cursor(), len(REPORTS)) == happened


async def test_a_stream_begins_after_its_cursor_and_ends_when_cut(sides: Sides) -> None:
    first, second, third = [
        await sides.scheduler.happen(new_job_id(), ALICE, REPORTS[0]) for _ in range(3)
    ]
    assert await sides.read(first.cursor, 2) == [second, third]
    stream = sides.events.subscribe(second.cursor)
    assert await anext(stream) == [third]
    await sides.scheduler.cut()
    assert [batch async for batch in stream] == []


async def test_cursors_keep_numbers_of_64_bits(sides: Sides) -> None:
    sides.scheduler.generation = 2**62
    place = Cursor(2**62, 2**64 - 1, 2**62)
    event = await sides.scheduler.happen(new_job_id(), ALICE, None, cursor=place)
    assert await sides.read(Cursor(2**62, 2**64 - 2, 0), 1) == [event]


async def test_pruned_events_are_out_of_range(sides: Sides) -> None:
    sides.scheduler.pruned_up_to = Cursor(1, 800, 0)
    with pytest.raises(OutOfRange):
        await sides.read(Cursor(1, 799, 0), 1)


@pytest.mark.parametrize("status", list(JobStatus))
async def test_a_job_is_resolved_to_its_status(sides: Sides, status: JobStatus) -> None:
    job_id, report = new_job_id(), JobReport(status, 4, 10)
    sides.scheduler.reports[job_id] = report
    assert await sides.resolver.resolve(job_id) == report


async def test_a_job_never_heard_of_is_unknown_from_then_on(sides: Sides) -> None:
    job_id = JobId(new_job_id())
    assert (await sides.resolver.resolve(job_id)).status is JobStatus.UNKNOWN
    assert job_id in sides.scheduler.reports


def changed(version: int, key: str = "pro") -> EntitlementsChange:
    plans = {plan.key: plan for plan in read_plan_book(None).plans}
    return EntitlementsChange(AccountId("acc_1"), ALICE, version, PlanVersion(1, plans[key]))


async def test_a_changed_plan_is_told_with_the_numbers_of_the_queue(sides: Sides) -> None:
    await sides.queue.set_entitlements(changed(3))
    assert sides.scheduler.tiers[ALICE] == Tier(3, 10, 4, 3, 12, 3_600)


async def test_an_older_plan_changes_nothing(sides: Sides) -> None:
    await sides.queue.set_entitlements(changed(2**40, "enterprise"))
    await sides.queue.set_entitlements(changed(3, "free"))
    assert sides.scheduler.tiers[ALICE].version == 2**40
    assert sides.scheduler.tiers[ALICE].priority == 100


async def test_a_scheduler_that_is_away_is_down(sides: Sides) -> None:
    sides.scheduler.is_away = True
    with pytest.raises(DependencyDown):
        await sides.queue.set_entitlements(changed(1))
    with pytest.raises(DependencyDown):
        await sides.resolver.resolve(new_job_id())
    with pytest.raises(DependencyDown):
        await sides.read(Cursor(), 1)


async def test_nobody_at_the_address_is_down_too() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(DomainError) as raised:
            await SchedulerJobs(channel, timeout_s=2).resolve(new_job_id())
        assert isinstance(raised.value, DependencyDown)


async def test_a_state_newer_than_this_client_is_no_reason_to_free_a_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.fakes.billing.STATES", {JobStatus.UNKNOWN: 99})
    async with serve_scheduler(MemoryScheduler()) as address, open_channel(address) as channel:
        with pytest.raises(DependencyDown, match="99"):
            await SchedulerJobs(channel, timeout_s=2).resolve(new_job_id())
