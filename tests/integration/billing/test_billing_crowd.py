"""Many at once: holds on one account, and tries of one job."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest

from billing.domain.pricing import Work
from billing.service.accounts import Billing
from billing.storage.accounts import PostgresAccounts
from billing.storage.books import PostgresLedger
from billing.storage.holds import PostgresHolds
from billing.storage.plans import PostgresPlans, read_plan_book
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.db import open_pool
from easel_kit.errors import Conflict, DeadlineExceeded, DependencyDown, InsufficientCredits
from easel_kit.ids import ModelKey, UserId, new_job_id
from tests.fakes.billing import MovableClock
from tests.fakes.billing_model import HOLD_TTL
from tests.fakes.billing_stack import ALICE, BOB, FREE_GRANT, PRICE, BillingStack, work

CONNECTIONS = 64
TRIES = 5

pytestmark = pytest.mark.timeout(900)


async def at_once(calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """All calls, as many at a time as there are connections."""
    left = list(reversed(calls))

    async def worker() -> None:
        while left:
            await left.pop()()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(worker())


async def test_a_crowd_of_holds_never_overdraws_and_grants_all_there_is(
    billing_url: str, pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--billing-holds")
    price = FREE_GRANT // (count * 2 // 3) + 1
    fit = FREE_GRANT // price
    assert 0 < fit < count
    one = Work(ModelKey("shapes-64"), 64, 64, 10, 1, reckoned_pixel_steps=price * 100)
    granted: list[int] = []
    refused: list[tuple[int, int]] = []
    async with open_pool(
        billing_url, schema="billing", name="crowd", max_size=CONNECTIONS, command_timeout_s=60
    ) as pool:
        plans, clock = PostgresPlans(pool), MovableClock()
        catalogue = await plans.publish(read_plan_book(None), clock.now())
        billing = Billing(
            PostgresAccounts(pool, plans),
            PostgresHolds(pool),
            PostgresLedger(pool),
            catalogue,
            clock,
            hold_ttl=HOLD_TTL,
        )
        await billing.account(UserId(ALICE))

        async def hold() -> None:
            try:
                (placed,), account = await billing.place_holds(
                    UserId(ALICE), {new_job_id(): one}, ""
                )
            except InsufficientCredits as error:
                refused.append((error.needed_millicredits, error.available_millicredits))
            else:
                assert account.balance.available >= 0
                granted.append(placed.millicredits)

        await at_once([hold] * count)
        balance = (await billing.account(UserId(ALICE))).balance
        assert pool.get_size() > CONNECTIONS // 2
    assert granted == [price] * fit
    assert len(refused) == count - fit
    assert all(needed == price > left for needed, left in refused)
    assert (balance.available, balance.held) == (FREE_GRANT - fit * price, fit * price)
    stack = BillingStack(billing_url)
    assert await stack.breaches() == []


async def test_a_job_that_is_tried_by_many_is_held_and_charged_once(
    stack: BillingStack, pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--billing-jobs")
    await stack.change_plan("enterprise")
    before, _ = await stack.balance()
    jobs = [new_job_id() for _ in range(count)]
    holds: dict[str, set[str]] = {job_id: set() for job_id in jobs}
    ends: dict[str, set[int]] = {job_id: set() for job_id in jobs}

    async def attempt(job_id: str) -> None:
        while True:
            try:
                holds[job_id].add((await stack.place(job_id=job_id)).hold.id)
                ends[job_id].add((await stack.capture(job_id)).captured_millicredits)
            except (DeadlineExceeded, DependencyDown):  # a busy machine: one more try
                continue
            return

    tries = [partial(attempt, job_id) for job_id in jobs for _ in range(TRIES)]
    await at_once(tries)
    assert [len(ids) for ids in holds.values()] == [1] * count
    assert list(ends.values()) == [{PRICE}] * count
    assert await stack.sql("SELECT count(*) FROM holds WHERE state = 'captured'") == count
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'hold'") == count
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'capture'") == count
    assert await stack.balance() == (before - count * PRICE, 0)
    assert await stack.breaches() == []


async def test_the_same_job_for_another_amount_is_a_conflict(stack: BillingStack) -> None:
    jobs = [new_job_id() for _ in range(10)]
    others = (work(steps=11), work(pixel_steps=41_001), work(model_key="other"))

    async def attempt(job_id: str, user: str, of: pb.Work) -> str:
        try:
            return (await stack.place(user, job_id, of)).hold.id
        except Conflict:
            return ""

    calls = [
        attempt(job_id, user, of)
        for job_id in jobs
        for user, of in ((ALICE, work()), *((ALICE, other) for other in others), (BOB, work()))
    ]
    answers = await asyncio.gather(*calls)
    for n in range(len(jobs)):
        # whoever came first has the hold, and nobody else
        assert sum(bool(answer) for answer in answers[n * 5 : n * 5 + 5]) == 1
    assert await stack.sql("SELECT count(*) FROM transfers WHERE kind = 'hold'") == len(jobs)
    assert await stack.breaches() == []
