"""Clients of several replicas lose one, and another, and go on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from easel.scheduler.v1 import jobs_pb2
from easel_kit.errors import DependencyDown
from easel_kit.ids import AttemptId, ImageId, WorkerId, new_id
from easel_kit.rpc.channel import open_channel
from gpu_worker.clients.scheduler import GrpcScheduler
from gpu_worker.domain.work import (
    Acknowledged,
    Assign,
    AttemptFinished,
    Capacity,
    Hello,
    Profile,
    StoredImage,
    picture_key,
)
from gpu_worker.ports import WorkStream
from tests.fakes.gpu_worker import CARD
from tests.fakes.scheduler_process import SchedulerProcess, scheduler_process
from tests.fakes.scheduler_stack import ALICE, SchedulerStack, submission, within

_SEVERAL = 20


class Replicas:
    """Two schedulers, clients of both, and a worker's door to both."""

    def __init__(self, client: SchedulerStack, folder: Path) -> None:
        self.client = client
        self._folder = folder
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.one, self.two = await self.start(), await self.start()
        ports = (self.one.stack.port, self.two.stack.port)
        await self._running.enter_async_context(self.client.dialled(*ports))
        address = ",".join(f"127.0.0.1:{port}" for port in ports)
        channel = await self._running.enter_async_context(open_channel(address))
        self.worker_door = GrpcScheduler(channel)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._running.aclose()

    async def start(self, port: int = 0) -> SchedulerProcess:
        stack = SchedulerStack(self.client.database_url, self.client.redis_url)
        return await self._running.enter_async_context(
            scheduler_process(stack, self._folder, port=port)
        )

    async def answer(self, *replicas: SchedulerProcess) -> None:
        """Calls go well, until each of these has answered several."""
        goals = [replica.count("rpc.finished") + _SEVERAL for replica in replicas]

        async def all_answered() -> bool:
            await self.client.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())
            return all(
                replica.count("rpc.finished") >= goal
                for replica, goal in zip(replicas, goals, strict=True)
            )

        await self.client.eventually(all_answered)


def _hello(*held: AttemptId) -> Hello:
    profile = Profile(WorkerId("worker-1"), "default", 1, "1")
    return Hello(profile, "127.0.0.1:1", "cpu", (CARD,), held, returning=bool(held))


async def _assigned(stream: WorkStream) -> Assign:
    await stream.send(Capacity(1, draining=False))
    work = await within(stream.receive())
    assert isinstance(work, Assign)
    return work


async def _finish(stream: WorkStream, work: Assign) -> None:
    picture = StoredImage(
        ImageId(new_id("img")), picture_key(work, 0), 64, 64, "image/png", 100, "0" * 64, 1
    )
    await stream.send(AttemptFinished(work.attempt_id, (picture,), 10, 20, 50, ()))
    while not isinstance(told := await within(stream.receive()), Acknowledged):
        pass
    assert told == Acknowledged(work.attempt_id, accepted=True)


class Watcher:
    """Watches until the job has succeeded, on another stream when one is lost."""

    def __init__(self, client: SchedulerStack, job_id: str) -> None:
        self.seen = asyncio.Event()
        self.lost = 0
        self.watching = asyncio.create_task(self._watch(client, job_id))

    async def _watch(self, client: SchedulerStack, job_id: str) -> None:
        request = jobs_pb2.WatchJobRequest(user_id=ALICE, job_id=job_id)
        while True:
            try:
                async for answer in client.jobs.WatchJob(request):
                    self.seen.set()
                    if answer.job.state == jobs_pb2.JOB_STATE_SUCCEEDED:
                        return
            except DependencyDown:
                self.lost += 1


async def test_a_replica_dies_and_calls_watches_and_the_worker_go_on(
    idle_stack: SchedulerStack, tmp_path: Path
) -> None:
    async with Replicas(idle_stack, tmp_path) as replicas:
        client, one, two = replicas.client, replicas.one, replicas.two
        await replicas.answer(one, two)
        async with replicas.worker_door.connect(_hello()) as stream:
            victim, other = (one, two) if one.count("worker.joined") else (two, one)
            (job,) = await client.submit(submission(model_key=CARD.key))
            work = await _assigned(stream)
            await client.recorded()
            watchers = [Watcher(client, job.id) for _ in range(4)]
            for watcher in watchers:
                await within(watcher.seen.wait())
            await victim.kill()
            await replicas.answer(other)
        async with replicas.worker_door.connect(_hello(work.attempt_id)) as stream:
            assert stream.welcome.kept == {work.attempt_id}
            await _finish(stream, work)
        for watcher in watchers:
            await within(watcher.watching)
        assert sorted(watcher.lost for watcher in watchers) == [0, 0, 1, 1]  # round robin


async def test_a_replica_that_came_back_is_used_again(
    idle_stack: SchedulerStack, tmp_path: Path
) -> None:
    async with Replicas(idle_stack, tmp_path) as replicas:
        await replicas.one.kill()
        await replicas.answer(replicas.two)
        back = await replicas.start(replicas.one.stack.port)
        await replicas.answer(back, replicas.two)
        await replicas.two.kill()
        (job,) = await replicas.client.submit(submission(model_key=CARD.key))
        async with replicas.worker_door.connect(_hello()) as stream:
            assert (await _assigned(stream)).job_id == job.id
