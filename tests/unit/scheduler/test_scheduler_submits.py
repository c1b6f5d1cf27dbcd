"""Submits share commits: what a caller who goes away, or too many callers, mean for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from easel_kit.errors import DomainError, Overloaded
from easel_kit.ids import UserId, new_job_id
from scheduler.domain.job import Submission
from scheduler.domain.line import Accepted
from scheduler.service import submits as submits_module
from tests.fakes.scheduler_house import ALICE, House

BOB = UserId("bob")


class Gate:
    """Holds the database's answer to each group until it is opened."""

    def __init__(self, house: House) -> None:
        self.groups: list[int] = []
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self._submit = house.store.submit
        house.store.submit = self  # type: ignore[method-assign]

    async def __call__(self, submissions: Sequence[Submission]) -> list[Accepted | DomainError]:
        self.groups.append(len(submissions))
        self.entered.set()
        await self.open.wait()
        return await self._submit(submissions)


async def ended(*tasks: asyncio.Task[object]) -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


async def test_callers_share_a_commit_while_one_runs(house: House) -> None:
    gate = Gate(house)
    first = asyncio.create_task(house.submit())
    await gate.entered.wait()
    later = [asyncio.create_task(house.submit(user=user)) for user in (ALICE, BOB, ALICE)]
    await house.settled()
    gate.open.set()
    jobs = [job for found in await asyncio.gather(first, *later) for job in found]
    assert gate.groups == [1, 3]
    assert [job.position for job in jobs] == [1, 2, 3, 4]


async def test_a_caller_who_goes_during_the_commit_leaves_an_accepted_job(house: House) -> None:
    gate = Gate(house)
    ids = [new_job_id() for _ in range(2)]
    goes = asyncio.create_task(house.submit(ids[0]))
    neighbour = asyncio.create_task(house.submit(ids[1], user=BOB))
    await gate.entered.wait()
    goes.cancel()
    await house.settled()
    gate.open.set()
    await ended(goes)
    assert [job.id for job in await neighbour] == [ids[1]]
    assert gate.groups == [2]
    await house.until(lambda: ("queued", ids[0]) in house.seen.seen)
    live = await house.queue.live(ids)
    assert sorted(live) == sorted(ids)  # in line too, without the reconciler


async def test_a_caller_who_goes_before_the_commit_takes_the_job_back(house: House) -> None:
    gate = Gate(house)
    first = asyncio.create_task(house.submit())
    await gate.entered.wait()
    job_id = new_job_id()
    goes = asyncio.create_task(house.submit(job_id))
    await house.settled()
    goes.cancel()
    gate.open.set()
    await ended(first, goes)
    assert job_id not in house.store.rows
    assert gate.groups == [1]


async def test_too_many_submits_are_refused_at_the_door(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submits_module, "_MAX_WAITING", 2)
    house = House()
    gate = Gate(house)
    running = asyncio.create_task(house.submit())
    await gate.entered.wait()
    waiting = [asyncio.create_task(house.submit()) for _ in range(2)]
    await house.settled()
    with pytest.raises(Overloaded):
        await house.submit()
    gate.open.set()
    assert len(await asyncio.gather(running, *waiting)) == 3
    await house.close()


async def test_a_queue_with_too_much_on_its_way_costs_a_position(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Accepted) -> asyncio.Future[object]:
        raise Overloaded("too much at once")

    monkeypatch.setattr(house.submits._queueing, "put", full)
    (job,) = await house.submit()
    assert (job.position, house.seen.names()) == (0, ["queued", "trouble admit"])
