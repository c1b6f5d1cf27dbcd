"""Following jobs: by the event feed, and by asking about holds past their time."""

import asyncio
import json

import pytest

from billing.domain.feed import Cursor
from billing.domain.holds import JobReport, JobStatus
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import InvalidState
from easel_kit.ids import JobId, new_job_id
from easel_kit.log import configure_logging
from tests.fakes.billing_stack import ALICE, BOB, FREE_GRANT, PRICE, BillingStack, until

QUEUED = JobReport(JobStatus.QUEUED)
RUNNING = JobReport(JobStatus.RUNNING, 3, 10)
SUCCEEDED = JobReport(JobStatus.SUCCEEDED, 10, 10)
FAILED = JobReport(JobStatus.FAILED, 7, 10)
UNKNOWN = JobReport(JobStatus.UNKNOWN)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def cancelled(done: int, total: int = 10) -> JobReport:
    return JobReport(JobStatus.CANCELLED, done, total)


ENDS = [
    (SUCCEEDED, PRICE),
    (FAILED, 0),
    (cancelled(3), PRICE * 3 // 10),
    (cancelled(0), 0),
    (cancelled(0, 0), 0),
    (cancelled(11), PRICE),
]


async def test_the_end_of_a_job_ends_its_hold(stack: BillingStack) -> None:
    paid = 0
    for report, charged in ENDS:
        job_id = (await stack.place()).hold.job_id
        await stack.happen(job_id, QUEUED)
        await stack.happen(job_id, report)
        hold = await stack.hold(job_id)
        assert hold.captured_millicredits == charged
        assert hold.state == (pb.HOLD_STATE_CAPTURED if charged else pb.HOLD_STATE_RELEASED)
        paid += charged
        assert await stack.balance() == (FREE_GRANT - paid, 0)
    assert await stack.findings() == []
    assert await stack.breaches() == []


async def test_the_ledger_says_what_became_of_a_job(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    await stack.happen(job_id, cancelled(3))
    lines = await stack.lines(job_id=job_id)
    assert [(line.kind, line.millicredits) for line in lines] == [
        ("capture", 287),
        ("hold", -PRICE),
    ]
    assert "cancelled after 3 of 10 steps" in lines[0].description
    assert "0.123 credits of 0.410 credits" in lines[0].description


async def test_a_queued_job_extends_its_hold(stack: BillingStack) -> None:
    first = (await stack.place()).hold
    stack.clock.move(seconds=300)
    await stack.happen(first.job_id, QUEUED)
    extended = await stack.hold(first.job_id)
    assert extended.expires_at.ToSeconds() - first.expires_at.ToSeconds() == 300


async def test_a_job_that_ended_may_be_held_for_again_without_effect(stack: BillingStack) -> None:
    """A caller that resumes after a crash asks again; the scheduler knows the job has ended."""
    first = (await stack.place()).hold
    await stack.happen(first.job_id, FAILED)
    again = await stack.place(job_id=first.job_id)
    assert (again.hold.id, again.hold.state) == (first.id, pb.HOLD_STATE_RELEASED)
    assert await stack.balance() == (FREE_GRANT, 0)


async def test_events_that_mean_nothing_here_only_move_the_cursor(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    await stack.happen(job_id, None)
    assert (await stack.hold(job_id)).state == pb.HOLD_STATE_OPEN
    assert await stack.findings() == []


async def test_what_cannot_be_applied_becomes_a_finding_and_the_feed_goes_on(
    stack: BillingStack,
) -> None:
    unpaid, foreign, barred, freed, good = (new_job_id() for _ in range(5))
    for job_id in (foreign, freed, good):
        await stack.place(job_id=job_id)
    await stack.release(barred)
    await stack.release(freed)
    await stack.happen(unpaid, QUEUED)
    await stack.happen(unpaid, SUCCEEDED)
    await stack.happen(foreign, SUCCEEDED, BOB)
    await stack.happen(barred, SUCCEEDED)
    await stack.happen(freed, SUCCEEDED)
    await stack.happen(good, SUCCEEDED)
    assert await stack.findings() == [
        ("hold_missing", unpaid),
        ("hold_of_other_user", foreign),
        ("hold_missing", barred),
        ("settled_otherwise", freed),
    ]
    assert await stack.balance() == (FREE_GRANT - 2 * PRICE, PRICE)
    assert (await stack.hold(good)).state == pb.HOLD_STATE_CAPTURED
    assert await stack.breaches() == []


async def test_rows_that_contradict_an_event_become_a_finding(stack: BillingStack) -> None:
    broken = (await stack.place()).hold.job_id
    good = (await stack.place()).hold.job_id
    # a hand in the database: the lot no longer holds what the job has reserved
    await stack.sql("UPDATE credit_lots SET held = $1", PRICE)
    await stack.sql("UPDATE hold_allocations SET millicredits = $1 WHERE job_id = $2", 1, good)
    await stack.happen(good, SUCCEEDED)
    await stack.happen(broken, SUCCEEDED)
    assert await stack.findings() == [("event_failed", good)]
    assert (await stack.hold(good)).state == pb.HOLD_STATE_OPEN
    assert (await stack.hold(broken)).state == pb.HOLD_STATE_CAPTURED


async def test_repeated_and_late_events_change_nothing(stack: BillingStack) -> None:
    jobs = [(await stack.place()).hold.job_id for _ in range(3)]
    events = [
        await stack.scheduler.happen(JobId(job_id), ALICE, report)
        for job_id, report in zip(jobs, (SUCCEEDED, FAILED, cancelled(5)), strict=True)
    ]
    for event in (*events, *reversed(events)):
        await stack.scheduler.happen(event.job_id, event.user_id, event.report, again=event)
    for job_id in jobs:
        await stack.happen(job_id, QUEUED)
    assert await stack.balance() == (FREE_GRANT - PRICE - PRICE // 2, 0)
    assert await stack.sql("SELECT count(*) FROM transfers") == 7
    assert await stack.findings() == []
    assert await stack.breaches() == []


async def test_an_old_event_that_comes_again_is_no_sign_of_life(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    queued = await stack.scheduler.happen(JobId(job_id), ALICE, QUEUED)
    await stack.until_applied(queued.cursor.sequence)
    before = await stack.hold(job_id)
    stack.clock.move(seconds=300)
    await stack.scheduler.happen(queued.job_id, ALICE, QUEUED, again=queued)
    await stack.happen((await stack.place()).hold.job_id, SUCCEEDED)
    assert await stack.hold(job_id) == before


async def test_two_consumers_apply_each_event_once(idle_stack: BillingStack) -> None:
    other = BillingStack(idle_stack.url)
    other.clock, other.scheduler = idle_stack.clock, idle_stack.scheduler
    async with idle_stack.running() as stack, other.running():
        jobs = [(await stack.place()).hold.job_id for _ in range(20)]
        for job_id in jobs:
            await stack.scheduler.happen(JobId(job_id), ALICE, SUCCEEDED)
        await stack.until_applied(20)
        assert await stack.balance() == (FREE_GRANT - 20 * PRICE, 0)
        assert await stack.findings() == []
        assert await stack.breaches() == []


# --- losses


async def test_the_feed_goes_on_after_it_was_cut(stack: BillingStack) -> None:
    for round_number in range(1, 4):
        job_id = (await stack.place()).hold.job_id
        await stack.happen(job_id, SUCCEEDED)
        await stack.scheduler.cut()

        async def resubscribed(count: int = round_number + 1) -> bool:
            return len(stack.scheduler.subscriptions) >= count

        await until(resubscribed)
    assert [cursor.sequence for cursor in stack.scheduler.subscriptions] == [0, 1, 2, 3]
    assert await stack.balance() == (FREE_GRANT - 3 * PRICE, 0)


async def test_billing_serves_while_the_scheduler_is_away(stack: BillingStack) -> None:
    stack.scheduler.is_away = True
    await stack.scheduler.cut()
    job_id = (await stack.place()).hold.job_id
    await stack.scheduler.happen(JobId(job_id), ALICE, SUCCEEDED)
    assert (await stack.hold(job_id)).state == pb.HOLD_STATE_OPEN
    stack.scheduler.is_away = False
    await stack.until_state(job_id, pb.HOLD_STATE_CAPTURED)


@pytest.mark.parametrize("table", ["feed_cursor", "holds", "transfers", "hold_allocations"])
async def test_a_crash_inside_the_transaction_repeats_the_event(
    stack: BillingStack, table: str
) -> None:
    """The first two writes to a table break; a sequence counts them, as it is not rolled back."""
    jobs = [(await stack.place()).hold.job_id for _ in range(3)]
    await stack.sql("CREATE SEQUENCE crashes")
    await stack.sql("""
        CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('billing.crashes') <= 2 THEN RAISE 'planted'; END IF;
            RETURN NEW;
        END $$
    """)
    await stack.sql(f"""
        CREATE TRIGGER crash AFTER INSERT OR UPDATE ON {table}
        FOR EACH ROW EXECUTE FUNCTION crash()
    """)
    for job_id, report in zip(jobs, (SUCCEEDED, FAILED, cancelled(5)), strict=True):
        await stack.scheduler.happen(JobId(job_id), ALICE, report)
    await stack.until_applied(3)
    assert await stack.sql("SELECT last_value FROM crashes") > 2
    assert await stack.balance() == (FREE_GRANT - PRICE - PRICE // 2, 0)
    assert await stack.findings() == []
    assert await stack.breaches() == []


async def test_killed_at_any_moment_each_job_is_charged_once(idle_stack: BillingStack) -> None:
    async with idle_stack.running() as stack:
        jobs = [(await stack.place()).hold.job_id for _ in range(30)]
        for job_id in jobs:
            await stack.scheduler.happen(JobId(job_id), ALICE, SUCCEEDED)
    for pause_s in (0.0, 0.001, 0.002, 0.004, 0.008):
        async with idle_stack.running():
            await asyncio.sleep(pause_s)
    async with idle_stack.running() as stack:
        await stack.until_applied(30)
        assert await stack.balance() == (FREE_GRANT - 30 * PRICE, 0)
        assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'capture'") == 30
        assert await stack.breaches() == []


async def test_pruned_events_are_a_finding_and_their_holds_end_by_expiry(
    idle_stack: BillingStack,
) -> None:
    async with idle_stack.running() as stack:
        await stack.happen((await stack.place()).hold.job_id, SUCCEEDED)
    idle_stack.scheduler.pruned_up_to = Cursor(1, 5000, 0)
    async with idle_stack.running() as stack:
        lost = (await stack.place()).hold.job_id
        stack.scheduler.reports[JobId(lost)] = SUCCEEDED

        async def found() -> bool:
            return ("feed_gap", "1/700/1") in await stack.findings()

        await until(found)
        assert (await stack.hold(lost)).state == pb.HOLD_STATE_OPEN
        stack.clock.move(seconds=901)
        await stack.until_state(lost, pb.HOLD_STATE_CAPTURED)
        assert await stack.balance() == (FREE_GRANT - 2 * PRICE, 0)


async def test_a_scheduler_that_begins_anew_is_read_from_its_first_event(
    idle_stack: BillingStack,
) -> None:
    idle_stack.scheduler.generation = 9
    async with idle_stack.running() as stack:
        old = (await stack.place()).hold.job_id
        first = await stack.scheduler.happen(JobId(old), ALICE, SUCCEEDED)
        await stack.until_applied(1)
        fresh = (await stack.place()).hold.job_id
        stack.scheduler.generation = 1
        stack.scheduler.log.clear()
        await stack.scheduler.cut()
        await stack.scheduler.happen(JobId(old), ALICE, SUCCEEDED)
        await stack.scheduler.happen(JobId(fresh), ALICE, SUCCEEDED)
        await stack.until_state(fresh, pb.HOLD_STATE_CAPTURED)
        place = first.cursor
        gap = f"{place.generation}/{place.transaction_id}/{place.sequence}"
        assert await stack.findings() == [("feed_gap", gap)]
        assert await stack.balance() == (FREE_GRANT - 2 * PRICE, 0)
        assert await stack.breaches() == []


async def test_a_restored_scheduler_counts_from_a_higher_generation(stack: BillingStack) -> None:
    first, second = [(await stack.place()).hold.job_id for _ in range(2)]
    await stack.happen(first, SUCCEEDED)
    stack.scheduler.generation = 2
    await stack.scheduler.happen(JobId(second), ALICE, SUCCEEDED, cursor=Cursor(2, 5, 1))
    await stack.until_state(second, pb.HOLD_STATE_CAPTURED)
    assert await stack.sql("SELECT transaction_id FROM feed_cursor") == 5


# --- holds past their time


@pytest.mark.parametrize("report", [QUEUED, RUNNING])
async def test_the_hold_of_a_live_job_stays(stack: BillingStack, report: JobReport) -> None:
    first = (await stack.place()).hold
    stack.scheduler.reports[JobId(first.job_id)] = report
    stack.clock.move(seconds=900)

    async def extended() -> bool:
        return (
            await stack.hold(first.job_id)
        ).expires_at.ToSeconds() > first.expires_at.ToSeconds()

    await until(extended)
    hold = await stack.hold(first.job_id)
    assert hold.state == pb.HOLD_STATE_OPEN
    assert hold.expires_at.ToSeconds() - stack.clock.now().timestamp() == 900
    assert stack.scheduler.resolved == [first.job_id]


async def test_a_hold_whose_event_never_came_ends_as_its_job_did(stack: BillingStack) -> None:
    jobs = [(await stack.place()).hold.job_id for _ in ENDS]
    for job_id, (report, _) in zip(jobs, ENDS, strict=True):
        stack.scheduler.reports[JobId(job_id)] = report
    stack.clock.move(seconds=900)
    for job_id, (_, charged) in zip(jobs, ENDS, strict=True):
        state = pb.HOLD_STATE_CAPTURED if charged else pb.HOLD_STATE_RELEASED
        await stack.until_state(job_id, state)
    paid = sum(charged for _, charged in ENDS)
    assert await stack.balance() == (FREE_GRANT - paid, 0)
    # the events come after all
    for job_id, (report, _) in zip(jobs, ENDS, strict=True):
        await stack.happen(job_id, report)
    assert await stack.balance() == (FREE_GRANT - paid, 0)
    assert await stack.findings() == []
    assert await stack.breaches() == []


async def test_a_hold_whose_submit_was_lost_is_freed_and_barred(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    await stack.scheduler.cut()
    assert stack.scheduler.resolved == []  # its time is not over
    stack.clock.move(seconds=900)
    await stack.until_state(job_id, pb.HOLD_STATE_RELEASED)
    assert stack.scheduler.reports[JobId(job_id)] == UNKNOWN
    assert await stack.balance() == (FREE_GRANT, 0)
    with pytest.raises(InvalidState):
        await stack.place(job_id=job_id)


async def test_nothing_is_freed_while_the_scheduler_cannot_be_asked(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    stack.scheduler.is_away = True
    stack.clock.move(days=3)
    for _ in range(5):
        await asyncio.sleep(0.02)  # rounds of the sweeper, none of which may free it
        assert (await stack.hold(job_id)).state == pb.HOLD_STATE_OPEN
    stack.scheduler.is_away = False
    await stack.until_state(job_id, pb.HOLD_STATE_RELEASED)


async def test_a_hold_that_cannot_be_settled_does_not_stop_the_others(stack: BillingStack) -> None:
    broken = (await stack.place()).hold.job_id
    stack.clock.move(seconds=1)
    good = (await stack.place()).hold.job_id
    await stack.sql("UPDATE hold_allocations SET millicredits = 1 WHERE job_id = $1", broken)
    for job_id in (broken, good):
        stack.scheduler.reports[JobId(job_id)] = SUCCEEDED
    stack.clock.move(seconds=900)
    await stack.until_state(good, pb.HOLD_STATE_CAPTURED)
    assert (await stack.hold(broken)).state == pb.HOLD_STATE_OPEN


# --- over the wire


async def test_the_real_client_follows_a_scheduler_over_grpc(
    idle_stack: BillingStack, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("billing")
    async with idle_stack.running(over_grpc=True) as stack:
        paid, lost = [(await stack.place()).hold.job_id for _ in range(2)]
        await stack.scheduler.happen(JobId(paid), ALICE, QUEUED)
        event = await stack.scheduler.happen(JobId(paid), ALICE, SUCCEEDED, traceparent=TRACE)
        await stack.until_applied(event.cursor.sequence)
        assert (await stack.hold(paid)).state == pb.HOLD_STATE_CAPTURED
        stack.clock.move(seconds=900)
        await stack.until_state(lost, pb.HOLD_STATE_RELEASED)
        await stack.scheduler.cut()
        late = (await stack.place()).hold.job_id
        await stack.happen(late, FAILED)
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    captured = [line for line in logged if line["event"] == "hold.captured"]
    assert [line["job_id"] for line in captured] == [paid]
    assert {line["account_id"] for line in captured} == {
        line["account_id"] for line in logged if line["event"] == "hold.placed"
    }
    assert not [line for line in logged if ALICE in json.dumps(line)]
    assert captured[0]["charged"] == PRICE
    assert captured[0]["trace_id"] == TRACE.split("-")[1]
    assert {line["job_id"] for line in logged if line["event"] == "hold.placed"} == {
        paid,
        lost,
        late,
    }
