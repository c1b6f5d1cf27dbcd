"""The loops, where no database is needed to see them survive."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from billing.domain.feed import JobEvent
from billing.loop.jobs import follow_feed, renew_accounts, sweep_holds, watch_database
from billing.loop.pause import Pause
from easel_kit.errors import DependencyDown, Internal


class Script:
    """Answers each call with the next line; then sets `done` and waits for ever."""

    def __init__(self, *lines: object) -> None:
        self._lines = list(lines)
        self.done = asyncio.Event()

    async def __call__(self, *_args: object, **_kwargs: object) -> Any:  # noqa: ANN401
        if not self._lines:
            self.done.set()
            await asyncio.Event().wait()
        line = self._lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return line


async def run_until(done: asyncio.Event, loop: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(loop)
    waiter = asyncio.create_task(done.wait())
    async with asyncio.timeout(5):
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_health_follows_the_database() -> None:
    down = DependencyDown("away")
    probe = Script(None, down, down, None, None, down)
    said = []

    async def set_health(*, serving: bool) -> None:
        said.append(serving)

    await run_until(probe.done, watch_database(probe, set_health, interval_s=0))
    assert said == [False, True, False]


class Follower:
    """A follower whose database breaks as scripted."""

    def __init__(self, expired: Callable[..., Awaitable[Any]]) -> None:
        self.expired = expired
        self.subscriptions = 0
        self.read = asyncio.Event()

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        self.subscriptions += 1
        if self.subscriptions == 4:
            self.read.set()
        nothing: tuple[JobEvent, ...] = ()
        for event in nothing:  # makes it a stream
            yield event
        raise DependencyDown("away") if self.subscriptions % 2 else OSError("planted")


@pytest.mark.parametrize("error", [DependencyDown("away"), Internal("planted"), OSError("planted")])
async def test_the_loops_outlive_what_a_round_fails_with(error: Exception) -> None:
    script = Script(error, [], error, [])
    follower: Any = Follower(script)
    await run_until(script.done, sweep_holds(follower, interval_s=0))
    billing: Any = type("Billing", (), {"due": Script(error, [], error, [])})
    await run_until(billing.due.done, renew_accounts(billing, interval_s=0))


async def test_one_account_that_cannot_be_renewed_does_not_stop_the_others() -> None:
    accounts = [Account(name) for name in ("a", "b", "c")]
    script = Script(accounts, DependencyDown("away"), accounts)
    renewed = []

    class Billing:
        due = staticmethod(script)

        @classmethod
        async def renew(cls, account: Account) -> None:
            if account.user_id == "b":
                raise Internal("planted")
            renewed.append(account.user_id)

    billing: Any = Billing
    await run_until(script.done, renew_accounts(billing, interval_s=0))
    assert renewed == ["a", "c", "a", "c"]


class Account:
    """What the loop logs of one."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.plan = type("Plan", (), {"key": "free"})


async def test_the_feed_loop_outlives_every_loss() -> None:
    follower: Any = Follower(Script())
    await run_until(follower.read, follow_feed(follower, Pause(0.001, 0.002)))


async def test_pauses_grow_to_their_limit_and_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("billing.loop.pause.asyncio.sleep", sleep)
    pause = Pause(1.0, 5.0)
    for _ in range(5):
        await pause.wait()
    pause.reset()
    await pause.wait()
    for seconds, longest in zip(slept, (1, 2, 4, 5, 5, 1), strict=True):
        assert longest / 2 <= seconds <= longest
