"""Who uses the scheduler in a run: users of three tiers that submit, and consumers of the feed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import grpc

from easel.common.v1 import generation_pb2
from easel.scheduler.v1 import events_pb2, events_pb2_grpc, jobs_pb2, jobs_pb2_grpc
from easel_kit import errors
from easel_kit.ids import new_job_id
from easel_kit.rpc.channel import open_channel
from tests.chaos.records import Book, Cancel, Plan, Resolve, Seen, Submit, Subscribed
from tests.chaos.worker import MODELS, STEPS

ENDED = ("succeeded", "failed", "cancelled")
_CALL_S = 3.0
_TRIES = 40
_QUEUE_TIME_S = 3600
_BATCH = (1, 1, 1, 2, 4)
_CANCEL, _GIVE_UP, _REPEAT, _PREPEND = 0.08, 0.2, 0.05, 0.05
_STATES = {
    number: name.removeprefix("JOB_STATE_").lower() for name, number in jobs_pb2.JobState.items()
}
_EVENTS = {
    number: name.removeprefix("EVENT_TYPE_").lower()
    for name, number in events_pb2.EventType.items()
}
_REFUSALS = (errors.RateLimited, errors.InvalidInput, errors.NotFound, errors.Conflict)


@dataclass(frozen=True, slots=True)
class Tier:
    """A plan's numbers, and how many users a run has of it."""

    name: str
    priority: int
    weight: int
    max_running: int
    max_waiting: int
    users: int
    pause_s: float
    """Between two submits of a user, on average."""


TIERS = (
    Tier("free", 0, 1, 1, 2, 5, 0.35),
    Tier("pro", 10, 4, 3, 12, 4, 0.25),
    Tier("enterprise", 100, 16, 10, 30, 2, 0.2),
)


@dataclass(slots=True)
class Doors:
    """Channels to all replicas."""

    channels: list[grpc.aio.Channel]

    @staticmethod
    @asynccontextmanager
    async def open(addresses: Sequence[str]) -> AsyncIterator[Doors]:
        """Opens them."""
        async with AsyncExitStack() as stack:
            yield Doors([await stack.enter_async_context(open_channel(one)) for one in addresses])


@dataclass(slots=True)
class Tally:
    """What progress lines tell."""

    accepted: int = 0
    ended: int = 0
    failed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Jobs that failed and that their users may repeat, by user."""
    answers: dict[str, int] = field(default_factory=dict)

    def count(self, answer: str) -> None:
        """One answer more."""
        self.answers[answer] = self.answers.get(answer, 0) + 1


class User:
    """Submits again and again; every answer and every silence is written down."""

    def __init__(
        self,
        name: str,
        tier: Tier,
        doors: Doors,
        book: Book,
        *,
        tally: Tally,
        chance: random.Random,
    ) -> None:
        """All its choices come from `chance`."""
        self.name = name
        self._tier = tier
        self._doors = doors
        self._book = book
        self._tally = tally
        self._chance = chance
        book.write(Plan(time.time(), name, tier.name, tier.max_running, tier.max_waiting))

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; what is under way is brought to an end."""
        cancels: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            await asyncio.sleep(self._chance.expovariate(1 / self._tier.pause_s))
            jobs = [self._new_job() for _ in range(self._chance.choice(_BATCH))]
            for job in await self._submit(jobs):
                if self._chance.random() < _CANCEL:
                    cancels.add(asyncio.create_task(self._cancel(job)))
            cancels = {task for task in cancels if not task.done()}
        await asyncio.gather(*cancels)

    # --- submits

    def _new_job(self) -> jobs_pb2.JobSubmission:
        failed = self._tally.failed[self.name]
        return jobs_pb2.JobSubmission(
            job_id=new_job_id(),
            retry_of=failed.pop() if failed else "",
            generation=generation_pb2.Generation(
                model_key=self._chance.choice(MODELS),
                prompt="chaos",
                width_px=64,
                height_px=64,
                steps=STEPS,
                guidance=1.0,
                seed=1,
                sampler="ddim",
                image_count=1,
            ),
            cost_ms=self._chance.choice((50, 100, 200)),
        )

    async def _submit(self, jobs: list[jobs_pb2.JobSubmission]) -> list[str]:
        """Tries until there is an answer, or gives the jobs up; answers those accepted."""
        names = [job.job_id for job in jobs]
        prepend = self._chance.random() < _PREPEND
        for _ in range(_TRIES):
            answer = await self._try_submit(jobs, names, prepend=prepend)
            if answer == "accepted":
                self._tally.accepted += len(jobs)
                if self._chance.random() < _REPEAT:  # as after a lost answer
                    await self._try_submit(jobs, names, prepend=prepend)
                return names
            if answer != "unknown":
                return []
            if self._chance.random() < _GIVE_UP:
                for name in names:
                    await self._resolve(name)
                await self._try_submit(jobs, names, prepend=prepend)  # too late
                return []
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))
        return []

    async def _try_submit(
        self, jobs: list[jobs_pb2.JobSubmission], names: list[str], *, prepend: bool
    ) -> str:
        began = time.time()
        tier = self._tier
        request = jobs_pb2.SubmitJobsRequest(
            user_id=self.name,
            entitlements=jobs_pb2.Entitlements(
                version=1,
                priority=tier.priority,
                weight=tier.weight,
                max_running=tier.max_running,
                max_waiting=tier.max_waiting,
                queue_time_s=_QUEUE_TIME_S,
            ),
            jobs=jobs,
            prepend=prepend,
        )
        answer: Literal["accepted", "refused", "buried", "unknown"]
        code = ""
        try:
            await self._jobs().SubmitJobs(request, timeout=_CALL_S)
            answer = "accepted"
        except errors.InvalidState as error:
            answer, code = "buried", type(error).__name__
        except _REFUSALS as error:
            answer, code = "refused", type(error).__name__
        except errors.DomainError as error:
            answer, code = "unknown", type(error).__name__
        self._tally.count(code or answer)
        self._book.write(Submit(began, time.time(), self.name, names, answer, code))
        return answer

    def _jobs(self) -> jobs_pb2_grpc.JobServiceStub:
        return jobs_pb2_grpc.JobServiceStub(self._chance.choice(self._doors.channels))

    # --- cancels and burials

    async def _cancel(self, job: str) -> None:
        await asyncio.sleep(self._chance.uniform(0, 0.6))
        for _ in range(_TRIES):
            began = time.time()
            try:
                answer = await self._jobs().CancelJob(
                    jobs_pb2.CancelJobRequest(user_id=self.name, job_id=job), timeout=_CALL_S
                )
                state = _STATES[answer.job.state]
            except errors.DomainError as error:
                state = "unknown"
                self._tally.count(f"cancel {type(error).__name__}")
            self._book.write(Cancel(began, time.time(), self.name, job, state))
            if state != "unknown":
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    async def _resolve(self, job: str) -> None:
        for _ in range(_TRIES):
            began = time.time()
            try:
                answer = await self._jobs().ResolveJob(
                    jobs_pb2.ResolveJobRequest(job_id=job), timeout=_CALL_S
                )
                state = _STATES[answer.state]
                state = "buried" if state == "unspecified" else state
            except errors.DomainError as error:
                state = "unknown"
                self._tally.count(f"resolve {type(error).__name__}")
            self._book.write(Resolve(began, time.time(), job, state))
            if state != "unknown":
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))


class Consumer:
    """Reads the feed, leaves now and then, and goes on behind what it has written down."""

    def __init__(
        self,
        name: str,
        doors: Doors,
        book: Book,
        *,
        tally: Tally | None,
        chance: random.Random,
    ) -> None:
        """The ends that it sees count in `tally`."""
        self._name = name
        self._doors = doors
        self._book = book
        self._tally = tally
        self._chance = chance
        self._after = events_pb2.Cursor()

    @property
    def cursor(self) -> list[int]:
        """Of the last event."""
        return _place(self._after)

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            with suppress(errors.DomainError, TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.5, 8)):
                    await self._read()
            await asyncio.sleep(self._chance.uniform(0, 0.1))

    async def _read(self) -> None:
        self._book.write(Subscribed(time.time(), self._name, self.cursor))
        channel = self._chance.choice(self._doors.channels)
        call = events_pb2_grpc.EventServiceStub(channel).Subscribe(
            events_pb2.SubscribeRequest(after=self._after)
        )
        try:
            async for answer in call:
                now = time.time()
                self._book.write(*(self._seen(now, event) for event in answer.events))
                self._after = answer.events[-1].cursor
        finally:
            call.cancel()

    def _seen(self, now: float, event: events_pb2.Event) -> Seen:
        kind = _EVENTS[event.type]
        if self._tally is not None and kind in ENDED:
            self._tally.ended += 1
            if kind == "failed":
                self._tally.failed[event.user_id].append(event.job_id)
        return Seen(
            now,
            self._name,
            _place(event.cursor),
            kind,
            event.job_id,
            event.user_id,
            event.images[0].object_key.split("/")[-2] if event.images else "",
            event.error.code,
        )


def _place(cursor: events_pb2.Cursor) -> list[int]:
    return [cursor.generation, cursor.transaction_id, cursor.sequence]
