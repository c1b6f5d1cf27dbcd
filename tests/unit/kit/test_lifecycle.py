"""A background task never dies unseen, and leaving the block ends them all."""

import asyncio
import contextlib

import pytest

from easel_kit.lifecycle import Supervisor


async def test_a_task_that_fails_stops_the_process_and_is_raised() -> None:
    async def fails() -> None:
        raise LookupError("gone")

    stop = asyncio.Event()
    with pytest.raises(LookupError, match="gone"):
        async with Supervisor(stop) as tasks:
            tasks.start("fails", fails())
            await stop.wait()


async def test_a_task_that_just_ends_counts_as_failed_unless_it_may() -> None:
    async def ends() -> None:
        await asyncio.sleep(0)

    stop = asyncio.Event()
    async with Supervisor(stop) as tasks:
        await tasks.start("ends", ends(), may_end=True)
    assert not stop.is_set()
    with pytest.raises(RuntimeError, match="ends"):
        async with Supervisor(stop) as tasks:
            tasks.start("ends", ends())
            await stop.wait()


async def test_leaving_cancels_what_still_runs() -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Supervisor(asyncio.Event()) as tasks:
        tasks.start("forever", forever())
        await asyncio.sleep(0)
    assert cancelled.is_set()


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("easel_kit.lifecycle._CANCEL_AGAIN_S", 0.01)
    swallowed = asyncio.Event()

    async def deaf_once() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        swallowed.set()
        await asyncio.Event().wait()

    async with Supervisor(asyncio.Event()) as tasks:
        task = tasks.start("deaf", deaf_once())
        await asyncio.sleep(0)
    assert swallowed.is_set()
    assert task.cancelled()


async def test_the_block_s_own_error_wins() -> None:
    async def fails() -> None:
        raise LookupError("task")

    with pytest.raises(ValueError, match="block"):
        async with Supervisor(asyncio.Event()) as tasks:
            tasks.start("fails", fails())
            await asyncio.sleep(0)
            raise ValueError("block")
