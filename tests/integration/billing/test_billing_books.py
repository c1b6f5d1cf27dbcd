"""What users read of their ledger over gRPC: what jobs cost, and the statement of a month."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain.holds import JobReport, JobStatus
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import InvalidInput
from easel_kit.ids import JobId
from tests.fakes.billing_stack import ALICE, BOB, FREE_GRANT, PRICE, BillingStack, work


def at(*parts: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(*parts, tzinfo=UTC))  # type: ignore[misc,arg-type]
    return stamp


async def usage(stack: BillingStack, user: str = ALICE, **asked: object) -> pb.ListUsageResponse:
    return await stack.rpc.ListUsage(
        pb.ListUsageRequest(user_id=user, **asked)  # type: ignore[arg-type]
    )


async def statement(
    stack: BillingStack, year: int = 2026, month: int = 1, user: str = ALICE
) -> bytes:
    request = pb.GetStatementRequest(user_id=user, year=year, month=month)
    return b"".join([answer.data async for answer in stack.rpc.GetStatement(request)])


async def rows(stack: BillingStack, year: int = 2026, month: int = 1) -> list[dict[str, str]]:
    text = (await statement(stack, year, month)).decode()
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- usage


async def test_usage_has_one_line_a_job_that_ended(stack: BillingStack) -> None:
    captured, part, failed, refused, still_open = [
        (await stack.place()).hold.job_id for _ in range(5)
    ]
    stack.clock.move(minutes=1)
    await stack.capture(captured)
    stack.clock.move(minutes=1)
    await stack.happen(part, JobReport(JobStatus.CANCELLED, 3, 10))
    stack.clock.move(minutes=1)
    await stack.happen(failed, JobReport(JobStatus.FAILED, 3, 10))
    await stack.release(refused)
    answer = await usage(stack)
    assert [
        (line.job_id, line.held_millicredits, line.charged_millicredits, line.reason)
        for line in answer.lines
    ] == [
        (failed, PRICE, 0, "failed"),
        (part, PRICE, 123, "cancelled after 3 of 10 steps"),
        (captured, PRICE, PRICE, "finished"),
    ]
    assert answer.lines[0].ended_at.ToDatetime(UTC) == stack.clock.now()
    assert answer.lines[0].work == work()
    assert (answer.jobs, answer.charged_millicredits) == (3, PRICE + 123)
    assert not answer.next_page_token
    assert not {still_open, refused} & {line.job_id for line in answer.lines}
    assert (await usage(stack, BOB)).jobs == 0


async def test_usage_comes_in_pages_that_miss_and_repeat_nothing(stack: BillingStack) -> None:
    # all end at the same moment
    jobs = [(await stack.place()).hold.job_id for _ in range(7)]
    for job_id in jobs:
        await stack.capture(job_id)
    seen: list[str] = []
    token = ""
    while True:
        page = await usage(stack, page_size=3, page_token=token)
        assert (page.jobs, page.charged_millicredits) == (7, 7 * PRICE)
        seen += [line.job_id for line in page.lines]
        token = page.next_page_token
        if not token:
            break
        # a job that ends meanwhile is on no later page
        stack.clock.move(seconds=1)
        late = (await stack.place(BOB)).hold.job_id
        await stack.capture(late)
    assert seen == sorted(jobs, reverse=True)


async def test_usage_of_a_span_of_time(stack: BillingStack) -> None:
    for hour in range(4):
        stack.clock.set(datetime(2026, 2, 1, hour, tzinfo=UTC))
        await stack.capture((await stack.place()).hold.job_id)
    answer = await usage(stack, since=at(2026, 2, 1, 1), until=at(2026, 2, 1, 3), page_size=1)
    assert (answer.jobs, answer.charged_millicredits) == (2, 2 * PRICE)
    assert [line.ended_at.ToDatetime(UTC).hour for line in answer.lines] == [2]
    rest = await usage(
        stack, since=at(2026, 2, 1, 1), until=at(2026, 2, 1, 3), page_token=answer.next_page_token
    )
    assert [line.ended_at.ToDatetime(UTC).hour for line in rest.lines] == [1]
    assert (await usage(stack, since=at(2026, 2, 2))).jobs == 0


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"page_size": 101}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"page_token": "12"}, "page_token"),
        ({"page_token": f"12.job_{'0' * 32}"}, "page_token"),
        ({"page_token": f"{'9' * 18}.job_01a219b4a6db725d9ac766452e7d1b57"}, "page_token"),
        ({"since": at(2026, 2, 1), "until": at(2026, 2, 1)}, "until"),
        ({"since": Timestamp(seconds=10**15)}, "since"),
        ({"until": Timestamp(seconds=1, nanos=-1)}, "until"),
    ],
)
async def test_what_is_asked_of_usage_is_checked(
    stack: BillingStack, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await usage(stack, **asked)
    assert refused.value.field == field


# --- statements


async def test_a_statement_leads_from_one_balance_to_the_next(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    stack.scheduler.reports[JobId(job_id)] = JobReport(JobStatus.RUNNING)
    january = await rows(stack)
    assert list(january[0]) == [
        "time",
        "kind",
        "reference",
        "description",
        "credits",
        "balance",
    ]
    assert [(row["time"], row["kind"], row["credits"], row["balance"]) for row in january] == [
        ("2026-01-01T00:00:00Z", "opening", "", "0.000"),
        ("2026-01-31T12:00:00Z", "grant", "50.000", "50.000"),
        ("2026-01-31T12:00:00Z", "hold", "-0.410", "49.590"),
        # the month is not over
        ("2026-01-31T12:00:00Z", "closing", "", "49.590"),
    ]
    stack.clock.set(datetime(2026, 2, 1, tzinfo=UTC))
    await stack.capture(job_id, 1, 2)
    february = await rows(stack, month=2)
    assert [(row["kind"], row["credits"], row["balance"]) for row in february] == [
        ("opening", "", "49.590"),
        ("capture", "0.205", "49.795"),
        ("closing", "", "49.795"),
    ]
    assert february[1]["reference"] == job_id
    assert february[1]["description"].startswith("Charged 0.205 credits of 0.410 credits: stopped")
    stack.clock.set(datetime(2026, 3, 1, 12, tzinfo=UTC))
    # what was January's stays January's
    again = await rows(stack)
    assert again[:-1] == january[:-1]
    assert again[-1]["time"] == "2026-02-01T00:00:00Z"
    assert await stack.breaches() == []


async def test_a_long_statement_comes_in_parts_and_adds_up(stack: BillingStack) -> None:
    account_id = await stack.account_id()
    await stack.sql(
        """
        WITH t AS (
            INSERT INTO transfers
            SELECT 'trf_' || n, $1, n + 1, 'grant', 'gift/' || n, NULL, 'Gift', 1, $2 + n,
                   '2026-02-03'::timestamptz
            FROM generate_series(1, 1200) AS n
        ), e AS (
            INSERT INTO entries SELECT 'trf_' || n, $1, book, amount
            FROM generate_series(1, 1200) AS n,
                 (VALUES ('granted', -1), ('available', 1)) AS b (book, amount)
        ), l AS (
            INSERT INTO credit_lots (id, account_id, source, source_ref, granted, remaining,
                                     granted_at, expires_at)
            VALUES ('lot_x', $1, 'gift', 'x', 1200, 1200, now(), '2099-01-01')
        )
        UPDATE credit_accounts SET available = available + 1200, sequence = 1201
        """,
        account_id,
        FREE_GRANT,
    )
    assert await stack.breaches() == []
    stack.clock.set(datetime(2026, 2, 15, tzinfo=UTC))
    request = pb.GetStatementRequest(user_id=ALICE, year=2026, month=2)
    parts = [answer.data async for answer in stack.rpc.GetStatement(request)]
    assert len(parts) == 5
    lines = list(csv.reader(io.StringIO(b"".join(parts).decode(), newline="")))
    assert len(lines) == 1 + 2 + 1200
    credits_ = sum(Decimal(line[4]) for line in lines[2:-1])
    assert Decimal(lines[1][5]) + credits_ == Decimal(lines[-1][5]) == Decimal("51.2")


async def test_statements_of_months_with_clocks_that_differ_meet(stack: BillingStack) -> None:
    """A replica whose clock is behind books a line of the old month after one of the new."""
    await stack.account()
    stack.clock.set(datetime(2026, 2, 1, 0, 0, 1, tzinfo=UTC))
    await stack.place()
    stack.clock.set(datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC))
    await stack.place()
    # before the holds expire, or they might be released between the two statements
    stack.clock.set(datetime(2026, 2, 1, 0, 0, 2, tzinfo=UTC))
    january, february = await rows(stack), await rows(stack, month=2)
    assert len(january) + len(february) == 3 + 4
    assert january[-1]["balance"] == february[0]["balance"]


async def test_a_statement_of_nothing_has_two_balances(stack: BillingStack) -> None:
    assert [row["balance"] for row in await rows(stack, year=2025, month=12)] == ["0.000"] * 2


@pytest.mark.parametrize(
    ("year", "month", "field"),
    [
        (2026, 0, "month"),
        (2026, 13, "month"),
        (1999, 1, "year"),
        (2026, 3, "month"),
        (0, 1, "year"),
    ],
)
async def test_a_month_that_cannot_be_is_refused(
    stack: BillingStack, year: int, month: int, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await statement(stack, year, month)
    assert refused.value.field == field
