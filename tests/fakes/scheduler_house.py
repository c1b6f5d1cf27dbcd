"""The scheduler's use cases over its ports in memory, and workers that speak to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId, new_job_id
from scheduler.domain.backoff import Backoff
from scheduler.domain.generation import Generation
from scheduler.domain.job import Entitlements, Job, NewJob, Submission
from scheduler.domain.lease import Ended, Outcome
from scheduler.domain.stream import (
    Acknowledged,
    Assign,
    Drain,
    Park,
    Resume,
    Stop,
    ToWorker,
    Welcome,
)
from scheduler.domain.worker import Model, ModelDefaults, Worker
from scheduler.service.assign import Assigner
from scheduler.service.dispatch import Dispatch
from scheduler.service.feed import Feed
from scheduler.service.fitness import Fitness
from scheduler.service.fresh import Fresh
from scheduler.service.hearing import Hearing
from scheduler.service.jobs import Jobs
from scheduler.service.keeper import Keeper
from scheduler.service.load import Overview
from scheduler.service.operations import Operations
from scheduler.service.plans import Plans
from scheduler.service.progress import ProgressPump
from scheduler.service.rebuild import Rebuilder
from scheduler.service.reconcile import Reconciler
from scheduler.service.recorder import Recorder
from scheduler.service.reports import Reports
from scheduler.service.session import Session
from scheduler.service.settle import Settler
from scheduler.service.submits import Submits
from scheduler.service.upkeep import Caretaker
from scheduler.service.watch import Watches
from scheduler.service.workers import Workers
from tests.fakes.scheduler import MemoryBell, MemoryLocks, MemorySignals, RecordingObserver
from tests.fakes.scheduler_jobs import LANE, MovableClock
from tests.fakes.scheduler_queue import MemoryQueue
from tests.fakes.scheduler_store import MemoryStore

ALICE = UserId("alice")
LEASE_S = 15.0
_PATIENCE_S = 5.0
_Found = TypeVar("_Found")
_Message = TypeVar("_Message", Welcome, Assign, Stop, Drain, Park, Resume, Acknowledged)


def model(key: str = "m") -> Model:
    return Model(
        key=ModelKey(key),
        name=key,
        base="sd-1",
        type="main",
        description="",
        licence="",
        defaults=ModelDefaults(10, 2.5, 64, 64, "ddim"),
        sizes_px=(),
        max_steps=50,
        max_prompt_tokens=77,
        samplers=("ddim",),
        loaded=True,
        unavailable_reason="",
    )


class Stream:
    """A worker's side of one session."""

    def __init__(self, house: House, session: Session) -> None:
        self.house = house
        self.session = session
        self._messages = session.messages()
        self._told: list[ToWorker] = []

    async def hears(self, kind: type[_Message]) -> _Message:
        """The next message of this kind; others are kept for later."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                for known in self._told:
                    if isinstance(known, kind):
                        self._told.remove(known)
                        return known
                message = await anext(self._messages)
                self.session.handed_over(message)
                self._told.append(message)

    async def hears_nothing(self) -> None:
        """Once everything that can happen has happened, nothing was said."""
        await self.house.settled()
        assert self._told == []
        assert self.session._outbox.empty()

    def reports(self, job: Assign, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        """Tells the end of an attempt."""
        ended = Ended(job.claim.attempt_id, outcome, steps_done=10, total_ms=400)
        self.house.workers.report(self.session, ended)


class House:
    """Everything between the ports, wired as `main` does."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.store = MemoryStore(self.clock)
        self.queue = MemoryQueue(self.clock, lease_ttl_s=LEASE_S)
        self.signals = MemorySignals()
        self.bell = MemoryBell()
        self.seen = RecordingObserver()
        self.tasks: set[asyncio.Task[None]] = set()
        self.fresh = Fresh()
        self.submits = Submits(
            self.store, self.queue, self.fresh, self.seen, lane=LANE, max_jobs_per_submit=10
        )
        self.jobs = Jobs(self.store, self.queue, self.queue, self.seen)
        self.operations = Operations(self.store, self.jobs, self.queue, self.fresh, self.seen)
        self.plans = Plans(self.store, self.queue, self.seen, self.clock, lane=LANE)
        self.overview = Overview(self.store, self.queue, self.seen, self.clock)
        self.settler = Settler(self.store, self.queue, self.seen)
        self.recorder = Recorder(self.store, self.queue, self.seen, linger_s=0)
        self.pump = ProgressPump(self.queue, self.seen, max_preview_bytes=10)
        self.dispatch = Dispatch()
        keeper = Keeper(self.store, self.queue)
        self.workers = Workers(
            attempts=self.store,
            line=self.queue,
            leases=self.queue,
            settler=self.settler,
            keeper=keeper,
            assigner=Assigner(
                attempts=self.store,
                fresh=self.fresh,
                line=self.queue,
                leases=self.queue,
                keeper=keeper,
                recorder=self.recorder,
                dispatch=self.dispatch,
                observer=self.seen,
            ),
            reports=Reports(
                self.store,
                self.settler,
                self.recorder,
                Fitness(self.queue, self.seen, self.spawn, pause=Backoff(0.01, 0.04)),
                self.seen,
            ),
            pump=self.pump,
            dispatch=self.dispatch,
            observer=self.seen,
            clock=self.clock,
            spawn=self.spawn,
            heartbeat_s=5,
            lease_ttl_s=LEASE_S,
            reconnect_grace_s=0.01,
        )
        self.watches = Watches(
            self.jobs, self.queue, self.signals, self.seen, recheck_s=60, max_watchers=3
        )
        self.locks = MemoryLocks()
        self.reconciler = Reconciler(
            attempts=self.store,
            line=self.queue,
            upkeep=self.queue,
            locks=self.locks,
            observer=self.seen,
        )
        self.reconcile_soon = asyncio.Event()
        self.rebuilder = Rebuilder(
            attempts=self.store,
            line=self.queue,
            epoch=self.queue,
            locks=self.locks,
            observer=self.seen,
            clock=self.clock,
            doubted=self.queue.doubted,
            on_open=self.reconcile_soon.set,
            unwritten_s=0,
        )
        self.queue.handler = Hearing(self.dispatch, self.workers, self.watches, self.rebuilder)
        self.feed = Feed(self.store, self.bell, recheck_s=60)
        self.caretaker = Caretaker(
            attempts=self.store,
            line=self.queue,
            upkeep=self.queue,
            settler=self.settler,
            observer=self.seen,
            clock=self.clock,
            lease_ttl_s=LEASE_S,
        )
        self.spawn("recorder", self.recorder.run())
        self.spawn("pump", self.pump.run())
        self.spawn("rebuild", self.rebuilder.run())

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)

    async def close(self) -> None:
        """Ends the background tasks; one that failed fails the test."""
        failed = [task for task in self.tasks if task.done() and task.exception()]
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for task in failed:
            task.result()

    def forgive(self, kind: type[Exception]) -> int:
        """Takes away the tasks that failed like this, as `main` does; answers how many."""
        failed = {task for task in self.tasks if task.done() and isinstance(task.exception(), kind)}
        self.tasks -= failed
        return len(failed)

    async def settled(self) -> None:
        """Until nothing more happens by itself."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def until(self, look: Callable[[], _Found]) -> _Found:
        """What `look` finds, once it is true."""
        async with asyncio.timeout(_PATIENCE_S):
            while not (found := look()):  # noqa: ASYNC110 (state of other tasks)
                await asyncio.sleep(0.001)
        return found

    async def submit(
        self,
        *ids: JobId,
        user: UserId = ALICE,
        running: int = 5,
        key: str = "m",
        priority: int = 0,
    ) -> list[Job]:
        plan = Entitlements(1, priority, 16 if priority else 1, running, 50, 600)
        picture = Generation(ModelKey(key), "p", "", 64, 64, 10, 1.0, 1, "", 1)
        jobs = tuple(NewJob(one, picture, 100) for one in ids or (new_job_id(),))
        return await self.submits.submit(Submission(user, plan, jobs))

    async def worker(
        self,
        name: str = "w",
        *,
        slots: int = 1,
        held: tuple[AttemptId, ...] = (),
        session: str = "",
        offer: bool = True,
        can_park: bool = False,
        parked: tuple[AttemptId, ...] = (),
        returning: bool = False,
    ) -> Stream:
        """A worker whose stream was welcomed and that takes as much as it has slots."""
        worker = Worker(
            WorkerId(name),
            session or f"ses-{len(self.tasks)}",
            "",
            "cpu",
            slots,
            (model(),),
            can_park=can_park,
        )
        opened = await self.workers.open(worker, held, parked=parked, returning=returning)
        stream = Stream(self, opened)
        if offer:
            stream.session.offer(slots)
        return stream
