"""One run from its start to its last word: the house, its users, the killer, and the history."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.chaos.callers import TIERS, Consumer, Doors, Tally, User
from tests.chaos.house import LEASE_TTL_S, MAX_ATTEMPTS, House
from tests.chaos.killer import Killer, draw_plan
from tests.chaos.records import Book, Done, Run
from tests.chaos.watch import Watch

HISTORY = "history.jsonl"
_TELL_EVERY_S = 5.0
_LOOK_S = 0.1
# What is allowed at the end for all that was accepted to end, with everything up again.
_CALM_S = 60.0
# Reports of attempts that came too late are answered too.
_LAST_WORDS_S = 2.0
_WARM_UP_S = 1.0
_CANCEL_AGAIN_S = 1.0
_CONSUMERS = 2
_Begin: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
_BASE_S, _PER_KILL_S = 240.0, 12.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do."""

    kills: int
    seed: int
    folder: Path
    workers: int = 6
    pause_s: float = 1.2
    """Between two kills, on average."""
    durable: bool = False
    """Postgres waits for the disk at each commit, and at each recovery."""


async def drive(orders: Orders, say: Callable[[str], None]) -> Path:
    """Runs it all, and answers where the history is.

    Raises:
        TimeoutError: the run did not get to its end in time.
        StartFailed: something did not start.
    """
    book = Book(orders.folder / "harness.jsonl")
    house = House(
        orders.folder, book, seed=orders.seed, workers=orders.workers, durable=orders.durable
    )
    book.write(Run(time.time(), orders.seed, orders.kills, LEASE_TTL_S, MAX_ATTEMPTS))
    try:
        async with asyncio.timeout(_BASE_S + _PER_KILL_S * orders.kills), house.running():
            await _live(orders, house, book, say)
    finally:
        book.close()
        history = merge(orders.folder)
    return history


async def _live(orders: Orders, house: House, book: Book, say: Callable[[str], None]) -> None:
    tally = Tally()
    chance = random.Random(f"{orders.seed}/users")
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        doors = await stack.enter_async_context(Doors.open(house.doors))
        users = [
            User(
                f"{tier.name}-{number}",
                tier,
                doors,
                book,
                tally=tally,
                chance=random.Random(chance.random()),
            )
            for tier in TIERS
            for number in range(tier.users)
        ]
        names = [user.name for user in users]
        watch = Watch(house.redis.url, house.database_url, names, book)
        stack.push_async_callback(watch.close)
        consumers = [
            Consumer(
                f"consumer-{number}",
                doors,
                book,
                tally=tally if number == 0 else None,
                chance=random.Random(chance.random()),
            )
            for number in range(_CONSUMERS)
        ]
        killer = Killer(house, watch, book)
        async with _side_tasks() as begin:
            for consumer in consumers:
                begin(consumer.run())
            begin(watch.sample_on())
            begin(watch.count_on())
            begin(_tell(orders, killer, tally, say))
            submitting = [begin(user.run(stop)) for user in users]
            await asyncio.sleep(_WARM_UP_S)
            await killer.run(draw_plan(orders.kills, orders.seed, pause_s=orders.pause_s))
            await house.wait_ready()
            stop.set()
            await asyncio.gather(*submitting)
            calm = await _wait_calm(watch, consumers)
        await watch.write_rows()
        book.write(Done(time.time(), calm))
        say(_line(orders, killer, tally))


async def _wait_calm(watch: Watch, consumers: list[Consumer]) -> bool:
    """Until no job is open, the queue is empty, and the feed has been read to its end."""
    deadline = time.monotonic() + _CALM_S
    while time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
        count, sample = await watch.count(), await watch.sample()
        if count is None or sample is None or count.open or sample.known or sample.leases:
            continue
        last = await watch.last_event()
        if all(consumer.cursor == last for consumer in consumers):
            await asyncio.sleep(_LAST_WORDS_S)
            return True
    return False


async def _tell(orders: Orders, killer: Killer, tally: Tally, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        say(_line(orders, killer, tally))


def _line(orders: Orders, killer: Killer, tally: Tally) -> str:
    return (
        f"kill {killer.done}/{orders.kills} {killer.last}, "
        f"{tally.accepted:,} accepted, {tally.ended:,} ended"
    )


@asynccontextmanager
async def _side_tasks() -> AsyncIterator[_Begin]:
    """Starts tasks that are cancelled on leaving; the first that fails ends the block."""
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:

        def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            tasks.append(group.create_task(work))
            return tasks[-1]

        yield begin
        while running := [task for task in tasks if not task.done()]:
            for task in running:  # again, since drivers may swallow it
                task.cancel()
            await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


def merge(folder: Path) -> Path:
    """All processes' records in one file; a line that a kill has torn is left out."""
    history = folder / HISTORY
    with history.open("wb") as merged:
        for part in [folder / "harness.jsonl", *sorted((folder / "workers").glob("*.jsonl"))]:
            if part.exists():
                with part.open("rb") as lines:
                    merged.writelines(line for line in lines if line.endswith(b"}\n"))
    return history
