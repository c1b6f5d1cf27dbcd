"""A system's processes while it is being measured, and the waiting for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.queue.journal import READY, Reader, Run
from bench.queue.plan import Plan
from bench.queue.processes import Command, Failed, Producer, cpu_s, halt, start, tree
from bench.queue.producing import Job
from bench.queue.servers import Servers
from bench.queue.systems import System, WorkerOrder
from easel_local.process import Child, last_words

PARTS = ("producer", "replicas", "worker", "postgres", "redis")
"""What the processes of a system are counted as."""
_POLL_S = 0.004
_START_S = 30.0


class Stage:
    """Replicas and a producer, up; workers as they are hired."""

    def __init__(self, system: System, servers: Servers, folder: Path, plan: Plan) -> None:
        """Logs and the journal go to folder."""
        self.system = system
        self.plan = plan
        self._servers = servers
        self._log = folder / f"{system.name}.log"
        self._journal = folder / f"{system.name}.journal"
        self._runs = Reader(self._journal)
        self._ran: list[Run] = []
        self._ready: set[int] = set()
        self._replicas: list[Child] = []
        self._workers: list[Child] = []
        self._hired = 0
        self._next = 1
        self._stack = AsyncExitStack()
        self._producer: Producer | None = None

    async def __aenter__(self) -> Self:
        """Starts the system.

        Raises:
            Failed: it does not come up.
        """
        try:
            for command in self.system.replicas:
                await self._start_replica(command)
            self._producer = await Producer.opened(self.system.producer(), self._log)
            self._stack.push_async_callback(self._producer.close)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends every process of it."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(halt(worker))
        await self._stack.aclose()

    async def _start_replica(self, command: Command) -> None:
        child = start(command, self._log)
        self._replicas.append(child)
        self._stack.push_async_callback(halt, child)
        host, _, port = command.env["SCHEDULER_LISTEN"].rpartition(":")
        ends_s = time.monotonic() + _START_S
        while child.returncode is None and time.monotonic() < ends_s:
            with contextlib.suppress(OSError):
                _reader, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(_POLL_S * 5)
        raise Failed(f"a replica does not come up:\n{last_words(self._log)}")

    # --- workers

    async def hire(self, concurrency: int) -> Child:
        """Starts a worker and waits until it is up.

        Raises:
            Failed: it does not come up.
        """
        self._hired += 1
        order = WorkerOrder(f"worker-{self._hired}", self._journal, concurrency)
        child = start(self.system.worker(order), self._log)
        self._workers.append(child)
        if not await self._until(lambda: self._is_up(child), _START_S):
            raise Failed(f"a worker does not come up:\n{last_words(self._log)}")
        return child

    def _is_up(self, child: Child) -> bool:
        self.runs()
        return bool(self._ready and self._ready & tree([child.pid]))

    def give_up(self, worker: Child) -> None:
        """Its end is no failure any more; `dismiss` follows."""
        self._workers.remove(worker)
        self._stack.push_async_callback(halt, worker)

    async def dismiss(self, worker: Child) -> None:
        """Kills a worker that was given up."""
        worker.kill_group()
        await worker.wait()

    def worker_of(self, run: Run) -> Child:
        """The worker that a job ran in."""
        for worker in self._workers:
            if run.pid in tree([worker.pid]):
                return worker
        raise Failed("a job ran in a process that is no worker")

    # --- jobs

    def numbers(self, count: int) -> range:
        """Numbers that no job of this stage has had."""
        first = self._next
        self._next += count
        return range(first, self._next)

    async def burst(self, *, most: int, seconds: float, in_flight: int) -> tuple[int, float]:
        """Submits as fast as it goes; answers how many jobs and in how many seconds."""
        numbers = self.numbers(most)
        return await self._submits().burst(
            first=numbers.start,
            most=most,
            seconds=seconds,
            in_flight=in_flight,
            within_s=seconds + self.plan.patience_s,
        )

    async def put(self, jobs: list[Job], gaps_s: list[float] | None = None) -> list[float]:
        """Submits one after the other; answers when each submit was called."""
        pauses = gaps_s or [0.0] * len(jobs)
        return await self._submits().put(
            jobs, gaps_s=pauses, within_s=sum(pauses) + self.plan.patience_s
        )

    def _submits(self) -> Producer:
        if self._producer is None:
            raise Failed("the stage is not set")
        return self._producer

    # --- what ran

    def forget(self) -> None:
        """Begins a new list of what ran."""
        self.runs()
        self._ran = []

    def runs(self) -> list[Run]:
        """What ran since `forget`, in order."""
        for run in self._runs.read() if self._runs.waiting else ():
            if run.number == READY:
                self._ready.add(run.pid)
            else:
                self._ran.append(run)
        return self._ran

    async def settled(self, count: int) -> float:
        """Waits until so many jobs ran since `forget` and none is outstanding; answers when.

        Raises:
            Failed: for too long none of them does.
        """
        while (ran := len(self.runs())) < count:
            if not await self._until(self._more_than(ran), self.plan.patience_s):
                raise Failed(f"jobs do not run:\n{last_words(self._log)}")
        ends_s = time.monotonic() + self.plan.patience_s
        while await self.system.outstanding():
            if time.monotonic() > ends_s:
                raise Failed("jobs are not recorded as finished")
            await asyncio.sleep(_POLL_S)
        return time.monotonic()

    def _more_than(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.runs()) > count

    async def run_of(self, number: int, *, within_s: float, not_in: int = 0) -> Run | None:
        """The job's run since `forget`, in another process than that; None if there is none.

        Raises:
            Failed: a worker has ended that nobody gave up.
        """

        def found() -> list[Run]:
            return [run for run in self.runs() if run.number == number and run.pid != not_in]

        await self._until(lambda: bool(found()), within_s)
        return next(iter(found()), None)

    async def _until(self, true: Callable[[], bool], within_s: float) -> bool:
        """Whether it became true in time."""
        ends_s = time.monotonic() + within_s
        while not true():
            if time.monotonic() > ends_s:
                return False
            if any(worker.returncode is not None for worker in self._workers):
                raise Failed(f"a worker has ended:\n{last_words(self._log)}")
            await asyncio.sleep(_POLL_S)
        return True

    # --- what it costs

    def cost_s(self) -> dict[str, float]:
        """CPU seconds so far, by part of the system."""
        pids_of_parts: tuple[list[int | None], ...] = (
            [self._submits().pid],
            [replica.pid for replica in self._replicas],
            [worker.pid for worker in self._workers],
            [self._servers.postgres.pid],
            [self._servers.redis.pid],
        )
        return {
            name: cpu_s(tree(pid for pid in pids if pid is not None))
            for name, pids in zip(PARTS, pids_of_parts, strict=True)
        }
