"""A busy worker asks to be spared, renews that, and gives it up once it has been idle a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from easel_kit.errors import DependencyDown
from gpu_worker.domain.work import Acknowledged
from gpu_worker.service.protection import Pace, ScaleInGuard
from tests.fakes.gpu_worker import Greeting
from tests.fakes.gpu_worker_scene import Scene, staged

NEVER_S = 60.0


class Platform:
    """Port `Protection` that remembers; the first `refusals` wishes are not taken."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.wishes: asyncio.Queue[float | None] = asyncio.Queue()

    async def protect(self, for_s: float | None) -> None:
        self.wishes.put_nowait(for_s)
        if self.refusals:
            self.refusals -= 1
            raise DependencyDown("planted")

    async def wish(self) -> float | None:
        async with asyncio.timeout(5):
            return await self.wishes.get()


@asynccontextmanager
async def guarded(platform: Platform, pace: Pace) -> AsyncIterator[Scene]:
    async with staged(Greeting()) as scene:
        guard = asyncio.ensure_future(ScaleInGuard(platform, scene.bench, pace).run())
        try:
            yield scene
            assert not guard.done()
        finally:
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)


async def test_it_is_spared_from_the_first_job_until_the_last_report_is_confirmed() -> None:
    platform = Platform()
    async with guarded(platform, Pace(9, NEVER_S, NEVER_S, linger_s=0.01)) as scene:
        talk = await scene.opened()
        await asyncio.sleep(0.03)
        assert platform.wishes.empty()
        work = await scene.begun(talk)
        assert await platform.wish() == 9
        scene.engine.finish(work.attempt_id)
        await talk.hear("finished")
        await asyncio.sleep(0.03)
        assert platform.wishes.empty()
        talk.say(Acknowledged(work.attempt_id, accepted=True))
        assert await platform.wish() is None
        await scene.begun(talk)
        assert await platform.wish() == 9


async def test_jobs_that_follow_one_another_are_one_busy_time() -> None:
    platform = Platform()
    async with guarded(platform, Pace(9, NEVER_S, NEVER_S, linger_s=NEVER_S)) as scene:
        talk = await scene.opened()
        for _ in range(3):
            work = await scene.begun(talk)
            scene.engine.finish(work.attempt_id)
            await talk.hear("finished", skip=("capacity",))
            talk.say(Acknowledged(work.attempt_id, accepted=True))
            await talk.obeyed()
        assert await platform.wish() == 9
        assert platform.wishes.empty()


async def test_it_is_asked_for_again_before_it_ends() -> None:
    platform = Platform()
    async with guarded(platform, Pace(9, renew_s=0.01, retry_s=NEVER_S, linger_s=NEVER_S)) as scene:
        await scene.begun(await scene.opened())
        assert [await platform.wish() for _ in range(3)] == [9, 9, 9]


async def test_a_platform_that_does_not_listen_is_asked_again_and_harms_nothing() -> None:
    def failures() -> float:
        return REGISTRY.get_sample_value("easel_worker_protection_failures_total") or 0.0

    before = failures()
    platform = Platform(refusals=2)
    async with guarded(platform, Pace(9, NEVER_S, retry_s=0.01, linger_s=0.01)) as scene:
        talk = await scene.opened()
        work = await scene.begun(talk)
        assert [await platform.wish() for _ in range(3)] == [9, 9, 9]
        assert failures() == before + 2
        scene.engine.finish(work.attempt_id)
        await talk.hear("finished")
        platform.refusals = 1
        talk.say(Acknowledged(work.attempt_id, accepted=True))
        assert await platform.wish() is None
        work = await scene.begun(talk)
        assert await platform.wish() == 9
        assert failures() == before + 3
