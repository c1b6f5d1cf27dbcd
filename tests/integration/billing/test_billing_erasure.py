"""Erasure and export through billing's face: states, bars, restarts, restores, what is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from billing.domain.holds import JobReport, JobStatus
from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1 import privacy_pb2
from easel_kit.errors import Forbidden, NotFound
from easel_kit.ids import JobId, new_job_id
from tests.fakes.billing_stack import ALICE, BOB, FREE_GRANT, PRICE, BillingStack, until, work

REQUESTED = privacy_pb2.ERASURE_STATE_REQUESTED
DONE = privacy_pb2.ERASURE_STATE_DONE


async def actions(stack: BillingStack, subject: str) -> list[str]:
    rows = await stack.rows(
        "SELECT action FROM audit WHERE subject = $1 ORDER BY sequence", subject
    )
    return [row["action"] for row in rows]


async def account_id(stack: BillingStack, user: str = ALICE) -> str:
    return str(await stack.sql("SELECT account_id FROM account_pii WHERE user_id = $1", user))


async def test_an_erased_user_is_gone_and_the_books_are_kept(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    await stack.capture(job_id)
    account = await account_id(stack)
    await stack.erase()
    await stack.until_erased()
    assert await stack.sql("SELECT count(*) FROM account_pii") == 0
    assert await stack.sql("SELECT count(*) FROM transfers WHERE account_id = $1", account) >= 3
    assert await stack.sql("SELECT account_id FROM erasures") is None
    assert await stack.breaches() == []
    left = "SELECT available + held FROM credit_accounts WHERE account_id = $1"
    assert await stack.sql(left, account) == 0
    assert (await actions(stack, account))[-4:] == [
        "erasure.requested",
        "erasure.settled",
        "erasure.cancelled",
        "erasure.finished",
    ]
    finished = (await stack.erasure()).finished_at
    assert finished.ToDatetime() >= (await stack.erasure()).requested_at.ToDatetime()
    assert (await stack.erase()).state == DONE
    assert len(await actions(stack, account)) == 5


async def test_nothing_begins_for_someone_who_is_being_erased(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    stack.scheduler.is_away = True
    await stack.erase()
    for away in (True, False):
        stack.scheduler.is_away = away
        if not away:
            await stack.until_erased()
        with pytest.raises(Forbidden, match="erased"):
            await stack.place()
        with pytest.raises(Forbidden, match="erased"):
            await stack.account()
        with pytest.raises(Forbidden, match="erased"):
            await stack.change_plan("pro")
        with pytest.raises(Forbidden, match="erased"):
            await stack.rpc.PlaceHolds(
                pb.PlaceHoldsRequest(
                    user_id=ALICE, jobs=[pb.JobWork(job_id=new_job_id(), work=work())]
                )
            )
    assert await stack.sql("SELECT state FROM holds WHERE job_id = $1", job_id) == "released"
    assert (await stack.account(BOB)).balance.available_millicredits == FREE_GRANT


async def test_jobs_that_run_are_waited_for_and_paid(stack: BillingStack) -> None:
    job_id = (await stack.place()).hold.job_id
    stack.scheduler.reports[JobId(job_id)] = JobReport(JobStatus.RUNNING)
    await stack.erase()
    await until(lambda: asked(stack))
    assert (await stack.erasure()).state == REQUESTED
    await stack.happen(job_id, JobReport(JobStatus.SUCCEEDED))
    await stack.until_erased()
    assert (
        await stack.sql("SELECT captured_millicredits FROM holds WHERE job_id = $1", job_id)
        == PRICE
    )
    # the feed may tell of the job again: no finding, nothing of the user
    await stack.happen(job_id, JobReport(JobStatus.SUCCEEDED))
    assert await stack.findings() == []


async def is_erased(stack: BillingStack) -> bool:
    stack.clock.move(seconds=5)
    return bool(await stack.sql("SELECT count(*) = 0 FROM account_pii"))


async def asked(stack: BillingStack) -> bool:
    return bool(stack.scheduler.resolved)


async def test_a_user_never_seen_is_barred_too(stack: BillingStack) -> None:
    await stack.erase("never-seen")
    await stack.until_erased("never-seen")
    with pytest.raises(Forbidden, match="erased"):
        await stack.account("never-seen")
    assert await stack.sql("SELECT count(*) FROM accounts") == 0
    erasure = await stack.sql("SELECT id FROM erasures")
    assert await actions(stack, erasure) == [
        "erasure.requested",
        "erasure.settled",
        "erasure.cancelled",
        "erasure.finished",
    ]


async def test_what_was_not_asked_for_is_not_found(stack: BillingStack) -> None:
    with pytest.raises(NotFound):
        await stack.erasure()
    with pytest.raises(NotFound):
        await stack.export()
    await stack.place()
    await stack.erase()
    await stack.until_erased()
    with pytest.raises(NotFound):
        await stack.export()


async def test_an_export_tells_everything(stack: BillingStack) -> None:
    await stack.change_plan("pro")
    captured = (await stack.place()).hold.job_id
    await stack.capture(captured, 1, 2)
    held = (await stack.place()).hold.job_id
    await stack.place(BOB)
    told = await stack.export()
    assert told["user_id"] == ALICE
    assert told["account"]["plan_key"] == told["plan"]["plan_key"] == "pro"
    assert told["balance"]["held_millicredits"] == PRICE
    assert {line["job_id"] for line in told["ledger"]} == {None, captured, held}
    assert [line["sequence"] for line in told["ledger"]] == list(range(1, 6))
    assert [one["state"] for one in told["usage"]] == ["captured", "open"]
    assert {one["source"] for one in told["lots"]} == {"monthly"}
    assert [one["action"] for one in told["audit"]] == [
        "account.opened",
        "plan.changed",
        "account.exported",
    ]
    assert told["audit"][1]["detail"] == {"plan": "pro", "version": 1}
    await stack.erase()
    assert (await stack.export())["account"]["barred_at"] is not None


async def test_a_long_export_comes_in_parts(stack: BillingStack) -> None:
    for _ in range(3):
        await stack.rpc.PlaceHolds(
            pb.PlaceHoldsRequest(
                user_id=ALICE,
                jobs=[pb.JobWork(job_id=new_job_id(), work=work(steps=1)) for _ in range(200)],
            )
        )
    parts = [
        part.data
        async for part in stack.privacy.ExportAccount(
            privacy_pb2.ExportAccountRequest(user_id=ALICE)
        )
    ]
    assert len(parts) > 5
    assert max(map(len, parts)) < 100_000
    assert len((await stack.export())["ledger"]) == 601


async def test_an_erasure_goes_on_after_a_restart(idle_stack: BillingStack) -> None:
    stack = idle_stack
    async with stack.running():
        await stack.place()
        stack.scheduler.is_away = True
        await stack.erase()
    stack.scheduler.is_away = False
    stack.clock.move(minutes=20)
    async with stack.running():
        await stack.until_erased()


async def test_a_restore_brings_nobody_back(idle_stack: BillingStack, tmp_path: Path) -> None:
    stack = idle_stack
    stack.objects = tmp_path
    async with stack.running():
        await stack.place()
        account = await account_id(stack)
        await stack.erase()
        await stack.until_erased()
        # as from a backup that is older than the erasure
        await stack.sql("DELETE FROM erasures")
        await stack.sql("DELETE FROM erased_users")
        await stack.sql("UPDATE accounts SET barred_at = NULL")
        await stack.sql("UPDATE credit_accounts SET barred = false")
        await stack.sql("INSERT INTO account_pii VALUES ($1, $2)", account, ALICE)
    async with stack.running():
        await until(lambda: is_erased(stack))
        with pytest.raises(Forbidden, match="erased"):
            await stack.account()
        assert await stack.sql("SELECT count(*) FROM account_pii") == 0
    # and one that knows the tombstone but has the account all the same
    async with stack.running():
        await stack.sql("INSERT INTO account_pii VALUES ($1, $2)", account, ALICE)
    async with stack.running():
        await until(lambda: is_erased(stack))
        assert await stack.sql("SELECT count(*) FROM account_pii") == 0


async def test_of_opening_and_erasing_at_once_one_comes_first(stack: BillingStack) -> None:
    users = [f"racer-{number}" for number in range(20)]
    await asyncio.gather(
        *(stack.account(user) for user in users),
        *(stack.erase(user) for user in users),
        return_exceptions=True,
    )
    for user in users:
        await stack.until_erased(user)
    assert await stack.sql("SELECT count(*) FROM account_pii") == 0
