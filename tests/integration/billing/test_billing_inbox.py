"""The webhook inbox on Postgres: events once, leases, tries, dead letters, killed workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from billing.domain.inbox import CustomerLease, EventState, RetryPolicy
from billing.domain.payments import CustomerId, Notice
from billing.service.inbox import Answer, InboxWorker, Look
from billing.storage.inbox import PostgresInbox
from easel_kit.db import Pool, open_pool
from easel_kit.errors import DependencyDown, NotFound
from tests.fakes.billing import MovableClock

ANN, BEN = CustomerId("cus_ann"), CustomerId("cus_ben")
LEASE = timedelta(seconds=60)
POLICY = RetryPolicy(3, base=timedelta(seconds=2), cap=timedelta(minutes=10))


class Scene:
    """An inbox, a worker, and customers whose look does what a test says."""

    def __init__(self, pool: Pool) -> None:
        self.clock = MovableClock()
        self.pool = pool
        self.inbox = PostgresInbox(pool)
        self.looks: list[CustomerId] = []
        self.during: Callable[[CustomerId], Awaitable[None]] | None = None
        self.worker = InboxWorker(
            self.inbox, self, self.clock, POLICY, lease=LEASE, chance=lambda: 0.0
        )

    async def sync(self, customer_id: CustomerId) -> bool:
        self.looks.append(customer_id)
        if self.during is not None:
            await self.during(customer_id)
        return True

    async def keep(
        self, event_id: str, customer: CustomerId | None = ANN, kind: str = "invoice.paid"
    ) -> bool:
        notice = Notice(event_id, kind, customer, self.clock.now())
        return await self.inbox.keep(notice, self.clock.now())

    async def lease(self, owner: str = "me") -> CustomerLease | None:
        return await self.inbox.lease(
            owner, self.clock.now(), self.clock.now() + LEASE, POLICY.max_attempts
        )

    async def work(self) -> Look | None:
        lease = await self.worker.take("me")
        return None if lease is None else await self.worker.answer(lease)

    async def states(self) -> dict[str, EventState]:
        return {event.event_id: event.state for event in await self.inbox.list(None, 100)}


@pytest.fixture
async def scene(billing_url: str) -> AsyncIterator[Scene]:
    async with open_pool(billing_url, schema="billing", name="test") as pool:
        yield Scene(pool)


def failing(error: Exception) -> Callable[[CustomerId], Awaitable[None]]:
    async def fail(customer_id: CustomerId) -> None:
        del customer_id
        raise error

    return fail


async def test_an_event_is_kept_once(scene: Scene) -> None:
    assert await scene.keep("evt_1")
    assert not await scene.keep("evt_1")
    assert sorted(await asyncio.gather(*[scene.keep("evt_2") for _ in range(8)])) == [
        *[False] * 7,
        True,
    ]
    assert await scene.states() == {"evt_1": EventState.PENDING, "evt_2": EventState.PENDING}


async def test_what_tells_of_nothing_is_ignored_at_once(scene: Scene) -> None:
    await scene.keep("evt_1", None)
    await scene.keep("evt_2", ANN, "payment_method.attached")
    await scene.keep("evt_3", ANN, "customer.subscription.updated")
    assert await scene.states() == {
        "evt_1": EventState.IGNORED,
        "evt_2": EventState.IGNORED,
        "evt_3": EventState.PENDING,
    }


async def test_one_look_answers_all_events_that_came_before_it(scene: Scene) -> None:
    for number in range(5):
        await scene.keep(f"evt_{number}")
    await scene.keep("evt_ben", BEN)

    async def more_comes(customer_id: CustomerId) -> None:
        if customer_id == ANN:
            await scene.keep("evt_late")

    scene.during = more_comes
    assert await scene.work() == Look(ANN, Answer.APPLIED, 5)
    states = await scene.states()
    assert states["evt_late"] is EventState.PENDING
    assert [states[f"evt_{number}"] for number in range(5)] == [EventState.APPLIED] * 5
    assert await scene.work() == Look(BEN, Answer.APPLIED, 1)
    assert await scene.work() == Look(ANN, Answer.APPLIED, 1)
    assert await scene.work() is None
    assert scene.looks == [ANN, BEN, ANN]


async def test_nobody_else_looks_at_a_leased_customer(scene: Scene) -> None:
    await scene.keep("evt_1")
    lease = await scene.lease()
    assert lease is not None
    await scene.keep("evt_2")
    assert await scene.lease("other") is None
    await scene.keep("evt_ben", BEN)
    other = await scene.lease("other")
    assert other is not None
    assert other.customer_id == BEN
    assert await scene.inbox.applied(lease, scene.clock.now()) == 1
    again = await scene.lease("other")
    assert again is not None
    assert (again.customer_id, dict(again.events)) == (ANN, {"evt_2": 1})


async def test_workers_side_by_side_never_share_a_customer(scene: Scene) -> None:
    busy: set[CustomerId] = set()

    async def look(customer_id: CustomerId) -> None:
        assert customer_id not in busy
        busy.add(customer_id)
        await asyncio.sleep(0.002)
        busy.remove(customer_id)

    scene.during = look
    for number in range(60):
        await scene.keep(f"evt_{number}", CustomerId(f"cus_{number % 6}"))

    async def work() -> None:
        while await scene.work() is not None:
            pass

    await asyncio.gather(*[work() for _ in range(8)])
    assert set((await scene.states()).values()) == {EventState.APPLIED}
    assert set(scene.looks) == {f"cus_{number}" for number in range(6)}


async def test_a_failure_is_tried_again_later_and_at_last_no_more(scene: Scene) -> None:
    await scene.keep("evt_1")
    scene.during = failing(DependencyDown("Stripe is away"))
    for wait_s in (1, 2):  # half of 2 s and of 4 s, as chance is 0
        look = await scene.work()
        assert look is not None
        assert (look.answer, look.dead) == (Answer.FAILED, 0)
        (event,) = await scene.inbox.list(EventState.RETRY, 10)
        assert event.error == "DependencyDown: Stripe is away"
        assert event.next_try_at == scene.clock.now() + timedelta(seconds=wait_s)
        assert await scene.work() is None
        scene.clock.move(seconds=wait_s)
    look = await scene.work()
    assert look is not None
    assert (look.answer, look.dead) == (Answer.FAILED, 1)
    scene.clock.move(days=1)
    assert await scene.work() is None
    assert [event.attempts for event in await scene.inbox.list(EventState.DEAD, 10)] == [3]


async def test_text_of_foreign_errors_is_not_kept(scene: Scene) -> None:
    await scene.keep("evt_1")
    scene.during = failing(ValueError("ann@example.org"))
    await scene.work()
    assert [event.error for event in await scene.inbox.list(None, 10)] == ["ValueError"]


async def test_a_look_that_succeeds_answers_what_waits_for_another_try(scene: Scene) -> None:
    await scene.keep("evt_1")
    scene.during = failing(DependencyDown("Stripe is away"))
    await scene.work()
    await scene.keep("evt_2")
    scene.during = None
    assert await scene.work() == Look(ANN, Answer.APPLIED, 2)


async def test_a_customer_of_others_is_ignored(scene: Scene) -> None:
    await scene.keep("evt_1")
    scene.during = failing(NotFound("customer", ANN))
    assert await scene.work() == Look(ANN, Answer.IGNORED, 1)
    assert (await scene.states())["evt_1"] is EventState.IGNORED


async def test_a_lost_lease_is_taken_over_and_its_owner_has_no_say(scene: Scene) -> None:
    await scene.keep("evt_1")
    lost = await scene.lease("killed")
    assert lost is not None
    scene.clock.move(seconds=59)
    assert await scene.work() is None
    scene.clock.move(seconds=1)
    heir = await scene.lease("heir")
    assert heir is not None
    assert heir.version == lost.version + 1
    later = scene.clock.now() + timedelta(hours=1)
    assert await scene.inbox.applied(lost, scene.clock.now()) is None
    assert not await scene.inbox.failed(lost, "late", {"evt_1": later}, scene.clock.now())
    assert not await scene.inbox.ignored(lost, "late", scene.clock.now())
    await scene.inbox.hand_back(lost, scene.clock.now())
    assert await scene.states() == {"evt_1": EventState.LEASED}
    assert await scene.inbox.applied(heir, scene.clock.now()) == 1


async def test_an_event_that_kills_every_worker_is_dead_at_last(scene: Scene) -> None:
    await scene.keep("evt_1")
    for _ in range(POLICY.max_attempts):
        assert await scene.lease("killed") is not None
        scene.clock.move(seconds=60)
    assert await scene.lease() is None
    (event,) = await scene.inbox.list(EventState.DEAD, 10)
    assert event.error == "each worker that tried was lost"
    await scene.keep("evt_2")  # its customer is free again
    assert await scene.work() == Look(ANN, Answer.APPLIED, 1)


async def test_a_worker_that_is_stopped_hands_its_events_back(scene: Scene) -> None:
    await scene.keep("evt_1")
    begun = asyncio.Event()

    async def hang(customer_id: CustomerId) -> None:
        del customer_id
        begun.set()
        await asyncio.Event().wait()

    scene.during = hang
    task = asyncio.create_task(scene.work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = await scene.inbox.list(None, 10)
    assert (event.state, event.attempts) == (EventState.PENDING, 0)
    scene.during = None
    assert await scene.work() == Look(ANN, Answer.APPLIED, 1)


async def test_the_dead_are_replayed_one_by_one_or_all(scene: Scene) -> None:
    scene.during = failing(DependencyDown("Stripe is away"))
    for number in range(3):
        await scene.keep(f"evt_{number}", CustomerId(f"cus_{number}"))
    await scene.keep("evt_nobody", None)
    for _ in range(POLICY.max_attempts):
        while await scene.work() is not None:
            pass
        scene.clock.move(minutes=10)
    now = scene.clock.now()
    assert len(await scene.inbox.stuck(now - timedelta(days=1), 10)) == 3
    scene.during = None
    assert await scene.inbox.replay(["evt_1", "evt_x", "evt_nobody"], now) == ["evt_1"]
    assert await scene.inbox.replay(["evt_1"], now) == []  # it is open
    assert await scene.work() == Look(CustomerId("cus_1"), Answer.APPLIED, 1)
    assert sorted(await scene.inbox.replay(None, now)) == ["evt_0", "evt_2"]
    while await scene.work() is not None:
        pass
    figures = await scene.inbox.figures()
    assert figures.counts == {EventState.APPLIED: 3, EventState.IGNORED: 1}
    assert figures.oldest_open_at is None


async def test_a_new_event_wakes_whoever_waits(scene: Scene) -> None:
    assert await scene.lease() is None
    async with asyncio.timeout(5):
        waiter = asyncio.create_task(scene.inbox.kept(within_s=60))
        await asyncio.sleep(0)
        await scene.keep("evt_1")
        await waiter
        await scene.inbox.kept(within_s=60)  # until someone has looked
    assert await scene.lease() is not None
    await scene.inbox.kept(within_s=0.01)


async def test_what_is_done_is_forgotten_in_time(scene: Scene) -> None:
    await scene.keep("evt_done")
    await scene.work()
    scene.clock.move(days=1)
    await scene.keep("evt_open")
    assert await scene.inbox.prune(scene.clock.now() - timedelta(days=2)) == 0
    assert await scene.inbox.prune(scene.clock.now()) == 1
    assert await scene.states() == {"evt_open": EventState.PENDING}


WRONG = [
    "state = 'applied'",
    "state = 'leased', next_try_at = NULL",
    "state = 'retry'",
    "state = 'retry', attempts = 1",
    "state = 'dead', attempts = 1, next_try_at = NULL, error = 'x'",
    "state = 'done'",
    "attempts = -1",
    "customer_id = NULL",
    "next_try_at = NULL",
    "lease_owner = 'x'",
    "ended_at = now()",
    "error = repeat('x', 201)",
]


@pytest.mark.parametrize("change", WRONG)
async def test_states_that_make_no_sense_cannot_be_written(scene: Scene, change: str) -> None:
    await scene.keep("evt_1")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await scene.pool.execute(f"UPDATE webhook_inbox SET {change}")
