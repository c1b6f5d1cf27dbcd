"""A running scheduler as tests see it, and a worker that speaks its work stream by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncpg
import grpc
from pydantic import SecretStr
from redis.asyncio import Redis

from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import (
    events_pb2,
    events_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    privacy_pb2_grpc,
)
from easel.scheduler.v1 import lease_pb2 as lease
from easel.scheduler.v1.lease_pb2_grpc import LeaseServiceStub
from easel_kit.ids import new_id, new_job_id
from easel_kit.rpc.channel import open_channel
from scheduler.main import run
from scheduler.settings import Settings

ALICE, BOB = "alice", "bob"
SHAPES = "shapes-64"
PATIENCE_S = 10.0
_Found = TypeVar("_Found")
_BEAT_S = 0.1
_LOOK_S = 0.01


async def within(work: Awaitable[_Found], seconds: float = PATIENCE_S) -> _Found:
    """The answer, or a failed test."""
    return await asyncio.wait_for(work, seconds)


def entitlements(
    *,
    version: int = 1,
    priority: int = 0,
    weight: int = 1,
    running: int = 10,
    waiting: int = 100,
    queue_time_s: int = 600,
) -> jobs_pb2.Entitlements:
    """Numbers of a plan."""
    return jobs_pb2.Entitlements(
        version=version,
        priority=priority,
        weight=weight,
        max_running=running,
        max_waiting=waiting,
        queue_time_s=queue_time_s,
    )


def generation(
    *, model_key: str = SHAPES, prompt: str = "a red circle", steps: int = 10, image_count: int = 1
) -> generation_pb2.Generation:
    """A cheap picture."""
    return generation_pb2.Generation(
        model_key=model_key,
        prompt=prompt,
        width_px=64,
        height_px=64,
        steps=steps,
        guidance=2.5,
        seed=1,
        sampler="ddim",
        image_count=image_count,
    )


def full_generation() -> generation_pb2.Generation:
    """A picture for which all is asked that a request may ask for."""
    asked = generation()
    asked.total_steps = 13
    asked.loras.add(model_key="fine", weight=0.75)
    asked.loras.add(model_key="coarse", weight=-1.5)
    asked.init_image.CopyFrom(
        generation_pb2.InitImage(
            object_key="users/alice/uploads/a.png",
            strength=0.6,
            mask_object_key="users/alice/uploads/b.png",
            image_id="img_a",
            mask_image_id="img_b",
        )
    )
    asked.controls.add(
        model_key="edges",
        object_key="users/alice/uploads/c.png",
        weight=0.9,
        begin=0.1,
        end=0.8,
        image_id="img_c",
    )
    asked.hires.CopyFrom(generation_pb2.Hires(scale=1.5, steps=8, strength=0.4))
    asked.output.CopyFrom(
        generation_pb2.Output(
            format=generation_pb2.IMAGE_FORMAT_WEBP, quality=80, without_settings=True
        )
    )
    asked.clip_skip = 2
    return asked


def submission(
    job_id: str | None = None,
    *,
    cost_ms: int = 100,
    model_key: str = SHAPES,
    prompt: str = "a red circle",
) -> jobs_pb2.JobSubmission:
    """One job of a submit."""
    return jobs_pb2.JobSubmission(
        job_id=job_id or new_job_id(),
        generation=generation(model_key=model_key, prompt=prompt),
        cost_ms=cost_ms,
    )


def model(
    key: str = SHAPES, *, unavailable_reason: str = "", loaded: bool = True
) -> model_pb2.Model:
    """A model as a worker reports it."""
    return model_pb2.Model(
        key=key,
        name=key.title(),
        base="sd-1",
        type="main",
        defaults=model_pb2.ModelDefaults(steps=10, guidance=2.5, width_px=64, height_px=64),
        sizes=[model_pb2.PictureSize(width_px=64, height_px=64)],
        max_steps=50,
        samplers=["ddim"],
        features=["image_to_image", "hires"],
        size_bytes=4_000_000_000,
        loaded=loaded,
        unavailable_reason=unavailable_reason,
    )


def image(job: lease.Assign, number: int = 0) -> generation_pb2.Image:
    """A finished picture of an attempt."""
    return generation_pb2.Image(
        id=new_id("img"),
        object_key=f"users/{job.user_id}/jobs/{job.job_id}/{job.attempt_id}/{number}.png",
        width_px=64,
        height_px=64,
        media_type="image/png",
        size_bytes=123,
        sha256="0" * 64,
        seed=1,
        thumbnail_object_key=f"users/{job.user_id}/jobs/{job.job_id}/{job.attempt_id}/{number}.t.webp",
    )


_Call = grpc.aio.StreamStreamCall[lease.WorkRequest, lease.WorkResponse]


class FakeWorker:
    """One stream of a worker; tests say what it says and read what it is told."""

    def __init__(self, call: _Call, welcome: lease.Welcome) -> None:
        self.call = call
        self.welcome = welcome
        self._told: list[lease.WorkResponse] = []
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._over = False
        self._tasks = [asyncio.create_task(self._listen())]

    async def _listen(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while isinstance(message := await self.call.read(), lease.WorkResponse):
                self._told.append(message)
                self._news.set()
        self._over = True
        self._news.set()

    def beat(self, every_s: float) -> None:
        """Sends heartbeats from now on."""
        self._tasks.append(asyncio.create_task(self._beat(every_s)))

    async def _beat(self, every_s: float) -> None:
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while not self._over:
                await self.says(heartbeat=lease.Heartbeat())
                await asyncio.sleep(every_s)

    async def close(self) -> None:
        """The stream breaks, if it still stands."""
        self.call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def says(self, **message: Any) -> None:  # noqa: ANN401 (one field of the request)
        """Sends one message."""
        async with self._writing:  # a call takes one write at a time
            await within(self.call.write(lease.WorkRequest(**message)))

    async def takes(self, free_slots: int, *, draining: bool = False) -> None:
        """Offers capacity."""
        await self.says(capacity=lease.Capacity(free_slots=free_slots, draining=draining))

    async def hears(self, kind: str) -> Any:  # noqa: ANN401 (a message of that kind)
        """The next message of this kind; others are kept for later."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for known in self._told:
                    if known.WhichOneof("message") == kind:
                        self._told.remove(known)
                        return getattr(known, kind)
                assert not self._over, f"the stream ended before {kind}"
                self._news.clear()
                await self._news.wait()

    async def hears_nothing(self, seconds: float = 0.1) -> None:
        """Nobody says anything for a moment."""
        self._news.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        assert self._told == []

    async def is_assigned(self) -> lease.Assign:
        """The next job."""
        found: lease.Assign = await self.hears("assign")
        return found

    async def progresses(self, job: lease.Assign, step: int, preview: bytes = b"") -> None:
        """A step is done."""
        await self.says(
            progress=lease.AttemptProgress(
                attempt_id=job.attempt_id,
                step=step,
                steps=job.generation.steps,
                preview=preview,
                preview_media_type="image/png" if preview else "",
            )
        )

    async def finishes(self, job: lease.Assign, *, steps: int = 10) -> lease.Acknowledged:
        """Success, until it is acknowledged."""
        await self.says(
            finished=lease.AttemptFinished(
                attempt_id=job.attempt_id,
                images=[image(job)],
                steps_done=steps,
                first_step_ms=20,
                total_ms=50,
                warnings=["the prompt was cut"],
            )
        )
        return await self.acknowledged(job)

    async def fails(
        self,
        job: lease.Assign,
        kind: lease.FailureKind.ValueType = lease.FAILURE_KIND_TRANSIENT,
        code: str = "out_of_memory",
    ) -> lease.Acknowledged:
        """Failure, until it is acknowledged."""
        await self.says(
            failed=lease.AttemptFailed(
                attempt_id=job.attempt_id, kind=kind, code=code, message="no room", steps_done=3
            )
        )
        return await self.acknowledged(job)

    async def stops(self, job: lease.Assign, steps_done: int = 4) -> lease.Acknowledged:
        """The answer to a cancel, until it is acknowledged."""
        await self.says(
            stopped=lease.AttemptStopped(attempt_id=job.attempt_id, steps_done=steps_done)
        )
        return await self.acknowledged(job)

    async def parks(self, job: lease.Assign, steps_done: int = 3) -> None:
        """Has been told to set the attempt aside, and does."""
        assert (await self.hears("park")).attempt_id == job.attempt_id
        await self.says(
            parked=lease.AttemptParked(attempt_id=job.attempt_id, steps_done=steps_done)
        )

    async def resumes(self, job: lease.Assign) -> None:
        """Has been told to go on with the attempt, and does."""
        assert (await self.hears("resume")).attempt_id == job.attempt_id
        await self.says(resumed=lease.AttemptResumed(attempt_id=job.attempt_id))

    async def hands_back(self, job: lease.Assign) -> lease.Acknowledged:
        """Not worked off."""
        await self.says(hand_back=lease.HandBack(attempt_id=job.attempt_id))
        return await self.acknowledged(job)

    async def acknowledged(self, job: lease.Assign) -> lease.Acknowledged:
        """The next acknowledgement, which is of this job."""
        found: lease.Acknowledged = await self.hears("acknowledged")
        assert found.attempt_id == job.attempt_id
        return found

    def dies(self) -> None:
        """The stream breaks."""
        self.call.cancel()

    async def ends(self) -> None:
        """Says no more, and waits until the scheduler has ended the stream."""
        await self.call.done_writing()
        async with asyncio.timeout(PATIENCE_S):
            while not self._over:
                self._news.clear()
                await self._news.wait()


async def _welcomed(channel: grpc.aio.Channel, hello: lease.Hello) -> FakeWorker:
    """Says hello, again while the queue is away or being rebuilt, as a real worker does."""
    while True:
        call = LeaseServiceStub(channel).Work()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(lease.WorkRequest(hello=hello))
            answer = await call.read()
            if isinstance(answer, lease.WorkResponse):
                return FakeWorker(call, answer.welcome)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE, await call.details()
        await asyncio.sleep(_LOOK_S)


class SchedulerStack:
    """A real scheduler on a real database and a real Redis."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.port = 0
        self._channel: grpc.aio.Channel | None = None
        self._database: asyncpg.Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    def settings(self, **changes: float | str) -> Settings:
        """Short waits."""
        wanted: dict[str, Any] = {
            "lease_ttl_s": 6,
            "heartbeat_s": 0.5,
            "reconnect_grace_s": 0.1,
            "expire_every_s": 0.05,
            "reconcile_every_s": 0.2,
            "retry_base_s": 0.05,
            "retry_cap_s": 0.1,
            "position_every_s": 0.05,
            "grace_s": 1,
        }
        return Settings(
            database_url=SecretStr(self.database_url),
            redis_url=SecretStr(self.redis_url),
            **(wanted | changes),
        )

    @asynccontextmanager
    async def running(
        self, *, graceful: bool = False, **changes: float | str
    ) -> AsyncIterator[SchedulerStack]:
        """Runs the scheduler; leaving ends it as a kill would, unless `graceful`."""
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.create_task(
            run(self.settings(**changes), stop, on_ready=ready.set_result), name="scheduler"
        )
        both: list[asyncio.Future[Any]] = [task, ready]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        self.port = ready.result()
        try:
            async with self.dialled():
                yield self
        finally:
            if graceful:
                stop.set()
                await within(task)
            else:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    @asynccontextmanager
    async def dialled(self, *ports: int) -> AsyncIterator[None]:
        """Connects to whatever serves on `ports`, else on its own, and to the database."""
        address = ",".join(f"127.0.0.1:{port}" for port in ports or [self.port])
        async with AsyncExitStack() as stack:
            self._channel = await stack.enter_async_context(open_channel(address))
            self._database = await asyncpg.connect(
                self.database_url, server_settings={"search_path": "scheduler"}
            )
            stack.push_async_callback(self._database.close)
            yield

    @property
    def jobs(self) -> jobs_pb2_grpc.JobServiceStub:
        """Callers' face; raises our errors."""
        assert self._channel is not None
        return jobs_pb2_grpc.JobServiceStub(self._channel)

    @property
    def privacy(self) -> privacy_pb2_grpc.PrivacyServiceStub:
        """What the law gives a person; raises our errors."""
        assert self._channel is not None
        return privacy_pb2_grpc.PrivacyServiceStub(self._channel)

    @property
    def redis(self) -> Redis:
        """A client of the queue's store."""
        return Redis.from_url(self.redis_url)

    # --- what tests do

    async def submit(
        self,
        *jobs: jobs_pb2.JobSubmission,
        user: str = ALICE,
        plan: jobs_pb2.Entitlements | None = None,
    ) -> list[jobs_pb2.Job]:
        """Submits, one job unless some are given."""
        answer = await self.jobs.SubmitJobs(
            jobs_pb2.SubmitJobsRequest(
                user_id=user, entitlements=plan or entitlements(), jobs=jobs or [submission()]
            )
        )
        return list(answer.jobs)

    async def get(self, job_id: str, user: str = ALICE) -> jobs_pb2.Job:
        """A job as its user sees it."""
        answer = await self.jobs.GetJob(jobs_pb2.GetJobRequest(user_id=user, job_id=job_id))
        return answer.job

    async def cancel(self, job_id: str, user: str = ALICE) -> jobs_pb2.Job:
        """Cancels a job."""
        answer = await self.jobs.CancelJob(jobs_pb2.CancelJobRequest(user_id=user, job_id=job_id))
        return answer.job

    async def becomes(
        self, job_id: str, state: jobs_pb2.JobState.ValueType, user: str = ALICE
    ) -> jobs_pb2.Job:
        """Waits on the watch stream until the job is in this state."""
        call = self.jobs.WatchJob(jobs_pb2.WatchJobRequest(user_id=user, job_id=job_id))

        async def wait() -> jobs_pb2.Job:
            async for seen in call:
                if seen.job.state == state:
                    return seen.job
            raise AssertionError("the job ended in another state")

        try:
            found: jobs_pb2.Job = await within(wait())
        finally:
            call.cancel()
        return found

    async def eventually(self, look: Callable[[], Awaitable[_Found]]) -> _Found:
        """What an async look finds, once it is true."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await look()):  # noqa: ASYNC110 (another process's state)
                await asyncio.sleep(_LOOK_S)
        return found

    async def events(
        self, count: int, after: events_pb2.Cursor | None = None
    ) -> list[events_pb2.Event]:
        """The first events after the cursor."""
        assert self._channel is not None
        call = events_pb2_grpc.EventServiceStub(self._channel).Subscribe(
            events_pb2.SubscribeRequest(after=after or events_pb2.Cursor())
        )
        found: list[events_pb2.Event] = []

        async def read() -> None:
            async for answer in call:
                found.extend(answer.events)
                if len(found) >= count:
                    return

        try:
            await within(read())
        finally:
            call.cancel()
        return found

    async def recorded(self, attempts: int = 1) -> None:
        """Waits until that many attempts are written down."""
        await self.eventually(lambda: self.row("SELECT count(*) = $1 FROM attempts", attempts))

    async def row(self, query: str, *values: object) -> Any:  # noqa: ANN401 (a value of SQL)
        """One value of the scheduler's own tables."""
        assert self._database is not None
        return await self._database.fetchval(query, *values)

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        """All rows that a query of the scheduler's own tables answers with."""
        assert self._database is not None
        return list(await self._database.fetch(query, *values))

    async def execute(self, query: str, *values: object) -> None:
        """Changes the scheduler's own tables."""
        assert self._database is not None
        await self._database.execute(query, *values)

    @asynccontextmanager
    async def worker(
        self,
        name: str = "worker-1",
        *,
        slots: int = 1,
        models: tuple[model_pb2.Model, ...] | None = None,
        held: tuple[str, ...] = (),
        lane: str = "",
        offer: bool = True,
        hung: bool = False,
        can_park: bool = False,
        parked: tuple[str, ...] = (),
    ) -> AsyncIterator[FakeWorker]:
        """A worker that has said hello and, with `offer`, takes as much as it has slots.

        It sends heartbeats unless it is `hung`.
        """
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            hello = lease.Hello(
                worker_id=name,
                address="127.0.0.1:1",
                lane=lane,
                device="cpu",
                slots=slots,
                models=(model(),) if models is None else models,
                held_attempt_ids=held,
                can_park=can_park,
                parked_attempt_ids=parked,
            )
            worker = await within(_welcomed(channel, hello))
            try:
                if offer:
                    await worker.takes(slots)
                if not hung:
                    worker.beat(_BEAT_S)
                yield worker
            finally:
                await worker.close()


_FILL = """
    WITH people AS (
        INSERT INTO open_jobs (user_id, open, version, priority, weight, max_running, max_waiting,
            queue_time_s)
        SELECT 'user-' || n, count(*), 1, (ARRAY[0, 10, 100])[n % 3 + 1],
            (ARRAY[1, 4, 16])[n % 3 + 1], 1, 1000000, 86400
        FROM generate_series(1, $1::int) AS i, LATERAL (SELECT i % $2::int AS n) AS whose
        GROUP BY n)
    INSERT INTO jobs (id, user_id, lane, state, generation, cost_ms, queued_at, start_by,
        traceparent)
    SELECT 'job_' || i, 'user-' || i % $2::int, 'default', 'queued', $3::jsonb,
        100 + i * 7919 % 900, now(), now() + interval '1 day', ''
    FROM generate_series(1, $1::int) AS i ORDER BY i
"""
_GENERATION = """{"model_key": "shapes-64", "prompt": "a red circle", "negative_prompt": "",
    "width_px": 64, "height_px": 64, "steps": 10, "guidance": 2.5, "seed": 1, "sampler": "ddim",
    "image_count": 1}"""


async def fill(stack: SchedulerStack, *, jobs: int, users: int) -> None:
    """Accepts many jobs behind everyone's back: job_<n> of user-<n modulo users>, three tiers."""
    await stack.execute(_FILL, jobs, users, _GENERATION)
