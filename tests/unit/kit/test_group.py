"""Callers share runs: at once when idle, together under load, and nobody harms a neighbour."""

import asyncio
import contextvars
from collections.abc import Callable, Sequence

import pytest

from easel_kit.errors import Conflict, DependencyDown, Overloaded
from easel_kit.group import Group

_who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Work:
    """Doubles numbers; a test holds it, has it fail, and reads which groups it saw."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.fails: Callable[[list[int]], Exception | None] = lambda _: None
        self.seen_by: list[str] = []

    async def __call__(self, items: list[int]) -> Sequence[int | Exception]:
        self.runs.append(items)
        self.began.set()
        self.seen_by.append(_who.get())
        await self.go.wait()
        if (error := self.fails(items)) is not None:
            raise error
        return [Conflict("odd") if item % 2 else 2 * item for item in items]


@pytest.fixture
async def work() -> Work:
    return Work()


def grouped(work: Work, *, max_weight: int = 100, max_waiting: int = 100) -> Group[int, int]:
    return Group(work, name="test", max_weight=max_weight, max_waiting=max_waiting)


async def answered(*answers: asyncio.Future[int]) -> list[int | BaseException]:
    return await asyncio.gather(*answers, return_exceptions=True)


async def test_whoever_comes_while_one_run_lasts_shares_the_next(work: Work) -> None:
    group = grouped(work)
    work.go.clear()
    first = group.put(2)
    await work.began.wait()
    later = [group.put(item) for item in (4, 6, 8)]
    work.go.set()
    assert await answered(first, *later) == [4, 8, 12, 16]
    assert work.runs == [[2], [4, 6, 8]]
    assert await group.put(10) == 20
    assert work.runs[-1] == [10]


async def test_an_error_in_the_answer_is_for_one_caller_alone(work: Work) -> None:
    group = grouped(work)
    good, bad, other = await answered(group.put(2), group.put(3), group.put(4))
    assert (good, other) == (4, 8)
    assert isinstance(bad, Conflict)
    assert work.runs == [[2, 3, 4]]


async def test_a_run_that_fails_is_repeated_one_by_one(work: Work) -> None:
    group = grouped(work)
    work.fails = lambda items: ValueError("4 is poison") if 4 in items else None
    good, bad, other = await answered(group.put(2), group.put(4), group.put(6))
    assert (good, other) == (4, 12)
    assert isinstance(bad, ValueError)
    assert work.runs == [[2, 4, 6], [2], [4], [6]]


async def test_what_is_down_is_not_asked_again_for_each(work: Work) -> None:
    group = grouped(work)
    work.fails = lambda _: DependencyDown("away")
    answers = await answered(group.put(2), group.put(4))
    assert [type(one) for one in answers] == [DependencyDown, DependencyDown]
    assert work.runs == [[2, 4]]
    work.fails = lambda _: None
    assert await group.put(2) == 4


async def test_a_caller_who_goes_before_the_run_takes_the_item_back(work: Work) -> None:
    group = grouped(work)
    work.go.clear()
    first = group.put(2)
    await work.began.wait()
    stays, goes = group.put(4), group.put(6)
    goes.cancel()
    work.go.set()
    assert await answered(first, stays) == [4, 8]
    assert work.runs == [[2], [4]]


async def test_a_caller_who_goes_during_the_run_changes_nothing(work: Work) -> None:
    group = grouped(work)
    work.go.clear()

    async def call() -> int:
        return await group.put(2)

    caller = asyncio.create_task(call())
    await work.began.wait()
    neighbour = group.put(4)
    caller.cancel()
    await asyncio.wait([caller])
    work.go.set()
    assert await neighbour == 8
    assert work.runs == [[2], [4]]
    assert caller.cancelled()


async def test_a_run_is_bounded_and_so_is_what_waits(work: Work) -> None:
    group = grouped(work, max_weight=2, max_waiting=5)
    work.go.clear()
    first = group.put(2)
    await work.began.wait()
    later = [group.put(item) for item in (4, 6, 8, 10, 12)]
    with pytest.raises(Overloaded):
        group.put(14)
    work.go.set()
    await answered(first, *later)
    assert work.runs == [[2], [4, 6], [8, 10], [12]]


async def test_what_is_heavier_than_a_run_runs_alone(work: Work) -> None:
    group: Group[int, int] = Group(
        work, name="test", max_weight=10, max_waiting=20, weigh=lambda item: item
    )
    heavy = group.put(30)
    with pytest.raises(Overloaded):
        group.put(4)
    assert await heavy == 60
    light = [group.put(item) for item in (4, 8)]
    assert await answered(*light) == [8, 16]
    assert work.runs == [[30], [4], [8]]


async def test_the_first_caller_lends_the_run_no_context(work: Work) -> None:
    group = grouped(work)
    _who.set("alice")
    await group.put(2)
    assert work.seen_by == ["nobody"]


async def test_the_end_of_the_process_leaves_nobody_waiting(work: Work) -> None:
    group = grouped(work)
    work.go.clear()
    runs = group.put(2)
    await work.began.wait()
    waits = group.put(4)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "test"]
    task.cancel()
    answers = await answered(runs, waits)
    assert [type(one) for one in answers] == [asyncio.CancelledError] * 2
