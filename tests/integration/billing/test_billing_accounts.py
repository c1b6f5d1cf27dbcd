"""Accounts over gRPC: plans, monthly grants, expiry, the ledger that users read."""

import asyncio
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from billing.domain.holds import JobReport, JobStatus
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import Forbidden, InvalidInput, NotFound
from easel_kit.ids import JobId, new_job_id
from tests.fakes.billing_stack import (
    ALICE,
    BOB,
    FREE_GRANT,
    PRICE,
    PRO_GRANT,
    BillingStack,
    until,
    work,
)

PLANS = (resources.files("billing") / "plans.toml").read_text(encoding="utf-8")


def plans_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = PLANS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "plans.toml"
    file.write_text(text, encoding="utf-8")
    return file


async def test_a_new_user_has_the_free_plan_and_its_credits(stack: BillingStack) -> None:
    account = await stack.account()
    assert account.user_id == ALICE
    assert account.entitlements.version == 1
    assert account.entitlements.plan.key == "free"
    assert account.balance.available_millicredits == FREE_GRANT
    assert account.opened_at.ToDatetime(UTC) == stack.clock.now()
    assert account.renews_at.ToDatetime(UTC) == datetime(2026, 2, 28, 12, tzinfo=UTC)
    answer = await stack.rpc.GetEntitlements(pb.GetEntitlementsRequest(user_id=ALICE))
    assert answer.entitlements == account.entitlements


async def test_plans_are_listed_cheapest_first_with_the_numbers_of_the_queue(
    stack: BillingStack,
) -> None:
    plans = (await stack.rpc.ListPlans(pb.ListPlansRequest())).plans
    assert [
        (plan.key, plan.priority, plan.weight, plan.max_running, plan.max_waiting) for plan in plans
    ] == [("free", 0, 1, 1, 2), ("pro", 10, 4, 3, 12), ("enterprise", 100, 16, 10, 100)]
    assert [plan.version for plan in plans] == [1, 1, 1]
    assert plans[0].price_cents == 0
    assert all(plan.price_cents > 0 for plan in plans[1:])


# --- changing the plan


async def test_a_plan_change_holds_at_once_and_grants_once(stack: BillingStack) -> None:
    changed = await stack.change_plan("pro")
    assert changed.entitlements.version == 2
    assert changed.entitlements.plan.max_running == 3
    assert await stack.change_plan("pro") == changed
    assert await stack.balance() == (FREE_GRANT + PRO_GRANT, 0)
    # going round within a period brings no more credits
    for plan, version in (("free", 3), ("pro", 4)):
        assert (await stack.change_plan(plan)).entitlements.version == version
    assert await stack.balance() == (FREE_GRANT + PRO_GRANT, 0)
    assert (await stack.place()).entitlements.plan.key == "pro"
    assert await stack.breaches() == []


async def test_concurrent_changes_to_one_plan_are_one_change(stack: BillingStack) -> None:
    await stack.account()
    accounts = await asyncio.gather(*(stack.change_plan("pro") for _ in range(8)))
    assert {account.entitlements.version for account in accounts} == {2}
    assert await stack.balance() == (FREE_GRANT + PRO_GRANT, 0)


async def test_a_plan_that_is_not_on_offer_cannot_be_had(stack: BillingStack) -> None:
    with pytest.raises(NotFound, match="gold"):
        await stack.change_plan("gold")


# --- monthly renewal


async def test_a_new_month_replaces_what_is_left(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    await stack.capture(job_id)
    stack.clock.set(datetime(2026, 2, 28, 12, tzinfo=UTC))
    account = await stack.account()
    assert account.balance.available_millicredits == FREE_GRANT
    # counted from the day that the account was opened
    assert account.renews_at.ToDatetime(UTC) == datetime(2026, 3, 31, 12, tzinfo=UTC)
    assert account.entitlements.version == 1
    lines = await stack.lines()
    assert [
        (line.kind, line.millicredits, line.available_after_millicredits) for line in lines
    ] == [
        ("grant", FREE_GRANT, FREE_GRANT),
        ("expire", PRICE - FREE_GRANT, 0),
        ("capture", 0, FREE_GRANT - PRICE),
        ("hold", -PRICE, FREE_GRANT - PRICE),
        ("grant", FREE_GRANT, FREE_GRANT),
    ]
    assert await stack.breaches() == []


async def test_a_month_renews_once_however_many_ask(stack: BillingStack) -> None:
    await stack.change_plan("pro")
    stack.clock.move(days=40)
    await asyncio.gather(*(stack.place() for _ in range(10)))
    assert await stack.balance() == (PRO_GRANT - 10 * PRICE, 10 * PRICE)
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'grant'") == 3
    assert await stack.breaches() == []


async def test_months_of_silence_bring_the_grant_of_the_last_one(stack: BillingStack) -> None:
    await stack.account()
    stack.clock.set(datetime(2026, 7, 1, tzinfo=UTC))
    account = await stack.account()
    assert account.balance.available_millicredits == FREE_GRANT
    assert account.renews_at.ToDatetime(UTC) == datetime(2026, 7, 31, 12, tzinfo=UTC)
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'grant'") == 2


async def test_accounts_that_nobody_touches_are_renewed_too(stack: BillingStack) -> None:
    for user in (ALICE, BOB):
        await stack.account(user)
    stack.clock.move(days=31)

    async def renewed() -> bool:
        return bool(await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'grant'") == 4)

    await until(renewed)
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'expire'") == 2
    assert await stack.breaches() == []


async def test_credits_that_a_job_holds_over_the_end_of_the_month_are_honoured(
    stack: BillingStack,
) -> None:
    captured, freed = [(await stack.place()).hold.job_id for _ in range(2)]
    for job_id in (captured, freed):
        stack.scheduler.reports[JobId(job_id)] = JobReport(JobStatus.RUNNING)
    stack.clock.move(days=28)
    assert await stack.balance() == (FREE_GRANT, 2 * PRICE)
    await stack.capture(captured)
    assert await stack.balance() == (FREE_GRANT, PRICE)
    # what comes back from a lot whose time is over is gone
    await stack.release(freed)
    assert await stack.balance() == (FREE_GRANT, 0)
    lines = await stack.lines()
    assert [line.kind for line in lines][:3] == ["expire", "release", "capture"]
    assert await stack.breaches() == []


@pytest.mark.parametrize("lot_id", ["lot_0", "lot_z"])
async def test_what_expires_first_is_spent_first(stack: BillingStack, lot_id: str) -> None:
    """A hold over two lots takes the older one whole; a part of it charges the older one."""
    await stack.account()
    # a lot of another source that lasts longer, as a hand would book it
    gift = """
        WITH a AS (UPDATE credit_accounts SET available = available + 5000, sequence = 2
                   RETURNING account_id),
        t AS (INSERT INTO transfers SELECT 'trf_x', account_id, 2, 'grant', 'gift', NULL, 'Gift',
                                           5000, 55000, now() FROM a),
        e AS (INSERT INTO entries SELECT 'trf_x', account_id, book, amount FROM a,
              (VALUES ('granted', -5000), ('available', 5000)) AS b (book, amount))
        INSERT INTO credit_lots (id, account_id, source, source_ref, granted, remaining,
                                 granted_at, expires_at)
        SELECT $1, account_id, 'gift', 'x', 5000, 5000, now(), '2099-01-01' FROM a
    """
    await stack.sql(gift, lot_id)
    job_id = (await stack.place(of=work(steps=334, image_count=4))).hold.job_id
    amount = 54_723
    assert await stack.balance() == (55_000 - amount, amount)
    assert await stack.breaches() == []
    held = "SELECT held FROM credit_lots WHERE id = $1"
    assert await stack.sql(held, lot_id) == amount - FREE_GRANT
    await stack.capture(job_id, done=1, total=2)
    assert await stack.balance() == (55_000 - amount // 2, 0)
    assert await stack.sql("SELECT remaining FROM credit_lots WHERE id = $1", lot_id) == 5000
    assert await stack.breaches() == []


# --- plans as data


async def test_a_changed_plan_is_a_new_version_from_the_next_month_on(
    idle_stack: BillingStack, tmp_path: Path
) -> None:
    async with idle_stack.running() as stack:
        before = (await stack.place()).entitlements
    changed = plans_file(tmp_path, ("max_waiting = 2", "max_waiting = 7"))
    async with idle_stack.running(plans_file=changed) as stack:
        plans = (await stack.rpc.ListPlans(pb.ListPlansRequest())).plans
        assert [(plan.key, plan.version) for plan in plans] == [
            ("free", 2),
            ("pro", 1),
            ("enterprise", 1),
        ]
        assert (await stack.account()).entitlements == before
        assert (await stack.account(BOB)).entitlements.plan.max_waiting == 7
        stack.clock.move(days=31)
        after = (await stack.account()).entitlements
        assert (after.version, after.plan.version, after.plan.max_waiting) == (2, 2, 7)
    # the old document again is the old version again
    async with idle_stack.running() as stack:
        assert (await stack.rpc.ListPlans(pb.ListPlansRequest())).plans[0].version == 1
        assert await stack.sql("SELECT count(*) FROM plan_versions") == 4
        assert (await stack.account()).entitlements.plan.max_waiting == 7


async def test_a_plan_that_was_withdrawn_stays_with_its_users(
    idle_stack: BillingStack, tmp_path: Path
) -> None:
    async with idle_stack.running() as stack:
        await stack.change_plan("enterprise")
    fewer = plans_file(tmp_path, ('key = "enterprise"', 'key = "giant"'))
    async with idle_stack.running(plans_file=fewer) as stack:
        stack.clock.move(days=31)
        account = await stack.account()
        assert account.entitlements.plan.key == "enterprise"
        assert account.balance.available_millicredits == 20_000_000


async def test_models_and_prices_are_the_plans_own(
    idle_stack: BillingStack, tmp_path: Path
) -> None:
    file = plans_file(
        tmp_path,
        ("shapes-64 = 10_000", "shapes-64 = 1"),
        ("monthly_millicredits = 50_000", "monthly_millicredits = 0"),
        ('name = "Pro"', 'name = "Pro "'),
        ("model_keys = []", 'model_keys = ["other"]'),
    )
    async with idle_stack.running(plans_file=file) as stack:
        assert await stack.balance() == (0, 0)
        assert await stack.lines() == []
        plan = (await stack.account()).entitlements.plan
        assert list(plan.model_keys) == ["other"]
        with pytest.raises(Forbidden, match="model: shapes-64 is not in the plan free"):
            await stack.place()


async def test_a_wrong_plan_file_stops_the_process_by_name(
    idle_stack: BillingStack, tmp_path: Path
) -> None:
    file = plans_file(tmp_path, ("weight = 16", "weight = 0"))
    with pytest.raises(InvalidInput, match=r"plans\[2\]\.weight"):
        async with idle_stack.running(plans_file=file):
            pass
    file.write_text("plans = [", encoding="utf-8")
    with pytest.raises(InvalidInput, match="plans_file"):
        async with idle_stack.running(plans_file=file):
            pass


# --- the ledger that users read


async def test_the_ledger_is_read_in_pages(stack: BillingStack) -> None:
    jobs = [new_job_id() for _ in range(4)]
    for job_id in jobs:
        await stack.place(job_id=job_id)
    everything = await stack.lines()
    assert [line.reference for line in everything] == [*reversed(jobs), "2026-01-31/free"]
    page = await stack.rpc.ListLedger(pb.ListLedgerRequest(user_id=ALICE, page_size=2))
    pages = [list(page.lines)]
    await stack.place()  # a newer line moves nothing on the pages to come
    while page.next_page_token:
        page = await stack.rpc.ListLedger(
            pb.ListLedgerRequest(user_id=ALICE, page_size=2, page_token=page.next_page_token)
        )
        pages.append(list(page.lines))
    assert [len(lines) for lines in pages] == [2, 2, 1]
    assert [line for lines in pages for line in lines] == everything


async def test_the_ledger_of_a_job_is_the_users_own(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    await stack.place()
    assert [line.kind for line in await stack.lines(job_id=job_id)] == ["hold"]
    assert await stack.lines(BOB, job_id=job_id) == []


async def test_lines_carry_time_and_words(stack: BillingStack) -> None:
    stack.clock.move(hours=1)
    await stack.place()
    line = (await stack.lines())[0]
    assert line.booked_at.ToDatetime(UTC) == stack.clock.now()
    assert line.description == "Reserved for 1 picture of 64 x 64, 10 steps, shapes-64"
    assert stack.clock.now() - timedelta(hours=1) == datetime(2026, 1, 31, 12, tzinfo=UTC)


async def test_what_is_asked_of_the_ledger_is_checked(stack: BillingStack) -> None:
    for call, field in (
        (stack.lines(page_size=101), "page_size"),
        (stack.lines(page_size=-1), "page_size"),
        (stack.lines(page_token="x"), "page_token"),
        (stack.lines(page_token="0"), "page_token"),
        (stack.lines(job_id="job_1"), "job_id"),
    ):
        with pytest.raises(InvalidInput, match=field):
            await call
